package cluster

import (
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/test/lab"
)

// empties takes everything out of etcd, while no tenetd runs.
func (c *cluster) empties() {
	c.t.Helper()
	for _, h := range c.Nodes {
		c.daemons[h].Terminate()
	}
	_, err := c.etcd.Client().Delete(c.t.Context(), "/", clientv3.WithPrefix())
	lab.Must(c.t, err)
}

// What the nodes know of an etcd that was emptied they declare anew: containers, chains and addresses stay as they are.
func TestAnEmptiedEtcdIsFilledByItsNodes(t *testing.T) {
	w := newLed(t)
	w.ctl(w.n1, "group", "add", "blue/fw")
	fw := lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges())
	w.lead("fw")
	w.leads(fw)
	a, b := w.across(w.n1, w.n2)
	w.settled()
	networks := w.ctl(w.n1, "network", "list", "-o", "yaml")
	l := begin(t, a, b)
	w.empties()
	for _, h := range w.Nodes {
		w.restart(h)
	}
	w.allJoined()
	w.settled()
	lost, silence := l.end()
	t.Logf("etcd emptied: %d datagrams lost, nothing for %s", lost, silence)
	if silence > lab.Stretch(5*time.Second) { // a node that has nobody else's endpoints yet leads to none
		t.Errorf("nothing came for %s", silence)
	}
	if now := w.ctl(w.n1, "network", "list", "-o", "yaml"); now != networks {
		t.Errorf("networks were\n%s\nand are\n%s", networks, now)
	}
	w.leads(fw)
	late := w.n2.Attach("late", webOn(w.n2))
	w.meet(late, a)
	w.settled()
}

// A network that is declared in the name of another, of which there are containers, is not taken over where these are, and
// spoils nothing.
func TestANetworkThatDoesNotFitIsLeftOut(t *testing.T) {
	c := newCluster(t, 2, 1)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.network(n1, "blue/web", "--subnet", web4)
	a := n1.Attach("a", n1.Conf("blue", "web"), "IP=10.0.0.200")
	b := n1.Attach("b", n1.Conf("blue", "web"))
	c.settled()
	c.empties()
	lab.Must(t, n2.Store().Update(t.Context(), store.ForgetDeclared))
	c.restart(n2)
	c.joined(n2)
	c.ctl(n2, "network", "add", "blue/web", "--subnet", "10.0.0.0/25")
	c.restart(n1)
	c.joined(n1)
	c.daemons[n1].Logs("declared without subnet " + web4)
	for range 2 {
		a.Reaches(b.IP4)
		if out := c.ctl(n1, "network", "show", "blue/web"); !strings.Contains(out, web4) {
			t.Errorf("the network of the containers is %s", out)
		}
		c.daemons[n1].Terminate()
		c.restart(n1)
		c.joined(n1)
	}
	a.Del()
	b.Del()
	lab.Eventually(t, "it to be taken over", func() bool {
		out, err := n1.Tenetctl("network", "show", "blue/web")
		return err == nil && strings.Contains(out, "10.0.0.0/25")
	})
}
