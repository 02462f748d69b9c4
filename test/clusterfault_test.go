package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

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
	c.settled()
}

// Without a tenetd containers come and go, from the addresses that the node has. The other nodes hear of it afterwards.
func TestContainersComeAndGoWithoutTenetd(t *testing.T) {
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
