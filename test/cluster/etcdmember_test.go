package cluster

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// Of an etcd with three members any one may die, hang, or be out of reach: nobody is cut off from the others by it. What is declared on one
// node comes to all, a new container is reached from elsewhere, nodes keep their leases, and traffic is none the worse.
func TestAnyMemberOfEtcdMayBeLost(t *testing.T) {
	c := newCluster(t, 3, 3)
	a, b := c.across(c.Nodes[0], c.Nodes[1])
	third := c.Nodes[2] // see TestEtcdDiesUnderTraffic
	step := 0
	unhurt(t, a, b, "each member of etcd lost in turn", func(*live) {
		for what, fault := range map[string]struct{ begins, ends func(int) }{
			"stopped":      {c.etcd.Stop, c.etcd.Start},
			"killed":       {c.etcd.Kill, c.etcd.Start},
			"hanging":      {c.etcd.Pause, c.etcd.Continue},
			"out of reach": {c.CutMember, func(int) { c.Heal() }},
		} {
			c.eachMember(func(i int) {
				step++
				lost := fmt.Sprintf("member %d is %s", i, what)
				fault.begins(i)
				c.network(c.Nodes[step%2], fmt.Sprintf("blue/net%d", step), "--subnet", db4)
				e := third.Container(fmt.Sprintf("late%d", step))
				e.Conf = third.Conf("blue", "web")
				e.Add()
				lab.Eventually(t, e.ID+" to be reached while "+lost, func() bool { return a.Pings(e.IP4, "-W1") })
				for _, h := range c.Nodes {
					lab.Eventually(t, h.Name+" to hear of etcd while "+lost, func() bool {
						out, err := h.Tenetctl("status")
						return err == nil && strings.Contains(out, "etcd answers")
					})
					for _, of := range c.Nodes {
						c.becomes(of, h, "runs")
					}
				}
				e.Del()
				c.ctl(third, "network", "del", fmt.Sprintf("blue/net%d", step))
				fault.ends(i)
				c.etcd.Leader()
			})
		}
		c.settled()
	})
	for h, d := range c.daemons {
		if strings.Contains(d.Log(), "the node's lease was lost") {
			t.Errorf("%s has lost its lease", h.Name)
		}
	}
}
