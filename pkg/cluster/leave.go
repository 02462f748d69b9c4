package cluster

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// errLeaves is what an ADD is told that needs more than a node has that leaves.
var errLeaves = vnet.WithHint(vnet.Existsf("the node leaves its cluster and gets nothing new"), "attach the container elsewhere, or have it stay: tenetctl node stay NAME")

// errLeft ends Run: the node is none of the cluster's any more.
var errLeft = errors.New("left the cluster")

// stepOut gives back what nobody has an address of, keeps what is left from being handed out, and reports whether nothing is left.
func (a *Agent) stepOut(ctx context.Context) (bool, error) {
	var empty []held
	left := 0
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			empty, left = nil, 0
			endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
			if err != nil {
				return err
			}
			left += len(endpoints)
			var all []held
			err = store.EachBlock(tx, func(r vnet.Ref, b store.Block) error {
				all = append(all, held{r, b.Prefix})
				return nil
			})
			if err != nil {
				return err
			}
			for _, h := range all {
				net, err := store.Network(tx, h.ref)
				if err != nil {
					return err
				}
				used, err := ipam.InUse(tx, net, h.block)
				if err != nil {
					return err
				}
				if used == 0 {
					empty = append(empty, h)
				} else {
					left++
				}
				if err := store.PutBlock(tx, h.ref, store.Block{Prefix: h.block, State: store.Returning}); err != nil {
					return err
				}
			}
			return nil
		})
	})
	if err != nil {
		return false, err
	}
	for _, h := range empty {
		if err := a.giveBack(ctx, h); err != nil {
			return false, err
		}
	}
	return left == 0, nil
}

// part makes the node one on its own again: with nothing left of the cluster's.
func (a *Agent) part(ctx context.Context) error {
	a.mu.Lock()
	lease := a.lease
	a.parted = true // none is taken again
	a.mu.Unlock()
	if lease != 0 {
		if _, err := a.etcd.Client().Revoke(ctx, lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return a.told(ctx, err)
		}
		a.mu.Lock()
		a.lease = 0
		a.mu.Unlock()
	}
	if err := Remove(ctx, a.etcd, a.Name); err != nil {
		return err
	}
	a.log.Info("left the cluster", "node", a.Name)
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error { return n.Part(ctx) })
}
