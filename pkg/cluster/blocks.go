package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A block is claimed in etcd first, by creating its record, and then written to the node's store; it is given back the
// other way round: marked there, so that nobody gets an address of it any more, then deleted in etcd, then there. Cut
// anywhere, what the two say tells how to go on (recoverBlocks).

// holder is the record of a block's holder.
type holder struct {
	Node vnet.NodeName `json:"node"`
}

func holderText(n vnet.NodeName) string {
	return fmt.Sprintf(`{"node":%q,"v":%d}`, n, store.RecordVersion)
}

// claim makes the block this node's, and has its store hand out addresses of it, unless somebody else has it: then it
// says who.
func (a *Agent) claim(ctx context.Context, h held) (vnet.NodeName, error) {
	a.blocks.Lock()
	defer a.blocks.Unlock()
	who, err := a.take(ctx, h)
	if err != nil || who != a.Name {
		return who, err
	}
	return who, a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			return store.PutBlock(tx, h.ref, store.Block{Prefix: h.block, State: store.Held})
		})
	})
}

// take is claim up to etcd's record.
func (a *Agent) take(ctx context.Context, h held) (vnet.NodeName, error) {
	prefix := a.etcd.Prefix()
	key := prefix + blockKey(h.ref, h.block)
	put, err := a.change(ctx, []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(key), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+networkKey(h.ref)), ">", 0),
	}, []clientv3.Op{
		clientv3.OpPut(key, holderText(a.Name)), clientv3.OpPut(prefix+heldBlockKey(a.Name, h.ref, h.block), ""),
	}, clientv3.OpGet(key), clientv3.OpGet(prefix+networkKey(h.ref)))
	if err != nil {
		return "", err
	}
	if !put.Succeeded {
		if len(put.Responses[1].GetResponseRange().Kvs) == 0 {
			return "", vnet.NotFoundf("network %s does not exist in the cluster", h.ref)
		}
		var other holder
		if err := store.DecodeShared(blockKey(h.ref, h.block), put.Responses[0].GetResponseRange().Kvs[0].Value, &other); err != nil {
			return "", err
		}
		if other.Node != a.Name {
			return other.Node, nil
		}
	}
	a.log.Info("claimed a block of addresses", "tenant", h.ref.Tenant, "network", h.ref.Network, "block", h.block)
	return a.Name, nil
}

// need gets room for what an ADD asks for: the blocks of the addresses, and one of each family of the subnets. One ADD at a
// time: what one has got has mostly room for the next.
func (a *Agent) need(ctx context.Context, net vnet.Network, addrs []netip.Addr, subnets []netip.Prefix) error {
	a.mu.Lock()
	leaving := a.leaving
	a.mu.Unlock()
	switch {
	case leaving:
		return errLeaves
	case a.settling():
		return errSettles
	}
	a.needs.Lock()
	defer a.needs.Unlock()
	for _, addr := range addrs {
		s, ok := net.SubnetOf(addr)
		if !ok {
			return vnet.Invalidf("address %s is in no subnet of network %s", addr, net.Ref())
		}
		h := held{net.Ref(), s.BlockOf(addr)}
		who, err := a.claim(ctx, h)
		if err != nil {
			return err
		}
		if who != a.Name {
			return vnet.WithHint(vnet.Existsf("address %s is in block %s of network %s, which is node %s's", addr, h.block, net.Ref(), who),
				"ask for another, or attach the container there; see tenetctl node show %s", who)
		}
	}
	return a.more(ctx, net, subnets, one)
}

// more claims a block of each family of the subnets in which few addresses are left. needs is locked.
func (a *Agent) more(ctx context.Context, net vnet.Network, subnets []netip.Prefix, few func(block int) int) error {
	var short []netip.Prefix
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			short, err = scarce(tx, net, subnets, few)
			return err
		})
	})
	if err != nil {
		return err
	}
	for _, is6 := range []bool{false, true} {
		var full []string
		done := false
		for _, p := range short {
			if p.Addr().Is6() != is6 || done {
				continue
			}
			i := slices.IndexFunc(net.Subnets, func(s vnet.Subnet) bool { return s.Prefix == p })
			if done, err = a.claimAny(ctx, net.Ref(), net.Subnets[i]); err != nil {
				return err
			}
			full = append(full, p.String())
		}
		if len(full) > 0 && !done {
			return vnet.WithHint(fmt.Errorf("network %s: all blocks of subnet %s are held by nodes: %w", net.Ref(), strings.Join(full, ", "), vnet.ErrExhausted),
				"see who holds them: tenetctl node list; add a subnet by making another network")
		}
	}
	return nil
}

// claimAny claims a block of the subnet; false: all are held. Nodes begin at different places, so that they seldom want the same.
func (a *Agent) claimAny(ctx context.Context, r vnet.Ref, s vnet.Subnet) (bool, error) {
	prefix := a.etcd.Prefix() + store.BlocksIn(r)
	got, err := a.etcd.Client().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return false, a.told(ctx, err)
	}
	taken := make(map[string]bool, len(got.Kvs))
	for _, kv := range got.Kvs {
		taken[strings.TrimPrefix(string(kv.Key), prefix)] = true
	}
	hash := fnv.New64a()
	hash.Write([]byte(string(a.Name) + " " + r.String()))
	total := s.Blocks()
	start := hash.Sum64() % total
	tries := min(total, uint64(len(taken))+maxUnusable)
	for i := range tries {
		block := s.Block((start + i) % total)
		if taken[block.String()] || !s.Usable(block) {
			continue
		}
		who, err := a.claim(ctx, held{r, block})
		if err != nil || who == a.Name {
			return err == nil, err
		}
	}
	return false, nil
}

// maxUnusable bounds how many blocks without an assignable address are stepped over: reserved ranges may be long.
const maxUnusable = 1 << 16

// ahead claims the next block of a network before the last one is full.
func (a *Agent) ahead(ctx context.Context, net vnet.Network) error {
	a.mu.Lock()
	leaving := a.leaving
	a.mu.Unlock()
	if leaving || a.settling() {
		return nil
	}
	a.needs.Lock()
	defer a.needs.Unlock()
	err := a.more(ctx, net, prefixes(net), quarter)
	if errors.Is(err, vnet.ErrExhausted) {
		return nil // whoever needs one is told
	}
	return err
}

// How many addresses at least are to be left, of blocks of so many.
func one(int) int           { return 1 }
func quarter(block int) int { return max(1, block/4) }

func prefixes(net vnet.Network) []netip.Prefix {
	all := make([]netip.Prefix, len(net.Subnets))
	for i, s := range net.Subnets {
		all[i] = s.Prefix
	}
	return all
}

// scarce returns those of the subnets in whose family fewer addresses are left in them than few says. vnet.ErrNotFound if the
// network has no such subnet.
func scarce(tx store.Tx, net vnet.Network, subnets []netip.Prefix, few func(block int) int) ([]netip.Prefix, error) {
	var short []netip.Prefix
	for _, is6 := range []bool{false, true} {
		var family []netip.Prefix
		free, block := 0, 0
		for _, p := range subnets {
			if p.Addr().Is6() != is6 {
				continue
			}
			f, err := ipam.Free(tx, net, p)
			if err != nil {
				return nil, err
			}
			free += f
			family = append(family, p)
			s, _ := net.SubnetOf(p.Addr())
			block = max(block, 1<<(p.Addr().BitLen()-s.BlockBits()))
		}
		if free < few(block) {
			short = append(short, family...)
		}
	}
	return short, nil
}

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
