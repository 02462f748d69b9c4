package cluster

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/test/lab"
)

// backUp copies what a node keeps on its disk to a directory that is not there yet.
func backUp(t *testing.T, h *lab.Host, to string) {
	t.Helper()
	unlock, err := store.Lock(t.Context(), h.DataDir, "store") // while nobody writes
	lab.Must(t, err)
	defer unlock()
	lab.Must(t, os.CopyFS(to, os.DirFS(h.DataDir)))
}

// A node that is restored from an old disk believes to have what others have by now. It comes to know better, and nobody
// is led to containers that it had then.
func TestNodeIsRestoredFromAnOldDisk(t *testing.T) {
	t.Parallel()
	s := newSmall(t, "--grace=1h", "--rest=1s")
	old := t.TempDir() + "/old"
	backUp(t, s.third, old)

	// What it has then it gives up, another takes it, and it has something else.
	for _, e := range s.lost {
		e.Del()
	}
	lab.Eventually(t, "its blocks to be given back", func() bool { return len(s.held(s.third)) == 0 })
	var heirs []*lab.Container
	for i, e := range s.lost {
		heirs = append(heirs, s.one.Attach(fmt.Sprintf("heir%d", i), s.one.Conf("blue", "small"), "IP="+e.IP4.String()))
	}
	var young []*lab.Container
	for i := range 3 {
		young = append(young, s.attach(s.third, fmt.Sprintf("young%d", i)))
	}
	s.settled()
	since := s.held(s.third)
	l := begin(t, s.a, s.b)

	s.third.PowerOff()
	s.becomes(s.third, s.one, "off")
	lab.Must(t, os.RemoveAll(s.third.DataDir))
	lab.Must(t, os.CopyFS(s.third.DataDir, os.DirFS(old)))
	s.args = slices.Concat(shortLease, []string{"--grace=1h"}) // or it would soon give back what nobody here has
	s.returns()
	s.settled()
	lost, silence := l.end()
	t.Logf("a node restored from an old disk: between the others %d datagrams lost, nothing for %s", lost, silence)
	for _, e := range s.lost {
		if who := s.holder("blue/small", e.IP4); who != s.one.Name {
			t.Errorf("the block of %s is %q's, want %s's", e.IP4, who, s.one.Name)
		}
	}
	if left := s.records("endpoints/blue/small/" + s.third.Name + "/"); len(left) > 0 {
		t.Errorf("it is said to have %v", left)
	}
	taken := map[string]string{}
	for _, e := range append(heirs, s.a, s.b) {
		taken[e.IP4.String()] = e.ID
	}
	for i := range since {
		e := s.attach(s.third, fmt.Sprintf("new%d", i))
		if other, ok := taken[e.IP4.String()]; ok {
			t.Errorf("%s and %s have %s", e.ID, other, e.IP4)
		}
		taken[e.IP4.String()] = e.ID
		for _, o := range append(heirs, s.a, s.b) {
			lab.Eventually(t, e.ID+" to reach "+o.ID, func() bool { return e.Pings(o.IP4, "-W1") })
		}
	}
	for _, e := range append(young, s.lost...) { // its runtime may still know of them
		e.Del()
	}
	s.settled()
}

// A copy of a node's disk in another machine is not taken for the node while that runs, and does it no harm.
func TestCopyOfANodeIsRefused(t *testing.T) {
	c := newCluster(t, 3, 1, shortLease...)
	node, twin := c.Nodes[1], c.Nodes[2]
	a, b := c.across(c.Nodes[0], node)
	c.daemons[twin].Terminate()
	c.ctl(node, "node", "list")
	lab.Eventually(t, "the lease of the other machine to end", func() bool { return c.state(twin, node) != "runs" })
	c.refused(node, []string{"node n3 is silent", "hint: start its tenetd"}, "node", "del", twin.Name)
	c.ctl(node, "node", "del", twin.Name, "--force") // its address is to be the copy's
	c.settled(c.Nodes[0], node)
	lab.Must(t, os.RemoveAll(twin.DataDir))
	backUp(t, node, twin.DataDir)
	twin.WriteConfig(map[string]any{"node": node.Name})
	before := c.records("")
	unhurt(t, a, b, "a copy of a node begins", func(*live) {
		c.restart(twin, shortLease...)
		c.daemons[twin].Logs("node " + node.Name + " runs on another machine, or did so a moment ago")
		c.daemons[twin].Logs("hint=\"a copy of this node's data may run elsewhere")
		if lab.Within(lab.Stretch(5*time.Second), func() bool { return strings.Contains(c.daemons[twin].Log(), "joined the cluster") }) {
			t.Error("it has joined the cluster")
		}
		c.daemons[twin].Terminate()
	})
	for _, line := range diff("etcd has lost", "etcd has got", before, c.records("")) {
		t.Error(line)
	}
	c.settled(c.Nodes[0], node)
}
