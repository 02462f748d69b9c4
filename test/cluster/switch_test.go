package cluster

import (
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

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
		h.StartVswitchd()
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
