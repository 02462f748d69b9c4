package ipam_test

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// cluster is some nodes that share a network, and the table of who has claimed which block. How they claim and give
// back stands in for what tenetd does on etcd: what is claimed is in the table before it is in the node's store, and
// what is given back is marked in the store, then leaves the table, then the store.
type cluster struct {
	*testing.T
	random *rand.Rand
	net    vnet.Network
	claims map[netip.Prefix]*node
	users  map[netip.Addr]string // who has an address: one at any time
	count  struct{ claimed, lost, returned, crashed, refused int }
}

// node is one of the cluster, with what it is about to do: steps, each of which is done as a whole or not at all.
type node struct {
	name    string
	store   *store.Bolt
	leases  map[string][]netip.Addr // by owner
	steps   []func()
	crashed bool // before a step: it knows no more than what is in its store
	left    int  // operations
	phase   int  // at which of a period's the node begins
}

func (c *cluster) update(n *node, fn func(store.Tx) error) {
	c.Helper()
	if err := n.store.Update(c.Context(), fn); err != nil {
		c.Fatalf("%s: %v", n.name, err)
	}
}

func (c *cluster) block(a netip.Addr) netip.Prefix {
	s, _ := c.net.SubnetOf(a)
	return s.BlockOf(a)
}

// claim plans to get the blocks that are needed, and to ask again then. It plans nothing if they cannot be had.
func (c *cluster) claim(n *node, need *ipam.NeedBlocks, again func()) {
	var blocks []netip.Prefix
	for _, a := range need.Addrs {
		blocks = append(blocks, c.block(a))
	}
	for _, is6 := range []bool{false, true} {
		if of := slices.DeleteFunc(slices.Clone(need.Subnets), func(p netip.Prefix) bool { return p.Addr().Is6() != is6 }); len(of) > 0 {
			blocks = append(blocks, c.unclaimed(of))
		}
	}
	if slices.ContainsFunc(blocks, func(p netip.Prefix) bool { return !p.IsValid() || c.claims[p] != nil }) {
		c.count.refused++
		return
	}
	slices.SortFunc(blocks, netip.Prefix.Compare)
	var steps []func()
	for _, p := range slices.Compact(blocks) {
		steps = append(steps, func() {
			if c.claims[p] != nil { // another was faster
				c.count.lost++
				n.steps = []func(){again}
				return
			}
			c.count.claimed++
			c.claims[p] = n
		}, func() { c.put(n, p) })
	}
	n.steps = append(steps, again)
}

// unclaimed finds a block that nobody has, of the first subnet that has one, the zero Prefix if none has.
func (c *cluster) unclaimed(subnets []netip.Prefix) netip.Prefix {
	for _, p := range subnets {
		s, _ := c.net.SubnetOf(p.Addr())
		many := min(s.Blocks(), 256)
		start := c.random.Uint64N(many)
		for i := range many {
			if b := s.Block((start + i) % many); c.claims[b] == nil && s.Usable(b) {
				return b
			}
		}
	}
	return netip.Prefix{}
}

func (c *cluster) put(n *node, p netip.Prefix) {
	c.update(n, func(tx store.Tx) error {
		return store.PutBlock(tx, c.net.Ref(), store.Block{Prefix: p, State: store.Held})
	})
}

// giveBack plans to give back a block of which nothing is in use, if there is one.
func (c *cluster) giveBack(n *node) {
	c.update(n, func(tx store.Tx) error {
		blocks, err := store.BlocksOf(tx, c.net.Ref())
		if err != nil {
			return err
		}
		c.random.Shuffle(len(blocks), func(i, j int) { blocks[i], blocks[j] = blocks[j], blocks[i] })
		for _, b := range blocks {
			used, err := ipam.InUse(tx, c.net, b.Prefix)
			if err != nil {
				return err
			}
			if used > 0 || b.State != store.Held {
				continue
			}
			b.State = store.Returning
			n.steps = c.goOnReturning(n, b.Prefix)
			return store.PutBlock(tx, c.net.Ref(), b)
		}
		return nil
	})
}

func (c *cluster) goOnReturning(n *node, p netip.Prefix) []func() {
	return []func(){
		func() {
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				if c.users[a] != "" {
					c.Fatalf("%s gives back block %s with %s, which %s has", n.name, p, a, c.users[a])
				}
			}
			c.count.returned++
			delete(c.claims, p)
		},
		func() { c.forget(n, p) },
	}
}

func (c *cluster) forget(n *node, p netip.Prefix) {
	c.update(n, func(tx store.Tx) error { return store.DeleteBlock(tx, c.net.Ref(), p) })
}

// recover plans what makes table and store agree after a crash.
func (c *cluster) recover(n *node) {
	var blocks []store.Block
	c.update(n, func(tx store.Tx) error {
		var err error
		blocks, err = store.BlocksOf(tx, c.net.Ref())
		return err
	})
	claimed := map[netip.Prefix]bool{}
	for p, by := range c.claims {
		claimed[p] = by == n
	}
	for _, b := range blocks {
		p := b.Prefix
		switch {
		case b.State == store.Held && !claimed[p]:
			c.Fatalf("%s holds block %s, which is claimed by %v", n.name, p, c.claims[p])
		case b.State == store.Held:
		case !claimed[p]:
			n.steps = append(n.steps, func() { c.forget(n, p) })
		case c.random.IntN(2) == 0: // it may come in handy
			n.steps = append(n.steps, func() { c.put(n, p) })
		default:
			n.steps = append(n.steps, c.goOnReturning(n, p)...)
		}
		delete(claimed, p)
	}
	for _, p := range slices.SortedFunc(keysOf(claimed), netip.Prefix.Compare) {
		if c.random.IntN(2) == 0 {
			n.steps = append(n.steps, func() { c.put(n, p) })
		} else {
			n.steps = append(n.steps, func() { delete(c.claims, p) })
		}
	}
}

func keysOf(set map[netip.Prefix]bool) func(func(netip.Prefix) bool) {
	return func(yield func(netip.Prefix) bool) {
		for p, in := range set {
			if in && !yield(p) {
				return
			}
		}
	}
}

// allocate lets an owner ask for addresses, and the node claim what it lacks for that, if it has nothing else to do.
func (c *cluster) allocate(n *node, owner string, asked ...netip.Addr) {
	r := request(c.net, owner)
	r.Addrs = asked
	var got []netip.Prefix
	err := n.store.Update(c.Context(), func(tx store.Tx) error {
		var err error
		got, err = ipam.Allocate(tx, r)
		return err
	})
	need, needs := errors.AsType[*ipam.NeedBlocks](err)
	switch {
	case needs && len(n.steps) == 0:
		c.claim(n, need, func() { c.allocate(n, owner, asked...) })
	case needs, errors.Is(err, vnet.ErrExists) && len(asked) > 0:
		c.count.refused++
	case err != nil:
		c.Fatalf("%s: %v", n.name, err)
	default:
		c.use(n, owner, got)
	}
}

// use notes who has the addresses: nobody else may, and they are of blocks that the node has claimed.
func (c *cluster) use(n *node, owner string, got []netip.Prefix) {
	me := n.name + " " + owner
	n.leases[owner] = nil
	for _, p := range got {
		a := p.Addr()
		if who := c.users[a]; who != "" && who != me {
			c.Fatalf("%s has %s, and %s gets it too", who, a, me)
		}
		if c.claims[c.block(a)] != n {
			c.Fatalf("%s gets %s, whose block is not %s's", me, a, n.name)
		}
		c.users[a] = me
		n.leases[owner] = append(n.leases[owner], a)
	}
}

func (c *cluster) release(n *node, owner string) {
	c.update(n, func(tx store.Tx) error { return ipam.Release(tx, request(c.net, owner).Owner) })
	for _, a := range n.leases[owner] {
		delete(c.users, a)
	}
	delete(n.leases, owner)
}
