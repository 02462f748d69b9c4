package cluster

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Whatever ends, is lost or comes late on the way to etcd: no address has two holders at a time, etcd and the stores of
// the nodes agree when all is quiet again, and when all is given back nothing is left. The sizes make the IPv4 blocks scarce.
func TestAddressesOfAClusterHaveOneHolder(t *testing.T) {
	const nodes, turns, plugins = 20, 500, 2
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/23","reserved":["10.0.0.60-10.0.0.99","10.0.1.128/25"]},{"prefix":"fd00::/64"}`)
	anchor := vnet.Network{Tenant: "t", Name: "anchor", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.9.0.0/24")}}}
	w.declare(&anchor)
	s := &simulation{world: w, began: time.Now()}
	s.calm.Store(true)
	var all []*simulated
	for i := range nodes {
		n := &simulated{member: w.member(i), s: s, turned: make(chan struct{})}
		n.begin()
		n.anchor(anchor)
		all = append(all, n)
	}
	s.calm.Store(false)

	var acting, running sync.WaitGroup
	quiet := make(chan struct{})
	for i, n := range all {
		running.Go(func() { n.run(quiet) })
		for j := range plugins {
			p := &plugin{
				simulated: n, node: node.Open(n.Config, nil), has: map[string][]netip.Addr{},
				names: containers * j, left: turns / plugins, phase: (7*i + 11*j) % (2 * period),
			}
			n.plugins = append(n.plugins, p)
			acting.Go(func() {
				for p.left > 0 {
					p.left--
					p.turn()
				}
			})
		}
	}
	acting.Wait()
	s.calm.Store(true)
	close(quiet)
	running.Wait()
	for w.arrive() {
	}
	t.Logf("%v, %d changes of addresses, %+v", w.count, len(s.history), &s.seen)

	var members []*member
	for _, n := range all {
		members = append(members, n.member)
		n.quieten()
	}
	w.agree(members)
	for _, n := range all {
		n.weigh()
		n.empty()
	}
	if left := w.keys(store.Blocks, holdings, store.Endpoints); len(left) > 0 {
		t.Errorf("left in etcd: %v", slices.Sorted(maps.Keys(left)))
	}
	for _, n := range all {
		if left := n.dump(); len(left) > 0 {
			t.Errorf("left in the store of %s: %v", n.Name, left)
		}
	}
	s.checkBlocks()
	s.checkAddresses()
	s.enough(nodes / 2)
}

const (
	period     = 40 // how many turns a plugin fills for, before it empties for as many
	containers = 14 // how many it has at most
)

// simulation is what goes on in a world, and what is seen of it.
type simulation struct {
	*world
	calm    atomic.Bool // nothing befalls any more
	began   time.Time
	seen    counts
	hmu     sync.Mutex
	history []porcupine.Operation
}

type counts struct{ added, removed, published, full, away, taken, ended, lost, drained, steps atomic.Int64 }

func (c *counts) String() string {
	return fmt.Sprintf("added %d, removed %d, published %d, refused: full %d, no tenetd or etcd %d, taken %d; tenetds ended %d, leases lost %d, drained %d; steps of tenetd %d",
		c.added.Load(), c.removed.Load(), c.published.Load(), c.full.Load(), c.away.Load(), c.taken.Load(), c.ended.Load(), c.lost.Load(), c.drained.Load(), c.steps.Load())
}

// enough checks that the simulation was one: that each of the things that make it hard happened so many times.
func (s *simulation) enough(times int64) {
	s.Helper()
	happened := map[string]int64{
		"addresses were added": s.seen.added.Load() / 100, "endpoints were published": s.seen.published.Load() / 20, "the network was full": s.seen.full.Load(),
		"a tenetd ended": s.seen.ended.Load(), "a lease was lost": s.seen.lost.Load(), "a node was drained": s.seen.drained.Load(),
	}
	for _, f := range faults {
		happened[string(f)] = int64(s.count[f])
	}
	for what, n := range happened {
		if n < times {
			s.Errorf("too little happened: %s: %d", what, n)
		}
	}
}

// now is on one monotonic clock for all.
func (s *simulation) now() int64 { return int64(time.Since(s.began)) }

// turnover is that an owner takes an address, or gives it back.
type turnover struct {
	addr  netip.Addr
	owner string
	takes bool
}

func (s *simulation) note(client string, start, end int64, takes bool, addrs []netip.Addr) {
	s.hmu.Lock()
	defer s.hmu.Unlock()
	for _, a := range addrs {
		s.history = append(s.history, porcupine.Operation{Input: turnover{a, client, takes}, Call: start, Return: end})
	}
}

// checkAddresses checks that there is an order of all takes and releases, each somewhere between its start and its end,
// in which nobody takes an address that another has.
func (s *simulation) checkAddresses() {
	s.Helper()
	model := porcupine.Model{
		Init: func() any { return "" },
		Step: func(state, input, _ any) (bool, any) {
			t := input.(turnover)
			if t.takes {
				return state == "", t.owner
			}
			return state == t.owner, ""
		},
	}
	each := map[netip.Addr][]porcupine.Operation{}
	for _, o := range s.history {
		a := o.Input.(turnover).addr
		each[a] = append(each[a], o)
	}
	for _, a := range slices.SortedFunc(maps.Keys(each), netip.Addr.Compare) {
		if porcupine.CheckOperations(model, each[a]) {
			continue
		}
		slices.SortFunc(each[a], func(x, y porcupine.Operation) int { return int(x.Call - y.Call) })
		s.Errorf("%s had two holders at a time:", a)
		for _, o := range each[a] {
			t := o.Input.(turnover)
			s.Logf("  %10v to %10v: %s takes it: %v", time.Duration(o.Call), time.Duration(o.Return), t.owner, t.takes)
		}
	}
}

// checkBlocks checks by etcd's own history that no block went from one holder to another but by way of none.
func (s *simulation) checkBlocks() {
	s.Helper()
	prefix := s.etcd.Prefix() + store.Blocks
	const end = "the end"
	if _, err := s.server.Client().Put(s.Context(), prefix+end, ""); err != nil {
		s.Fatal(err)
	}
	holders := map[string]string{}
	changes := 0
	for r := range s.server.Client().Watch(s.Context(), prefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := r.Err(); err != nil {
			s.Fatal(err)
		}
		for _, e := range r.Events {
			block := strings.TrimPrefix(string(e.Kv.Key), prefix)
			if block == end {
				s.Logf("%d changes of %d blocks", changes, len(holders))
				return
			}
			if was := holders[block]; was != "" && e.Type == clientv3.EventTypePut && was != string(e.Kv.Value) {
				s.Errorf("revision %d: block %s goes from %s to %s", e.Kv.ModRevision, block, was, e.Kv.Value)
			}
			holders[block] = string(e.Kv.Value) // none if it is deleted
			changes++
		}
	}
}

// simulated is a node of the simulation. Its tenetd ends again and again, and another starts.
type simulated struct {
	*member
	s       *simulation
	tenetd  *tenetd
	bury    func()
	turned  chan struct{} // a plugin has done something
	plugins []*plugin
}

// begin starts a tenetd, again and again until one has joined.
func (n *simulated) begin() {
	for n.Context().Err() == nil {
		d := n.member.tenetd(func() fault {
			if n.s.calm.Load() {
				return none
			}
			return n.nowAndThen()
		})
		for d.life.Err() == nil {
			if d.join(d.life) != nil {
				continue
			}
			answered := d.serve()
			n.tenetd = d
			n.bury = func() {
				d.end()
				answered()
				d.bury()
			}
			return
		}
		n.s.seen.ended.Add(1)
		d.bury()
	}
}

// run is the life of the node's tenetds until all is quiet. The last one still runs then.
func (n *simulated) run(quiet <-chan struct{}) {
	for {
		select {
		case <-quiet:
			if n.tenetd.life.Err() != nil {
				n.bury()
				n.begin()
			}
			return
		case <-n.turned:
		}
		n.s.seen.steps.Add(1)
		n.step(rand.IntN(100))
		if rand.IntN(20) == 0 { // others arrive when all is quiet
			n.arrive()
		}
		if n.tenetd.life.Err() != nil {
			n.s.seen.ended.Add(1)
			n.bury()
			n.begin()
		}
	}
}

// step does what tenetd does by the clock, or has something befall it.
func (n *simulated) step(dice int) {
	d := n.tenetd
	d.heard() // as asks finds out
	d.Agent.mu.Lock()
	lease := d.lease
	if dice == 2 || dice == 3 {
		d.lease = 0 // as if etcd had been away
	}
	d.Agent.mu.Unlock()
	var both sync.WaitGroup // as look and keep are
	switch {
	case dice < 2:
		d.end()
		return
	case dice < 4 && lease != 0:
		n.s.seen.lost.Add(1)
		_, _ = n.server.Client().Revoke(d.life, lease) // else it ends by itself
		both.Go(func() { _ = d.again(d.life) })
	case lease == 0:
		both.Go(func() { _ = d.again(d.life) })
	case dice < 7 || d.leaves() && dice < 20:
		n.drain(!d.leaves())
	}
	if dice%2 == 0 {
		d.follow(d.life)
	} else {
		d.house(d.life, func(error) { n.Errorf("%s left", n.Name) })
	}
	both.Wait()
}

func (d *tenetd) leaves() bool {
	d.Agent.mu.Lock()
	defer d.Agent.mu.Unlock()
	return d.leaving
}

// drain has an operator ask for it, and the tenetd hear of it.
func (n *simulated) drain(leave bool) {
	if err := setDrain(n.Context(), n.world.etcd, n.Name, leave); err != nil {
		n.Error(err)
		return
	}
	n.s.seen.drained.Add(1)
	n.tenetd.Agent.mu.Lock()
	defer n.tenetd.Agent.mu.Unlock()
	n.tenetd.leaving = leave
}

// anchor puts an endpoint onto the node, in another network and on another bridge, that keeps it from being left for good.
func (n *simulated) anchor(net vnet.Network) {
	a := vnet.Attachment{Container: "anchor", IfName: "eth0"}
	e := vnet.Endpoint{Attachment: a, ID: a.ID(), Tenant: net.Tenant, Network: net.Name, State: vnet.Ready, Bridge: "br-other"}
	if err := n.store.Update(n.Context(), func(tx store.Tx) error { return store.PutEndpoint(tx, &e) }); err != nil {
		n.Fatal(err)
	}
}

// quieten has the tenetd do what it does by the clock, until nothing more comes of it.
func (n *simulated) quieten() {
	n.Helper()
	if n.tenetd.leaves() {
		n.drain(false)
	}
	n.tenetd.rest()
}

// weigh lifts the anchor.
func (n *simulated) weigh() {
	e := vnet.Attachment{Container: "anchor", IfName: "eth0"}.ID()
	err := n.store.Update(n.Context(), func(tx store.Tx) error {
		anchor, err := store.Endpoint(tx, e)
		return errors.Join(err, store.DeleteEndpoint(tx, anchor))
	})
	if err != nil {
		n.Error(err)
	}
}

// empty removes every container, and has the node give all back.
func (n *simulated) empty() {
	for _, p := range n.plugins {
		for _, name := range slices.Sorted(maps.Keys(p.has)) {
			p.remove(name)
		}
	}
	n.quieten()
	n.bury()
}

// plugin is a runtime that adds and removes containers, as far as the store and tenetd are concerned.
type plugin struct {
	*simulated
	node  *node.Node
	has   map[string][]netip.Addr // containers
	last  netip.Addr              // an address that it had
	names int                     // its containers' begin with this number
	left  int                     // turns
	phase int                     // at which of a period's it begins
}

// turn adds or removes a container. A plugin fills and empties again and again, so that blocks go from one node to another.
func (p *plugin) turn() {
	odds := 3
	if filling := (p.left+p.phase)/period%2 == 0; !filling {
		odds = 8
	}
	has := slices.Collect(maps.Keys(p.has))
	switch dice := rand.IntN(10); {
	case len(has) > 0 && (dice < odds || len(has) == containers):
		p.remove(has[rand.IntN(len(has))])
	case dice == 9 && p.last.IsValid() && rand.IntN(2) == 0:
		p.add(p.name(), p.last)
	case dice == 9:
		if a := netip.AddrFrom4([4]byte{10, 0, byte(rand.IntN(2)), byte(rand.IntN(256))}); p.net.Subnets[0].Assignable(a) == nil {
			p.add(p.name(), a)
		}
	default:
		p.add(p.name())
	}
	if rand.IntN(6) == 0 {
		p.turned <- struct{}{}
	}
}

// name is one that no container of the plugin's has.
func (p *plugin) name() string {
	for {
		if name := fmt.Sprint("c", p.names+rand.IntN(containers)); p.has[name] == nil {
			return name
		}
	}
}

// add is an ADD: it asks tenetd for what the node lacks, and tells it of the endpoint.
func (p *plugin) add(name string, asked ...netip.Addr) {
	var start int64
	var e vnet.Endpoint
	err := p.node.Asking(p.Context(), func() error {
		start = p.s.now()
		var err error
		e, err = p.allocate(name, asked...)
		return err
	})
	end := p.s.now()
	switch {
	case err == nil:
	case errors.Is(err, vnet.ErrUnavailable):
		p.s.seen.away.Add(1)
		p.turned <- struct{}{} // wait until there is one again
		return
	case errors.Is(err, vnet.ErrExhausted):
		p.s.seen.full.Add(1)
		return
	case errors.Is(err, vnet.ErrExists): // another has what was asked for, or the node leaves
		p.s.seen.taken.Add(1)
		return
	default:
		p.Errorf("%s: ADD of %s: %v", p.Name, name, err)
		return
	}
	p.has[name] = addrsOf(e)
	p.s.note(p.client(name), start, end, true, p.has[name])
	p.s.seen.added.Add(1)
	p.holds(name, "gets")
	if rand.IntN(3) == 0 && p.node.Publish(p.Context(), e.ID) == nil { // else it was cut off, and tenetd finds out
		p.s.seen.published.Add(1)
	}
}

// remove is a DEL.
func (p *plugin) remove(name string) {
	p.holds(name, "had")
	start := p.s.now()
	id, err := p.release(name)
	if err != nil {
		p.Errorf("%s: DEL of %s: %v", p.Name, name, err)
	}
	addrs := p.has[name]
	p.s.note(p.client(name), start, p.s.now(), false, addrs)
	delete(p.has, name)
	p.last = addrs[0]
	p.s.seen.removed.Add(1)
	if rand.IntN(3) == 0 {
		_ = p.node.Publish(p.Context(), id) // else tenetd finds out
	}
}

func (p *plugin) client(name string) string { return string(p.Name) + " " + name }

// holds checks that the blocks of the addresses that a container has are its node's, as etcd has it.
func (p *plugin) holds(name, verb string) {
	var gets []clientv3.Op
	for _, a := range p.has[name] {
		key := p.world.etcd.Prefix() + heldBlockKey(p.Name, p.net.Ref(), p.block(a))
		gets = append(gets, clientv3.OpGet(key, clientv3.WithCountOnly()))
	}
	got, err := p.server.Client().Txn(p.Context()).Then(gets...).Commit()
	if err != nil {
		p.Error(err)
		return
	}
	for i, a := range p.has[name] {
		if got.Responses[i].GetResponseRange().Count == 0 {
			p.Errorf("%v: %s %s %s, whose block %s is not its node's", time.Duration(p.s.now()), p.client(name), verb, a, p.block(a))
		}
	}
}
