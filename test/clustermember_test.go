package test

import (
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// A node that gets another tunnel address is reached by it, from all others.
func TestNodeMovesToAnotherAddress(t *testing.T) {
	c := newCluster(t, 3, 1)
	moves := c.Nodes[1]
	a, b := c.across(c.Nodes[0], moves)
	third := c.Nodes[2].Attach("third", c.Nodes[2].Conf("blue", "web"))
	c.meet(third, b)
	c.settled()
	old := moves.VTEP()
	l := begin(t, a, b)
	terminates(t, c.daemons[moves])
	moves.Readdress(netip.MustParseAddr("192.0.2.99"))
	l.stalls()
	moves.WriteConfig(nil)
	c.restart(moves)
	c.joined(moves)
	l.flows()
	lost, silence := l.end()
	t.Logf("%d datagrams lost, nothing for %s", lost, silence)
	c.meet(third, b)
	c.settled()
	for _, h := range c.Nodes {
		for _, f := range h.Flows() {
			if strings.Contains(f.String(), old.String()) {
				t.Errorf("%s still has %s", h.Name, f)
			}
		}
	}
}

// Nobody joins under the name of another machine, whether that runs or not.
func TestNameOfANodeIsItsOwn(t *testing.T) {
	c := newCluster(t, 2, 1)
	first, second := c.Nodes[0], c.Nodes[1]
	c.network(first, "blue/web", "--subnet", web4)
	c.settled()
	terminates(t, c.daemons[second])
	refused := func() {
		t.Helper()
		d := second.BeginTenetd()
		if code := d.Ends(); code != 1 {
			t.Errorf("tenetd ends with %d", code)
		}
		for _, words := range []string{"tenetd: node " + first.Name + " is another machine, at " + first.VTEP().String(), "hint: name this one otherwise"} {
			if !strings.Contains(d.Log(), words) {
				t.Errorf("it does not say %q:\n%s", words, d.Log())
			}
		}
	}
	second.WriteConfig(map[string]any{"node": first.Name})
	before := c.records("nodes/")
	refused()
	c.daemons[first].End(syscall.SIGKILL)
	refused()
	lab.Eventually(t, "its lease to end", func() bool { return len(c.records("alive/")) == 0 })
	refused()
	if now := c.records("nodes/"); now["nodes/"+first.Name] != before["nodes/"+first.Name] {
		t.Errorf("the record of %s has changed: %s", first.Name, now["nodes/"+first.Name])
	}
	second.WriteConfig(nil)
	c.restart(first)
	c.restart(second)
	c.joined(first)
	c.joined(second)
	c.settled()
}
