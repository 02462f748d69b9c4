package cluster

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A node that was one on its own brings along what it has: what is declared there is declared in the cluster, and the
// blocks that its addresses lie in are claimed. If anything of it is otherwise there already nothing is changed, and all
// that is in the way is told at once. So does a member that finds etcd emptied: its store has all that was declared. How it is
// brought, bring.go says.

// luggage is what a node on its own has.
type luggage struct {
	member   bool // it is one already, and brings no declarations
	refills  bool // but it does, as etcd was emptied
	tenants  []vnet.Tenant
	uplinks  []vnet.Uplink // a member's are told of by tellUplinks
	networks []vnet.Network
	groups   []vnet.Group
	chains   []vnet.Chain
	legs     map[vnet.ChainRef][]vnet.Leg // connections have their paths
	serving  map[string]vnet.Instance     // by their keys in the cluster
	blocks   []held                       // that its addresses in use lie in
}

func (a *Agent) luggage(ctx context.Context) (luggage, error) {
	var l luggage
	emptied, err := a.emptied(ctx)
	if err != nil {
		return l, err
	}
	err = a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		serving, err := n.Serving(ctx)
		if err != nil {
			return err
		}
		return n.Store.View(ctx, func(tx store.Tx) error {
			_, member := store.Member(tx)
			l = luggage{member: member, refills: member && emptied, legs: map[vnet.ChainRef][]vnet.Leg{}, serving: a.instances(serving, !member || emptied)}
			if l.refills {
				a.log.Error("etcd was emptied: this node declares anew what it knows of the cluster", "node", a.Name)
			}
			if !member {
				if l.uplinks, err = store.All[vnet.Uplink](tx, store.Uplinks); err != nil {
					return err
				}
			}
			if !member || l.refills {
				for _, read := range []func() error{
					func() error { l.tenants, err = store.All[vnet.Tenant](tx, store.Tenants); return err },
					func() error { l.networks, err = store.All[vnet.Network](tx, store.Networks); return err },
					func() error { l.groups, err = store.All[vnet.Group](tx, store.Groups); return err },
					func() error { l.chains, err = store.All[vnet.Chain](tx, store.Chains); return err },
				} {
					if err := read(); err != nil {
						return err
					}
				}
				for _, c := range l.chains {
					if l.legs[c.Ref()], err = store.Legs(tx, c.Ref()); err != nil {
						return err
					}
					if !member {
						placed(l.legs[c.Ref()], a.Name)
					}
				}
			}
			l.blocks, err = adopts(tx)
			return err
		})
	})
	return l, err
}

// emptied reports whether etcd has neither this node nor any tenant: there is no cluster yet, or what there was is lost. The same
// goes for an etcd of which a node, this one or another, has not finished to fill it again. What this node knows may be more than
// what that one does, and what has not come yet is not to count as gone here.
func (a *Agent) emptied(ctx context.Context) (bool, error) {
	prefix := a.etcd.Prefix()
	got, err := a.etcd.Client().Txn(ctx).Then(
		clientv3.OpGet(prefix+refillKey(a.Name), clientv3.WithCountOnly()),
		clientv3.OpGet(prefix+nodeKey(a.Name), clientv3.WithCountOnly()),
		clientv3.OpGet(prefix+store.Tenants, clientv3.WithPrefix(), clientv3.WithCountOnly()),
		clientv3.OpGet(prefix+refills, clientv3.WithPrefix(), clientv3.WithKeysOnly()),
	).Commit()
	if err != nil {
		return false, a.etcd.Error(err)
	}
	has := func(i int) bool { return got.Responses[i].GetResponseRange().Count > 0 }
	own, node, tenants, others := has(0), has(1), has(2), false
	for _, refill := range got.Responses[3].GetResponseRange().Kvs { // one of a node that has been removed says nothing
		name := vnet.NodeName(strings.TrimPrefix(string(refill.Key), prefix+refills))
		stands, err := a.etcd.Client().Get(ctx, prefix+nodeKey(name), clientv3.WithCountOnly())
		if err != nil {
			return false, a.etcd.Error(err)
		}
		others = others || stands.Count > 0
	}
	return own || !node && (!tenants || others), nil
}

// placed makes the legs of a chain of a node on its own those that a cluster has, where that node has a name.
func placed(legs []vnet.Leg, me vnet.NodeName) {
	for _, leg := range legs {
		for _, p := range leg.Paths {
			for h := range p.Hops {
				p.Hops[h].Node = me
			}
		}
	}
}

// settle claims the blocks of the addresses that are in use here, and makes the pools of this node's store those of blocks.
// The node is a member already: what is in use is read once more, since no address of another block comes any more.
func (a *Agent) settle(ctx context.Context) error {
	var lacking []held
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			lacking, err = adopts(tx)
			return err
		})
	})
	if err != nil {
		return err
	}
	claimed := map[vnet.Ref][]netip.Prefix{}
	for _, h := range lacking {
		who, err := a.take(ctx, h)
		switch {
		case errors.Is(err, vnet.ErrNotFound): // the network has gone there: what is left of it here goes with its endpoints
		case err != nil:
			return err
		case who == a.Name:
			claimed[h.ref] = append(claimed[h.ref], h.block)
		default: // it has come here, and that one has claimed it, while this node joined
			if err := a.lose(ctx, h, who); err != nil {
				return err
			}
		}
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			networks, err := store.All[vnet.Network](tx, store.Networks)
			if err != nil {
				return err
			}
			for _, net := range networks {
				if len(claimed[net.Ref()]) == 0 && !store.HasSubnetPool(tx, net) {
					continue
				}
				if err := ipam.Convert(tx, net, claimed[net.Ref()]); err != nil && !errors.Is(err, vnet.ErrExhausted) {
					return err
				}
			}
			return nil
		})
	})
}

// adopts returns the blocks that addresses in use lie in and that the node does not hold.
func adopts(tx store.Tx) ([]held, error) {
	networks, err := store.All[vnet.Network](tx, store.Networks)
	if err != nil {
		return nil, err
	}
	var all []held
	for _, net := range networks {
		blocks, err := ipam.Adopt(tx, net)
		if err != nil {
			return nil, err
		}
		for _, b := range blocks {
			all = append(all, held{net.Ref(), b})
		}
	}
	return all, nil
}
