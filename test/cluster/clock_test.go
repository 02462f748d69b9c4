package cluster

import (
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// What time of day it is matters to nobody: when the clocks of all nodes, and etcd's, jump a day on or back, no lease and no
// grace ends, traffic goes on, and containers come and go.
func TestClocksJump(t *testing.T) {
	clock := lab.NewClock(t)
	const lease = 10 * time.Second // it is an emulated machine, whose own the clock is
	args := []string{"--grace=1h", "--lease=" + lease.String()}
	c := newCluster(t, 3, 1, args...)
	one, two, gone := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	a, b := c.across(one, two)
	lost := gone.Attach("lost", gone.Conf("blue", "web"))
	c.meet(a, lost)
	gone.PowerOff()
	c.becomes(gone, one, "off")
	kept := c.records("blocks/blue/web/")
	c.settled(one, two)
	for _, by := range []time.Duration{25 * time.Hour, -25 * time.Hour, 0} {
		unhurt(t, a, b, "the clocks jump to "+by.String(), func(l *live) {
			clock.Jumps(by)
			late := one.Attach("late", one.Conf("blue", "web"))
			c.meet(late, b)
			late.Del()
			for range 3 { // for longer than a lease
				l.flows()
				<-time.After(lease / 2)
				if states := c.state(one, one) + " " + c.state(two, one) + " " + c.state(gone, one); states != "runs runs off" {
					t.Errorf("the nodes are %s", states)
				}
			}
			c.settled(one, two)
		})
		if got := c.records("blocks/blue/web/"); len(got) != len(kept) {
			t.Errorf("blocks are %v, before they were %v", got, kept)
		}
	}
	gone.PowerOn()
	c.restart(gone, args...)
	c.becomes(gone, one, "runs")
	c.settled()
}
