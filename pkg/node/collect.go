package node

import (
	"context"
	"errors"
	"slices"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Collect removes the endpoints of one CNI network that its runtime does not list any more, and
// nothing else: not those of other networks, nor one that somebody works on just now.
func (n *Node) Collect(ctx context.Context, cniNetwork string, valid []vnet.Attachment) error {
	var gone []vnet.Endpoint
	err := n.Store.View(ctx, func(tx store.Tx) error {
		all, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		gone = slices.DeleteFunc(all, func(e vnet.Endpoint) bool {
			return e.CNINetwork != cniNetwork || slices.Contains(valid, e.Attachment)
		})
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range gone {
		errs = append(errs, n.whenFree(ctx, e.ID, func(e vnet.Endpoint) error { return n.remove(ctx, e) }))
	}
	return errors.Join(errs...)
}

// CollectLeases gives back the addresses that tenet-ipam handed out under another main plugin,
// for one CNI network, to attachments that its runtime does not list any more.
func (n *Node) CollectLeases(ctx context.Context, cniNetwork string, valid []vnet.Attachment) error {
	return n.Store.Update(ctx, func(tx store.Tx) error {
		leases, err := store.All[store.Lease](tx, store.Leases)
		if err != nil {
			return err
		}
		for _, l := range leases {
			id := l.Holder.ID()
			if l.CNINetwork != cniNetwork || slices.Contains(valid, l.Holder) || store.HasEndpoint(tx, id) {
				continue
			}
			if err := ipam.Release(tx, id); err != nil {
				return err
			}
		}
		return nil
	})
}
