package cluster

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What the simulation (addresses_internal_test.go) does at random, one by one.

var faults = []fault{endBefore, endAfter, lostRequest, lostAnswer, late}

// add is an ADD that asks d for what the node lacks.
func (d *tenetd) add(name string, asked ...string) (string, error) {
	var addrs []netip.Addr
	for _, a := range asked {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	for {
		e, err := d.allocate(name, addrs...)
		need, ok := errors.AsType[*ipam.NeedBlocks](err)
		if !ok {
			return strings.Join(texts(e.Addrs), " "), err
		}
		if err := d.need(d.life, d.net, need.Addrs, need.Subnets); err != nil {
			return "", err
		}
	}
}

func texts(addrs []netip.Prefix) []string {
	var all []string
	for _, a := range addrs {
		all = append(all, a.Addr().String())
	}
	return all
}

func (d *tenetd) mustAdd(name string, asked ...string) string {
	d.Helper()
	got, err := d.add(name, asked...)
	if err != nil {
		d.Fatalf("%s: ADD of %s: %v", d.Agent.Name, name, err)
	}
	return got
}

func (m *member) mustErase(names ...string) {
	m.Helper()
	for _, name := range names {
		if _, err := m.release(name); err != nil {
			m.Fatal(err)
		}
	}
}

// nothing checks that neither etcd nor the stores have anything left of addresses.
func (w *world) nothing(all ...*member) {
	w.Helper()
	if left := w.keys(store.Blocks, holdings, store.Endpoints); len(left) > 0 {
		w.Errorf("left in etcd: %v", slices.Sorted(maps.Keys(left)))
	}
	for _, m := range all {
		if left := m.dump(); len(left) > 0 {
			w.Errorf("left in the store of %s: %v", m.Name, left)
		}
	}
}

func TestBlockThatTwoWantIsHadByOne(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	one, two := w.member(1), w.member(2)
	both := []*tenetd{one.started(), two.started()}
	s := w.net.Subnets[0]
	var all sync.WaitGroup
	said := make([][2]vnet.NodeName, s.Blocks())
	for i := range said {
		for j, d := range both {
			all.Go(func() {
				who, err := d.claim(t.Context(), held{w.net.Ref(), s.Block(uint64(i))})
				if err != nil {
					t.Error(err)
				}
				said[i][j] = who
			})
		}
	}
	all.Wait()
	for i, who := range said {
		if who[0] != who[1] || who[0] == "" {
			t.Errorf("block %s: %s is told that %s has it, %s that %s has", s.Block(uint64(i)), one.Name, who[0], two.Name, who[1])
		}
	}
	if got := len(w.keys(store.Blocks)); got != len(said) {
		t.Errorf("%d blocks have a holder, of %d", got, len(said))
	}
	w.agree([]*member{one, two})
}

// Whatever becomes of a claim, the node has the block afterwards or nobody has, and an ADD gets an address the next time.
func TestClaimThatIsCutShortLeavesNothingBehind(t *testing.T) {
	server := etcdtest.Start(t)
	for _, f := range faults {
		t.Run(string(f), func(t *testing.T) {
			w := newWorld(t, server, `{"prefix":"10.0.0.0/24"}`)
			m := w.member(1)
			d := m.started()
			d.script(f)
			if got, err := d.add("a"); !errors.Is(err, vnet.ErrUnavailable) {
				t.Fatalf("ADD: %q, %v", got, err)
			}
			d = d.next()
			d.rest()
			d.mustAdd("a")
			w.arrive()
			d.rest()
			w.agree([]*member{m})
			m.mustErase("a")
			d.rest()
			w.nothing(m)
		})
	}
}

// A claim whose answer was lost after it was made is found again.
func TestClaimFindsItsOwn(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	h := w.held("10.0.0.8/29")
	d.script(lostAnswer)
	if who, err := d.claim(t.Context(), h); !errors.Is(err, vnet.ErrUnavailable) {
		t.Fatalf("claim: %q, %v", who, err)
	}
	if got := w.keys(store.Blocks)[blockKey(h.ref, h.block)]; got != holderText(m.Name) {
		t.Errorf("holder: %q", got)
	}
	d.rest()
	if who, err := d.claim(t.Context(), h); err != nil || who != m.Name {
		t.Errorf("claimed again: %q, %v", who, err)
	}
	w.agree([]*member{m})
}

// Under another lease nothing of before is made any more, and what was made is found.
func TestLostAnswerCostsTheLease(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	first := d.holding()
	var kept sync.WaitGroup
	kept.Go(func() { d.keep(d.life) })
	d.script(lostAnswer)
	if who, err := d.claim(t.Context(), w.held("10.0.0.8/29")); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("claim: %q, %v", who, err)
	}
	etcdtest.Wait(t, "the block to be found", func() bool { return m.blocks()["10.0.0.8/29"] == store.Held })
	etcdtest.Wait(t, "another lease", func() bool { l := d.holding(); return l != first && l != 0 })
	w.agree([]*member{m})
	d.end()
	kept.Wait()
}

func TestBlockIsGivenBackWhereverThatIsCutShort(t *testing.T) {
	server := etcdtest.Start(t)
	for _, f := range faults {
		t.Run(string(f), func(t *testing.T) {
			w := newWorld(t, server, `{"prefix":"10.0.0.0/24"}`)
			m, other := w.member(1), w.member(2)
			d, o := m.started(), other.started()
			d.mustAdd("a", "10.0.0.9")
			m.mustErase("a")
			d.house(d.life, nil) // begins to rest
			d.script(f)
			d.house(d.life, nil)
			d = d.next()
			d.rest()
			w.nothing(m)
			// It may be anybody's again, and what was late comes too late.
			for i, holder := range []*tenetd{d, o} {
				holder.mustAdd("b", fmt.Sprintf("10.0.0.1%d", i))
				w.arrive()
				d.rest()
				o.rest()
				w.agree([]*member{m, other})
				holder.mustErase("b")
				holder.rest()
			}
			w.nothing(m, other)
		})
	}
}

// Whether etcd still has a block whose return was cut short is not known, so it is not kept after all without asking.
func TestBlockOnItsWayBackIsKeptOnlyIfEtcdHasIt(t *testing.T) {
	server := etcdtest.Start(t)
	for _, f := range []fault{lostRequest, lostAnswer, late} {
		for _, leaves := range []bool{false, true} {
			t.Run(fmt.Sprint(f, ", leaves ", leaves), func(t *testing.T) {
				w := newWorld(t, server, `{"prefix":"10.0.0.0/24"}`)
				m, other := w.member(1), w.member(2)
				d, o := m.started(), other.started()
				for i := range 8 { // a block that is full, so that another is wanted ahead
					d.mustAdd(fmt.Sprint("c", i), fmt.Sprint("10.0.0.", 16+i))
				}
				d.mustAdd("a", "10.0.0.9")
				m.mustErase("a")
				if leaves {
					d.leaving = true // an operator has said so
				} else {
					m.mustErase("c0", "c1") // not so that it is kept in the first place
					d.house(d.life, nil)
				}
				d.script(f)
				d.house(d.life, nil)
				if leaves {
					d.leaving = false
				} else {
					d.mustAdd("c0", "10.0.0.16")
					d.mustAdd("c1", "10.0.0.17")
				}
				d.heard()
				d.house(d.life, nil)
				for block, state := range m.blocks() {
					if key := blockKey(w.net.Ref(), netip.MustParsePrefix(block)); state == store.Held && w.keys(key)[key] == "" {
						t.Errorf("addresses of %s are handed out, and etcd does not have it", block)
					}
				}
				d.rest()
				w.arrive()
				for i := range 6 {
					d.mustAdd(fmt.Sprint("d", i))
					if _, err := o.add(fmt.Sprint("e", i)); err != nil {
						t.Error(err)
					}
				}
				d.rest()
				o.rest()
				w.agree([]*member{m, other})
			})
		}
	}
}

// A node that is to leave keeps the addresses of those who are still there, also if its tenetd starts anew or its lease is
// lost; and if it stays after all it hands out of their blocks again.
func TestLeavingNodeKeepsWhatIsInUse(t *testing.T) {
	server := etcdtest.Start(t)
	for _, what := range []string{"tenetd ends", "the lease is lost"} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t, server, `{"prefix":"10.0.0.0/29"}`)
			m, other := w.member(1), w.member(2)
			d, o := m.started(), other.started()
			got := d.mustAdd("a")
			if err := Leave(t.Context(), w.etcd, m.Name); err != nil {
				t.Fatal(err)
			}
			d.leaving = true
			d.house(d.life, nil)
			if what == "tenetd ends" {
				d.end()
				d = d.next()
			} else {
				d.lease = 0
			}
			d.rest()
			for i := range 6 {
				switch another, err := o.add(fmt.Sprint("b", i)); {
				case another == got:
					t.Fatalf("%s is had by two", got)
				case err != nil && !errors.Is(err, vnet.ErrExhausted):
					t.Error(err)
				}
			}
			o.rest()
			w.agree([]*member{m, other})
			if err := Stay(t.Context(), w.etcd, m.Name); err != nil {
				t.Fatal(err)
			}
			d.leaving = false
			d.rest()
			d.mustAdd("c") // the block's other address
		})
	}
}

func TestEndpointIsToldOfAsItIs(t *testing.T) {
	server := etcdtest.Start(t)
	for _, f := range faults {
		for _, at := range []string{"publishing", "withdrawing"} {
			for _, soon := range []bool{true, false} {
				t.Run(fmt.Sprint(f, " at ", at, ", arrives soon ", soon), func(t *testing.T) {
					w := newWorld(t, server, `{"prefix":"10.0.0.0/24"}`)
					m := w.member(1)
					d := m.started()
					id := vnet.Attachment{Container: "a", IfName: "eth0"}.ID()
					d.mustAdd("a")
					if at == "publishing" {
						d.script(f)
					}
					_ = d.tell(d.life, id)
					m.mustErase("a")
					if at == "withdrawing" {
						d.script(f)
					}
					_ = d.tell(d.life, id)
					d = d.next()
					d.rest()
					if soon {
						w.arrive()
					}
					w.nothing(m)
					d.mustAdd("a") // once more
					d.rest()
					w.arrive()
					w.agree([]*member{m})
				})
			}
		}
	}
}

// What is told of an endpoint while the node finds out what etcd has of it is not overlooked.
func TestEndpointToldOfMeanwhileIsKnown(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	d.mustAdd("a")
	told := make(chan struct{})
	d.read = func() {
		d.read = nil
		go func() {
			defer close(told)
			if err := d.tell(d.life, vnet.Attachment{Container: "a", IfName: "eth0"}.ID()); err != nil {
				t.Error(err)
			}
		}()
		w.giveTime(told)
	}
	if err := d.readPublished(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-told
	m.mustErase("a")
	d.rest()
	w.nothing(m)
}

// giveTime lets something happen that should not, or not yet: as long as so many questions to etcd take.
func (w *world) giveTime(done <-chan struct{}) {
	w.Helper()
	for range 50 {
		select {
		case <-done:
			return
		default:
			w.keys(store.Blocks)
		}
	}
}

// A node's name is one machine's, and its tenetd runs once.
func TestNodeRunsInOnePlace(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	d.mustAdd("a", "10.0.0.9")
	d.rest()

	stranger := w.member(2) // of the same name, and another identity
	stranger.Name = m.Name
	s := stranger.tenetd(func() fault { return none })
	t.Cleanup(s.bury)
	if err := s.join(t.Context()); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("a stranger joins by the name: %v", err)
	}

	copied := *m // the same identity in another place
	copied.place = "elsewhere"
	c := copied.tenetd(func() fault { return none })
	t.Cleanup(c.bury)
	if err := c.join(t.Context()); !errors.Is(err, vnet.ErrUnavailable) || c.lease != 0 {
		t.Errorf("a copy joins beside the node: %v", err)
	}
	if who, err := c.claim(t.Context(), w.held("10.0.0.16/29")); err == nil {
		t.Errorf("a copy claims a block: %s", who)
	}
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil { // as when its time is up
		t.Fatal(err)
	}
	if err := c.join(t.Context()); err != nil {
		t.Errorf("a copy takes over: %v", err)
	}
	// The first has not noticed that its lease has ended.
	if who, err := d.claim(t.Context(), w.held("10.0.0.24/29")); err == nil {
		t.Errorf("the one before claims a block: %s", who)
	}
	m.mustErase("a")
	d.house(d.life, nil)
	d.house(d.life, nil)
	if got := w.keys(store.Blocks); len(got) != 1 {
		t.Errorf("the one before gives a block back: %v", got)
	}
	if err := d.again(t.Context()); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("the one before takes a lease: %v", err)
	}

	// Both at a time: one has seen that nobody runs, and then the other is faster.
	if _, err := w.server.Client().Revoke(t.Context(), c.lease); err != nil {
		t.Fatal(err)
	}
	changes := 0
	slow := m.tenetd(func() fault {
		if changes++; changes == 2 {
			if err := c.join(t.Context()); err != nil {
				t.Error(err)
			}
		}
		return none
	})
	t.Cleanup(slow.bury)
	if err := slow.join(t.Context()); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("it joins beside the other: %v", err)
	}
}

// An ADD may ask for an address of a block just when that is given back. It has the address, and the node the block.
func TestBlockThatIsAskedForIsNotGivenBack(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	d.mustAdd("a", "10.0.0.9")
	m.mustErase("a")
	d.house(d.life, nil)
	added := make(chan struct{})
	d.befalls = func() fault { // the block is marked, and about to go
		d.script()
		go func() {
			defer close(added)
			if _, err := d.add("a", "10.0.0.9"); err != nil {
				t.Error(err)
			}
		}()
		w.giveTime(added)
		return none
	}
	d.house(d.life, nil)
	<-added
	d.rest()
	w.agree([]*member{m})
	// Nor is one that nobody has asked for an address of yet, as long as it is not marked.
	h := w.held("10.0.0.24/29")
	if _, err := d.claim(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	if err := d.giveBack(t.Context(), h); err != nil || m.blocks()[h.block.String()] != store.Held {
		t.Errorf("%v, blocks %v", err, m.blocks())
	}
	w.agree([]*member{m})
}

// A network that is deleted takes its blocks from the lists of those that hold them: of one declared anew in its name they may
// be another's.
func TestBlockGoesWithItsNetwork(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, other := w.member(1), w.member(2)
	d, o := m.started(), other.started()
	d.mustAdd("a", "10.0.0.9")
	d.rest()
	m.mustErase("a")
	d.Kick()
	d.rest()
	d.bury()
	var net vnet.Network
	change := func(do func(store.Tx) error) {
		t.Helper()
		if err := w.etcd.Update(t.Context(), Planned(do)); err != nil {
			t.Fatal(err)
		}
	}
	change(func(tx store.Tx) error {
		var err error
		if net, err = store.Network(tx, w.held("10.0.0.8/29").ref); err != nil {
			return err
		}
		return store.DeleteNetwork(tx, net.Ref())
	})
	if got := w.keys(store.Blocks, holdings); len(got) != 0 {
		t.Errorf("the network leaves %v", got)
	}
	change(func(tx store.Tx) error {
		_, err := store.DeclareNetwork(tx, net)
		// A record of before that a node has kept: as of a tenet that did not take care.
		return errors.Join(err, tx.Put(heldBlockKey(m.Name, net.Ref(), netip.MustParsePrefix("10.0.0.8/29")), nil))
	})
	o.mustAdd("b", "10.0.0.9")
	o.rest()
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), w.etcd, m.Name); err != nil {
		t.Fatal(err)
	}
	w.agree([]*member{other})
}

// Who comes into a network while that is deleted elsewhere is told so.
func TestNetworkThatIsDeletedWhileSomebodyComes(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	d.mustAdd("a", "10.0.0.9")
	m.mustErase("a")
	d.follow(d.life)
	err := w.etcd.Update(t.Context(), Planned(func(tx store.Tx) error { return store.DeleteNetwork(tx, w.net.Ref()) }))
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.allocate("b", netip.MustParseAddr("10.0.0.10"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.tell(t.Context(), e.ID); !errors.Is(err, vnet.ErrNotFound) || !strings.Contains(err.Error(), "was deleted in the cluster") {
		t.Errorf("it is told: %v", err)
	}
}
