package ipam_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestRandomOperationsAgreeWithTheModel(t *testing.T) {
	agrees(t, false, []string{"allocate", "allocate", "request", "foreign", "release", "release", "stale"},
		`{"prefix":"10.0.0.0/28"}`,
		`{"prefix":"10.0.0.0/29","reserved":["10.0.0.2-10.0.0.3"]},{"prefix":"10.0.1.0/30"}`,
		`{"prefix":"10.0.0.0/28","gateway":"10.0.0.7"},{"prefix":"fd00::/124","reserved":["fd00::4/126"]}`,
		`{"prefix":"10.0.0.0/31"},{"prefix":"10.0.0.2/32"},{"prefix":"fd00::/127"},{"prefix":"fd00::2/128"}`)
}

func TestRandomOperationsOfAMemberAgreeWithTheModel(t *testing.T) {
	agrees(t, true, []string{"allocate", "allocate", "allocate", "request", "foreign", "release", "release", "stale", "grant", "grant", "return", "drop"},
		`{"prefix":"10.0.0.0/28"}`,
		`{"prefix":"10.0.0.0/27","reserved":["10.0.0.2-10.0.0.5"]},{"prefix":"10.0.1.0/30"}`,
		`{"prefix":"10.0.0.0/28","gateway":"10.0.0.7"},{"prefix":"fd00::/124","reserved":["fd00::4/126"]}`,
		`{"prefix":"10.0.0.0/31"},{"prefix":"10.0.0.2/32"},{"prefix":"fd00::/127"},{"prefix":"fd00::2/128"}`)
}

var errRollback = errors.New("roll back")

// agrees does random things to a store and to the model: 100 runs (rapid's default) of 100 operations each.
func agrees(t *testing.T, member bool, operations []string, networks ...string) {
	t.Helper()
	const turns = 100
	rapid.Check(t, func(rt *rapid.T) {
		var n vnet.Network
		text := rapid.SampledFrom(networks).Draw(rt, "subnets")
		if err := json.Unmarshal([]byte(`{"tenant":"blue","name":"web","subnets":[`+text+`]}`), &n); err != nil {
			rt.Fatal(err)
		}
		err := store.OpenBolt(t.TempDir()).Update(t.Context(), func(tx store.Tx) error {
			var err error
			if n, err = store.DeclareNetwork(tx, n); err != nil {
				return err
			}
			if member {
				if err := store.JoinCluster(tx, "node-1"); err != nil {
					return err
				}
			}
			before := records(rt, tx)
			w := world{rt, &counting{Tx: tx}, newModel(n, member)}
			for range turns {
				w.operate(rapid.SampledFrom(operations).Draw(rt, "operation"))
				w.compare()
			}
			if member {
				w.leave(before)
			}
			return errRollback
		})
		if !errors.Is(err, errRollback) {
			rt.Fatal(err)
		}
	})
}

// world is a network of a store, and what should be in it.
type world struct {
	*rapid.T
	tx *counting
	m  *model
}

// counting knows whether anything was written.
type counting struct {
	store.Tx
	writes int
}

func (c *counting) Put(key string, value []byte) error { c.writes++; return c.Tx.Put(key, value) }
func (c *counting) Delete(key string) error            { c.writes++; return c.Tx.Delete(key) }

func records(rt *rapid.T, tx store.Tx) map[string]string {
	all := map[string]string{}
	if err := tx.Range("", func(key string, value []byte) error { all[key] = string(value); return nil }); err != nil {
		rt.Fatal(err)
	}
	return all
}

func (w world) must(err error) {
	if err != nil {
		w.Fatal(err)
	}
}

// wroteNothing holds a turn that had no effect to it.
func (w world) wroteNothing(what string) {
	if w.tx.writes > 0 {
		w.Fatalf("%s changed %d records", what, w.tx.writes)
	}
}

func (w world) operate(what string) {
	w.tx.writes = 0
	switch what {
	case "grant", "return", "drop":
		w.block(what)
	case "stale":
		w.stale()
	case "release":
		w.release()
	default:
		w.allocate(what)
	}
}

func (w world) owner() string { return fmt.Sprint("c", rapid.IntRange(0, 14).Draw(w.T, "owner")) }

func (w world) allocate(what string) {
	owner := w.owner()
	r := request(w.m.net, owner)
	var asked netip.Addr
	if what != "allocate" {
		asked = netip.MustParseAddr(rapid.SampledFrom([]string{"10.0.0.", "10.0.1.", "fd00::"}).Draw(w.T, "subnet") +
			strconv.Itoa(rapid.IntRange(0, 9).Draw(w.T, "host")))
		r.Addrs, r.Foreign = []netip.Addr{asked}, what == "foreign"
	}
	want, refusal := w.m.allocate(owner, asked, r.Foreign)
	got, err := ipam.Allocate(w.tx, r)
	if refusal != nil {
		w.sameRefusal(fmt.Sprint(owner, " asks for ", r.Addrs), err, refusal)
		w.wroteNothing(fmt.Sprintf("a request that was answered %q", err))
		return
	}
	if err != nil || !slices.EqualFunc(got, want, func(p netip.Prefix, a netip.Addr) bool { return p.Addr() == a }) {
		w.Fatalf("%s asks for %v: got %v, %v, want %v", owner, r.Addrs, got, err, want)
	}
}

func (w world) sameRefusal(what string, got, want error) {
	need, needs := errors.AsType[*ipam.NeedBlocks](got)
	should, wanted := errors.AsType[*ipam.NeedBlocks](want)
	switch {
	case needs != wanted || !wanted && !errors.Is(got, want):
		w.Fatalf("%s: got %v, want %v", what, got, want)
	case wanted && (need.Network != should.Network || !slices.Equal(need.Subnets, should.Subnets) || !slices.Equal(need.Addrs, should.Addrs)):
		w.Fatalf("%s: needs %+v, want %+v", what, need, should)
	}
}

func (w world) release() {
	owner := w.owner()
	nothing := w.m.held[owner] == nil
	w.m.release(owner)
	w.must(ipam.Release(w.tx, request(w.m.net, owner).Owner))
	if nothing {
		w.wroteNothing("a release of nothing")
	}
}

// stale releases addresses by a lease that somebody brought back from a copy: they are another's.
func (w world) stale() {
	owner := w.owner()
	if w.m.held[owner] == nil {
		return
	}
	old := request(w.m.net, "old").Owner
	lease, err := store.Load[store.Lease](w.tx, store.LeaseKey(request(w.m.net, owner).Owner))
	w.must(err)
	w.must(store.Save(w.tx, store.LeaseKey(old), lease))
	w.tx.writes = 0
	if err := ipam.Release(w.tx, old); !errors.Is(err, vnet.ErrExists) {
		w.Fatalf("stale release of %v: %v", lease.Addrs, err)
	}
	w.wroteNothing("a stale release")
	w.must(w.tx.Delete(store.LeaseKey(old)))
}

// block grants, marks as returning or takes away any block, empty or not.
func (w world) block(what string) {
	s := rapid.SampledFrom(w.m.net.Subnets).Draw(w.T, "subnet")
	p := s.Block(rapid.Uint64Max(s.Blocks()-1).Draw(w.T, "block"))
	switch {
	case what == "grant":
		w.m.blocks[p] = store.Held
	case w.m.blocks[p] == "":
		return
	case what == "return":
		w.m.blocks[p] = store.Returning
	default:
		w.m.drop(p)
		w.must(store.DeleteBlock(w.tx, w.m.net.Ref(), p))
		return
	}
	w.must(store.PutBlock(w.tx, w.m.net.Ref(), store.Block{Prefix: p, State: w.m.blocks[p]}))
}

// compare holds what can be asked of the store to the model.
func (w world) compare() {
	leases, err := store.All[store.Lease](w.tx, store.Leases)
	if err != nil || len(leases) != len(w.m.held) {
		w.Fatalf("%d leases, %v, want those of %v", len(leases), err, w.m.held)
	}
	for _, s := range w.m.net.Subnets {
		want := 0
		each(s, s.Prefix, func(a netip.Addr) {
			if w.m.member && w.m.gives(a) && w.m.holder(a) == "" {
				want++
			}
		})
		if got, err := ipam.Free(w.tx, w.m.net, s.Prefix); err != nil || got != want {
			w.Fatalf("subnet %s has %d free, %v, want %d", s.Prefix, got, err, want)
		}
	}
	for p := range w.m.blocks {
		want := 0
		for a := p.Addr(); p.Contains(a); a = a.Next() {
			if w.m.holder(a) != "" {
				want++
			}
		}
		if got, err := ipam.InUse(w.tx, w.m.net, p); err != nil || got != want {
			w.Fatalf("block %s has %d in use, %v, want %d", p, got, err, want)
		}
	}
}

// leave releases everything and gives all blocks back, in any order: nothing may be left.
func (w world) leave(before map[string]string) {
	owners, blocks := slices.Sorted(maps.Keys(w.m.held)), slices.SortedFunc(maps.Keys(w.m.blocks), netip.Prefix.Compare)
	for len(owners)+len(blocks) > 0 {
		if len(blocks) == 0 || len(owners) > 0 && rapid.Bool().Draw(w.T, "release first") {
			w.must(ipam.Release(w.tx, request(w.m.net, owners[0]).Owner))
			owners = owners[1:]
			continue
		}
		w.must(store.DeleteBlock(w.tx, w.m.net.Ref(), blocks[0]))
		blocks = blocks[1:]
	}
	if diff := cmp.Diff(before, records(w.T, w.tx)); diff != "" {
		w.Fatalf("records (-before +after):\n%s", diff)
	}
}
