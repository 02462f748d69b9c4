package node

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// UplinkState is an uplink and what there is of it.
type UplinkState struct {
	vnet.Uplink

	UplinkBridge string   `json:"uplinkBridge"` // the bridge that its NIC is in, and the link that the host has there
	Link         string   `json:"link"`         // its NIC: "up", "down", or "missing"
	MTU          int      `json:"mtu"`          // the NIC's
	Addresses    []string `json:"addresses"`    // the host's on the bridge's link
	Networks     []string `json:"networks"`     // on the uplink, as tenant/network
	Drift        []string `json:"drift"`        // what is not as it should be; nothing: it works
}

// Uplinks returns this node's uplinks, sorted by name.
func (n *Node) Uplinks(ctx context.Context) ([]UplinkState, error) {
	var states []UplinkState
	err := n.Store.View(ctx, func(tx store.Tx) error {
		all, err := store.All[vnet.Uplink](tx, store.Uplinks)
		states = nil
		for _, u := range all {
			used, err := store.UplinkNetworks(tx, u.Name)
			if err != nil {
				return err
			}
			states = append(states, UplinkState{Uplink: u, UplinkBridge: u.Name.Bridge(), Networks: used})
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for i := range states {
		s := &states[i]
		link, err := uplink.Look(ctx, s.NIC)
		switch {
		case errors.Is(err, uplink.ErrNotFound):
			s.Link = "missing"
		case err != nil:
			return nil, err
		case link.Up && link.Carrier:
			s.Link, s.MTU = "up", link.MTU
		default:
			s.Link, s.MTU = "down", link.MTU
		}
		if has, err := uplink.Read(ctx, s.UplinkBridge); err == nil {
			for _, a := range has.Addresses {
				s.Addresses = append(s.Addresses, a.Text)
			}
		} else if !errors.Is(err, uplink.ErrNotFound) {
			return nil, err
		}
		if s.Drift, err = n.uplinkDrift(ctx, s.Uplink); err != nil {
			return nil, err
		}
	}
	return states, nil
}

// syncUplinks makes the uplinks of a bridge stand as recorded, finishes removals that were cut short, and says what
// differed. Where nothing does, it keeps what the host has on them by now.
func (n *Node) syncUplinks(ctx context.Context, bridge string, apply bool) ([]string, error) {
	uplinks, err := n.uplinksOf(ctx, bridge)
	if err != nil || len(uplinks) == 0 {
		return nil, err
	}
	unlock, err := n.lockUplinks(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if uplinks, err = n.uplinksOf(ctx, bridge); err != nil { // as they are now that nobody works on them
		return nil, err
	}
	var all []string
	var errs []error
	for _, u := range uplinks {
		differs, err := n.uplinkDrift(ctx, u)
		for _, d := range differs {
			all = append(all, fmt.Sprintf("uplink %s: %s", u.Name, d))
		}
		if err == nil && apply {
			err = n.syncUplink(ctx, u, len(differs) > 0)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("uplink %s: %w", u.Name, err))
		}
	}
	return all, errors.Join(errs...)
}

func (n *Node) syncUplink(ctx context.Context, u vnet.Uplink, differs bool) error {
	nic, err := uplink.Look(ctx, u.NIC)
	switch {
	case u.Leaving:
		return n.removeUplink(ctx, u)
	case errors.Is(err, uplink.ErrNotFound):
		return nil // told as a difference; it may come back
	case err != nil:
		return err
	case differs:
		return n.raise(ctx, u)
	}
	host, err := n.uplinkHost(ctx, u)
	if err != nil {
		return err
	}
	return n.settle(ctx, u, host, nic.Index)
}

func (n *Node) uplinksOf(ctx context.Context, bridge string) ([]vnet.Uplink, error) {
	var uplinks []vnet.Uplink
	err := n.Store.View(ctx, func(tx store.Tx) error {
		all, err := store.All[vnet.Uplink](tx, store.Uplinks)
		uplinks = nil
		for _, u := range all {
			if u.Bridge == bridge {
				uplinks = append(uplinks, u)
			}
		}
		return err
	})
	return uplinks, err
}

// uplinkDrift says what of an uplink is not as recorded.
func (n *Node) uplinkDrift(ctx context.Context, u vnet.Uplink) ([]string, error) {
	if u.Leaving {
		return []string{"its removal was cut short"}, nil
	}
	nic, err := uplink.Look(ctx, u.NIC)
	if errors.Is(err, uplink.ErrNotFound) {
		return []string{"nic " + u.NIC + " is missing"}, nil
	}
	if err != nil {
		return nil, err
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	name := u.Name.Bridge()
	b, err := sw.Bridge(ctx, name)
	link, err2 := uplink.Look(ctx, name)
	switch {
	case errors.Is(err, ovs.ErrNotFound) || errors.Is(err2, uplink.ErrNotFound):
		return []string{"bridge " + name + " is missing"}, nil
	case err != nil:
		return nil, kind(err)
	case err2 != nil:
		return nil, err2
	}
	host, err := n.uplinkHost(ctx, u)
	if err != nil {
		return nil, err
	}
	var d []string
	if b.FailMode != "standalone" || b.HWAddr != nic.MAC {
		d = append(d, fmt.Sprintf("bridge %s is set otherwise: fail mode %s, MAC %s", name, b.FailMode, b.HWAddr))
	}
	switch {
	case host.BridgeIndex == 0:
		d = append(d, "the host has not been moved from "+u.NIC+" to "+name)
	case link.Index != host.BridgeIndex:
		missing, err := host.Has.Missing(ctx, name)
		if err != nil {
			return nil, err
		}
		d = append(d, strings.Join(append([]string{"link " + name + " was made anew"}, missing...), ", lacks "))
	case !link.Up:
		d = append(d, "link "+name+" is down")
	}
	if host.NICIndex != 0 && nic.Index != host.NICIndex {
		d = append(d, "nic "+u.NIC+" is another link than before")
	}
	onNIC, err := uplink.Read(ctx, u.NIC)
	if err != nil {
		return nil, err
	}
	for _, e := range onNIC.Addresses {
		d = append(d, "nic "+u.NIC+" has address "+e.Text)
	}
	if len(onNIC.Addresses) == 0 && len(onNIC.Routes) > 0 {
		d = append(d, "nic "+u.NIC+" has route "+onNIC.Routes[0].Text)
	}
	loud, err := uplink.Loud(u.NIC, userspace(b))
	if err != nil {
		return nil, err
	}
	if len(loud) > 0 {
		d = append(d, "the host listens on nic "+u.NIC+": "+strings.Join(loud, ", "))
	}
	ports := patches(u)
	for bridge, names := range map[string][]string{name: {u.NIC, dnPort(u)}, u.Bridge: {upPort(u)}} {
		for _, port := range names {
			p, err := sw.Port(ctx, bridge, port)
			want, patch := ports[bridge]
			switch {
			case errors.Is(err, ovs.ErrNotFound):
				d = append(d, fmt.Sprintf("port %s of bridge %s is missing", port, bridge))
			case err != nil:
				return d, kind(err)
			case p.OFPort <= 0:
				d = append(d, fmt.Sprintf("port %s of bridge %s does not work: %s", port, bridge, p.Error))
			case patch && port == want.Name && !p.Is(want):
				d = append(d, fmt.Sprintf("port %s of bridge %s is set otherwise", port, bridge))
			}
		}
	}
	return d, nil
}
