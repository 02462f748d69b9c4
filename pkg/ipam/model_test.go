package ipam_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// model is what ipam promises, said as simply as can be: lists of addresses in memory.
type model struct {
	subnets []vnet.Subnet
	held    map[string][]netip.Addr // by owner
	touched map[netip.Addr]bool     // handed out at least once
	free    []netip.Addr            // released, the longest ago first
}

func (m *model) holder(a netip.Addr) string {
	for owner, addrs := range m.held {
		if slices.Contains(addrs, a) {
			return owner
		}
	}
	return ""
}

// pick takes the first fresh address of a family, subnet by subnet; where a subnet has none, its
// oldest released one.
func (m *model) pick(is6 bool) (netip.Addr, bool) {
	for _, s := range m.subnets {
		if s.Prefix.Addr().Is6() != is6 {
			continue
		}
		for a := s.Prefix.Addr(); s.Prefix.Contains(a); a = a.Next() {
			if s.Assignable(a) == nil && !m.touched[a] {
				return a, true
			}
		}
		if i := slices.IndexFunc(m.free, s.Prefix.Contains); i >= 0 {
			return m.free[i], true
		}
	}
	return netip.Addr{}, false
}

func (m *model) take(owner string, a netip.Addr) {
	m.held[owner] = append(m.held[owner], a)
	m.touched[a] = true
	m.free = slices.DeleteFunc(m.free, func(f netip.Addr) bool { return f == a })
}

// allocate returns what owner should get, or the kind of error.
func (m *model) allocate(owner string, asked netip.Addr) ([]netip.Addr, error) {
	if held := m.held[owner]; held != nil {
		if asked.IsValid() && !slices.Contains(held, asked) {
			return nil, vnet.ErrExists
		}
		return held, nil
	}
	before := *m
	before.held, before.free, before.touched = map[string][]netip.Addr{}, slices.Clone(m.free), map[netip.Addr]bool{}
	maps.Copy(before.held, m.held)
	maps.Copy(before.touched, m.touched)
	fail := func(kind error) ([]netip.Addr, error) { *m = before; return nil, kind }
	if asked.IsValid() {
		i := slices.IndexFunc(m.subnets, func(s vnet.Subnet) bool { return s.Prefix.Contains(asked) })
		if i < 0 || m.subnets[i].Assignable(asked) != nil {
			return fail(vnet.ErrInvalid)
		}
		if m.holder(asked) != "" {
			return fail(vnet.ErrExists)
		}
		m.take(owner, asked)
	}
	for _, is6 := range []bool{false, true} {
		has := slices.ContainsFunc(m.subnets, func(s vnet.Subnet) bool { return s.Prefix.Addr().Is6() == is6 })
		if !has || asked.IsValid() && asked.Is6() == is6 {
			continue
		}
		a, ok := m.pick(is6)
		if !ok {
			return fail(vnet.ErrExhausted)
		}
		m.take(owner, a)
	}
	return m.held[owner], nil
}

func (m *model) release(owner string) {
	m.free = append(m.free, m.held[owner]...)
	delete(m.held, owner)
}

var errRollback = errors.New("roll back")

// savepoint lets a failed operation be undone inside one transaction, as Update does for a whole one.
type savepoint struct {
	store.Tx
	undo []func() error
}

func (s *savepoint) note(key string) {
	old := slices.Clone(s.Get(key))
	s.undo = append(s.undo, func() error {
		if old == nil {
			return s.Tx.Delete(key)
		}
		return s.Tx.Put(key, old)
	})
}

func (s *savepoint) Put(key string, value []byte) error { s.note(key); return s.Tx.Put(key, value) }
func (s *savepoint) Delete(key string) error            { s.note(key); return s.Tx.Delete(key) }

func (s *savepoint) back() error {
	var errs []error
	for _, undo := range slices.Backward(s.undo) {
		errs = append(errs, undo())
	}
	return errors.Join(errs...)
}

// 100 runs (rapid's default) of 100 operations each.
func TestRandomOperationsAgreeWithTheModel(t *testing.T) {
	const operations = 100
	rapid.Check(t, func(rt *rapid.T) {
		var n vnet.Network
		text := rapid.SampledFrom([]string{
			`{"prefix":"10.0.0.0/28"}`,
			`{"prefix":"10.0.0.0/29","reserved":["10.0.0.2-10.0.0.3"]},{"prefix":"10.0.1.0/30"}`,
			`{"prefix":"10.0.0.0/28","gateway":"10.0.0.7"},{"prefix":"fd00::/124","reserved":["fd00::4/126"]}`,
			`{"prefix":"10.0.0.0/31"},{"prefix":"10.0.0.2/32"},{"prefix":"fd00::/127"},{"prefix":"fd00::2/128"}`,
		}).Draw(rt, "subnets")
		if err := json.Unmarshal([]byte(`{"tenant":"blue","name":"web","subnets":[`+text+`]}`), &n); err != nil {
			rt.Fatal(err)
		}
		err := store.OpenBolt(t.TempDir()).Update(t.Context(), func(tx store.Tx) error {
			var err error
			if n, err = store.DeclareNetwork(tx, n); err != nil {
				return err
			}
			m := model{subnets: n.Subnets, held: map[string][]netip.Addr{}, touched: map[netip.Addr]bool{}}
			for range operations {
				operate(rt, tx, n, &m)
			}
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			rt.Fatal(err)
		}
	})
}

// operate does one random thing to both, and compares.
func operate(rt *rapid.T, tx store.Tx, n vnet.Network, m *model) {
	owner := fmt.Sprint("c", rapid.IntRange(0, 14).Draw(rt, "owner"))
	sp := &savepoint{Tx: tx}
	switch what := rapid.SampledFrom([]string{"allocate", "allocate", "request", "release", "release"}).Draw(rt, "operation"); what {
	case "release":
		m.release(owner)
		if err := ipam.Release(sp, request(n, owner).Owner); err != nil {
			rt.Fatalf("release by %s: %v", owner, err)
		}
	default:
		r := request(n, owner)
		var asked netip.Addr
		if what == "request" {
			asked = netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.", "10.0.1.", "fd00::"}).Draw(rt, "subnet") +
				strconv.Itoa(rapid.IntRange(0, 9).Draw(rt, "host")))
			r.Addrs = []netip.Addr{asked}
		}
		want, kind := m.allocate(owner, asked)
		got, err := ipam.Allocate(sp, r)
		if kind != nil {
			if !errors.Is(err, kind) {
				rt.Fatalf("%s asks for %v: got %v, %v, want %v", owner, r.Addrs, got, err, kind)
			}
			if err := sp.back(); err != nil {
				rt.Fatal(err)
			}
			return
		}
		if err != nil || !slices.EqualFunc(got, want, func(p netip.Prefix, a netip.Addr) bool { return p.Addr() == a }) {
			rt.Fatalf("%s asks for %v: got %v, %v, want %v", owner, r.Addrs, got, err, want)
		}
	}
	leases, err := store.All[store.Lease](tx, store.Leases)
	if err != nil || len(leases) != len(m.held) {
		rt.Fatalf("%d leases, %v, want %d: %s", len(leases), err, len(m.held), strings.Join(rest(m), " "))
	}
}

func rest(m *model) []string {
	var out []string
	for owner, addrs := range m.held {
		out = append(out, fmt.Sprint(owner, addrs))
	}
	return out
}
