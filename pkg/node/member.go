package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Underlay returns the node's tunnel address and the MTU of its link: the configured address, or that of the link that
// the default route leads by.
func (n *Node) Underlay(ctx context.Context) (netip.Addr, int, error) {
	vtep, mtu, err := veth.Underlay(ctx, n.VTEP)
	return vtep, mtu, vnet.WithHint(kind(err), `set "vtep" in the node's configuration to an address of this node`)
}

// Concern is what a change of what is declared means for the switch.
type Concern int

// The concerns, the greater ones with the lesser.
const (
	NoFlows  Concern = iota // nobody's flows
	ItsPaths                // the chains' tables
	AllFlows                // those of endpoints, too
)

// Declared takes over what a cluster declares: it writes, and the switch follows. Conntrack zones that endpoints get by
// it are emptied first. A switch that does not run is no error. What it was not told is Untold.
func (n *Node) Declared(ctx context.Context, write func(store.Tx) (Concern, error)) error {
	var given []vnet.Zone
	var concern Concern
	err := n.Store.Update(ctx, func(tx store.Tx) error {
		before, err := zones(tx)
		if err != nil {
			return err
		}
		if concern, err = write(tx); err != nil || concern != AllFlows {
			return err
		}
		after, err := zones(tx)
		given = slices.DeleteFunc(after, func(z vnet.Zone) bool { return slices.Contains(before, z) })
		return err
	})
	if err != nil || concern == NoFlows {
		return err
	}
	if err := n.emptyZones(ctx, given...); err != nil {
		return n.told(err, given...)
	}
	return n.told(n.eachOurs(ctx, func(n *Node) error {
		if concern == ItsPaths {
			return n.SyncChains(ctx, n.Bridge)
		}
		_, err := n.connectAll(ctx, true)
		return err
	}))
}

// Serving returns this node's instances of service functions as the other nodes are to know them: with what their ports
// say, and only those whose ADDs are done.
func (n *Node) Serving(ctx context.Context) ([]vnet.Instance, error) {
	seen, err := n.standIfAny(ctx)
	if err != nil {
		return nil, err
	}
	var all []vnet.Instance
	err = n.Store.View(ctx, func(tx store.Tx) error {
		list, err := store.Instances(tx, "")
		if err != nil {
			return err
		}
		groups := map[vnet.GroupRef]vnet.Group{}
		for _, i := range list {
			ports := i
			ports.Hung = false
			_, state, err := seen.function(tx, ports, groups)
			if errors.Is(err, vnet.ErrNotFound) { // its group has gone from the cluster
				continue
			}
			if err != nil {
				return err
			}
			i.Down = state == paths.Dead && seen.ports != nil // without a switch nobody can say
			if state != paths.Gone {
				all = append(all, i)
			}
		}
		return nil
	})
	return all, err
}

// EndpointsIn returns the endpoints of the network that have an address in the prefix which nodes hand out: those of
// reserved ranges are not theirs.
func (n *Node) EndpointsIn(ctx context.Context, r vnet.Ref, p netip.Prefix) ([]vnet.EndpointID, error) {
	var ids []vnet.EndpointID
	err := n.Store.View(ctx, func(tx store.Tx) error {
		ids = nil
		net, err := store.Network(tx, r)
		if err != nil {
			return err
		}
		endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(r))
		for _, e := range endpoints {
			if slices.ContainsFunc(e.Addrs, func(a netip.Prefix) bool {
				s, ok := net.SubnetOf(a.Addr())
				return ok && p.Contains(a.Addr()) && s.Assignable(a.Addr()) == nil
			}) {
				ids = append(ids, e.ID)
			}
		}
		return err
	})
	return ids, err
}

// Discard removes an endpoint that must not be here any longer, though its container may run.
func (n *Node) Discard(ctx context.Context, id vnet.EndpointID) error {
	unlock, err := n.LockAttachment(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	err = n.Remove(ctx, id)
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	return err
}

// Part makes the node one on its own, which was of a cluster: its store forgets what others declared, and its bridge the
// way to them. The caller has seen to it that no endpoint is here.
func (n *Node) Part(ctx context.Context) error {
	own := store.Overlay{Bridge: n.Bridge} // if a part before was cut short here
	err := n.Store.Update(ctx, func(tx store.Tx) error {
		stands, err := store.FindOverlay(tx)
		switch {
		case err == nil:
			own = stands
		case !errors.Is(err, vnet.ErrNotFound):
			return err
		}
		return errors.Join(store.DeleteOverlay(tx), store.LeaveCluster(tx), store.ForgetDeclared(tx))
	})
	if err != nil {
		return err
	}
	on, err := n.on(ctx, own.Bridge)
	if err != nil {
		return err
	}
	if _, err := on.connectAll(ctx, true); err != nil && !absent(err) {
		return err
	}
	on.followHost(ctx)
	var errs []error
	for _, e := range vnet.Encapsulations {
		if err := on.sw.Unplug(ctx, own.Bridge, e.Link()); err != nil && !errors.Is(err, ovs.ErrNotFound) {
			errs = append(errs, kind(err))
		}
	}
	return errors.Join(errs...)
}
