package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// When an ADD returns etcd has the endpoint, and when a DEL returns it has it no more. A tenetd that does not answer is not
// waited for: the ADD succeeds, and says that the others do not know yet.
func TestEtcdHasWhatAnADDReturns(t *testing.T) {
	c := newCluster(t, 2, 1)
	h := c.Nodes[0]
	c.network(h, "blue/web", "--subnet", web4, "--subnet", web6)
	published := func() int { return len(c.records("endpoints/blue/web/" + h.Name + "/")) }
	for range 10 {
		e := h.Attach("e", webOn(h))
		if n := published(); n != 1 {
			t.Errorf("etcd has %d endpoints as an ADD returns", n)
		}
		e.Del()
		if n := published(); n != 0 {
			t.Errorf("etcd has %d endpoints as a DEL returns", n)
		}
	}
	h.Attach("first", webOn(h)) // so that the node has a block
	late := h.Container("late")
	late.Conf = webOn(h)
	c.daemons[h].Sleeps(func() {
		begins := time.Now()
		answer := late.Do("ADD")
		lab.Must(t, answer.Failed())
		if took := time.Since(begins); took > lab.Stretch(2*time.Second) {
			t.Errorf("an ADD waits %s for a tenetd that does not answer", took)
		}
		if !strings.Contains(answer.Stderr, "not yet published to the other nodes") {
			t.Errorf("it says nothing of it: %q", answer.Stderr)
		}
		late.Learn(answer.Stdout)
	})
	c.settled()
}
