package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// recoverBlocks makes the node's store and etcd agree on the blocks that are this node's, whatever was cut short.
func (a *Agent) recoverBlocks(ctx context.Context) error {
	here := map[held]store.Block{}
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			return store.EachBlock(tx, func(r vnet.Ref, b store.Block) error {
				here[held{r, b.Prefix}] = b
				return nil
			})
		})
	})
	if err != nil {
		return err
	}
	// After the store: what is claimed meanwhile is not taken for lost.
	prefix := a.etcd.Prefix() + heldBlocks(a.Name)
	got, err := a.etcd.Client().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return a.told(ctx, err)
	}
	there := map[held]bool{}
	for _, kv := range got.Kvs {
		if ref, block, ok := parseHeldBlock(strings.TrimPrefix(string(kv.Key), prefix)); ok {
			there[held{ref, block}] = true
		}
	}
	var errs []error
	for h := range there {
		if _, ok := here[h]; !ok && a.settling() {
			errs = append(errs, a.release(ctx, h))
		} else if !ok { // the node's store was cut off, or is an older one
			who, err := a.claim(ctx, h)
			if errors.Is(err, vnet.ErrNotFound) || err == nil && who != a.Name {
				err = a.disown(ctx, h)
			}
			errs = append(errs, err)
		}
	}
	for h, b := range here {
		switch {
		case b.State == store.Held && !there[h]:
			errs = append(errs, a.reclaim(ctx, h))
		case b.State == store.Returning && a.settling(): // returnIdle sees to it
		case b.State == store.Returning && !there[h]:
			errs = append(errs, a.drop(ctx, h))
		case b.State == store.Returning:
			errs = append(errs, a.giveBack(ctx, h))
		}
	}
	return errors.Join(errs...)
}

// release gives back a block that etcd has of an older time, and the node's store has not.
func (a *Agent) release(ctx context.Context, h held) error {
	a.blocks.Lock()
	defer a.blocks.Unlock()
	var state store.BlockState
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			state, err = blockState(tx, h)
			return err
		})
	})
	if err != nil || state != "" { // it was claimed meanwhile
		return err
	}
	key := a.etcd.Prefix() + blockKey(h.ref, h.block)
	own := a.etcd.Prefix() + heldBlockKey(a.Name, h.ref, h.block)
	done, err := a.change(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Value(key), "=", holderText(a.Name))},
		[]clientv3.Op{clientv3.OpDelete(key), clientv3.OpDelete(own)})
	if err == nil && !done.Succeeded {
		err = a.disown(ctx, h)
	}
	return err
}

// disown takes a block out of the list of what this node has that is another's, or nobody's.
func (a *Agent) disown(ctx context.Context, h held) error {
	key := a.etcd.Prefix() + blockKey(h.ref, h.block)
	got, err := a.etcd.Client().Get(ctx, key)
	if err != nil {
		return a.told(ctx, err)
	}
	revision := int64(0)
	if len(got.Kvs) > 0 {
		revision = got.Kvs[0].ModRevision
		if ownedBy(a.Name, store.Blocks, got.Kvs[0]) {
			return nil
		}
	}
	_, err = a.change(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(key), "=", revision)},
		[]clientv3.Op{clientv3.OpDelete(a.etcd.Prefix() + heldBlockKey(a.Name, h.ref, h.block))})
	return err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	return err
}

// reclaim takes a block that only the node's store says is its own: it was away for longer than the grace, or its store
// is an old one. What another node has by now is lost, and so are the endpoints with an address of it.
func (a *Agent) reclaim(ctx context.Context, h held) error {
	who, err := a.claim(ctx, h)
	if errors.Is(err, vnet.ErrNotFound) {
		return nil // the network has gone, and this goes with it
	}
	if err != nil || who == a.Name {
		return err
	}
	if a.settling() {
		return fmt.Errorf("block %s of network %s is node %s's in etcd: %w", h.block, h.ref, who, errSettles)
	}
	return a.lose(ctx, h, who)
}

// lose gives up a block that another node has: that one may have given its addresses to its own endpoints.
func (a *Agent) lose(ctx context.Context, h held, who vnet.NodeName) error {
	a.log.Error("a block of addresses is another node's by now", "tenant", h.ref.Tenant, "network", h.ref.Network, "block", h.block, "holder", who)
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error { // first, that nobody gets an address of it any more
		return n.Store.Update(ctx, func(tx store.Tx) error {
			if state, err := blockState(tx, h); err != nil || state == "" {
				return err
			}
			return store.PutBlock(tx, h.ref, store.Block{Prefix: h.block, State: store.Returning})
		})
	})
	if err != nil {
		return err
	}
	return a.drop(ctx, h)
}

// drop ends what the node has of a block that is marked, if it has it at all, and that is not its own in etcd: it was given
// back, or lost. Of a lost one there may be endpoints.
func (a *Agent) drop(ctx context.Context, h held) error {
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		losers, err := n.EndpointsIn(ctx, h.ref, h.block)
		if err != nil {
			return err
		}
		for _, id := range losers {
			a.log.Error("an endpoint goes: another node may have its address", "tenant", h.ref.Tenant, "network", h.ref.Network, "endpoint", id)
			if err := n.Discard(ctx, id); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	a.blocks.Lock()
	defer a.blocks.Unlock()
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			if state, err := blockState(tx, h); err != nil || state != store.Returning {
				return err // it was claimed meanwhile
			}
			return store.DeleteBlock(tx, h.ref, h.block)
		})
	})
}

// blockState returns what the node's store says of a block, "" if it does not have it.
func blockState(tx store.Tx, h held) (store.BlockState, error) {
	b, err := store.Load[store.Block](tx, store.BlockKey(h.ref, h.block))
	return b.State, ignoreNotFound(err)
}

// giveBack gives a block back that is marked, unless somebody has an address of it, or it was claimed once more meanwhile.
func (a *Agent) giveBack(ctx context.Context, h held) error {
	a.blocks.Lock()
	defer a.blocks.Unlock()
	due := false
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			state, err := blockState(tx, h)
			if err != nil || state != store.Returning {
				return err
			}
			used := 0
			net, err := store.Network(tx, h.ref)
			if err == nil {
				used, err = ipam.InUse(tx, net, h.block)
			}
			due = used == 0
			return ignoreNotFound(err)
		})
	})
	if err != nil || !due {
		return err
	}
	prefix := a.etcd.Prefix()
	own := prefix + heldBlockKey(a.Name, h.ref, h.block)
	_, err = a.change(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(own), ">", 0)}, // else it has gone already
		[]clientv3.Op{clientv3.OpDelete(prefix + blockKey(h.ref, h.block)), clientv3.OpDelete(own)})
	if err != nil {
		return err
	}
	a.log.Info("gave a block of addresses back", "tenant", h.ref.Tenant, "network", h.ref.Network, "block", h.block)
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error { return store.DeleteBlock(tx, h.ref, h.block) })
	})
}

// returnIdle gives back the blocks that nobody has had an address of for some time, but for those that are kept ahead of need.
// One that is marked is on its way back, and may have left etcd already, or was kept back by a node that was to leave: if
// somebody has an address of it, it is claimed once more.
func (a *Agent) returnIdle(ctx context.Context) error {
	var due, wanted []held
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			due, wanted = nil, nil
			empty := map[held]bool{}
			err := store.EachBlock(tx, func(r vnet.Ref, b store.Block) error {
				net, err := store.Network(tx, r)
				if err != nil {
					return ignoreNotFound(err)
				}
				used, err := ipam.InUse(tx, net, b.Prefix)
				switch h := (held{r, b.Prefix}); {
				case err != nil:
				case b.State == store.Returning && used > 0:
					wanted = append(wanted, h)
				case b.State == store.Returning:
					due = append(due, h)
				case used == 0:
					empty[h] = true
				}
				return err
			})
			if err != nil {
				return err
			}
			for _, h := range a.rested(empty) {
				kept, err := keptAhead(tx, h)
				if err != nil {
					return err
				}
				if !kept {
					due = append(due, h)
				}
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	for _, h := range wanted {
		if err := a.reclaim(ctx, h); err != nil {
			return err
		}
	}
	for _, h := range due {
		if err := a.giveBack(ctx, h); err != nil {
			return err
		}
	}
	return nil
}

// rested notes which blocks are empty, and returns those that have been so for long.
func (a *Agent) rested(empty map[held]bool) []held {
	a.mu.Lock()
	defer a.mu.Unlock()
	for h := range a.idle {
		if !empty[h] {
			delete(a.idle, h)
		}
	}
	var rested []held
	for h := range empty {
		if a.idle[h].IsZero() {
			a.idle[h] = time.Now()
		} else if time.Since(a.idle[h]) >= a.Rest {
			rested = append(rested, h)
		}
	}
	return rested
}

// keptAhead marks a block as on its way back, unless somebody lives in its network who would soon need it.
func keptAhead(tx store.Tx, h held) (bool, error) {
	net, err := store.Network(tx, h.ref)
	if err != nil {
		return false, err
	}
	if err := store.PutBlock(tx, h.ref, store.Block{Prefix: h.block, State: store.Returning}); err != nil {
		return false, err
	}
	here, err := store.HasEndpoints(tx, h.ref)
	if err != nil || !here {
		return false, err
	}
	short, err := scarce(tx, net, prefixes(net), quarter)
	if err != nil || len(short) == 0 {
		return false, err
	}
	return true, store.PutBlock(tx, h.ref, store.Block{Prefix: h.block, State: store.Held})
}
