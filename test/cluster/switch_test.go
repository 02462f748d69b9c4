package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/test/lab"
)

const dropIn = "../../conf/systemd/ovs-vswitchd.service.d/10-tenet.conf"

// tenetd restores what ovs-vswitchd has forgotten when it comes back: traffic between nodes stands still for a moment,
// and connections live. The kernel's datapath goes on by itself within the node; its tunnel's port ovs-vswitchd makes anew.
func TestSwitchOfANodeRestarts(t *testing.T) {
	c := newCluster(t, 2, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	c.settled()
	for _, h := range c.Nodes {
		here := []*lab.Container{h.Attach("one-"+h.Name, h.Conf("blue", "web")), h.Attach("two-"+h.Name, h.Conf("blue", "web"))}
		c.meet(here[0], here[1])
		c.settled()
		before := h.Snapshot()
		l, within := begin(t, a, b), here[0].Stream(here[1])
		within.Flows()
		h.KillVswitchd()
		h.ServiceStarts(dropIn)
		lost, silence := l.end()
		t.Logf("ovs-vswitchd of %s: %d datagrams lost, nothing for %s (datapath %s)", h.Name, lost, silence, h.Datapath)
		if silence > lab.Stretch(5*time.Second) {
			t.Errorf("nothing came for %s", silence)
		}
		lost, silence = within.Lost()
		t.Logf("within %s: %d datagrams lost, nothing for %s", h.Name, lost, silence)
		if h.Datapath == "system" && lost > 0 {
			t.Error("the kernel's datapath goes on by itself: nothing may be lost within the node")
		}
		lab.Eventually(t, "the switch to agree", func() bool { return len(c.differences(c.Nodes)) == 0 })
		lab.Same(t, before, h.Snapshot())
	}
}

// So it is when the database goes and comes back.
func TestDatabaseOfANodeRestarts(t *testing.T) {
	c := newCluster(t, 2, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	c.settled()
	for _, h := range c.Nodes {
		before := h.Snapshot()
		l := begin(t, a, b)
		h.StopDB()
		h.StartDB()
		lost, silence := l.end()
		t.Logf("ovsdb-server of %s: %d datagrams lost, nothing for %s (datapath %s)", h.Name, lost, silence, h.Datapath)
		if silence > lab.Stretch(5*time.Second) {
			t.Errorf("nothing came for %s", silence)
		}
		c.settled()
		lab.Same(t, before, h.Snapshot())
	}
	late := c.Nodes[0].Attach("late", c.Nodes[0].Conf("blue", "web"))
	c.meet(late, b)
}

// What comes from the other nodes while a switch cannot be told, for longer than anybody waits for it, is told it afterwards:
// paths, and endpoints that come and go. It is made to hang by who has the lock on its flows: a userspace switch that is
// stopped keeps its node from etcd, too.
func TestASwitchIsToldLaterWhatItCouldNotBeTold(t *testing.T) {
	w := newLed(t)
	h := w.n1
	w.ctl(w.n2, "group", "add", "blue/fw")
	first := lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges())
	w.n2.Function("fw2", webOn(w.n2), "fw", 0).Bridges()
	w.lead("fw")
	gone := w.n2.Attach("gone", webOn(w.n2))
	lab.Eventually(t, "it to be reached", func() bool { return w.client.Pings(gone.IP4, "-W1") })
	w.settled()

	unlock, err := store.Lock(t.Context(), h.DataDir, "flows of "+lab.Bridge)
	lab.Must(t, err)
	defer func() { unlock() }()
	gone.Del()
	late := w.n2.Attach("late", webOn(w.n2))
	w.ctl(w.n2, "function", "drain", "blue/fw/fw2") // with which other paths count
	for _, words := range []string{`msg="follow the cluster"`, `msg="follow a tenant's endpoints"`} {
		if !lab.Within(3*lab.Patience(), func() bool { return strings.Contains(w.daemons[h].Log(), words) }) {
			t.Errorf("tenetd does not log %s", words)
		}
	}
	var differs []string
	if !lab.Within(3*lab.Patience(), func() bool { // what is taken over waits for the lock, in turn
		here, there := storeOf(h), w.records("")
		legs := func(of map[string]string) map[string]string { return map[string]string{"legs/": of["legs/blue/c"]} }
		differs = append(diff("it lacks", "it still has", here.wants(h, there), here.knows()), diff("it lacks", "", legs(there), legs(here.records))...)
		return len(differs) == 0
	}) {
		t.Errorf("it has not heard of all:\n%s", strings.Join(differs, "\n"))
	}
	unlock()
	unlock = func() {}
	lab.Eventually(t, "who has come to be reached", func() bool { return w.client.Pings(late.IP4, "-W1") })
	w.settled()
	for range 10 {
		said := lab.PingToken("drained")
		lab.Must(t, w.client.Exchange("udp", netip.AddrPortFrom(w.server.IP4, 80), said))
		first.Sees(t, said, 1, 1)
	}
}
