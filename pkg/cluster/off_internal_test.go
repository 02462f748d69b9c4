package cluster

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// pass has d do with nodes that are off what it does by the clock, until the grace of one is up.
func (d *tenetd) pass(name vnet.NodeName) {
	d.Helper()
	d.Agent.nodes[name] = Record{Peer: vnet.Peer{Name: name}} // its address is not asked: it is off
	etcdtest.Wait(d.T, "the grace of "+string(name)+" to be up", func() bool {
		events, _, err := d.etcd.List(d.life, followed())
		if err == nil {
			err = d.applyOff(d.life, true, latest(events))
		}
		if err == nil {
			err = d.endGraces(d.life)
		}
		if err != nil {
			d.Fatal(err)
		}
		return len(d.world.keys(nodeKey(name))) == 0
	})
}

// A node that is off for longer than its grace loses its blocks. When it comes back, what others have by then is theirs,
// and the rest is its own again.
func TestNodeThatWasOffForLongLosesItsAddresses(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	sw := ovstest.Start(t) // an endpoint that goes is taken from it
	m, other := w.member(1), w.member(2)
	m.OVSRunDir = sw.RunDir
	d, o := m.started(), other.started()
	d.mustAdd("a", "10.0.0.9")
	d.mustAdd("b", "10.0.0.17")
	d.rest()
	d.end()
	d.bury()
	if err := o.declareOff(t.Context(), m.Name); err != nil { // it may be asleep only
		t.Fatal(err)
	}
	if got := w.keys(offKey(m.Name)); len(got) != 0 {
		t.Errorf("a node with a lease is off")
	}
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
		t.Fatal(err)
	}
	for range 2 { // whoever is second changes nothing
		if err := o.declareOff(t.Context(), m.Name); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.add("early", "10.0.0.9"); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("within its grace: %v", err)
	}
	o.pass(m.Name)
	if got := w.keys(store.Blocks, holdings, store.Endpoints); len(got) != 0 {
		t.Errorf("left of the node: %v", got)
	}
	o.mustAdd("c", "10.0.0.9")
	o.rest()

	// Without its switch it cannot take an endpoint away. It hands out nothing of what it has lost in the meantime.
	m.OVSRunDir = other.OVSRunDir
	back := m.tenetd(func() fault { return none })
	if err := back.join(t.Context()); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("it comes back without a switch: %v", err)
	}
	if e, err := m.allocate("d"); err == nil && w.block(e.Addrs[0].Addr()) == netip.MustParsePrefix("10.0.0.8/29") {
		t.Errorf("it hands out %v, which is of another node's block", e.Addrs)
	}
	back.Agent.joined, back.connected = true, true
	back.house(back.life, nil) // as if its lease only had been lost
	if got := m.blocks()["10.0.0.8/29"]; got == store.Held {
		t.Error("it takes what it has lost")
	}
	back.bury()

	m.OVSRunDir = sw.RunDir
	d = m.started()
	d.rest()
	w.agree([]*member{m, other})
	if _, err := m.release("a"); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("an endpoint with an address that another has: %v", err)
	}
	if got := d.mustAdd("b", "10.0.0.17"); got != "10.0.0.17" {
		t.Errorf("b has %s", got)
	}
}

// An operator's word frees a node's blocks at once, but no block that another has claimed since.
func TestRemoveTakesNothingFromOthers(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, other := w.member(1), w.member(2)
	d, o := m.started(), other.started()
	d.mustAdd("a", "10.0.0.9")
	d.rest()
	if err := Remove(t.Context(), w.etcd, m.Name); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("a node that runs is removed: %v", err)
	}
	d.bury()
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
		t.Fatal(err)
	}
	third := w.member(3).started()
	first := true
	third.befalls = func() fault {
		if first { // it has seen what the node has, and before it removes that another does, and a third claims the block
			first = false
			if err := Remove(t.Context(), w.etcd, m.Name); err != nil {
				t.Error(err)
			}
			o.mustAdd("b", "10.0.0.9")
			o.rest()
		}
		return none
	}
	if err := Remove(t.Context(), third.etcd, m.Name); err != nil {
		t.Error(err)
	}
	w.agree([]*member{other})
}

// A node that has a lease again is off until it has told what is on it. If it dies before, its grace begins anew.
func TestNodeThatComesBackHasItsGraceUntilItIsBack(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, other := w.member(1), w.member(2)
	d, o := m.started(), other.started()
	d.Grace, o.Grace = time.Hour, time.Hour
	d.mustAdd("a", "10.0.0.9")
	d.rest()
	revoke := func() {
		t.Helper()
		if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
			t.Fatal(err)
		}
	}
	off := func(want bool) {
		t.Helper()
		if got := w.keys(offKey(m.Name), graceKey(m.Name)); len(got) != map[bool]int{true: 2}[want] {
			t.Errorf("off %v, want %v: %v", !want, want, got)
		}
	}
	d.bury()
	revoke()
	if err := o.declareOff(t.Context(), m.Name); err != nil {
		t.Fatal(err)
	}
	off(true)
	d = m.tenetd(func() fault { return none })
	t.Cleanup(d.bury)
	d.Grace = time.Hour
	if err := d.describe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := d.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	off(true)
	revoke()
	o.Agent.nodes[m.Name] = Record{Peer: vnet.Peer{Name: m.Name}}
	o.Agent.off[m.Name] = true
	if err := o.endGraces(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := w.keys(nodeKey(m.Name)); len(got) != 1 {
		t.Error("it lost its grace as it came back")
	}
	d.bury()
	d = m.started()
	off(true)
	if err := d.tellFunctions(t.Context()); err != nil {
		t.Fatal(err)
	}
	off(false)
	d.rest()
	w.agree([]*member{m, other})
}

// A node is off, and comes back, also if a chain cannot be decided on.
func TestNodeIsOffWhateverBecomesOfChains(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, other := w.member(1), w.member(2)
	d, o := m.started(), other.started()
	o.Grace = time.Hour
	tenant := w.held("10.0.0.8/29").ref.Tenant
	err := w.etcd.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.Put(store.Chains+string(tenant)+"/broken", []byte("{")),
			tx.Put(holdings+string(m.Name)+"/"+store.Functions+string(tenant)+"/x", nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	d.bury()
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
		t.Fatal(err)
	}
	if err := o.declareOff(t.Context(), m.Name); err != nil {
		t.Fatal(err)
	}
	if got := w.keys(offKey(m.Name), graceKey(m.Name)); len(got) != 2 {
		t.Errorf("it is not off: %v", got)
	}
	d = m.started()
	if err := d.tellFunctions(t.Context()); err == nil {
		t.Error("nothing is wrong with the chain: this test proves nothing")
	}
	if got := w.keys(offKey(m.Name), graceKey(m.Name)); len(got) != 0 {
		t.Errorf("it is still off: %v", got)
	}
}

// What was a node's goes with it: endpoints, functions, blocks.
func TestRemoveTakesAllThatWasTheNodes(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, other := w.member(1), w.member(2)
	d := m.started()
	other.started()
	d.mustAdd("a", "10.0.0.9")
	d.rest()
	i := vnet.Instance{Tenant: w.net.Tenant, Group: "fw", Container: "fw1", Node: m.Name, Number: 1}
	err := w.etcd.Update(t.Context(), Planned(func(tx store.Tx) error {
		return errors.Join(tx.Put(refillKey(m.Name), nil), d.putFunctions(tx, map[string]vnet.Instance{store.FunctionAt(i): i}))
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := w.keys(store.Functions, holdings+string(m.Name)+"/"+store.Functions); len(got) != 2 {
		t.Errorf("of the function there are %v", got)
	}
	d.bury()
	if _, err := w.server.Client().Revoke(t.Context(), d.lease); err != nil {
		t.Fatal(err)
	}
	if err := Remove(t.Context(), w.etcd, m.Name); err != nil {
		t.Fatal(err)
	}
	if got := w.keys(store.Functions, store.Endpoints, store.Blocks, holdings+string(m.Name), nodeKey(m.Name), refills); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
