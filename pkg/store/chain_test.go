package store_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// chained is a store with tenant blue: networks web and lan, the latter on a wire, and groups fw, ids and nat; and with
// tenant red, which has a group of its own and a network.
func chained(t *testing.T) store.Store {
	t.Helper()
	s := empty(t)
	if _, err := uplink(t, s, "lan", "eth1"); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		`{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`,
		`{"tenant":"blue","name":"lan","subnets":[{"prefix":"10.0.1.0/24"}],"provider":{"uplink":"lan"}}`,
		`{"tenant":"red","name":"db","subnets":[{"prefix":"10.0.0.0/24"}]}`,
	} {
		if _, err := declare(t, s, text); err != nil {
			t.Fatal(err)
		}
	}
	for group, mode := range map[string]vnet.Mode{"blue/fw": vnet.Transparent, "blue/ids": vnet.Routed, "blue/nat": vnet.Rewriting, "red/own": vnet.Transparent} {
		tenant, name, _ := strings.Cut(group, "/")
		update(t, s, func(tx store.Tx) error {
			return store.PutGroup(tx, vnet.Group{Tenant: vnet.TenantName(tenant), Name: vnet.GroupName(name), Mode: mode})
		})
	}
	return s
}

// putChain makes a chain of tenant blue of what is given as JSON.
func putChain(t *testing.T, s store.Store, name, more string) error {
	t.Helper()
	c := vnet.Chain{Tenant: "blue", Name: vnet.ChainName(name)}
	if err := json.Unmarshal([]byte(more), &c); err != nil {
		t.Fatal(err)
	}
	return s.Update(t.Context(), func(tx store.Tx) error { return store.PutChain(tx, c) })
}

// member is the port of a function of tenant blue.
func member(container, ifName, group string, role vnet.PortRole) vnet.Endpoint {
	a := vnet.Attachment{Container: container, IfName: ifName}
	return vnet.Endpoint{
		Attachment: a, ID: a.ID(), Tenant: "blue", Network: "web", Bridge: "br-tenet", State: vnet.Ready,
		Function: &vnet.FunctionPort{Group: vnet.GroupName(group), Port: role, Weight: 1},
	}
}

// attached writes endpoints as an ADD does.
func attached(endpoints ...*vnet.Endpoint) func(store.Tx) error {
	return func(tx store.Tx) error {
		for _, e := range endpoints {
			if err := errors.Join(store.GiveZone(tx, e), store.PutEndpoint(tx, e), store.JoinGroup(tx, *e)); err != nil {
				return err
			}
		}
		return nil
	}
}

// everything is the whole store.
func everything(t *testing.T, s store.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	view(t, s, func(tx store.Tx) error {
		return tx.Range("", func(key string, value []byte) error { all[key] = string(value); return nil })
	})
	return all
}

// wantRefused looks for a kind and a text in an error, and that nothing has changed since before.
func wantRefused(t *testing.T, s store.Store, before map[string]string, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %v with %q", err, kind, text)
	}
	if !maps.Equal(before, everything(t, s)) {
		t.Errorf("%q: something was changed", text)
	}
}

const toWeb = `"classifiers":[{"from":{"any":true},"to":{"network":"web"}}]`

func TestAChainNamesOnlyWhatItsTenantHas(t *testing.T) {
	s := chained(t)
	wire := endpoint("w1")
	wire.Network = "lan"
	theirs := endpoint("r1")
	theirs.Tenant, theirs.Network = "red", "db"
	in, out := member("f1", "eth0", "fw", vnet.Ingress), member("f1", "eth1", "fw", vnet.Egress)
	update(t, s, attached(&wire, &theirs, &in, &out))
	if err := putChain(t, s, "old", `{"groups":["nat"],"priority":5,"classifiers":[{"from":{"any":true},"to":{"prefix":"192.0.2.0/24"},"protocol":"tcp","destinationPorts":[80,81]}]}`); err != nil {
		t.Fatal(err)
	}
	before := everything(t, s)
	for _, tc := range []struct {
		chain string
		kind  error
		want  string
	}{
		{`{"groups":["fw","dpi"],` + toWeb + `}`, vnet.ErrNotFound, "group blue/dpi does not exist"},
		{`{"groups":["own"],` + toWeb + `}`, vnet.ErrNotFound, "group blue/own does not exist"}, // it is red's
		{`{"groups":["red/own"],` + toWeb + `}`, vnet.ErrInvalid, `group "red/own"`},
		{`{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"network":"db"}}]}`, vnet.ErrNotFound, "classifier 1: network blue/db does not exist"},
		{`{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"any":true}},{"from":{"endpoint":"c9/eth0"},"to":{"any":true}}]}`, vnet.ErrNotFound, "classifier 2: tenant blue has no endpoint c9/eth0"},
		{`{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"endpoint":"r1/eth0"}}]}`, vnet.ErrNotFound, "tenant blue has no endpoint r1/eth0"},
		{`{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"network":"lan"}}]}`, vnet.ErrInvalid, "network blue/lan is on a wire"},
		{`{"groups":["fw"],"classifiers":[{"from":{"endpoint":"w1/eth0"},"to":{"any":true}}]}`, vnet.ErrInvalid, "network blue/lan is on a wire"},
		{`{"groups":["fw"],"classifiers":[{"from":{"endpoint":"f1/eth1"},"to":{"any":true}}]}`, vnet.ErrInvalid, "chain blue/new leads through group fw, so f1/eth1 cannot be its function and its client or server, too"},
		{
			`{"groups":["fw"],"priority":5,"classifiers":[{"from":{"any":true},"to":{"network":"web"}},{"from":{"any":true},"to":{"prefix":"192.0.2.7/24"},"protocol":"tcp","destinationPorts":["80-81"]}]}`,
			vnet.ErrExists, "chain blue/old of the same priority, 5, has the same classifier: from any to 192.0.2.0/24 tcp ports 80-81",
		},
		{`{"groups":["fw","nat"],` + toWeb + `}`, vnet.ErrExists, "group blue/nat rewrites packets and serves chain blue/old already"},
	} {
		err := putChain(t, s, "new", tc.chain)
		wantRefused(t, s, before, err, tc.kind, tc.want)
		if !errors.Is(tc.kind, vnet.ErrInvalid) && vnet.Hint(err) == "" {
			t.Errorf("no hint what to do about: %v", err)
		}
	}
	for _, allowed := range []string{
		`{"groups":["fw"],"priority":6,"classifiers":[{"from":{"any":true},"to":{"prefix":"192.0.2.0/24"},"protocol":"tcp","destinationPorts":[80,81]}]}`, // another priority
		`{"groups":["ids"],"classifiers":[{"from":{"endpoint":"f1/eth1"},"to":{"any":true}}]}`,                                                            // a function is a client like others where it does not serve
		`{"groups":["fw"],"classifiers":[{"from":{"labels":{"to":"come"}},"to":{"any":true}}]}`,
	} {
		if err := putChain(t, s, "new", allowed); err != nil {
			t.Errorf("%s: %v", allowed, err)
		}
	}
	if err := putChain(t, s, "old", `{"groups":["fw","nat"],"priority":5,`+toWeb+`}`); err != nil {
		t.Errorf("a chain may be changed, and is not in its own way: %v", err)
	}
	view(t, s, func(tx store.Tx) error {
		c, err := store.Chain(tx, vnet.ChainRef{Tenant: "blue", Chain: "old"})
		if err == nil && (!slices.Equal(c.Groups, []vnet.GroupName{"fw", "nat"}) || c.Symmetric == nil) {
			t.Errorf("it is stored as %+v", c)
		}
		return err
	})
}

// What was exported can be applied again, and the chain be changed, whoever has gone since.
func TestAChainMayGoOnNamingAnEndpointThatHasGone(t *testing.T) {
	s := chained(t)
	c1, c2 := endpoint("c1"), endpoint("c2")
	update(t, s, attached(&c1, &c2))
	const both = `"classifiers":[{"from":{"endpoint":"c1/eth0"},"to":{"network":"web"}},{"from":{"any":true},"to":{"endpoint":"c2/eth0"}}]}`
	if err := putChain(t, s, "in", `{"groups":["fw"],`+both); err != nil {
		t.Fatal(err)
	}
	update(t, s,
		func(tx store.Tx) error { return store.DeleteEndpoint(tx, c1) },
		func(tx store.Tx) error { return store.DeleteEndpoint(tx, c2) })
	theirs := endpoint("c2") // by now another tenant's
	theirs.Tenant, theirs.Network = "red", "db"
	update(t, s, attached(&theirs))
	before := everything(t, s)
	if err := putChain(t, s, "in", `{"groups":["fw"],`+both); err != nil || !maps.Equal(before, everything(t, s)) {
		t.Errorf("as it stands: %v", err)
	}
	if err := putChain(t, s, "in", `{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"endpoint":"c9/eth0"}}]}`); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("with another endpoint that is not there: %v", err)
	}
	before = everything(t, s)
	wantRefused(t, s, before, putChain(t, s, "other", `{"groups":["ids"],"priority":1,`+both), vnet.ErrNotFound, "classifier 1: tenant blue has no endpoint c1/eth0")
	if err := putChain(t, s, "in", `{"groups":["fw","ids"],"classifiers":[{"from":{"any":true},"to":{"endpoint":"c1/eth0"},"protocol":"tcp"}]}`); err != nil {
		t.Errorf("changed in all but the endpoint: %v", err)
	}
	err := putChain(t, s, "in", `{"groups":["fw"],`+both) // c2 is named no more
	wantRefused(t, s, everything(t, s), err, vnet.ErrNotFound, "classifier 2: tenant blue has no endpoint c2/eth0")
}

// With a tenant's first chain those who stand are tracked, too; ports of functions are not, but for those from which
// rewritten traffic goes on.
func TestTheFirstChainGivesZonesToWhoeverMayBeLed(t *testing.T) {
	s := chained(t)
	client, wire := endpoint("c1"), endpoint("w1")
	wire.Network = "lan"
	in, out := member("f1", "eth0", "fw", vnet.Ingress), member("f1", "eth1", "fw", vnet.Egress)
	natIn, natOut := member("n1", "eth0", "nat", vnet.Ingress), member("n1", "eth1", "nat", vnet.Egress)
	update(t, s,
		func(tx store.Tx) error { _, err := store.DeclareGateway(tx, client.Ref()); return err },
		func(tx store.Tx) error { _, err := store.DeclareGateway(tx, wire.Ref()); return err },
		attached(&client, &wire, &in, &out, &natIn, &natOut))
	zones := func() map[string]vnet.Zone {
		all := map[string]vnet.Zone{}
		view(t, s, func(tx store.Tx) error {
			endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
			for _, e := range endpoints {
				if e.Zone != 0 {
					all[e.Attachment.String()] = e.Zone
				}
			}
			for _, network := range []vnet.NetworkName{"web", "lan"} {
				g, err := store.NetworkGateway(tx, vnet.Ref{Tenant: "blue", Network: network})
				if err != nil {
					return err
				}
				if g.Outside != 0 {
					all[string(network)] = g.Outside
				}
			}
			return err
		})
		return all
	}
	if before := zones(); len(before) > 0 {
		t.Errorf("without a chain there are zones: %v", before)
	}
	if err := putChain(t, s, "first", `{"groups":["fw"],`+toWeb+`}`); err != nil {
		t.Fatal(err)
	}
	late, lateIn := endpoint("c2"), member("f2", "eth0", "fw", vnet.Ingress)
	update(t, s, attached(&late, &lateIn))
	given := zones()
	if got, want := slices.Sorted(maps.Keys(given)), []string{"c1/eth0", "c2/eth0", "n1/eth1", "web"}; !slices.Equal(got, want) {
		t.Errorf("zones have %v, want %v", got, want)
	}
	if distinct := slices.Compact(slices.Sorted(maps.Values(given))); len(distinct) != len(given) {
		t.Errorf("two share a zone: %v", given)
	}
	if err := putChain(t, s, "second", `{"groups":["ids"],`+toWeb+`,"priority":1}`); err != nil {
		t.Fatal(err)
	}
	if again := zones(); !maps.Equal(given, again) {
		t.Errorf("with the second chain the zones are %v, were %v", again, given)
	}
	// A network that gets its way to the host later has its zone at once.
	update(t, s, func(tx store.Tx) error {
		if _, err := store.DeclareNetwork(tx, network(t, `{"tenant":"blue","name":"late","subnets":[{"prefix":"10.0.2.0/24"}]}`)); err != nil {
			return err
		}
		g, err := store.DeclareGateway(tx, vnet.Ref{Tenant: "blue", Network: "late"})
		if g.Outside == 0 {
			t.Error("the later network has no zone for what is outside")
		}
		return err
	})
	other := endpoint("r1")
	other.Tenant, other.Network = "red", "db"
	update(t, s, attached(&other))
	if other.Zone != 0 {
		t.Error("an endpoint of a tenant without chains is tracked")
	}
}

func TestWhatAChainNamesStays(t *testing.T) {
	s := chained(t)
	if err := putChain(t, s, "web-in", `{"groups":["fw"],`+toWeb+`}`); err != nil {
		t.Fatal(err)
	}
	before := everything(t, s)
	web, ref := vnet.Ref{Tenant: "blue", Network: "web"}, vnet.ChainRef{Tenant: "blue", Chain: "web-in"}
	deleteNetwork := func(tx store.Tx) error { return store.DeleteNetwork(tx, web) }
	deleteGroup := func(tx store.Tx) error { return store.DeleteGroup(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"}) }
	deleteTenant := func(tx store.Tx) error { return store.DeleteTenant(tx, "blue") }
	refused := func(step func(store.Tx) error, text, hint string) {
		t.Helper()
		err := s.Update(t.Context(), step)
		wantRefused(t, s, before, err, vnet.ErrExists, text)
		if !strings.Contains(vnet.Hint(err), hint) {
			t.Errorf("%v: the hint is %q, want %q", err, vnet.Hint(err), hint)
		}
	}
	refused(deleteNetwork, "network blue/web is named by chain blue/web-in", "tenetctl chain del blue/web-in")
	refused(deleteGroup, "chain blue/web-in leads through group blue/fw", "tenetctl chain del blue/web-in")
	refused(deleteTenant, "tenant blue still has 1 chains", "tenetctl chain list --tenant blue")

	update(t, s, func(tx store.Tx) error { return store.DeleteChain(tx, ref) }, deleteNetwork)
	before = everything(t, s)
	refused(deleteTenant, "tenant blue still has 3 groups", "tenetctl group list --tenant blue")
	update(t, s, deleteGroup)
	err := s.Update(t.Context(), func(tx store.Tx) error { return store.DeleteChain(tx, ref) })
	if !errors.Is(err, vnet.ErrNotFound) || !strings.Contains(err.Error(), "chain blue/web-in does not exist") {
		t.Errorf("deleted twice: %v", err)
	}
}

// legs makes legs, one for each number of paths; their numbers are to be given.
func legs(paths ...int) []vnet.Leg {
	var all []vnet.Leg
	for _, n := range paths {
		all = append(all, vnet.Leg{Paths: make([]vnet.Path, n)})
	}
	return all
}

func pathIDs(legs []vnet.Leg) []vnet.PathID {
	var ids []vnet.PathID
	for _, l := range legs {
		for _, p := range l.Paths {
			ids = append(ids, p.ID)
		}
	}
	return ids
}

// noon is a time, and the hours after it are others.
var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func after(hours int) time.Time { return noon.Add(time.Duration(hours) * time.Hour) }

// putLegs writes a chain's legs at a time.
func putLegs(t *testing.T, s store.Store, chain vnet.ChainName, now []vnet.Leg, at time.Time) []vnet.Leg {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		return store.PutLegs(tx, vnet.ChainRef{Tenant: "blue", Chain: chain}, now, at)
	})
	return now
}

// wantNumbers compares the records of the numbers of paths and legs.
func wantNumbers(t *testing.T, s store.Store, want map[string]string) {
	t.Helper()
	got := everything(t, s)
	maps.DeleteFunc(got, func(key, _ string) bool {
		return !strings.HasPrefix(key, "path-ids/") && !strings.HasPrefix(key, "leg-numbers/")
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("numbers (-want +got):\n%s", diff)
	}
}

// A connection carries its path's number, which another path is not given while one may.
func TestNumbersOfPathsRestBeforeTheyAreGivenAgain(t *testing.T) {
	s := chained(t)
	first := putLegs(t, s, "one", legs(2, 1), noon)
	if got := pathIDs(first); !slices.Equal(got, []vnet.PathID{1, 2, 3}) || first[0].Number != 1 || first[1].Number != 2 {
		t.Errorf("the first paths are %v of legs %d and %d", got, first[0].Number, first[1].Number)
	}
	second := putLegs(t, s, "two", legs(1), noon)
	if got := pathIDs(second); !slices.Equal(got, []vnet.PathID{4}) || second[0].Number != 3 {
		t.Errorf("another chain's are %v of leg %d", got, second[0].Number)
	}
	first[0].Paths[1].Retired = after(1)
	putLegs(t, s, "one", first, after(1))
	// What stands keeps its numbers, a new path has the next.
	now := []vnet.Leg{{Number: first[0].Number, Paths: []vnet.Path{first[0].Paths[0], {}}}}
	if got := pathIDs(putLegs(t, s, "one", now, after(2))); !slices.Equal(got, []vnet.PathID{1, 5}) {
		t.Errorf("after a change the paths are %v", got)
	}
	wantNumbers(t, s, map[string]string{
		"path-ids/1": "blue/one", "path-ids/5": "blue/one", "path-ids/4": "blue/two",
		"path-ids/2": "resting since 2026-01-02T13:00:00Z", "path-ids/3": "resting since 2026-01-02T14:00:00Z",
		"leg-numbers/1": "blue/one", "leg-numbers/3": "blue/two",
	})
	// When all numbers have been round, those at rest are left out.
	update(t, s, put("meta/next-path", "32767"))
	if got := pathIDs(putLegs(t, s, "two", legs(2), after(3))); !slices.Equal(got, []vnet.PathID{vnet.MaxPath, 6}) {
		t.Errorf("at the end of the numbers come %v", got)
	}
	view(t, s, func(tx store.Tx) error {
		resting, err := store.RestingPaths(tx)
		want := []vnet.Path{{ID: 2, Retired: after(1)}, {ID: 3, Retired: after(2)}, {ID: 4, Retired: after(3)}}
		if diff := cmp.Diff(want, resting); diff != "" {
			t.Errorf("at rest (-want +got):\n%s", diff)
		}
		return err
	})
	update(t, s, func(tx store.Tx) error {
		return store.FreePaths(tx, func(p vnet.Path) bool { return p.Retired.Before(after(2)) })
	})
	update(t, s, put("meta/next-path", "1"))
	if got := pathIDs(putLegs(t, s, "three", legs(1), after(4))); !slices.Equal(got, []vnet.PathID{2}) {
		t.Errorf("a number that has rested is free, but a path has got %v", got)
	}
}

func TestNumbersOfADeletedChainHinderNobody(t *testing.T) {
	s := empty(t)
	update(t, s, func(tx store.Tx) error { return store.PutGroup(tx, vnet.Group{Tenant: "blue", Name: "fw"}) })
	if err := putChain(t, s, "one", `{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"any":true}}]}`); err != nil {
		t.Fatal(err)
	}
	putLegs(t, s, "one", legs(1, 1), noon)
	began := time.Now()
	update(t, s,
		func(tx store.Tx) error {
			return store.DeleteChain(tx, vnet.ChainRef{Tenant: "blue", Chain: "one"})
		},
		func(tx store.Tx) error {
			return store.DeleteGroup(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"})
		},
		func(tx store.Tx) error { return store.DeleteTenant(tx, "blue") },
		func(tx store.Tx) error {
			resting, err := store.RestingPaths(tx)
			if len(resting) != 2 || resting[0].Retired.Before(began) || resting[0].Retired.After(time.Now()) {
				t.Errorf("at rest since the chain went, %s, are %v", began, resting)
			}
			return err
		},
		func(tx store.Tx) error { return store.FreePaths(tx, func(vnet.Path) bool { return true }) },
	)
	wantNumbers(t, s, map[string]string{})
}

// taken takes all numbers of paths but those.
func taken(t *testing.T, s store.Store, but ...vnet.PathID) {
	t.Helper()
	update(t, s, func(tx store.Tx) error {
		for id := vnet.PathID(1); id <= vnet.MaxPath; id++ {
			if slices.Contains(but, id) {
				continue
			}
			if err := tx.Put(fmt.Sprintf("path-ids/%d", id), []byte("red/other")); err != nil {
				return err
			}
		}
		return nil
	})
}

func TestWhenAllPathsAreTakenNothingIsChanged(t *testing.T) {
	s := chained(t)
	taken(t, s, 7)
	before := everything(t, s)
	err := s.Update(t.Context(), func(tx store.Tx) error {
		return store.PutLegs(tx, vnet.ChainRef{Tenant: "blue", Chain: "one"}, legs(2), noon)
	})
	wantRefused(t, s, before, err, vnet.ErrExhausted, "all 32767 numbers of paths are in use")
	putLegs(t, s, "one", legs(1), noon) // the last one
}

// A chain's new paths may need the numbers of its old ones: at rest, they are taken rather than that nobody is led.
func TestWhenNumbersRunOutThoseAtRestAreTaken(t *testing.T) {
	s := chained(t)
	taken(t, s, 7, 8, 9)
	first := putLegs(t, s, "one", legs(2), noon)
	now := []vnet.Leg{{Number: first[0].Number, Paths: []vnet.Path{first[0].Paths[1], {}, {}}}}
	if got := pathIDs(putLegs(t, s, "one", now, after(1))); !slices.Equal(got, []vnet.PathID{8, 9, 7}) {
		t.Errorf("of the last three numbers the paths have %v", got)
	}
	update(t, s, func(tx store.Tx) error { return tx.Put("path-ids/1", []byte("resting since ever")) })
	err := s.Update(t.Context(), func(tx store.Tx) error {
		return store.PutLegs(tx, vnet.ChainRef{Tenant: "blue", Chain: "two"}, legs(1), noon)
	})
	if !errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), "path-ids/1") {
		t.Errorf("got %v, want an ErrCorrupt that names the record", err)
	}
}
