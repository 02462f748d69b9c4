package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

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
