package cluster

import (
	"encoding/json"
	"errors"
	"maps"
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
	c.daemons[moves].Terminate()
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
	t.Parallel()
	c := newCluster(t, 2, 1)
	first, second := c.Nodes[0], c.Nodes[1]
	c.network(first, "blue/web", "--subnet", web4)
	c.settled()
	c.daemons[second].Terminate()
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

// A node that is asked to leave gets nothing new, forwards as before, and has gone with its last container. As long as it
// has not, it may stay; and it may join anew.
func TestNodeLeavesInPeace(t *testing.T) {
	c := newCluster(t, 3, 1)
	from, leaves := c.Nodes[0], c.Nodes[1]
	a, b := c.across(from, leaves)
	conf := leaves.Conf("blue", "web")
	second := leaves.Attach("second", conf)
	c.meet(a, second)
	c.settled()
	unhurt(t, a, b, "a node is asked to leave, and to stay", func(*live) {
		out, err := from.Tenetctl("node", "del", leaves.Name, "--drain", "--timeout=8s")
		if err == nil || !strings.Contains(out, "node n2 still has 2 endpoints and 2 blocks") || !strings.Contains(out, "hint: it goes on leaving") {
			t.Errorf("it cannot have left: %v\n%s", err, out)
		}
		if state := c.state(leaves, from); state != "leaves" {
			t.Errorf("it is %s", state)
		}
		c.ctl(from, "node", "stay", leaves.Name)
		c.becomes(leaves, from, "runs")
	})

	_, err := from.Tenetctl("node", "del", leaves.Name, "--drain", "--timeout=8s")
	if err == nil {
		t.Error("it has left")
	}
	late := leaves.Container("late")
	late.Conf = conf
	lab.Fails(t, late.Do("ADD"), lab.CodeConflict, "the node leaves its cluster and gets nothing new")
	lab.Must(t, b.Do("CHECK").Failed())
	c.ctl(from, "node", "stay", leaves.Name)
	lab.Eventually(t, "a container to be taken again", func() bool { return late.Do("ADD").Err == nil })
	c.settled()

	third := c.Nodes[2].Attach("third", c.Nodes[2].Conf("blue", "web"))
	c.meet(a, third)
	left := make(chan error, 1)
	go func() {
		out, err := from.Tenetctl("node", "del", leaves.Name, "--drain")
		if err == nil && !strings.Contains(out, "node n2 deleted") {
			err = errors.New(out)
		}
		left <- err
	}()
	c.becomes(leaves, from, "leaves")
	late.Del()
	second.Del()
	c.meet(a, b)
	b.Del()
	lab.Must(t, <-left)
	if code := c.daemons[leaves].Ends(); code != 0 {
		t.Errorf("its tenetd ends with %d", code)
	}
	if state := c.state(leaves, from); state != "gone" {
		t.Errorf("it is %s", state)
	}
	for key, text := range c.records("") {
		if nodeOf(key, text) == leaves.Name {
			t.Errorf("etcd still has %s %s", key, text)
		}
	}
	for _, record := range leaves.Records() {
		if strings.HasPrefix(record, "record remotes/") || strings.HasPrefix(record, "record peers/") || strings.HasPrefix(record, "record networks/") {
			t.Errorf("it still has %s", record)
		}
	}
	if out := c.ctl(leaves, "sync", "--dry-run"); !strings.Contains(out, "everything agrees") {
		t.Error(out)
	}
	if out := c.ctl(leaves, "status"); !strings.Contains(out, "none: this node has left it") {
		t.Error(out)
	}
	c.settled(from, c.Nodes[2])

	c.restart(leaves)
	c.joined(leaves)
	c.known("blue/web")
	b.Add()
	c.meet(a, b)
	c.settled()
}

// A node's record that cannot be read, as it is damaged or a newer tenet's, is in the way of nobody who asks for others, is
// shown as what it is, and can be removed.
func TestANodeWhoseRecordCannotBeReadIsShownAndRemoved(t *testing.T) {
	c := newCluster(t, 2, 1)
	h := c.Nodes[0]
	for name, record := range map[string]string{
		"damaged": "{", "newer": `{"v":99,"name":"newer","vtep":"192.0.2.77"}`, "other": `{"v":1,"name":"another","vtep":"192.0.2.78"}`,
	} {
		c.put("nodes/"+name, record)
		var nodes []struct{ Name, State string }
		said, list, _ := strings.Cut(c.ctl(h, "node", "list", "-o", "json"), "[")
		if want := "tenetctl: node " + name + ": record nodes/" + name; !strings.Contains(said, want) {
			t.Errorf("it does not say %q: %s", want, said)
		}
		lab.Must(t, json.Unmarshal([]byte("["+list), &nodes))
		states := map[string]string{}
		for _, n := range nodes {
			states[n.Name] = n.State
		}
		if want := map[string]string{name: "damaged", "n1": "runs", "n2": "runs"}; !maps.Equal(states, want) {
			t.Errorf("there are %v, not %v", states, want)
		}
		if out := c.ctl(h, "node", "show", "n2"); !strings.Contains(out, "192.0.2.12") {
			t.Error(out)
		}
		if out, err := h.Tenetctl("node", "show", name); err == nil || !strings.Contains(out, "record nodes/"+name) || !strings.Contains(out, "hint: ") {
			t.Errorf("%v: %s", err, out)
		}
		c.ctl(h, "node", "del", name)
		if left := c.records("nodes/" + name); len(left) > 0 {
			t.Errorf("there still is %v", left)
		}
	}
	c.settled()
}
