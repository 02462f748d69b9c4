package node

import (
	"context"
	"errors"
	"net/netip"
	"slices"

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

// Declared takes over what a cluster declares: it writes, and the switch follows. Conntrack zones that endpoints get by
// it are emptied.
func (n *Node) Declared(ctx context.Context, write func(store.Tx) error) error {
	return n.Store.Update(ctx, write)
}

// EndpointsIn returns the endpoints of the network that have an address in the prefix.
func (n *Node) EndpointsIn(ctx context.Context, r vnet.Ref, p netip.Prefix) ([]vnet.EndpointID, error) {
	var ids []vnet.EndpointID
	err := n.Store.View(ctx, func(tx store.Tx) error {
		endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(r))
		for _, e := range endpoints {
			if slices.ContainsFunc(e.Addrs, func(a netip.Prefix) bool { return p.Contains(a.Addr()) }) {
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
