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
	const unpublished = "not yet published to the other nodes"
	e := h.Container("e")
	e.Conf = webOn(h)
	prompt := 0
	for i := range 20 {
		verb, want := "ADD", 1
		if i%2 == 1 {
			verb, want = "DEL", 0
		}
		answer := e.Do(verb)
		n := published()
		lab.Must(t, answer.Failed())
		if strings.Contains(answer.Stderr, unpublished) { // a busy machine's tenetd may be late
			lab.Eventually(t, "etcd to be told all the same", func() bool { return published() == want })
			continue
		}
		prompt++
		if n != want {
			t.Errorf("etcd has %d endpoints as %s returns", n, verb)
		}
	}
	if prompt < 5 {
		t.Errorf("of 20 ADDs and DELs %d found a tenetd that is there", prompt)
	}
	h.Attach("first", webOn(h)) // so that the node has a block
	late := h.Container("late")
	late.Conf = webOn(h)
	c.daemons[h].Sleeps(func() {
		begins := time.Now()
		answer := late.Do("ADD")
		lab.Must(t, answer.Failed())
		if took := time.Since(begins); took > lab.Stretch(5*time.Second) {
			t.Errorf("an ADD waits %s for a tenetd that does not answer", took)
		}
		if !strings.Contains(answer.Stderr, unpublished) {
			t.Errorf("it says nothing of it: %q", answer.Stderr)
		}
		late.Learn(answer.Stdout)
	})
	c.settled()
}
