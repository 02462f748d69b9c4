package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// world is a cluster's etcd, a network that its nodes share, and what befalls those who speak to it.
type world struct {
	*testing.T
	server *etcdtest.Cluster
	where  node.Etcd
	etcd   *etcd.Store // the test's own: nothing befalls it
	net    vnet.Network
	dir    string

	mu    sync.Mutex
	late  []func()      // changes that are still on their way to etcd
	count map[fault]int // what befell
}

// newWorld declares a network with these subnets, below a prefix of its own.
func newWorld(t *testing.T, server *etcdtest.Cluster, subnets string) *world {
	t.Helper()
	w := &world{T: t, server: server, dir: memory(t), count: map[fault]int{}}
	w.where = node.Etcd{Endpoints: w.server.Endpoints(), Prefix: "/" + filepath.Base(w.dir) + "/"}
	var err error
	if w.etcd, err = etcd.Open(etcd.Config(w.where)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.etcd.Close)
	net := vnet.Network{Tenant: "t", Name: "shared"}
	if err := json.Unmarshal([]byte("["+subnets+"]"), &net.Subnets); err != nil {
		t.Fatal(err)
	}
	w.declare(&net)
	w.net = net
	return w
}

func (w *world) declare(net *vnet.Network) {
	w.Helper()
	err := w.etcd.Update(w.Context(), func(tx store.Tx) error {
		var err error
		*net, err = store.DeclareNetwork(tx, *net)
		return err
	})
	if err != nil {
		w.Fatal(err)
	}
}

// memory is a directory without a disk below it, if the machine has such: stores write some ten thousand times.
func memory(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tenet-addresses-") //nolint:usetesting // that would be on the disk
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// keys are etcd's keys below these prefixes, with their values.
func (w *world) keys(prefixes ...string) map[string]string {
	w.Helper()
	events, _, err := w.etcd.List(w.Context(), prefixes)
	if err != nil {
		w.Fatal(err)
	}
	found := map[string]string{}
	for _, e := range events {
		found[e.Key] = string(e.Value)
	}
	return found
}

func (w *world) block(a netip.Addr) netip.Prefix {
	s, _ := w.net.SubnetOf(a)
	return s.BlockOf(a)
}

func (w *world) held(block string) held { return held{w.net.Ref(), netip.MustParsePrefix(block)} }

// A fault befalls a change that a tenetd makes in etcd.
type fault string

const (
	none        fault = ""
	endBefore   fault = "tenetd ended before a change"
	endAfter    fault = "tenetd ended after a change" // before it knew
	lostRequest fault = "a change lost"
	lostAnswer  fault = "an answer lost"
	late        fault = "a change late" // it was taken for lost, and is made some time later
)

// now and then is what befalls in a simulation.
func (w *world) nowAndThen() fault {
	all := []fault{endBefore, endAfter, lostRequest, lostAnswer, late}
	if dice := rand.IntN(80); dice < len(all) {
		return all[dice]
	}
	return none
}

// delay keeps a change for later. Sooner or later arrive lets it get there.
func (w *world) delay(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late = append(w.late, change)
}

// arrive makes one of the changes that are on their way, whichever, and reports whether there was one.
func (w *world) arrive() bool {
	w.mu.Lock()
	if len(w.late) == 0 {
		w.mu.Unlock()
		return false
	}
	i := rand.IntN(len(w.late))
	change := w.late[i]
	w.late = slices.Delete(w.late, i, i+1)
	w.mu.Unlock()
	change()
	return true
}

// faulty is a tenetd's way to etcd.
type faulty struct {
	clientv3.KV
	*tenetd
}

// change is a transaction that something may befall.
type change struct {
	faulty
	ctx      context.Context //nolint:containedctx // as in clientv3's own
	cmps     []clientv3.Cmp
	then, or []clientv3.Op
}

// Get asks, and has the answer looked at before tenetd has it.
func (f faulty) Get(ctx context.Context, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	got, err := f.KV.Get(ctx, key, opts...)
	if f.read != nil {
		f.read()
	}
	return got, err
}

func (f faulty) Txn(ctx context.Context) clientv3.Txn { return &change{faulty: f, ctx: ctx} }

func (c *change) If(cmps ...clientv3.Cmp) clientv3.Txn { c.cmps = cmps; return c }
func (c *change) Then(ops ...clientv3.Op) clientv3.Txn { c.then = ops; return c }
func (c *change) Else(ops ...clientv3.Op) clientv3.Txn { c.or = ops; return c }

func (c *change) send(ctx context.Context) (*clientv3.TxnResponse, error) {
	return c.KV.Txn(ctx).If(c.cmps...).Then(c.then...).Else(c.or...).Commit()
}

// errLost is what a connection says that breaks.
var errLost = status.Error(codes.Unavailable, "error reading from server: EOF")

func (c *change) Commit() (*clientv3.TxnResponse, error) {
	if err := c.ctx.Err(); err != nil { // who is dead sends nothing
		return nil, err
	}
	f := c.befalls()
	c.world.mu.Lock()
	c.count[f]++
	c.world.mu.Unlock()
	switch f {
	case endBefore:
		c.end()
		return nil, context.Canceled
	case endAfter:
		r, err := c.send(c.ctx)
		c.end()
		return r, err
	case lostRequest:
		return nil, errLost
	case lostAnswer:
		_, err := c.send(c.ctx)
		return nil, cmp.Or(err, errLost)
	case late:
		ctx := context.WithoutCancel(c.ctx)
		c.delay(func() { _, _ = c.send(ctx) }) // nobody waits for the answer
		return nil, errLost
	}
	return c.send(c.ctx)
}

// member is a node of the cluster: its store, and who it is. It has no switch.
type member struct {
	*world
	node.Config
	place string
	store *store.Bolt
}

// member makes the i-th node.
func (w *world) member(i int) *member {
	w.Helper()
	name := fmt.Sprintf("node-%02d", i)
	dir := filepath.Join(w.dir, name)
	return &member{
		world: w, place: dir, store: store.OpenBolt(dir),
		Config: node.Config{
			Bridge: "br-none", OVSRunDir: filepath.Join(dir, "no-switch"), DataDir: dir, Name: vnet.NodeName(name),
			VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), Encapsulation: vnet.VXLAN,
			Socket: filepath.Join(dir, "s"), Etcd: w.where,
		},
	}
}

// tenetd is one run of a node's tenetd, but for what it does by the clock.
type tenetd struct {
	*Agent
	*member
	life    context.Context //nolint:containedctx // as long as it runs
	end     context.CancelFunc
	befalls func() fault // each of its changes in etcd
	read    func()       // is called when etcd has answered
}

// Grace is the shortest there is: a test waits for its end.
func options() Options {
	return Options{Version: "test", Lease: 1000 * minGrace, Grace: minGrace, Rest: 1}
}

// tenetd makes a tenetd that has not joined yet.
func (m *member) tenetd(befalls func() fault) *tenetd {
	a, err := New(m.Config, options(), nil, slog.New(slog.DiscardHandler))
	if err != nil {
		m.Error(err)
		return nil
	}
	d := &tenetd{Agent: a, member: m, befalls: befalls}
	d.life, d.end = context.WithCancel(m.Context())
	a.life = d.life
	client := a.etcd.Client()
	client.KV = faulty{client.KV, d}
	a.me.place = m.place
	a.me.record = Record{Peer: vnet.Peer{Name: m.Name, VTEP: m.VTEP, Encapsulation: m.Encapsulation, MTU: 1500}, Version: "test"}
	// The tenant's endpoints on other nodes are the switch's concern: they count as followed.
	t := &tenant{name: m.net.Tenant, stop: func() {}, ready: make(chan struct{}), remote: map[string]vnet.Remote{}}
	close(t.ready)
	a.tenants[t.name] = t
	return d
}

// join is tryJoin, but for what concerns the switch.
func (d *tenetd) join(ctx context.Context) error {
	err := d.store.Update(ctx, func(tx store.Tx) error {
		var err error
		d.me.record.Identity, err = store.Identity(tx, newIdentity)
		return err
	})
	if err != nil {
		return err
	}
	if err := d.enter(ctx); err != nil {
		return err
	}
	err = d.store.Update(ctx, func(tx store.Tx) error {
		return errors.Join(store.JoinCluster(tx, d.Agent.Name), store.PutOverlay(tx, store.Overlay{Peer: d.me.record.Peer, Bridge: d.Agent.Bridge}))
	})
	if err != nil {
		return err
	}
	catchUp := func(ctx context.Context) error {
		events, _, err := d.etcd.List(ctx, followed())
		if err != nil {
			return err
		}
		changes := latest(events)
		return errors.Join(d.declare(ctx, true, changes), d.applyOff(ctx, true, changes))
	}
	for _, step := range []func(context.Context) error{d.settle, catchUp, d.recoverBlocks, d.readPublished} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.Agent.mu.Lock()
	d.Agent.joined, d.connected = true, true
	d.Agent.mu.Unlock()
	return nil
}

// started returns a tenetd that has joined, and that only befalls what the test says.
func (m *member) started(befalls ...fault) *tenetd {
	m.Helper()
	d := m.tenetd(func() fault { return none })
	m.Cleanup(d.bury)
	if err := d.join(m.Context()); err != nil {
		m.Fatalf("%s joins: %v", m.Name, err)
	}
	d.script(befalls...)
	return d
}

// script says what befalls the next changes.
func (d *tenetd) script(befalls ...fault) {
	d.befalls = func() fault {
		d.world.mu.Lock()
		defer d.world.mu.Unlock()
		if len(befalls) == 0 {
			return none
		}
		next := befalls[0]
		befalls = befalls[1:]
		return next
	}
}

// bury ends a tenetd, if it has not ended.
func (d *tenetd) bury() {
	d.end()
	d.etcd.Close()
}

// serve answers the node's plugins as long as d lives. The function returned waits until all are answered.
func (d *tenetd) serve() func() {
	l, err := socket.Listen(d.life, d.member.Socket)
	if err != nil {
		d.Error(err)
		return func() {}
	}
	var done sync.WaitGroup
	done.Go(func() {
		if err := socket.Serve(d.life, l, d.Answer); err != nil {
			d.Error(err)
		}
	})
	return done.Wait
}

// holding is the lease that it has, 0 for none.
func (d *tenetd) holding() clientv3.LeaseID {
	d.Agent.mu.Lock()
	defer d.Agent.mu.Unlock()
	return d.lease
}

// rest has a tenetd do what it does by the clock, until nothing more comes of it.
func (d *tenetd) rest() {
	d.Helper()
	for range 3 {
		d.heard()             // as asks finds out
		if d.holding() == 0 { // as keep does
			if err := d.again(d.life); err != nil {
				d.Errorf("%s takes a lease: %v", d.Agent.Name, err)
			}
		}
		if !d.follow(d.life) {
			d.Errorf("%s does not follow: %v", d.Agent.Name, d.failures)
		}
		d.house(d.life, func(error) { d.Errorf("%s left", d.Agent.Name) })
	}
	if s := d.Status(d.life); len(s.Failures)+len(s.Conflicts) > 0 {
		d.Errorf("%s: failures %v, conflicts %v", d.Agent.Name, s.Failures, s.Conflicts)
	}
}

// next is the tenetd after something befell d: another if it has ended.
func (d *tenetd) next() *tenetd {
	d.Helper()
	if d.life.Err() == nil {
		return d
	}
	d.bury()
	return d.started()
}

// allocate writes a container's endpoint with its addresses, as an ADD does.
func (m *member) allocate(name string, asked ...netip.Addr) (vnet.Endpoint, error) {
	a := vnet.Attachment{Container: name, IfName: "eth0"}
	e := vnet.Endpoint{Attachment: a, ID: a.ID(), Tenant: m.net.Tenant, Network: m.net.Name, State: vnet.Ready, Bridge: m.Bridge}
	err := m.store.Update(m.Context(), func(tx store.Tx) error {
		var err error
		e.Addrs, err = ipam.Allocate(tx, ipam.Request{Network: m.net, Owner: e.ID, Holder: a, CNINetwork: "test", Addrs: asked})
		if err != nil {
			return err
		}
		e.OFPort, e.MAC = 0, vnet.MACFor([]netip.Addr{e.Addrs[0].Addr()})
		return store.PutEndpoint(tx, &e)
	})
	return e, err
}

// release removes it, as a DEL does.
func (m *member) release(name string) (vnet.EndpointID, error) {
	id := vnet.Attachment{Container: name, IfName: "eth0"}.ID()
	return id, m.store.Update(m.Context(), func(tx store.Tx) error {
		e, err := store.Endpoint(tx, id)
		return errors.Join(err, ipam.Release(tx, id), store.DeleteEndpoint(tx, e))
	})
}

func addrsOf(e vnet.Endpoint) []netip.Addr {
	var addrs []netip.Addr
	for _, p := range e.Addrs {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

// blocks are those that the node's store has.
func (m *member) blocks() map[string]store.BlockState {
	m.Helper()
	found := map[string]store.BlockState{}
	err := m.store.View(context.WithoutCancel(m.Context()), func(tx store.Tx) error {
		return store.EachBlock(tx, func(_ vnet.Ref, b store.Block) error {
			found[b.Prefix.String()] = b.State
			return nil
		})
	})
	if err != nil {
		m.Error(err)
	}
	return found
}

// dump returns what the node's store has of addresses.
func (m *member) dump() []string {
	m.Helper()
	var all []string
	err := m.store.View(m.Context(), func(tx store.Tx) error {
		return tx.Range("", func(key string, value []byte) error {
			if first, _, _ := strings.Cut(key, "/"); first != "meta" && first != "peers" && !slices.ContainsFunc(declared, func(p string) bool { return p == first+"/" }) {
				all = append(all, key+" "+string(value))
			}
			return nil
		})
	})
	if err != nil {
		m.Error(err)
	}
	return all
}

// agree checks that etcd and the stores of all nodes say the same: each block has one holder, whose store has it, each
// endpoint that is told of is there, and nothing else is.
func (w *world) agree(all []*member) {
	w.Helper()
	said := w.keys(store.Blocks, holdings, store.Endpoints)
	want := map[string]string{}
	for _, m := range all {
		for block := range m.blocks() {
			h := w.held(block)
			key := blockKey(h.ref, h.block)
			if want[key] != "" {
				w.Errorf("block %s is in the stores of %s and %s", block, want[key], m.Name)
			}
			want[key] = holderText(m.Name)
			want[heldBlockKey(m.Name, h.ref, h.block)] = ""
		}
		err := m.store.View(w.Context(), func(tx store.Tx) error {
			endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
			for _, e := range endpoints {
				if e.Bridge == m.Bridge {
					r := e.Publish(m.Name)
					want[endpointKey(r)], want[heldEndpointKey(r)] = text(r), text(r)
				}
			}
			return err
		})
		if err != nil {
			w.Error(err)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if got, ok := said[key]; !ok || got != want[key] {
			w.Errorf("etcd has %s as %q, a node's store says %q", key, got, want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(said)) {
		if _, ok := want[key]; !ok {
			w.Errorf("etcd has %s, and no node's store has it", key)
		}
	}
}
