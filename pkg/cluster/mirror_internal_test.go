package cluster

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// follower is the agent of node n1, without an etcd and without a switch: the test says what comes from etcd.
type follower struct {
	*Agent
	t      *testing.T
	said   *bytes.Buffer
	stands map[string][]byte // in etcd
}

func newFollower(t *testing.T) follower {
	t.Helper()
	said, dir := &bytes.Buffer{}, t.TempDir()
	a, err := New(node.Config{Name: "n1", Bridge: "br-tenet", DataDir: filepath.Join(dir, "data"), OVSRunDir: filepath.Join(dir, "no-switch"), Etcd: node.Etcd{Endpoints: []string{"http://127.0.0.1:1"}}},
		Options{}, nil, slog.New(slog.NewTextHandler(said, nil)))
	must(t, err)
	t.Cleanup(a.etcd.Close)
	f := follower{Agent: a, t: t, said: said, stands: map[string][]byte{}}
	f.update(func(tx store.Tx) error {
		must(t, store.JoinCluster(tx, "n1"))
		return store.PutOverlay(tx, store.Overlay{Peer: vnet.Peer{Name: "n1"}, Bridge: "br-tenet"})
	})
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (f follower) update(do func(store.Tx) error) {
	f.t.Helper()
	must(f.t, store.OpenBolt(f.DataDir).Update(f.t.Context(), do))
}

// hears has the node take over a change: by keys, what is written there; empty: it was deleted.
func (f follower) hears(changes map[string]string) {
	f.t.Helper()
	values := map[string][]byte{}
	for key, text := range changes {
		values[key] = []byte(text)
		if text == "" {
			values[key] = nil
		}
		if f.stands[key] = values[key]; text == "" {
			delete(f.stands, key)
		}
	}
	must(f.t, f.declare(f.t.Context(), false, values))
}

// lists has it take over all as it stands.
func (f follower) lists() {
	f.t.Helper()
	must(f.t, f.declare(f.t.Context(), true, f.stands))
}

func (f follower) has(key string) bool { return f.recorded(key) != "" }

// recorded is what the node's store has there.
func (f follower) recorded(key string) string {
	f.t.Helper()
	text := ""
	must(f.t, store.OpenBolt(f.DataDir).View(f.t.Context(), func(tx store.Tx) error {
		text = string(tx.Get(key))
		return nil
	}))
	return text
}

// What is deleted in the cluster while somebody here needs it, who could not be published in time, stays until nobody does.
func TestWhatIsDeletedStaysWhileItIsNeeded(t *testing.T) {
	f := newFollower(t)
	declared := map[string]string{
		"tenants/blue": `{"name":"blue","number":3}`, "groups/blue/fw": `{"tenant":"blue","name":"fw"}`, "groups/blue/ids": `{"tenant":"blue","name":"ids"}`,
		"networks/blue/web": `{"tenant":"blue","name":"web","vni":7,"subnets":[{"prefix":"10.1.0.0/24"}]}`,
	}
	f.hears(declared)
	e := vnet.Endpoint{Attachment: vnet.Attachment{Container: "f1", IfName: "eth0"}, ID: "f1", Tenant: "blue", Network: "web", MAC: vnet.MAC{2, 0, 0, 0, 0, 1}, State: vnet.Ready, Bridge: f.Bridge, Function: &vnet.FunctionPort{Group: "fw", Port: vnet.Both, Weight: 1}}
	f.update(func(tx store.Tx) error {
		must(t, store.PutEndpoint(tx, &e))
		return store.JoinGroup(tx, e)
	})
	gone := map[string]string{}
	for key := range declared {
		gone[key] = ""
	}
	has := func(want bool, when string) {
		t.Helper()
		for _, key := range []string{"tenants/blue", "groups/blue/fw", "networks/blue/web"} {
			if f.has(key) != want {
				t.Errorf("%s: that %s is there is %t", when, key, !want)
			}
		}
		if f.has("groups/blue/ids") {
			t.Errorf("%s: there is a group that nobody serves in", when)
		}
	}
	f.hears(gone)
	has(true, "deleted")
	f.lists()
	has(true, "not listed")
	_, err := f.forgetKept(t.Context())
	must(t, err)
	has(true, "looked at")
	if n := strings.Count(f.said.String(), "key=groups/blue/fw"); n != 1 {
		t.Errorf("it is told of %d times: %s", n, f.said)
	}
	f.update(func(tx store.Tx) error {
		_, err := store.LeaveGroup(tx, e)
		must(t, err)
		return store.DeleteEndpoint(tx, e)
	})
	_, err = f.forgetKept(t.Context())
	must(t, err)
	has(false, "nobody is left")
}

// A record that makes no sense changes nothing at the node, keeps no other from being taken over, and is told of.
func TestRecordsThatMakeNoSenseAreLeftOut(t *testing.T) {
	const network = `{"tenant":"blue","name":"web","vni":7,"subnets":[{"prefix":"10.1.0.0/24"}]}`
	const legs = `[{"number":1,"groups":["fw"],"paths":[{"id":1,"hops":[{"group":"fw","instance":1,"node":"n2"}],"weight":1}]}]`
	const chain = `{"tenant":"blue","name":"c","groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"any":true}}]}`
	good := map[string]string{
		"tenants/blue": `{"name":"blue","number":3}`, "networks/blue/web": network,
		"groups/blue/fw": `{"tenant":"blue","name":"fw"}`, "chains/blue/c": chain, "legs/blue/c": legs,
	}
	heavy := strings.Replace(legs, `"weight":1`, `"weight":4611686018427387904`, 1)
	for what, bad := range map[string]struct{ key, text string }{
		"a tenant by another's key":  {"tenants/red", good["tenants/blue"]},
		"a tenant without number":    {"tenants/blue", `{"name":"blue"}`},
		"a network by another's key": {"networks/red/web", network},
		"a network without VNI":      {"networks/blue/web", strings.Replace(network, `"vni":7,`, "", 1)},
		"a group by another's key":   {"groups/red/fw", good["groups/blue/fw"]},
		"a chain by another's key":   {"chains/red/c", chain},
		"paths that are too heavy":   {"legs/blue/c", heavy},
		"legs of no chain":           {"legs/blue", legs},
		"no legs":                    {"legs/blue/c", `{"number":1}`},
	} {
		t.Run(what, func(t *testing.T) {
			f := newFollower(t)
			f.hears(good)
			for key := range good {
				if !f.has(key) {
					t.Fatalf("it has not taken over %s: %s", key, f.said)
				}
			}
			before := f.recorded(bad.key)
			f.hears(map[string]string{bad.key: bad.text, "tenants/other": `{"name":"other","number":4}`})
			f.lists()
			if after := f.recorded(bad.key); after != before {
				t.Errorf("%s is %s, and was %s", bad.key, after, before)
			}
			if !f.has("tenants/other") {
				t.Error("what came with it is not taken over")
			}
			if !strings.Contains(f.said.String(), bad.key) {
				t.Errorf("it says nothing of %s: %s", bad.key, f.said)
			}
		})
	}
}

// A node's store that could not be written when another node turned off, or came back, is brought up to date with what
// comes next: what the agent has heard is no word for what is recorded.
func TestWhatTurnedOffIsRecordedLater(t *testing.T) {
	f := newFollower(t)
	r := vnet.Remote{Attachment: vnet.Attachment{Container: "c", IfName: "eth0"}, Tenant: "blue", Network: "web", Node: "n2", ID: "e1"}
	f.tenants["blue"] = &tenant{name: "blue", remote: map[string]vnet.Remote{endpointKey(r): r}}
	f.update(func(tx store.Tx) error {
		must(t, store.PutPeer(tx, vnet.Peer{Name: "n2"}))
		return store.PutRemote(tx, r)
	})
	full, cancel := context.WithCancel(t.Context())
	cancel()
	for _, off := range []bool{true, false} {
		changes, all := map[string][]byte{offKey("n2"): nil}, map[string][]byte{}
		if off {
			changes[offKey("n2")] = []byte("n3")
			all = changes
		}
		if f.applyOff(full, false, changes) == nil {
			t.Fatal("the store takes it: this test proves nothing")
		}
		must(t, f.applyOff(t.Context(), true, all))
		if has := f.has(store.RemoteKey(r.Ref(), r.Node, r.ID)); has == off {
			t.Errorf("off %t: that its endpoint is recorded is %t", off, has)
		}
		must(t, store.OpenBolt(f.DataDir).View(t.Context(), func(tx store.Tx) error {
			p, err := store.FindPeer(tx, "n2")
			if p.Off != off {
				t.Errorf("off %t: the record says %t", off, p.Off)
			}
			return err
		}))
	}
}
