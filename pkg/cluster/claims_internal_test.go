package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// etcdSays is a follower that hears of nodes and of a tenant's endpoints, in the order in which etcd was told of them.
type etcdSays struct {
	follower
	revision int64
	stands   map[string]etcd.Event
}

func newEtcdSays(t *testing.T) *etcdSays {
	t.Helper()
	s := &etcdSays{follower: newFollower(t), revision: 10, stands: map[string]etcd.Event{}}
	s.me.record.VTEP, s.me.record.Encapsulation = vtep(1), vnet.VXLAN
	s.hears(map[string]string{"tenants/blue": `{"name":"blue","number":3}`})
	s.hears(map[string]string{"networks/blue/web": `{"tenant":"blue","name":"web","vni":7,"subnets":[{"prefix":"10.1.0.0/24","gateway":"10.1.0.1"}]}`})
	s.tenants["blue"] = newTenant("blue", func() {})
	return s
}

// event is a change of a key; "" deletes it.
func (s *etcdSays) event(key, text string) etcd.Event {
	s.revision++
	e := etcd.Event{Key: key, Revision: s.revision}
	if text == "" {
		delete(s.stands, key)
		return e
	}
	e.Value = []byte(text)
	s.stands[key] = e
	return e
}

// tells tells of these changes at once.
func (s *etcdSays) tells(events ...etcd.Event) {
	s.t.Helper()
	s.apply(false, events)
}

// lists tells of all that stands, in the order of its keys, as Mirror does.
func (s *etcdSays) lists() {
	s.t.Helper()
	var all []etcd.Event
	for _, key := range slices.Sorted(maps.Keys(s.stands)) {
		all = append(all, s.stands[key])
	}
	s.apply(true, all)
}

func (s *etcdSays) apply(whole bool, events []etcd.Event) {
	s.t.Helper()
	s.order.Lock()
	defer s.order.Unlock()
	must(s.t, s.applyNodes(s.t.Context(), whole, events))
	must(s.t, s.takeOver(s.t.Context(), &news{tenant: s.tenants["blue"], whole: whole, events: events}))
}

// begins has another tenetd of the node, which remembers nothing, follow.
func (s *etcdSays) begins() {
	s.t.Helper()
	s.tenants["blue"] = newTenant("blue", func() {})
	clear(s.nodes)
	s.vteps = nil
	s.lists()
}

func endpointText(node, id, address, mac string) (string, string) {
	return "endpoints/blue/web/" + node + "/" + id, fmt.Sprintf(`{"container":%q,"ifName":"eth0","id":%[1]q,"node":%q,"tenant":"blue","network":"web","mac":%q,"addrs":["%s/24"]}`, id, node, mac, address)
}

func (s *etcdSays) endpoint(node, id string, last int) etcd.Event {
	return s.event(endpointText(node, id, fmt.Sprintf("10.1.0.%d", last), fmt.Sprintf("0a:58:0a:01:00:%02x", last)))
}

func (s *etcdSays) odd(node, id, address, mac string) etcd.Event {
	return s.event(endpointText(node, id, address, mac))
}

func (s *etcdSays) gone(node, id string) etcd.Event {
	return s.event("endpoints/blue/web/"+node+"/"+id, "")
}

// wants fails the test unless these and no others are recorded, each as NODE/ID ADDRESS.
func (s *etcdSays) wants(what string, want ...string) {
	s.t.Helper()
	var have []string
	must(s.t, store.OpenBolt(s.DataDir).View(s.t.Context(), func(tx store.Tx) error {
		all, err := store.All[vnet.Remote](tx, store.Remotes)
		for _, r := range all {
			have = append(have, fmt.Sprintf("%s/%s %s", r.Node, r.ID, r.Addrs[0].Addr()))
		}
		return err
	}))
	if slices.Sort(want); !slices.Equal(have, want) {
		s.t.Errorf("%s: there are %v, not %v", what, have, want)
	}
}

// says fails the test unless so many lines of the log are errors that have all the words.
func (s *etcdSays) says(times int, words ...string) {
	s.t.Helper()
	found := 0
	for line := range strings.Lines(s.said.String()) {
		if strings.Contains(line, "level=ERROR") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			found++
		}
	}
	if found != times {
		s.t.Errorf("it says %q %d times, not %d: %s", words, found, times, s.said)
	}
}

// ways are those in which a node hears of the same changes.
var ways = map[string]func(*etcdSays, []etcd.Event){
	"one by one": func(s *etcdSays, all []etcd.Event) {
		for _, e := range all {
			s.tells(e)
		}
	},
	"at once": func(s *etcdSays, all []etcd.Event) { s.tells(all...) },
	"listed":  func(s *etcdSays, _ []etcd.Event) { s.lists() },
	"begun":   func(s *etcdSays, _ []etcd.Event) { s.begins() },
}

// An endpoint that has what is another's is left out of account, is told of once, and neither coming nor going changes
// anything for that one, whatever is listed anew meanwhile, by this tenetd or another.
func TestAnEndpointThatHasAnothersAddressIsLeftOut(t *testing.T) {
	for what, c := range map[string]struct{ node, address, mac, whose string }{
		"an address":                 {"n3", "10.1.0.5", "0a:58:0a:01:00:63", "endpoint e of node n2"},
		"an address on its own node": {"n2", "10.1.0.5", "0a:58:0a:01:00:63", "endpoint e of node n2"},
		"a MAC":                      {"n3", "10.1.0.99", "0a:58:0a:01:00:05", "endpoint e of node n2"},
		"the gateway's address":      {"n3", "10.1.0.1", "0a:58:0a:01:00:63", "network blue/web"},
		"an address here":            {"n3", "10.1.0.7", "0a:58:0a:01:00:63", "endpoint here of this node"},
		"a MAC here":                 {"n3", "10.1.0.99", "0a:58:0a:01:00:07", "endpoint here of this node"},
		"an address of no subnet":    {"n3", "10.9.0.9", "0a:58:0a:01:00:63", "in no subnet"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newEtcdSays(t)
			e := vnet.Endpoint{Attachment: vnet.Attachment{Container: "here", IfName: "eth0"}, ID: "here", Tenant: "blue", Network: "web", MAC: vnet.MAC{0x0a, 0x58, 0x0a, 1, 0, 7}, State: vnet.Ready, Bridge: s.Bridge}
			e.Addrs = append(e.Addrs, netip.MustParsePrefix("10.1.0.7/24"))
			s.update(func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
			s.tells(s.endpoint("n2", "e", 5))
			for _, id := range []string{"a", "z"} { // which is listed before it, or after
				s.tells(s.odd(c.node, id, c.address, c.mac))
				s.wants("put", "n2/e 10.1.0.5")
				s.tells(s.endpoint("n2", "e", 5)) // and is written once more
				s.lists()
				s.wants("listed", "n2/e 10.1.0.5")
				s.says(1, "tenant=blue network=web endpoint="+id+" node="+c.node, c.whose)
				s.begins()
				s.wants("begun", "n2/e 10.1.0.5")
				s.tells(s.gone(c.node, id))
				s.wants("deleted", "n2/e 10.1.0.5")
			}
		})
	}
}

// One that is left out is taken over when the one whose it was has gone, and what was known of it before stays until then.
func TestAnEndpointIsTakenOverWhenWhatItHasIsFree(t *testing.T) {
	s := newEtcdSays(t)
	s.tells(s.endpoint("n2", "e", 5), s.endpoint("n3", "f", 6))
	s.tells(s.endpoint("n3", "f", 5))
	s.wants("left out", "n2/e 10.1.0.5", "n3/f 10.1.0.6")
	s.lists()
	s.wants("listed", "n2/e 10.1.0.5", "n3/f 10.1.0.6")
	s.begins()
	s.wants("begun", "n2/e 10.1.0.5", "n3/f 10.1.0.6")
	s.tells(s.gone("n2", "e"))
	s.wants("free", "n3/f 10.1.0.5")
	s.tells(s.event("endpoints/blue/db/n3/d", strings.Replace(string(s.endpoint("n3", "d", 9).Value), `"network":"web"`, `"network":"db"`, 1)))
	s.tells(s.gone("n3", "d"))
	s.wants("its network is to come", "n3/f 10.1.0.5")
	declared := map[string]string{"networks/blue/db": `{"tenant":"blue","name":"db","vni":8,"subnets":[{"prefix":"10.1.0.0/24"}]}`}
	s.hears(declared)
	must(t, s.reconsider(t.Context()))
	s.wants("its network is there", "n3/d 10.1.0.9", "n3/f 10.1.0.5")
	s.says(2, "endpoint=f") // once by each tenetd
	s.says(2)
}

// What is on this node stands, also before what came first; and what only says that it is on this node takes nothing.
func TestAnEndpointOfThisNodeStandsBeforeOthers(t *testing.T) {
	s := newEtcdSays(t)
	s.tells(s.endpoint("n2", "e", 5), s.endpoint("n3", "f", 6))
	s.tells(s.endpoint("n3", "z", 6))
	s.tells(s.endpoint("n1", "stranger", 6))
	s.wants("a stranger's", "n2/e 10.1.0.5", "n3/f 10.1.0.6")
	e := vnet.Endpoint{Attachment: vnet.Attachment{Container: "here", IfName: "eth0"}, ID: "here", Tenant: "blue", Network: "web", MAC: vnet.MAC{0x0a, 0x58, 0x0a, 1, 0, 5}, State: vnet.Ready, Bridge: s.Bridge}
	e.Addrs = append(e.Addrs, netip.MustParsePrefix("10.1.0.5/24"))
	s.update(func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
	s.tells(s.endpoint("n1", "here", 5))
	s.wants("come", "n3/f 10.1.0.6")
	s.says(1, "endpoint=e node=n2", "endpoint here of this node")
	s.begins()
	s.wants("begun", "n3/f 10.1.0.6")
	s.update(func(tx store.Tx) error { return store.DeleteEndpoint(tx, e) })
	must(t, s.leave(t.Context(), map[vnet.TenantName]bool{"blue": true})) // whether or not etcd was told of it
	s.wants("gone", "n2/e 10.1.0.5", "n3/f 10.1.0.6")
}

// What nodes do in good order is followed, whether it is heard of one by one, at once, or by a list.
func TestEndpointsThatChangePlacesAreFollowed(t *testing.T) {
	for what, do := range map[string]func(*etcdSays) ([]etcd.Event, []string){
		"anew with another address": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.gone("n2", "e"), s.endpoint("n2", "e", 9)}, []string{"n2/e 10.1.0.9", "n3/f 10.1.0.6"}
		},
		"another address": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.endpoint("n2", "e", 9)}, []string{"n2/e 10.1.0.9", "n3/f 10.1.0.6"}
		},
		"an address on another node": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.gone("n2", "e"), s.endpoint("n3", "a", 5)}, []string{"n3/a 10.1.0.5", "n3/f 10.1.0.6"}
		},
		"two change places": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.gone("n2", "e"), s.gone("n3", "f"), s.endpoint("n2", "e", 6), s.endpoint("n3", "f", 5)}, []string{"n2/e 10.1.0.6", "n3/f 10.1.0.5"}
		},
		"one after the other": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.endpoint("n2", "e", 9), s.endpoint("n3", "f", 5), s.endpoint("n2", "e", 6)}, []string{"n2/e 10.1.0.6", "n3/f 10.1.0.5"}
		},
		"back and forth": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.gone("n2", "e"), s.endpoint("n2", "g", 5), s.gone("n2", "g"), s.endpoint("n2", "e", 5)}, []string{"n2/e 10.1.0.5", "n3/f 10.1.0.6"}
		},
	} {
		for how, hear := range ways {
			t.Run(what+" "+how, func(t *testing.T) {
				s := newEtcdSays(t)
				s.tells(s.endpoint("n2", "e", 5), s.endpoint("n3", "f", 6))
				all, want := do(s)
				hear(s, all)
				s.wants(how, want...)
				s.says(0)
			})
		}
	}
}

func (s *etcdSays) node(name string, last int) etcd.Event {
	return s.event("nodes/"+name, fmt.Sprintf(`{"name":%q,"vtep":%q,"mtu":1500}`, name, vtep(last)))
}

// wantsNodes fails the test unless these and no others are recorded, each as NAME ADDRESS, and known.
func (s *etcdSays) wantsNodes(what string, want ...string) {
	s.t.Helper()
	var have []string
	must(s.t, store.OpenBolt(s.DataDir).View(s.t.Context(), func(tx store.Tx) error {
		all, err := store.Peers(tx)
		for _, p := range all {
			have = append(have, fmt.Sprintf("%s %s", p.Name, p.VTEP))
		}
		return err
	}))
	if slices.Sort(want); !slices.Equal(have, want) {
		s.t.Errorf("%s: there are %v, not %v", what, have, want)
	}
	if known := len(s.nodes); known != len(want)+1 {
		s.t.Errorf("%s: %d nodes are known beside this one", what, known-1)
	}
}

// A node that has the address of another, or of this one, is left out of account likewise.
func TestANodeThatHasAnothersAddressIsLeftOut(t *testing.T) {
	for _, c := range []struct {
		last  int
		whose string
	}{{2, "node n2"}, {1, "node n1"}} {
		s := newEtcdSays(t)
		s.tells(s.node("n1", 1), s.node("n2", 2), s.node("n3", 3))
		for _, name := range []string{"a", "x"} {
			s.tells(s.node(name, c.last))
			s.wantsNodes("put", "n2 192.0.2.2", "n3 192.0.2.3")
			s.tells(s.node("n2", 2), s.node("n1", 1))
			s.lists()
			s.wantsNodes("listed", "n2 192.0.2.2", "n3 192.0.2.3")
			s.says(1, "left out of account", "node="+name, c.whose)
			s.begins()
			s.wantsNodes("begun", "n2 192.0.2.2", "n3 192.0.2.3")
			s.tells(s.event("nodes/"+name, ""))
			s.wantsNodes("deleted", "n2 192.0.2.2", "n3 192.0.2.3")
		}
		s.tells(s.node("n3", c.last))
		s.wantsNodes("of one that is known", "n2 192.0.2.2", "n3 192.0.2.3")
		s.tells(s.event("nodes/n3", "damaged"))
		s.begins()
		s.wantsNodes("of one that cannot be read", "n2 192.0.2.2", "n3 192.0.2.3")
	}
}

// A node moves to another address, and another takes that of one that was removed, or that has moved.
func TestNodesThatChangeAddressesAreFollowed(t *testing.T) {
	for what, do := range map[string]func(*etcdSays) ([]etcd.Event, []string){
		"one moves": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.node("n2", 9)}, []string{"n2 192.0.2.9", "n3 192.0.2.3"}
		},
		"a new one": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.event("nodes/n2", ""), s.node("a", 2)}, []string{"a 192.0.2.2", "n3 192.0.2.3"}
		},
		"another has moved": func(s *etcdSays) ([]etcd.Event, []string) {
			return []etcd.Event{s.node("n2", 9), s.node("n3", 2), s.node("n2", 3)}, []string{"n2 192.0.2.3", "n3 192.0.2.2"}
		},
	} {
		for how, hear := range ways {
			t.Run(what+" "+how, func(t *testing.T) {
				s := newEtcdSays(t)
				s.tells(s.node("n1", 1), s.node("n2", 2), s.node("n3", 3))
				all, want := do(s)
				hear(s, all)
				s.wantsNodes(how, want...)
				s.says(0)
			})
		}
	}
}

func vtep(last int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(last)}) }

// Endpoints of a network on a wire are told of, and lead nobody: whether their network is known when they come or not, and
// whatever they claim. Nothing of them is kept.
func TestWhoIsOnAWireIsNotLedTo(t *testing.T) {
	s := newEtcdSays(t)
	onWire := func(node, id string, last int) etcd.Event {
		key, text := endpointText(node, id, fmt.Sprintf("10.2.0.%d", last), fmt.Sprintf("0a:58:0a:02:00:%02x", last))
		change := strings.NewReplacer("blue/web", "blue/lan", `"network":"web"`, `"network":"lan"`)
		return s.event(change.Replace(key), change.Replace(text))
	}
	out := func(want int) {
		t.Helper()
		if n := len(s.tenants["blue"].claims.out); n != want {
			t.Errorf("%d records are kept that are not taken over, not %d", n, want)
		}
	}
	s.tells(s.endpoint("n2", "a", 2), onWire("n2", "early", 3))
	out(1)
	s.hears(map[string]string{"networks/blue/lan": `{"tenant":"blue","name":"lan","vni":8,"subnets":[{"prefix":"10.2.0.0/24"}],"provider":{"uplink":"lan","vlan":7}}`})
	must(t, s.reconsider(t.Context()))
	s.tells(onWire("n2", "late", 4), onWire("n3", "twin", 4))
	s.wants("told of", "n2/a 10.1.0.2")
	out(0)
	s.lists()
	s.wants("listed", "n2/a 10.1.0.2")
	s.begins()
	s.wants("begun anew", "n2/a 10.1.0.2")
	out(0)
	s.says(0, "left out of account")
}
