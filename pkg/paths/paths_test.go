package paths_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// world is a store with one tenant, blue, and what its instances are said to be.
type world struct {
	tb     rapid.TB
	store  *store.Bolt
	states map[string]paths.State
	now    time.Time
}

func newWorld(tb rapid.TB, dir string) *world {
	return &world{tb: tb, store: store.OpenBolt(dir), states: map[string]paths.State{}, now: time.Unix(1000, 0)}
}

func (w *world) update(fn func(store.Tx) error) {
	w.tb.Helper()
	if err := w.store.Update(context.Background(), fn); err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) group(name string, mode vnet.Mode, on vnet.OnFailure) {
	w.update(func(tx store.Tx) error {
		return store.PutGroup(tx, vnet.Group{Tenant: "blue", Name: vnet.GroupName(name), Mode: mode, OnFailure: on})
	})
}

func (w *world) instance(group, container string, weight int) {
	w.states[container] = paths.Serves
	w.update(func(tx store.Tx) error {
		at := vnet.Attachment{Container: container, IfName: "eth0"}
		return store.JoinGroup(tx, vnet.Endpoint{Attachment: at, ID: at.ID(), Tenant: "blue", Function: &vnet.FunctionPort{Group: vnet.GroupName(group), Port: vnet.Both, Weight: weight}})
	})
}

func (w *world) chain(name string, groups ...vnet.GroupName) {
	w.update(func(tx store.Tx) error {
		all := vnet.Selector{Any: true}
		return store.PutChain(tx, vnet.Chain{Tenant: "blue", Name: vnet.ChainName(name), Groups: groups, Classifiers: []vnet.Classifier{{From: all, To: all}}})
	})
}

// plan plans, and returns the legs of the chain.
func (w *world) plan(name string) []vnet.Leg {
	w.tb.Helper()
	w.now = w.now.Add(time.Second)
	var legs []vnet.Leg
	w.update(func(tx store.Tx) error {
		if err := paths.Plan(tx, "blue", func(i vnet.Instance) paths.State { return w.states[i.Container] }, w.now); err != nil {
			return err
		}
		var err error
		legs, err = store.Legs(tx, vnet.ChainRef{Tenant: "blue", Chain: vnet.ChainName(name)})
		return err
	})
	return legs
}

func active(l vnet.Leg) []vnet.Path {
	return slices.DeleteFunc(slices.Clone(l.Paths), func(p vnet.Path) bool { return p.Weight == 0 })
}

// Whatever the weights, each instance has just its share of its group's connections, and there are no more paths than instances.
func TestEachInstanceHasItsShare(t *testing.T) {
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		w := newWorld(rt, fmt.Sprintf("%s/%d", t.TempDir(), n))
		var groups []vnet.GroupName
		weights, total := map[uint32]int{}, map[vnet.GroupName]int{}
		count := 0
		for g := range rapid.IntRange(1, vnet.MaxHops).Draw(rt, "groups") {
			name := fmt.Sprintf("g%d", g)
			w.group(name, vnet.Transparent, vnet.Closed)
			groups = append(groups, vnet.GroupName(name))
			for i := range rapid.IntRange(1, 4).Draw(rt, "instances") {
				weight := rapid.IntRange(1, vnet.MaxWeight).Draw(rt, "weight")
				w.instance(name, fmt.Sprintf("c%d-%d", g, i), weight)
				count++
				weights[uint32(count)] = weight
				total[vnet.GroupName(name)] += weight
			}
		}
		w.chain("all", groups...)
		legs := w.plan("all")
		if len(legs) != 1 || len(legs[0].Paths) > count {
			rt.Fatalf("%d legs, %d paths for %d instances", len(legs), len(legs[0].Paths), count)
		}
		got, sum := map[vnet.Hop]int{}, 0
		for _, p := range legs[0].Paths {
			sum += p.Weight
			if len(p.Hops) != len(groups) {
				rt.Fatalf("path %v has not a hop for each of %v", p, groups)
			}
			for _, h := range p.Hops {
				got[h] += p.Weight
			}
		}
		for hop, weight := range got {
			want := float64(weights[hop.Instance]) / float64(total[hop.Group])
			if share := float64(weight) / float64(sum); share < want-0.01 || share > want+0.01 {
				rt.Errorf("instance %d of %s has %.3f of the connections, want %.3f", hop.Instance, hop.Group, share, want)
			}
		}
	})
}

// An instance that comes or is drained leaves the paths of connections that stand; one that is gone takes its paths along.
func TestConnectionsKeepTheirPaths(t *testing.T) {
	w := newWorld(t, t.TempDir())
	w.group("fw", vnet.Transparent, vnet.Closed)
	w.instance("fw", "fw1", 1)
	w.chain("web", "fw")
	first := w.plan("web")[0].Paths
	w.instance("fw", "fw2", 1)
	both := w.plan("web")[0]
	if len(active(both)) != 2 || both.Paths[0].ID != first[0].ID {
		t.Errorf("the path of fw1 was %v, all are %v now", first, both)
	}
	w.update(func(tx store.Tx) error {
		i, err := store.FindInstance(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"}, "fw1")
		i.Drained = true
		if err == nil {
			err = store.PutInstance(tx, i)
		}
		return err
	})
	drained := w.plan("web")[0]
	if len(active(drained)) != 1 || len(drained.Paths) != 2 {
		t.Errorf("of two paths, one drained, %v is left", drained)
	}
	if again := w.plan("web")[0]; !slices.EqualFunc(drained.Paths, again.Paths, func(a, b vnet.Path) bool { return a.ID == b.ID && a.Retired.Equal(b.Retired) }) {
		t.Errorf("planned again, %v became %v", drained, again)
	}
	w.update(func(tx store.Tx) error {
		for _, used := range []map[vnet.PathID]bool{{first[0].ID: true}, nil} {
			n, err := paths.Collect(tx, used, w.now.Add(time.Second))
			if want := 1 - len(used); err != nil || n != want {
				t.Errorf("collected %d retired paths, %v: want %d", n, err, want)
			}
		}
		return nil
	})
	w.states["fw2"] = paths.Gone
	if gone := w.plan("web")[0]; len(gone.Paths) != 0 || gone.Blocked != "fw" {
		t.Errorf("without an instance there is %v", gone)
	}
}

// collect collects what has had no new connection since before, and returns how many paths were removed.
func (w *world) collect(before time.Time, used ...vnet.PathID) int {
	w.tb.Helper()
	removed := 0
	w.update(func(tx store.Tx) error {
		in := map[vnet.PathID]bool{}
		for _, id := range used {
			in[id] = true
		}
		var err error
		removed, err = paths.Collect(tx, in, before)
		return err
	})
	return removed
}

// retired returns the numbers of paths that get no new connections, the oldest first.
func (w *world) retired() []vnet.PathID {
	w.tb.Helper()
	var ids []vnet.PathID
	if err := w.store.View(context.Background(), func(tx store.Tx) error {
		all, err := paths.Retired(tx)
		for _, p := range all {
			ids = append(ids, p.ID)
			if p.Retired.IsZero() {
				w.tb.Errorf("nobody knows since when %v gets no connections", p)
			}
		}
		return err
	}); err != nil {
		w.tb.Fatal(err)
	}
	return ids
}

// A connection outlives its function, and the chain that led it there: nobody else has the number of its path then.
func TestNumbersRestWhileConnectionsCarryThem(t *testing.T) {
	w := newWorld(t, t.TempDir())
	w.group("fw", vnet.Transparent, vnet.Closed)
	for _, container := range []string{"fw1", "fw2", "fw3"} {
		w.instance("fw", container, 1)
	}
	w.chain("web", "fw")
	w.plan("web") // paths 1, 2 and 3
	w.states["fw3"] = paths.Dead
	w.plan("web") // which retires 3
	w.states["fw1"] = paths.Gone
	w.plan("web") // and puts 1 to rest
	gone := w.now
	if got := w.retired(); !slices.Equal(got, []vnet.PathID{3, 1}) {
		t.Errorf("no new connection is led by paths %v, want 3 and 1", got)
	}
	w.update(func(tx store.Tx) error { return store.Save(tx, "meta/next-path", 1) }) // all numbers have been round
	w.states["fw1"] = paths.Serves
	if got := w.plan("web")[0]; slices.ContainsFunc(got.Paths, func(p vnet.Path) bool { return p.ID == 1 }) {
		t.Errorf("a number that rests was given again: %v", got)
	}
	for _, tc := range []struct {
		before  time.Time
		used    []vnet.PathID
		removed int
		left    []vnet.PathID
	}{
		{gone, nil, 1, []vnet.PathID{1}}, // 3, whose number is free at once
		{gone.Add(time.Second), []vnet.PathID{1}, 0, []vnet.PathID{1}},
		{gone.Add(time.Second), nil, 0, nil},
	} {
		if got := w.collect(tc.before, tc.used...); got != tc.removed || !slices.Equal(w.retired(), tc.left) {
			t.Errorf("collected before %s, used %v: %d removed and %v left, want %d and %v", tc.before, tc.used, got, w.retired(), tc.removed, tc.left)
		}
	}
	w.update(func(tx store.Tx) error { return store.DeleteChain(tx, vnet.ChainRef{Tenant: "blue", Chain: "web"}) })
	if got := w.retired(); !slices.Equal(got, []vnet.PathID{2, 4}) {
		t.Errorf("of a chain that is deleted rest %v, want 2 and 4", got)
	}
	if w.collect(time.Now().Add(time.Hour), 4); !slices.Equal(w.retired(), []vnet.PathID{4}) {
		t.Errorf("with connections of path 4 rest %v", w.retired())
	}
	if w.collect(time.Now().Add(time.Hour)); len(w.retired()) > 0 {
		t.Errorf("without connections rest %v", w.retired())
	}
}

func TestWhatOnFailureDecides(t *testing.T) {
	w := newWorld(t, t.TempDir())
	w.group("ids", vnet.Transparent, vnet.Open)
	w.group("fw", vnet.Transparent, vnet.Closed)
	w.instance("ids", "ids1", 1)
	w.instance("fw", "fw1", 1)
	w.chain("web", "ids", "fw")
	w.plan("web")
	w.states["ids1"] = paths.Dead
	legs := w.plan("web")
	if a := active(legs[0]); len(a) != 1 || len(a[0].Hops) != 1 || a[0].Hops[0].Group != "fw" || len(legs[0].Paths) != 2 {
		t.Errorf("past a dead open group leads %v", legs)
	}
	w.states["fw1"] = paths.Dead
	if legs = w.plan("web"); legs[0].Blocked != "fw" || len(active(legs[0])) != 0 {
		t.Errorf("past a dead closed group leads %v", legs)
	}
	w.states["ids1"], w.states["fw1"] = paths.Serves, paths.Serves
	if legs = w.plan("web"); len(active(legs[0])) != 1 || legs[0].Blocked != "" {
		t.Errorf("when all live again there is %v", legs)
	}
}

// Behind a group that rewrites a leg of its own begins.
func TestALegEndsWhereAddressesChange(t *testing.T) {
	w := newWorld(t, t.TempDir())
	for name, mode := range map[string]vnet.Mode{"fw": vnet.Transparent, "nat": vnet.Rewriting, "ids": vnet.Routed} {
		w.group(name, mode, vnet.Open)
		w.instance(name, name+"1", 1)
	}
	w.chain("web", "fw", "nat", "ids")
	legs := w.plan("web")
	if len(legs) != 2 || !slices.Equal(legs[0].Groups, []vnet.GroupName{"fw", "nat"}) || !slices.Equal(legs[1].Groups, []vnet.GroupName{"ids"}) || legs[0].Number == legs[1].Number {
		t.Fatalf("legs %v", legs)
	}
	w.states["nat1"] = paths.Dead
	dead := w.plan("web")
	if len(dead) != 2 || len(active(dead[0])) != 1 || len(active(dead[0])[0].Hops) != 2 || len(active(dead[1])) != 0 {
		t.Errorf("past a dead function that rewrites leads %v", dead)
	}
}

// Where a chain prefers it, clients on a node that has functions of a group are led through these, and others through
// all; a way that is both is one path.
func TestFunctionsOfTheClientsNodeArePreferred(t *testing.T) {
	w := newWorld(t, t.TempDir())
	w.group("fw", vnet.Transparent, vnet.Closed)
	w.group("ids", vnet.Transparent, vnet.Closed)
	at := func(group, container string, node vnet.NodeName, number uint32) {
		w.states[container] = paths.Serves
		w.update(func(tx store.Tx) error {
			return store.PutInstance(tx, vnet.Instance{
				Tenant: "blue", Group: vnet.GroupName(group), Container: container, Node: node, Number: number, Ingress: "a", Egress: "b", Weight: 1,
			})
		})
	}
	at("fw", "fw1", "n1", 1)
	at("fw", "fw2", "n2", 1)
	at("ids", "ids3", "n3", 1)
	w.update(func(tx store.Tx) error {
		all := vnet.Selector{Any: true}
		return store.PutChain(tx, vnet.Chain{Tenant: "blue", Name: "c", PreferLocal: true, Groups: []vnet.GroupName{"fw", "ids"}, Classifiers: []vnet.Classifier{{From: all, To: all}}})
	})
	shares := func(l vnet.Leg) map[string]string {
		got := map[string]string{}
		for _, p := range l.Paths {
			var way []string
			for _, h := range p.Hops {
				way = append(way, fmt.Sprintf("%s on %s", h.Group, h.Node))
			}
			got[strings.Join(way, ", ")] = fmt.Sprintf("%d %v", p.Weight, p.At)
		}
		return got
	}
	first := w.plan("c")[0]
	want := map[string]string{"fw on n1, ids on n3": "5000 map[n1:10000 n3:5000]", "fw on n2, ids on n3": "5000 map[n2:10000 n3:5000]"}
	if got := shares(first); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	w.states["fw1"] = paths.Dead
	second := w.plan("c")[0]
	want = map[string]string{"fw on n1, ids on n3": "0 map[]", "fw on n2, ids on n3": "10000 map[n2:10000 n3:10000]"}
	if got := shares(second); !maps.Equal(got, want) {
		t.Errorf("with one dead: got %v, want %v", got, want)
	}
	for _, p := range second.Paths {
		if !slices.ContainsFunc(first.Paths, func(q vnet.Path) bool { return q.ID == p.ID }) {
			t.Errorf("path %d is new", p.ID)
		}
	}
}

// An instance whose weight makes no sense, in a record that another node wrote, counts as one of the least or the greatest.
func TestPlanOfWeightsThatMakeNoSense(t *testing.T) {
	for _, weight := range []int{0, -1, 1 << 62} {
		w := newWorld(t, t.TempDir())
		w.update(func(tx store.Tx) error {
			all := vnet.Selector{Any: true}
			c := vnet.Chain{Tenant: "blue", Name: "c", Groups: []vnet.GroupName{"fw"}, Classifiers: []vnet.Classifier{{From: all, To: all}}}
			if err := store.PutGroup(tx, vnet.Group{Tenant: "blue", Name: "fw"}); err != nil {
				return err
			}
			if err := store.PutChain(tx, c); err != nil {
				return err
			}
			for i := range uint32(4) {
				err := store.PutInstance(tx, vnet.Instance{Tenant: "blue", Group: "fw", Container: fmt.Sprintf("c%d", i), Number: i + 1, Ingress: "in", Egress: "out", Weight: weight})
				if err != nil {
					return err
				}
			}
			if err := paths.Plan(tx, "blue", func(vnet.Instance) paths.State { return paths.Serves }, w.now); err != nil {
				return err
			}
			legs, err := store.Legs(tx, c.Ref())
			if err != nil {
				return err
			}
			if len(legs) != 1 || len(legs[0].Paths) != 4 {
				t.Errorf("weight %d: %+v", weight, legs)
			}
			for _, p := range legs[0].Paths {
				if p.Weight != vnet.MaxShare/4 {
					t.Errorf("weight %d: a path has the share %d", weight, p.Weight)
				}
			}
			return nil
		})
	}
}
