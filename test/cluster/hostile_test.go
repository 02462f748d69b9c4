package cluster

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// A record in etcd that makes no sense ends no tenetd and no ADD: each node says so and goes on with what it had, also when
// it begins anew, and follows again what comes in the record's place.
func TestARecordThatMakesNoSenseEndsNothing(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	first := w.through(w.n3)

	const key = "legs/blue/c"
	sound := w.records(key)[key]
	var legs []vnet.Leg
	lab.Must(t, json.Unmarshal([]byte(sound), &legs))
	one := legs[0].Paths[0]
	legs[0].Paths = nil
	for i := range 4 {
		p := one
		p.ID, p.Weight = one.ID+vnet.PathID(i), 1<<62 // together they are nothing
		legs[0].Paths = append(legs[0].Paths, p)
	}
	text, err := json.Marshal(legs)
	lab.Must(t, err)
	w.put(key, string(text))
	w.put("networks/red/web", w.records("networks/")["networks/blue/web"]) // by another's key
	said := func(nodes ...*lab.Host) {
		t.Helper()
		for _, h := range nodes {
			for _, k := range []string{key, "networks/red/web"} {
				lab.Eventually(t, h.Name+" to say so of "+k, func() bool {
					return strings.Contains(w.daemons[h].Log(), leftOut(k))
				})
			}
		}
	}
	again := func(nodes ...*lab.Host) {
		t.Helper()
		for _, h := range nodes {
			w.daemons[h].Terminate()
			w.restart(h)
		}
		w.allJoined()
	}
	said(w.Nodes...)
	again(w.n1, w.n2)
	said(w.n1, w.n2)
	for _, h := range w.Nodes {
		late := h.Attach("late-"+h.Name, webOn(h))
		lab.Eventually(t, late.ID+" to reach the server", func() bool { return late.Pings(w.server.IP4, "-W1") })
	}
	w.leads(first)
	for range 10 {
		lab.SeenBy(t, "on", w.asks("tcp", w.server.IP4), map[*lab.Watched]int{first: 1})
	}

	again(w.n3) // the function of which tells of it anew, with which paths are decided on anew
	lab.Eventually(t, "the paths to be put right", func() bool { return !strings.Contains(w.records(key)[key], strconv.Itoa(1<<62)) })
	w.leads(first)
	lab.Eventually(t, "n3 to say so of what is written over once more", func() bool {
		if w.records(key)[key] != string(text) { // n3 may have told of its function twice, before and after it
			w.put(key, string(text))
		}
		return strings.Contains(w.daemons[w.n3].Log(), leftOut(key))
	})
	said(w.n3)
	w.put(key, sound)
	w.erase("networks/red/web")
	second := lab.Watch(w.n2.Function("fw2", webOn(w.n2), "fw", 100).Bridges())
	w.leads(second)
	w.settled()
	for _, h := range w.Nodes {
		if code := w.daemons[h].End(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: tenetd ends with %d", h.Name, code)
		}
	}
}

// leftOut is what a node says of a record that makes no sense.
func leftOut(key string) string { return "is left out of account\" key=" + key }

// A record in etcd that says an endpoint's or a node's address is another's takes nothing from whose it is, neither when it is
// written nor when it is deleted: each node says so and leaves it out of account.
func TestARecordThatSaysAnothersAddressTakesNothing(t *testing.T) {
	t.Parallel()
	c := onEtcd(t, lab.NewFleet(t, 3), 1)
	c.start()
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	a, b := c.across(n1, n2)
	late := n3.Attach("late", webOn(n3))
	c.meet(a, late)
	c.settled()
	// heard waits until all nodes have heard of what was done before.
	marks := 0
	heard := func() {
		t.Helper()
		marks++
		mark := fmt.Sprintf("blue/mark%d", marks)
		late.Del()
		late.Add()
		c.meet(a, late)
		c.meet(b, late)
		c.network(n1, mark, "--subnet", db4)
		c.ctl(n1, "network", "del", mark)
	}
	said := func(h *lab.Host, words ...string) {
		t.Helper()
		lab.Eventually(t, h.Name+" to say so of "+strings.Join(words, " "), func() bool {
			for line := range strings.Lines(c.daemons[h].Log()) {
				if strings.Contains(line, "is left out of account") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
					return true
				}
			}
			return false
		})
	}
	endpoint := func(id vnet.EndpointID, of *lab.Host, victim *lab.Container, by *lab.Host) (string, string) {
		t.Helper()
		for _, text := range c.records("endpoints/blue/web/" + of.Name + "/") {
			var r vnet.Remote
			lab.Must(t, json.Unmarshal([]byte(text), &r))
			if r.Container == victim.ID {
				r.ID, r.Node, r.Container, r.MAC = id, vnet.NodeName(by.Name), "impostor", vnet.MAC{2, 0, 0, 0, 0, 9}
				what, err := json.Marshal(r)
				lab.Must(t, err)
				return "endpoints/blue/web/" + by.Name + "/" + string(id), string(what)
			}
		}
		t.Fatalf("%s is not published", victim.ID)
		return "", ""
	}
	for round, i := range []struct {
		of, by *lab.Host
		victim *lab.Container
		says   []*lab.Host
	}{{n2, n3, b, []*lab.Host{n1, n2}}, {n2, n2, b, []*lab.Host{n1, n3}}, {n1, n2, a, []*lab.Host{n1, n3}}} {
		id := vnet.EndpointID(fmt.Sprintf("impostor%d", round))
		key, text := endpoint(id, i.of, i.victim, i.by)
		c.put(key, text)
		for _, h := range i.says {
			said(h, "tenant=blue", "network=web", "endpoint="+string(id), "node="+i.by.Name, "whose=")
		}
		heard()
		c.meet(a, b)
		c.erase(key)
		heard()
		c.meet(a, b)
		c.settled()
	}
	record := c.records("nodes/n2")["nodes/n2"]
	c.put("nodes/x", strings.Replace(record, `"name":"n2"`, `"name":"x"`, 1))
	for _, h := range c.Nodes {
		said(h, "node=x", `whose="node n2"`)
	}
	heard()
	c.meet(a, b)
	c.erase("nodes/x")
	heard()
	c.meet(a, b)
	c.settled()
}

// What somebody else writes over, or takes away, of what etcd has in a node's name, that node tells again: of endpoints, by which
// others reach them, and of service functions, by which paths lead. Meanwhile it is left out where endpoints are listed.
func TestWhatANodeToldIsToldAgain(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	fw := w.through(w.n3)
	endpoints, functions := w.records("endpoints/blue/web/n2/"), w.records("functions/")
	key, function := single(t, endpoints), single(t, functions)
	told := func(what string) {
		t.Helper()
		lab.Eventually(t, "what nodes told of to be told again: "+what, func() bool {
			return maps.Equal(w.records("endpoints/blue/web/n2/"), endpoints) && maps.Equal(w.records("functions/"), functions)
		})
		w.leads(fw)
		w.settled()
	}

	w.daemons[w.n2].Sleeps(func() {
		w.put(key, "{")
		listed := w.ctl(w.n1, "endpoint", "list")
		if !strings.Contains(listed, "client") || strings.Contains(listed, "server") {
			t.Errorf("of what cannot be read endpoint list says\n%s", listed)
		}
	})
	told("an endpoint, written over")
	w.put(key, strings.ReplaceAll(endpoints[key], w.server.IP4.String(), "10.0.0.254"))
	told("an endpoint, with another address")
	w.erase(key)
	told("an endpoint, deleted")
	w.put(function, "{")
	told("a function, written over")
	w.put(function, strings.Replace(functions[function], `"weight":1`, `"weight":"1"`, 1))
	told("a function, of which a field is not what it should be")
	w.erase(function)
	told("a function, deleted")
	w.put(function+"-too", strings.ReplaceAll(functions[function], "fw1", "fw1-too"))
	told("a function that is none")
	impostor := strings.NewReplacer(path.Base(key), "impostor", w.server.IP4.String(), "10.0.0.254", w.server.IP6.String(), "fd00:1::fe",
		`"mac":"0a:58`, `"mac":"02:58`)
	w.put(path.Join(path.Dir(key), "impostor"), impostor.Replace(endpoints[key]))
	told("an endpoint that is none")

	w.put(key, "{")
	w.server.Del()
	lab.Eventually(t, "an endpoint that has gone to be told of no more", func() bool { return len(w.records("endpoints/blue/web/n2/")) == 0 })
	w.settled()
}

// single is the key of the one record that there is.
func single(t *testing.T, records map[string]string) string {
	t.Helper()
	keys := slices.Collect(maps.Keys(records))
	if len(keys) != 1 {
		t.Fatalf("there is not one record, but %v", keys)
	}
	return keys[0]
}
