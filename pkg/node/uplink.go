package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// An uplink's NIC is a port of a bridge of its own, br-NAME, which is a learning switch: it keeps the host on the
// network when flows are lost. The host's addresses and routes are on the bridge's link. Patch ports join the bridge to
// that of the tenants: "up-NAME" there, "dn-NAME" here.

// uplinkOwner begins the owner of an uplink's ports.
const uplinkOwner = "uplink/"

func upPort(u vnet.Uplink) string { return "up-" + string(u.Name) }
func dnPort(u vnet.Uplink) string { return "dn-" + string(u.Name) }

// uplinkHost is what is kept of the host for an uplink.
type uplinkHost struct {
	Here string `json:"here"` // where the rest is of: uplink.Here
	// NIC is how the NIC was.
	NIC uplink.Settings `json:"nic"`
	// Has is what the host had on the NIC; once that has been moved, what it has on the bridge's link.
	Has uplink.State `json:"has"`
	// The links after the move; another number is another link. 0: the move is not finished.
	NICIndex    int `json:"nicIndex,omitempty"`
	BridgeIndex int `json:"bridgeIndex,omitempty"`
}

// AddUplink makes the uplink, with the host's addresses and routes moved from its NIC to its bridge, or finishes what was
// cut short, or calls its removal off; false: it stood, and was mended where it had drifted. A NIC that carries the
// default route is taken only with force, as a mistake there ends the session that made it. An add that fails is undone.
//
// Errors, with nothing changed: vnet.ErrInvalid for a NIC that cannot be one, vnet.ErrNotFound if it is missing,
// vnet.ErrExists if somebody else has it, or the uplink stands otherwise, or its bridge's name is taken.
func (n *Node) AddUplink(ctx context.Context, u vnet.Uplink, force bool) (vnet.Uplink, bool, error) {
	u, made, err := n.addUplink(ctx, u, force)
	if err != nil {
		return u, made, fmt.Errorf("add uplink %s: %w", u.Name, err)
	}
	return u, made, nil
}

func (n *Node) addUplink(ctx context.Context, u vnet.Uplink, force bool) (vnet.Uplink, bool, error) {
	u.Bridge = n.Bridge
	u, err := u.Normal()
	if err != nil {
		return u, false, err
	}
	unlock, err := n.lockUplinks(ctx)
	if err != nil {
		return u, false, err
	}
	defer unlock()
	host, err := n.mayUplink(ctx, u, force)
	if err != nil {
		return u, false, err
	}
	if err := n.EnsureBridge(ctx); err != nil {
		return u, false, err
	}
	var recorded, leaving bool
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		old, err := store.Uplink(tx, u.Name)
		recorded, leaving = err == nil, old.Leaving
		if u, err = store.DeclareUplink(tx, u, n.Name); err != nil || recorded {
			return err
		}
		return store.KeepUplinkHost(tx, u.Name, host)
	})
	if err != nil {
		return u, false, err
	}
	Cut("uplink-recorded")
	if recorded {
		differs, err := n.uplinkDrift(ctx, u)
		if err != nil || len(differs) == 0 {
			return u, leaving, err
		}
		was, err := n.uplinkHost(ctx, u)
		if err != nil {
			return u, false, err
		}
		return u, leaving || was.BridgeIndex == 0, n.raise(ctx, u)
	}
	if err := n.raise(ctx, u); err != nil {
		const undoing = 30 * time.Second
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoing)
		defer cancel()
		return u, false, errors.Join(err, n.removeUplink(last, u))
	}
	return u, true, nil
}

// mayUplink looks whether the uplink can be, before anything is changed, and reads what the host has on its NIC.
func (n *Node) mayUplink(ctx context.Context, u vnet.Uplink, force bool) (uplinkHost, error) {
	var host uplinkHost
	stands := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		_, err := store.Uplink(tx, u.Name)
		stands = err == nil
		if errors.Is(err, vnet.ErrNotFound) {
			err = nil
		}
		return err
	})
	if err != nil {
		return host, err
	}
	link, err := n.nic(ctx, u)
	if err != nil {
		return host, err
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return host, err
	}
	b, err := sw.Bridge(ctx, u.Name.Bridge())
	switch {
	case errors.Is(err, ovs.ErrNotFound):
		if _, err := uplink.Look(ctx, u.Name.Bridge()); err == nil {
			return host, vnet.WithHint(vnet.Existsf("a link %s exists already, and it is no bridge of tenet's", u.Name.Bridge()), "choose another name for the uplink")
		}
	case err != nil:
		return host, kind(err)
	case b.Owner != n.DataDir || !b.Standalone:
		return host, vnet.WithHint(vnet.Existsf("bridge %s exists already, and is not this uplink's", b.Name), "choose another name for the uplink")
	}
	in, err := sw.BridgeWith(ctx, u.NIC)
	if err != nil {
		return host, kind(err)
	}
	switch {
	case in != "" && in != u.Name.Bridge():
		return host, vnet.WithHint(vnet.Existsf("nic %s is in bridge %s already", u.NIC, in), "take it out first, or name another NIC")
	case in == "" && link.Master != "":
		return host, vnet.WithHint(vnet.Existsf("nic %s belongs to %s already", u.NIC, link.Master), "take it out first, or name %s itself", link.Master)
	}
	if host, err = readHost(ctx, u.NIC); err != nil {
		return host, err
	}
	if !stands && !force && host.Has.HasDefault() {
		return host, vnet.WithHint(vnet.Existsf("nic %s carries the host's default route", u.NIC),
			"it will be moved to %s; if you reach this machine another way, or dare: --force", u.Name.Bridge())
	}
	return host, nil
}

// nic looks at an uplink's NIC.
func (n *Node) nic(ctx context.Context, u vnet.Uplink) (uplink.Link, error) {
	link, err := uplink.Look(ctx, u.NIC)
	switch {
	case errors.Is(err, uplink.ErrNotFound):
		return link, vnet.WithHint(vnet.NotFoundf("nic %s: this machine has no such link", u.NIC), "see which there are: ip link")
	case err != nil:
		return link, err
	case link.Loopback:
		return link, vnet.Invalidf("nic %s is the loopback: nothing is on its wire", u.NIC)
	case link.MAC == "":
		return link, vnet.Invalidf("nic %s is no Ethernet link: it has no MAC", u.NIC)
	}
	return link, nil
}

// readHost reads what the host has on a NIC that is still the host's.
func readHost(ctx context.Context, nic string) (uplinkHost, error) {
	h := uplinkHost{}
	var err error
	if h.Here, err = uplink.Here(); err != nil {
		return h, err
	}
	if h.NIC, err = uplink.ReadSettings(nic); err != nil {
		return h, err
	}
	h.Has, err = uplink.Read(ctx, nic)
	return h, err
}

// uplinkHost returns what is kept for the uplink. Of an earlier boot, or another namespace, nothing is of use.
func (n *Node) uplinkHost(ctx context.Context, u vnet.Uplink) (uplinkHost, error) {
	var h uplinkHost
	err := n.Store.View(ctx, func(tx store.Tx) error {
		kept := store.UplinkHost(tx, u.Name)
		if kept == nil {
			return nil
		}
		if err := json.Unmarshal(kept, &h); err != nil {
			return fmt.Errorf("what is kept of uplink %s: %w: %w", u.Name, vnet.ErrCorrupt, err)
		}
		return nil
	})
	if err != nil {
		return h, err
	}
	now, err := uplink.Here()
	if h.Here != now {
		return uplinkHost{}, err
	}
	return h, err
}

func (n *Node) keepHost(ctx context.Context, u vnet.Uplink, h uplinkHost) error {
	return n.Store.Update(ctx, func(tx store.Tx) error { return store.KeepUplinkHost(tx, u.Name, h) })
}

// raise makes an uplink stand as recorded, from whatever there is of it.
func (n *Node) raise(ctx context.Context, u vnet.Uplink) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	tenants, err := sw.Bridge(ctx, u.Bridge)
	if err != nil {
		return kind(err)
	}
	nic, err := n.nic(ctx, u)
	if err != nil {
		return err
	}
	host, err := n.uplinkHost(ctx, u)
	if err != nil {
		return err
	}
	if host.Here == "" { // a boot has made the NIC the host's again
		if host, err = readHost(ctx, u.NIC); err != nil {
			return err
		}
		if err := n.keepHost(ctx, u, host); err != nil {
			return err
		}
	}
	name := u.Name.Bridge()
	_, err = sw.EnsureBridge(ctx, ovs.BridgeSpec{
		Name: name, Owner: n.DataDir, Datapath: tenants.Datapath, // patch ports lead nowhere else
		Standalone: true, HWAddr: nic.MAC, // what knows the host's addresses by this MAC need not learn another
	})
	if err != nil {
		return kind(err)
	}
	Cut("uplink-bridged")
	has, settled, err := n.gather(ctx, u, host, u.NIC, name)
	if err != nil {
		return err
	}
	if !settled {
		if err := host.NIC.Apply(name); err != nil {
			return err
		}
	}
	// Addresses before the NIC is plugged in: from then on the kernel's datapath hands the bridge's link what comes.
	if err := has.Address(ctx, name); err != nil {
		return err
	}
	Cut("uplink-addressed")
	port := ovs.Port{Name: u.NIC, Owner: uplinkOwner + string(u.Name)}
	if nic.Index == host.NICIndex {
		_, err = sw.EnsurePort(ctx, name, port)
	} else { // it may be another link of that name
		_, err = sw.Plug(ctx, name, port)
	}
	if err != nil {
		return kind(err)
	}
	Cut("uplink-plugged")
	if err := has.Route(ctx, name); err != nil {
		return err
	}
	Cut("uplink-routed")
	if err := uplink.Strip(ctx, u.NIC); err != nil {
		return err
	}
	Cut("uplink-stripped")
	if err := uplink.Silence(u.NIC, userspace(tenants)); err != nil {
		return err
	}
	for bridge, p := range patches(u) {
		if _, err := sw.EnsurePort(ctx, bridge, p); err != nil {
			return kind(err)
		}
	}
	Cut("uplink-joined")
	return n.settle(ctx, u, host, nic.Index)
}

// gather is what the host has in all, as if on link from, on its way to link to; true if that is what it just has on
// the uplink's bridge. What is kept counts only while that is a link that the move was not finished to.
func (n *Node) gather(ctx context.Context, u vnet.Uplink, host uplinkHost, from, to string) (uplink.State, bool, error) {
	has, err := uplink.Read(ctx, from)
	if errors.Is(err, uplink.ErrNotFound) {
		has, err = host.Has, nil
	}
	if err != nil {
		return has, false, err
	}
	there, err := uplink.Read(ctx, to)
	if err != nil {
		return has, false, err
	}
	if has, err = has.With(there); err != nil {
		return has, false, err
	}
	if bridge, err := uplink.Look(ctx, u.Name.Bridge()); err == nil && bridge.Index == host.BridgeIndex {
		return has, true, nil
	}
	has, err = has.With(host.Has)
	return has, false, err
}

// settle keeps what the host has now, after the move or later.
func (n *Node) settle(ctx context.Context, u vnet.Uplink, host uplinkHost, nicIndex int) error {
	has, err := uplink.Read(ctx, u.Name.Bridge())
	if err != nil {
		return err
	}
	host.Has, host.NICIndex, host.BridgeIndex = has, nicIndex, has.Index
	return n.keepHost(ctx, u, host)
}

// patches are the two ends of the cable between the uplink's bridge and the tenants', by bridge.
func patches(u vnet.Uplink) map[string]ovs.Port {
	owner := uplinkOwner + string(u.Name)
	return map[string]ovs.Port{
		u.Name.Bridge(): {Name: dnPort(u), Owner: owner, Type: "patch", Trunks: u.Trunk(), Options: map[string]string{"peer": upPort(u)}},
		u.Bridge:        {Name: upPort(u), Owner: owner, Type: "patch", OFPortRequest: u.OFPort, Options: map[string]string{"peer": dnPort(u)}},
	}
}

func userspace(b ovs.Bridge) bool { return b.Datapath == "netdev" }

// DelUplink gives the NIC back to the host, with the addresses and routes that the bridge's link has now, and removes
// the uplink; or finishes what was cut short. vnet.ErrExists while a network is on it, vnet.ErrNotFound if there is none.
func (n *Node) DelUplink(ctx context.Context, name vnet.UplinkName) error {
	if err := n.delUplink(ctx, name); err != nil {
		return fmt.Errorf("delete uplink %s: %w", name, err)
	}
	return nil
}

func (n *Node) delUplink(ctx context.Context, name vnet.UplinkName) error {
	unlock, err := n.lockUplinks(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var u vnet.Uplink
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		var err error
		u, err = store.LeaveUplink(tx, name)
		return err
	})
	if err != nil {
		return err
	}
	Cut("uplink-leaving")
	return n.removeUplink(ctx, u)
}

// removeUplink undoes raise, from whatever there is, and then forgets the uplink.
func (n *Node) removeUplink(ctx context.Context, u vnet.Uplink) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	if err := n.giveBack(ctx, sw, u); err != nil {
		return err
	}
	if err := sw.Unplug(ctx, u.Bridge, upPort(u)); err != nil {
		return kind(err)
	}
	if err := sw.RemoveBridge(ctx, u.Name.Bridge()); err != nil {
		return kind(err)
	}
	Cut("uplink-removed")
	if err := sw.AwaitApplied(ctx); err != nil { // else its link would stand in the way of another uplink of that name
		return kind(err)
	}
	return n.Store.Update(ctx, func(tx store.Tx) error { return store.DeleteUplink(tx, u.Name) })
}

// giveBack brings what the host has to the NIC and takes the NIC out of the bridge. A NIC that is gone gets nothing.
func (n *Node) giveBack(ctx context.Context, sw *ovs.Switch, u vnet.Uplink) error {
	name := u.Name.Bridge()
	if _, err := uplink.Look(ctx, u.NIC); errors.Is(err, uplink.ErrNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	host, err := n.uplinkHost(ctx, u)
	if err != nil {
		return err
	}
	if host.Here != "" { // else nothing has touched it since the boot
		if err := host.NIC.Restore(u.NIC); err != nil {
			return err
		}
	}
	has, _, err := n.gather(ctx, u, host, name, u.NIC)
	if err != nil {
		return err
	}
	if err := has.Address(ctx, u.NIC); err != nil {
		return err
	}
	Cut("uplink-addressed-back")
	if err := has.Route(ctx, u.NIC); err != nil {
		return err
	}
	Cut("uplink-routed-back")
	if err := sw.UnplugEach(ctx, name, []string{u.NIC}); err != nil {
		return kind(err)
	}
	Cut("uplink-unplugged")
	return uplink.Strip(ctx, name)
}

// uplinkMTU is the most that the MTU of a network on the uplink may be: the NIC's.
func (n *Node) uplinkMTU(ctx context.Context, name vnet.UplinkName) (int, error) {
	u, err := n.uplink(ctx, name)
	if err != nil {
		return 0, err
	}
	link, err := n.nic(ctx, u)
	return link.MTU, err
}

func (n *Node) uplink(ctx context.Context, name vnet.UplinkName) (vnet.Uplink, error) {
	var u vnet.Uplink
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		u, err = store.Uplink(tx, name)
		return err
	})
	return u, err
}

// lockUplinks waits until nobody else moves a NIC. It is taken before the flows' lock.
func (n *Node) lockUplinks(ctx context.Context) (func(), error) {
	return store.Lock(ctx, n.DataDir, "uplinks")
}
