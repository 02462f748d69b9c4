package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// laden makes node i one on its own that has so many tenants, each with a network, a function and a chain through it, and one
// with so many networks.
func (w *world) laden(i, tenants, networks int) *member {
	w.Helper()
	m := w.member(i)
	err := m.store.Update(w.Context(), func(tx store.Tx) error {
		for i := range tenants {
			if err := chained(tx, m, vnet.TenantName(fmt.Sprint("t", i))); err != nil {
				return err
			}
		}
		for i := range networks {
			if _, err := store.DeclareNetwork(tx, network("many", fmt.Sprint("n", i), i)); err != nil {
				return err
			}
		}
		return nil
	})
	must(w.T, err)
	return m
}

func network(t vnet.TenantName, name string, i int) vnet.Network {
	return vnet.Network{Tenant: t, Name: vnet.NetworkName(name), Subnets: []vnet.Subnet{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), 0}), 24)}}}
}

// chained gives a tenant a chain through a function on the node, with its path.
func chained(tx store.Tx, m *member, t vnet.TenantName) error {
	if _, err := store.DeclareNetwork(tx, network(t, "web", 0)); err != nil {
		return err
	}
	if err := store.PutGroup(tx, vnet.Group{Tenant: t, Name: "fw"}); err != nil {
		return err
	}
	a := vnet.Attachment{Container: "fw-" + string(t), IfName: "eth0"}
	e := vnet.Endpoint{Attachment: a, ID: a.ID(), Tenant: t, Network: "web", MAC: vnet.MAC{2, 0, 0, 0, 0, 1}, State: vnet.Ready, Bridge: m.Bridge, Function: &vnet.FunctionPort{Group: "fw", Port: vnet.Both, Weight: 1}}
	anybody := vnet.Selector{Any: true}
	c := vnet.Chain{Tenant: t, Name: "c", Groups: []vnet.GroupName{"fw"}, Classifiers: []vnet.Classifier{{From: anybody, To: anybody}}}
	err := errors.Join(store.PutEndpoint(tx, &e), store.JoinGroup(tx, e), store.PutChain(tx, c))
	if err != nil {
		return err
	}
	return paths.Plan(tx, t, func(vnet.Instance) paths.State { return paths.Serves }, time.Now())
}

// become makes the node the cluster's in its own store, as joining does.
func (m *member) become() {
	m.Helper()
	must(m.T, m.store.Update(m.Context(), func(tx store.Tx) error {
		chains, err := store.All[vnet.Chain](tx, store.Chains)
		for _, c := range chains {
			legs, legsErr := store.Legs(tx, c.Ref())
			placed(legs, m.Name)
			err = errors.Join(err, legsErr, store.PutLegs(tx, c.Ref(), legs, time.Now()))
		}
		return errors.Join(err, store.JoinCluster(tx, m.Name))
	}))
}

// wipe takes everything out of etcd.
func (w *world) wipe() {
	w.Helper()
	_, err := w.server.Client().Delete(w.Context(), w.where.Prefix, clientv3.WithPrefix())
	must(w.T, err)
}

// broughtBy fails the test unless etcd has all that the node's store has: networks with their numbers, chains with their paths, and
// the functions. Paths lead through the functions of one node.
func (w *world) broughtBy(m *member) {
	w.Helper()
	var here, there []string
	read := func(all *[]string, name vnet.NodeName) func(store.Tx) error {
		return func(tx store.Tx) error {
			*all = nil
			networks, err := store.All[vnet.Network](tx, store.Networks)
			for _, n := range networks {
				*all = append(*all, fmt.Sprint("network ", n))
			}
			groups, err2 := store.All[vnet.Group](tx, store.Groups)
			for _, g := range groups {
				*all = append(*all, fmt.Sprint("group ", g))
			}
			chains, err3 := store.All[vnet.Chain](tx, store.Chains)
			for _, c := range chains {
				legs, err := store.Legs(tx, c.Ref())
				if err != nil {
					return err
				}
				placed(legs, name)
				*all = append(*all, fmt.Sprint("chain ", c.Ref(), legs))
			}
			instances, err4 := store.Instances(tx, "")
			for _, i := range instances {
				i.Node, i.Down = name, false
				*all = append(*all, fmt.Sprint("function ", i))
			}
			return errors.Join(err, err2, err3, err4)
		}
	}
	must(w.T, m.store.View(w.Context(), read(&here, m.Name)))
	must(w.T, w.etcd.View(w.Context(), read(&there, m.Name)))
	there = slices.DeleteFunc(there, func(what string) bool { return strings.Contains(what, w.net.Ref().String()) })
	for _, what := range here {
		if !slices.Contains(there, what) {
			w.Errorf("%s has %s, which is not in etcd", m.Name, what)
		}
	}
	if len(there) != len(here) {
		w.Errorf("%s has %d things, etcd has %d", m.Name, len(here), len(there))
	}
	if left := w.keys(refills + string(m.Name)); len(left) > 0 {
		w.Errorf("etcd has all and is still to be filled: %v", left)
	}
}

// What a node brings along may be more than etcd takes in a transaction: as a node on its own, and when etcd was emptied.
func TestAnImportMayBeOfAnySize(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	w.wipe()
	m := w.laden(1, 40, 70)
	for _, what := range []string{"on its own", "etcd was emptied"} {
		w.comes(m, what)
		w.broughtBy(m)
		m.become()
		w.wipe()
	}
}

// An import that is cut is done again at the next try, wherever it was cut. Meanwhile another node that knows what the first one does
// fills the emptied etcd by itself.
func TestAnImportThatIsCutIsDoneAgain(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	for _, isMember := range []bool{false, true} {
		m, other := w.laden(1, 16, 16), w.laden(2, 16, 16)
		if isMember {
			m.become()
			other.become()
		}
		cuts := 0
		for ; ; cuts++ {
			how := []fault{endBefore, endAfter}[cuts%2]
			when := fmt.Sprintf("member %t, %s, the %d.", isMember, how, cuts/2+1)
			w.wipe()
			d := m.tenetd(nil)
			d.script(append(slices.Repeat([]fault{none}, cuts/2), how)...)
			err := d.enterWithAll(d.life)
			d.bury()
			if how == endBefore && err == nil { // it makes no more than those before
				break
			}
			if isMember {
				w.comes(other, when+", another comes")
				w.hasNetworks(32, when+", another comes")
			}
			w.forget(m.Name)
			w.comes(m, when)
			w.hasNetworks(32, when)
			if !isMember {
				w.broughtBy(m)
			}
		}
		if cuts < 12 {
			t.Errorf("it was cut at %d places only: this test proves nothing", cuts)
		}
	}
}

// comes has the node enter with all that it brings along.
func (w *world) comes(m *member, when string) {
	w.Helper()
	d := m.tenetd(func() fault { return none })
	defer d.bury()
	if err := d.enterWithAll(d.life); err != nil {
		w.Fatalf("%s: %v", when, err)
	}
}

// hasNetworks fails the test unless etcd has so many networks.
func (w *world) hasNetworks(n int, when string) {
	w.Helper()
	if got := len(w.keys(store.Networks)); got != n {
		w.Fatalf("%s: etcd has %d networks, want %d", when, got, n)
	}
}

// forget ends the lease of a node's tenetd that was killed.
func (w *world) forget(name vnet.NodeName) {
	w.Helper()
	_, err := w.server.Client().Delete(context.WithoutCancel(w.Context()), w.where.Prefix+aliveKey(name))
	must(w.T, err)
}

// A node may have more functions to tell of, or to take back, than etcd takes in a transaction with the paths that follow.
func TestFunctionsOfAnyNumberAreTold(t *testing.T) {
	const many = 64
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	w.wipe()
	m, other := w.laden(1, many, 0), w.laden(2, many, 0)
	m.become()
	other.become()
	w.comes(other, "etcd was emptied")
	w.comes(m, "etcd was filled")
	functions := func(want int) {
		t.Helper()
		if got := len(w.keys(store.Functions)); got != want {
			t.Errorf("etcd has %d functions, want %d", got, want)
		}
		if got := len(w.keys(holdings + string(m.Name))); got != want-many {
			t.Errorf("etcd says of %d that they are the node's, want %d", got, want-many)
		}
	}
	functions(2 * many)
	d := m.tenetd(func() fault { return none })
	defer d.bury()
	_, err := d.tellServing(t.Context(), nil, func(store.Tx) error { return nil })
	must(t, err)
	functions(many)
}

// However many chains a node's functions serve in, they are led past it when it is off, and through it when it is back.
func TestChainsOfAnyNumberAreLedPastANodeThatIsOff(t *testing.T) {
	const many = 130
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m, o := w.laden(1, many, 0), w.member(2).started()
	o.Grace = time.Hour // it goes on as long as all are being led past
	w.comes(m, "on its own")
	w.forget(m.Name)
	blocked := func(want int) {
		t.Helper()
		got := 0
		for _, legs := range w.keys(store.Paths) {
			if strings.Contains(legs, `"blocked":"fw"`) {
				got++
			}
		}
		if got != want {
			t.Errorf("%d chains are blocked, want %d", got, want)
		}
	}
	blocked(0)
	must(t, o.declareOff(t.Context(), m.Name))
	blocked(many)
	m.become()
	back := m.tenetd(nil)
	back.script(none)
	must(t, back.enterWithAll(back.life))
	blocked(0)
	back.bury()
	w.forget(m.Name)
	must(t, o.declareOff(t.Context(), m.Name))
	blocked(many)
	if n, err := collectAll(t.Context(), w.etcd, nil, time.Now().Add(time.Minute)); err != nil || n != many {
		t.Errorf("%d paths that no connection has are removed, want %d: %v", n, many, err)
	}
	must(t, Remove(t.Context(), w.etcd, m.Name))
	for key, legs := range w.keys(store.Paths) {
		if strings.Contains(legs, string(m.Name)) {
			t.Errorf("the node is gone, and %s leads there: %s", key, legs)
		}
	}
}

// What a member knows of an emptied etcd that clashes with what another has declared there by now is left out.
func TestWhatClashesInAnEmptiedEtcdIsLeftOut(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.laden(1, 3, 40)
	m.become()
	w.wipe()
	d := m.tenetd(nil)
	d.script(none, none, none, endBefore) // it has entered, and declared nothing
	if err := d.enterWithAll(d.life); err == nil {
		t.Fatal("it was not cut")
	}
	d.bury()
	n := network("many", "n7", 200)
	w.declare(&n)
	w.forget(m.Name)
	w.comes(m, "n7 is another")
	w.hasNetworks(43, "n7 is another")
	must(t, w.etcd.View(t.Context(), func(tx store.Tx) error {
		stands, err := store.Network(tx, n.Ref())
		if got := stands.Subnets[0].Prefix; got != n.Subnets[0].Prefix {
			t.Errorf("it is %s", got)
		}
		return err
	}))
}
