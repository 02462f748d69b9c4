package cluster

import (
	"encoding/json"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// A record in etcd that makes no sense ends no tenetd and no ADD: each node says so and goes on with what it had, also when
// it begins anew, and follows again what comes in the record's place.
func TestARecordThatMakesNoSenseEndsNothing(t *testing.T) {
	w := newLed(t)
	w.ctl(w.n1, "group", "add", "blue/fw")
	first := lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges())
	w.lead("fw")
	leads := func(f *lab.Watched) {
		t.Helper()
		lab.Eventually(t, "the chain to lead", func() bool {
			said := w.exchange("udp", w.server.IP4, "leads")
			return lab.Within(lab.Patience()/40, func() bool { return f.Saw(said) == [2]int{1, 1} })
		})
	}
	leads(first)
	w.settled()

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
	put := func(key, text string) {
		t.Helper()
		_, err := w.etcd.Client().Put(t.Context(), etcdPrefix+key, text)
		lab.Must(t, err)
	}
	put(key, string(text))
	put("networks/red/web", w.records("networks/")["networks/blue/web"]) // by another's key
	said := func() {
		t.Helper()
		for _, h := range w.Nodes {
			for _, k := range []string{key, "networks/red/web"} {
				lab.Eventually(t, h.Name+" to say so of "+k, func() bool {
					return strings.Contains(w.daemons[h].Log(), "is left out of account\" key="+k)
				})
			}
		}
	}
	said()
	for _, h := range w.Nodes {
		w.daemons[h].Terminate()
		w.restart(h)
	}
	for _, h := range w.Nodes {
		w.joined(h)
	}
	said()
	for _, h := range w.Nodes {
		late := h.Attach("late-"+h.Name, webOn(h))
		lab.Eventually(t, late.ID+" to reach the server", func() bool { return late.Pings(w.server.IP4, "-W1") })
	}
	leads(first)
	for range 10 {
		said := lab.PingToken("on")
		lab.Must(t, w.client.Exchange("tcp", netip.AddrPortFrom(w.server.IP4, 80), said))
		first.Sees(t, said, 1, 1)
	}

	put(key, sound)
	_, err = w.etcd.Client().Delete(t.Context(), etcdPrefix+"networks/red/web")
	lab.Must(t, err)
	second := lab.Watch(w.n2.Function("fw2", webOn(w.n2), "fw", 100).Bridges())
	leads(second)
	w.settled()
	for _, h := range w.Nodes {
		if code := w.daemons[h].End(syscall.SIGTERM); code != 0 {
			t.Errorf("%s: tenetd ends with %d", h.Name, code)
		}
	}
}
