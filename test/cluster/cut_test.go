package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// state is what the cluster says of a node, as another one hears it.
func (c *cluster) state(of, from *lab.Host) string {
	c.t.Helper()
	for line := range strings.Lines(c.ctl(from, "node", "list")) {
		if f := strings.Fields(line); f[0] == of.Name {
			return f[1]
		}
	}
	return "gone"
}

// becomes waits until the cluster says so of a node.
func (c *cluster) becomes(of, from *lab.Host, state string) {
	c.t.Helper()
	lab.Eventually(c.t, of.Name+" to be "+state, func() bool { return c.state(of, from) == state })
}

// A node that etcd has forgotten changes for finds out what has become of all, also of what has gone.
func TestNodeComesBackAfterACompaction(t *testing.T) {
	c := newCluster(t, 3, 1)
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	a, b := c.across(n1, n3)
	c.network(n2, "blue/old", "--subnet", db4)
	var gone []*lab.Container
	for i := range 4 {
		gone = append(gone, n2.Attach(fmt.Sprintf("gone%d", i), n2.Conf("blue", "web")))
	}
	late := n2.Attach("late", n2.Conf("blue", "web"))
	c.meet(late, b)
	c.settled()

	l := begin(t, a, b)
	c.CutFromEtcd(n3)
	c.daemons[n3].Logs("etcd does not answer") // what was on its way has been given up
	for i := range 20 {
		c.ctl(n1, "network", "add", fmt.Sprintf("blue/new%d", i), "--subnet", fmt.Sprintf("10.1.%d.0/24", i))
	}
	c.ctl(n1, "network", "del", "blue/old")
	for i, e := range gone {
		e.Del()
		n1.Attach(fmt.Sprintf("come%d", i), n1.Conf("blue", fmt.Sprintf("new%d", i)))
	}
	late.Del()
	late.Args = "IP=" + gone[1].IP4.String() // another one has the address
	late.Add()
	c.settled(n1, n2)
	if _, err := n3.Tenetctl("network", "show", "blue/new0"); err == nil {
		t.Error("it has heard of it: this test proves nothing")
	}
	c.etcd.Compact()
	c.Heal()
	c.meet(late, b)
	l.flows()
	c.settled()
	lost, silence := l.end() // of which links that come and go on a node cost some (TestEtcdDiesUnderTraffic)
	t.Logf("a compaction while a node is away: %d datagrams lost, nothing for %s", lost, silence)
	if here, there := c.networks(n3), c.networks(n1); here != there {
		t.Errorf("%s lists networks\n%s\nand %s\n%s", n3.Name, here, n1.Name, there)
	}
}

// networks is what a node lists of the networks, without the numbers of what is its own.
func (c *cluster) networks(h *lab.Host) string {
	c.t.Helper()
	var lines []string
	for line := range strings.Lines(c.ctl(h, "network", "list")) {
		f := strings.Fields(line)
		lines = append(lines, strings.Join(f[:len(f)-2], " "))
	}
	return strings.Join(lines, "\n")
}

// A node that etcd has lost, but whose address answers, is silent and not off: its traffic goes on, both ways, and its
// containers come and go.
func TestNodeCutFromEtcdForwards(t *testing.T) {
	c := newCluster(t, 3, 1, shortLease...)
	cut, other := c.Nodes[0], c.Nodes[1]
	a, b := c.across(cut, other)
	far := c.Nodes[2].Attach("far", c.Nodes[2].Conf("blue", "web"))
	c.meet(a, far)
	c.settled()
	unhurt(t, a, b, "a node cut off from etcd", func(*live) {
		c.CutFromEtcd(cut)
		c.becomes(cut, other, "silent")
		// The others ask its address until it has not answered three times, and then wait for each other.
		if lab.Within(lab.Stretch(12*time.Second), func() bool { return c.state(cut, other) != "silent" }) {
			t.Errorf("it is %s", c.state(cut, other))
		}
		c.Heal()
		c.becomes(cut, other, "runs")
		c.settled()
	})
	c.CutFromEtcd(cut)
	c.becomes(cut, other, "silent")
	late := cut.Attach("late", cut.Conf("blue", "web"))
	a.Reaches(late.IP4)
	other.Attach("unheard", other.Conf("blue", "web"))
	c.Heal()
	c.meet(late, b)
	c.meet(late, far)
	c.settled()
}

// A node that etcd has lost and that some do not reach is not off while another reaches it; it is when nobody does.
func TestANodeThatAnybodyReachesIsNotOff(t *testing.T) {
	c := newCluster(t, 3, 1)
	cut, other, third := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.daemons[cut].Terminate()
	c.restart(cut, shortLease...) // the others are not to lose theirs, by which they vouch for it
	c.joined(cut)
	a, b := c.across(cut, other)
	c.settled()
	unhurt(t, a, b, "a node cut off from etcd and from a third", func(*live) {
		c.Partition(cut, third)
		c.CutFromEtcd(cut)
		c.becomes(cut, third, "silent")
		if lab.Within(lab.Stretch(15*time.Second), func() bool { return c.state(cut, third) != "silent" }) {
			t.Errorf("it is %s", c.state(cut, third))
		}
	})
	c.Partition(cut, other)
	c.becomes(cut, other, "off")
	c.Heal()
	c.becomes(cut, other, "runs")
	c.meet(a, b)
	c.settled()
}

// Two nodes that do not reach each other go on with the third, and with each other when they do again: nobody is taken
// for dead whose tenetd is heard of.
func TestPartitionedNodesComeTogetherAgain(t *testing.T) {
	c := newCluster(t, 3, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	third := c.Nodes[2].Attach("third", c.Nodes[2].Conf("blue", "web"))
	third.Echo(80)
	c.meet(a, third)
	c.meet(b, third)
	c.settled()
	parted := begin(t, a, b)
	unhurt(t, a, third, "two others parted", func(*live) {
		c.Partition(c.Nodes[0], c.Nodes[1])
		parted.stalls()
		if lab.Within(lab.Stretch(8*time.Second), func() bool {
			for _, h := range c.Nodes {
				if state := c.state(h, c.Nodes[2]); state != "runs" {
					t.Errorf("%s is %s", h.Name, state)
					return true
				}
			}
			return false
		}) {
			return
		}
		c.settled()
		c.Heal()
		parted.flows()
	})
	lost, silence := parted.end()
	t.Logf("the parted: %d datagrams lost, nothing for %s", lost, silence)
	c.settled()
}
