package cluster

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// across attaches a container of blue/web on each of two nodes, of which the second one has an Echo on port 80.
func (c *cluster) across(one, two *lab.Host) (*lab.Container, *lab.Container) {
	c.t.Helper()
	if _, err := one.Tenetctl("network", "show", "blue/web"); err != nil {
		c.network(one, "blue/web", "--subnet", web4, "--subnet", web6)
	}
	a, b := one.Attach("a-"+one.Name, one.Conf("blue", "web")), two.Attach("b-"+two.Name, two.Conf("blue", "web"))
	b.Echo(80)
	c.meet(a, b)
	return a, b
}

// meet waits until two containers reach each other, in both families.
func (c *cluster) meet(a, b *lab.Container) {
	c.t.Helper()
	for _, way := range [][2]*lab.Container{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		lab.Eventually(c.t, from.ID+" to reach "+to.ID, func() bool { return from.Pings(to.IP4, "-W1") && from.Pings(to.IP6, "-W1") })
	}
}

// Traffic needs no tenetd: not a datagram is lost while it is dead on both nodes, nor when it comes back.
func TestTenetdsDieUnderTraffic(t *testing.T) {
	c := newCluster(t, 2, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	unhurt(t, a, b, "both tenetds killed and started again", func(l *live) {
		for _, h := range c.Nodes {
			c.daemons[h].End(syscall.SIGKILL)
		}
		l.flows()
		lost, silence := l.lost()
		t.Logf("dead: %d datagrams lost, nothing for %s", lost, silence)
		for _, h := range c.Nodes {
			c.restart(h)
		}
		for _, h := range c.Nodes {
			c.joined(h)
			c.daemons[h].Logs("tidied up")
		}
	})
	unhurt(t, a, b, "both tenetds ended, as for a newer one, and started again", func(*live) {
		for _, h := range c.Nodes {
			c.daemons[h].Terminate()
		}
		for _, h := range c.Nodes {
			c.restart(h)
		}
		for _, h := range c.Nodes {
			c.joined(h)
			c.daemons[h].Logs("tidied up")
		}
	})
	c.settled()
}

// Without a tenetd containers come and go, from the addresses that the node has. The other nodes hear of it afterwards.
func TestContainersComeAndGoWithoutTenetd(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	var gone, come []*lab.Container
	for i, h := range c.Nodes {
		gone = append(gone, h.Attach(fmt.Sprintf("gone%d", i), h.Conf("blue", "web")))
	}
	c.meet(gone[0], gone[1])
	for _, h := range c.Nodes {
		c.daemons[h].End(syscall.SIGKILL)
	}
	for i, h := range c.Nodes {
		n := h.Container(fmt.Sprintf("come%d", i))
		n.Conf = h.Conf("blue", "web")
		for _, verb := range []string{"ADD", "DEL", "ADD"} {
			answer := n.Do(verb)
			lab.Must(t, answer.Failed())
			if !strings.Contains(answer.Stderr, "not yet published to the other nodes") {
				t.Errorf("%s: %s says nothing of it: %q", h.Name, verb, answer.Stderr)
			}
			if verb == "ADD" {
				n.Learn(answer.Stdout)
			}
		}
		come = append(come, n)
		gone[i].Del()
	}
	a.Reaches(come[0].IP4)
	b.Reaches(come[1].IP4)
	if a.Pings(come[1].IP4, "-W1") {
		t.Error("the other node has heard of it already: this test proves nothing")
	}
	for _, h := range c.Nodes {
		c.restart(h)
	}
	c.meet(a, come[1])
	c.meet(come[0], b)
	c.meet(come[0], come[1])
	c.settled()
	for _, from := range []*lab.Container{a, b} {
		for _, to := range gone {
			if to.IP4 != come[0].IP4 && to.IP4 != come[1].IP4 && from.Pings(to.IP4, "-W1") {
				t.Errorf("%s still reaches %s, which has gone", from.ID, to.ID)
			}
		}
	}
}

// outage is how long etcd is away: longer than every lease and time-out.
const outage = time.Minute

// A cluster whose etcd is dead forwards: not a datagram is lost when it dies, while it is dead, nor when it is back, and
// containers come and go meanwhile. They do so on a third node: on the userspace datapath a link that comes or goes on a
// node costs those a datagram that pass its tunnels, whatever it is for, as ovs-vswitchd reads the host's routes anew.
func TestEtcdDiesUnderTraffic(t *testing.T) {
	c := newCluster(t, 3, 3)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	elsewhere := c.Nodes[2].Container("elsewhere")
	elsewhere.Conf = c.Nodes[2].Conf("blue", "web")
	elsewhere.Add()
	unhurt(t, a, b, fmt.Sprintf("etcd dead for %s", outage), func(*live) {
		c.etcdDies()
		rounds := 0
		for end := time.Now().Add(outage); time.Now().Before(end); rounds++ {
			elsewhere.Del()
			elsewhere.Add()
		}
		t.Logf("a container has come and gone %d times", rounds)
		c.etcdLives()
		c.settled()
	})
	c.meet(a, elsewhere)
}

// eachMember does something to all members of etcd.
func (c *cluster) eachMember(do func(int)) {
	for i := range c.etcd.Endpoints() {
		do(i)
	}
}

// etcdDies kills them.
func (c *cluster) etcdDies() { c.eachMember(c.etcd.Kill) }

// etcdLives starts them again.
func (c *cluster) etcdLives() {
	c.t.Helper()
	c.eachMember(c.etcd.Start)
}

// While etcd is dead, or hangs, containers come and go on every node, from the addresses that it has, and nobody waits long
// for etcd. When it is back it is told of all.
func TestContainersComeAndGoWithoutEtcd(t *testing.T) {
	for what, fault := range map[string]struct{ begins, ends func(*cluster) }{
		"dead":  {(*cluster).etcdDies, (*cluster).etcdLives},
		"hangs": {func(c *cluster) { c.eachMember(c.etcd.Pause) }, func(c *cluster) { c.eachMember(c.etcd.Continue) }},
	} {
		t.Run(what, func(t *testing.T) {
			c := newCluster(t, 3, 3)
			a, _ := c.across(c.Nodes[0], c.Nodes[1])
			var gone, come []*lab.Container
			for i, h := range c.Nodes {
				gone = append(gone, h.Attach(fmt.Sprintf("gone%d", i), h.Conf("blue", "web")))
				come = append(come, h.Container(fmt.Sprintf("come%d", i)))
				come[i].Conf = gone[i].Conf
			}
			c.settled()
			fault.begins(c)
			slowest := time.Duration(0)
			took := func(do func()) {
				t.Helper()
				start := time.Now()
				do()
				slowest = max(slowest, time.Since(start))
			}
			for i := range c.Nodes {
				took(come[i].Add)
				took(come[i].Del)
				took(come[i].Add)
				took(gone[i].Del)
			}
			t.Logf("the slowest ADD or DEL took %s", slowest)
			if slowest > lab.Stretch(5*time.Second) {
				t.Errorf("an ADD or DEL took %s", slowest)
			}
			a.Reaches(come[0].IP4)
			if a.Pings(come[1].IP4, "-W1") {
				t.Error("the other node has heard of it already: this test proves nothing")
			}
			fault.ends(c)
			c.meet(come[0], come[1])
			c.meet(come[1], come[2])
			c.settled()
		})
	}
}

// A node needs etcd neither to restart its tenetd nor to restore its switch: it has all that it knew.
func TestNodeStartsWithoutEtcd(t *testing.T) {
	c := newCluster(t, 2, 1)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	c.settled()
	l := begin(t, a, b)
	c.etcdDies()
	for _, h := range c.Nodes {
		c.daemons[h].End(syscall.SIGKILL)
		h.KillVswitchd()
		h.StartVswitchd()
		c.restart(h)
	}
	for _, h := range c.Nodes {
		c.daemons[h].Logs("the switch agrees")
		c.daemons[h].Logs("cannot join the cluster yet")
	}
	l.flows()
	late := c.Nodes[0].Attach("late", c.Nodes[0].Conf("blue", "web"))
	a.Reaches(late.IP4)
	c.etcdLives()
	c.allJoined()
	c.meet(late, b)
	lost, silence := l.end()
	t.Logf("both switches restarted: %d datagrams lost, nothing for %s", lost, silence)
	c.settled()
}

// A node that has used up its addresses while etcd is dead says so, and soon; and gets more when it is back.
func TestAddressesRunOutWithoutEtcd(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.across(c.Nodes[0], c.Nodes[1])
	c.settled()
	c.etcdDies()
	h := c.Nodes[0]
	more := 0
	for ; ; more++ {
		n := h.Container(fmt.Sprintf("more%d", more))
		n.Conf = h.Conf("blue", "web")
		start := time.Now()
		answer := n.Do("ADD")
		if answer.Err == nil && more < 20 {
			continue
		}
		lab.Fails(t, answer, lab.CodeLater, "this node has no address left of its own", "etcd does not answer")
		if took := time.Since(start); took > lab.Stretch(5*time.Second) {
			t.Errorf("it took %s to say so", took)
		}
		break
	}
	t.Logf("%d containers found an address", more)
	c.etcdLives()
	lab.Eventually(t, "an address from a new block", func() bool {
		n := h.Container("last")
		n.Conf = h.Conf("blue", "web")
		return n.Do("ADD").Err == nil
	})
	c.settled()
}
