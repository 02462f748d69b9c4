package ipam_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// period is how many operations a node fills for, before it empties for as many.
const period = 60

// Whatever a crash cuts short, no address has two holders, and when all is given back nothing is left: neither a claim
// nor a record on any node. The sizes make the IPv4 blocks scarce.
func TestNodesOfAClusterShareANetworkThroughCrashes(t *testing.T) {
	const nodes, operations = 20, 500
	c := cluster{
		T: t, random: rand.New(rand.NewPCG(1, 2)),
		claims: map[netip.Prefix]*node{}, users: map[netip.Addr]string{},
	}
	var all []*node
	var before []map[string]string
	for i := range nodes {
		p := declareIn(t, memory(t), `{"prefix":"10.0.0.0/23","reserved":["10.0.0.60-10.0.0.99"]},{"prefix":"fd00::/64"}`)
		n := &node{name: fmt.Sprint("node-", i), store: p.s, leases: map[string][]netip.Addr{}, left: operations, phase: c.random.IntN(2 * period)}
		p.update(func(tx store.Tx) error { return store.JoinCluster(tx, vnet.NodeName(n.name)) })
		c.net = p.net
		all, before = append(all, n), append(before, p.dump())
	}
	for busy := slices.Clone(all); len(busy) > 0; {
		i := c.random.IntN(len(busy))
		if !c.turn(busy[i]) {
			busy = slices.Delete(busy, i, i+1)
		}
	}
	t.Logf("%+v", c.count)
	if c.count.claimed < nodes || c.count.lost == 0 || c.count.returned < nodes || c.count.crashed < nodes || c.count.refused < nodes {
		t.Errorf("too little happened: %+v", c.count)
	}
	for i, n := range all {
		c.empty(n)
		if diff := cmp.Diff(before[i], (pools{t, n.store, c.net}).dump()); diff != "" {
			t.Errorf("%s: records (-before +after):\n%s", n.name, diff)
		}
	}
	if len(c.claims) > 0 || len(c.users) > 0 {
		t.Errorf("claims left: %v, addresses left: %v", c.claims, c.users)
	}
}

// memory is a directory without a disk below it, if the machine has such: 20 stores write some 15,000 times.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tenet-ipam-") //nolint:usetesting // that would be on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// turn lets a node do one thing, and reports whether it has more to do. While it is claiming or giving back, plugins go
// on: they know nothing of that but what is in the store.
func (c *cluster) turn(n *node) bool {
	switch dice := c.random.IntN(12); {
	case n.crashed:
		n.crashed = false
		c.recover(n)
	case len(n.steps) > 0 && dice < 2:
		n.steps, n.crashed = nil, true
		c.count.crashed++
	case len(n.steps) > 0 && (dice < 8 || n.left == 0):
		next := n.steps[0]
		n.steps = n.steps[1:]
		next()
	case n.left > 0:
		n.left--
		c.operate(n)
	}
	return n.crashed || len(n.steps) > 0 || n.left > 0
}

// operate allocates or releases. A node fills and empties again and again, each at its own time, so that blocks go from
// one to another.
func (c *cluster) operate(n *node) {
	owner := fmt.Sprint("c", c.random.IntN(24))
	filling := (n.left+n.phase)/period%2 == 0
	dice := c.random.IntN(10)
	switch {
	case n.leases[owner] != nil && (dice < 3 || !filling):
		c.release(n, owner)
	case dice < 8 && !filling && len(n.steps) == 0:
		c.giveBack(n)
	case dice == 9:
		if asked := c.any(n); c.net.Subnets[0].Assignable(asked) == nil {
			c.allocate(n, owner, asked)
		}
	case filling:
		c.allocate(n, owner)
	}
}

// any returns an IPv4 address: of a block that the node has claimed, or of any.
func (c *cluster) any(n *node) netip.Addr {
	s := c.net.Subnets[0]
	start, mine := c.random.Uint64N(s.Blocks()), c.random.IntN(4) > 0
	block := s.Block(start)
	for i := uint64(0); mine && i < s.Blocks() && c.claims[block] != n; i++ {
		block = s.Block((start + i) % s.Blocks())
	}
	a := block.Addr()
	for range c.random.IntN(8) { // the size of a block
		a = a.Next()
	}
	return a
}

// empty ends everything that the node has, with crashes as before.
func (c *cluster) empty(n *node) {
	for _, owner := range slices.Sorted(maps.Keys(n.leases)) {
		c.release(n, owner)
	}
	for c.giveBack(n); len(n.steps) > 0; c.giveBack(n) {
		for c.turn(n) {
		}
	}
}
