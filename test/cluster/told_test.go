package cluster

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// unpublished is what an ADD or a DEL says that succeeds though etcd has not been told within a second.
const unpublished = "not yet published to the other nodes"

// When an ADD returns etcd has the endpoint, and when a DEL returns it has it no more. A tenetd that does not answer is not
// waited for: the ADD succeeds, and says that the others do not know yet.
func TestEtcdHasWhatAnADDReturns(t *testing.T) {
	c := newCluster(t, 2, 1)
	h := c.Nodes[0]
	c.network(h, "blue/web", "--subnet", web4, "--subnet", web6)
	published := func() int { return len(c.records("endpoints/blue/web/" + h.Name + "/")) }
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
	if prompt < 18 {
		t.Errorf("of 20 ADDs and DELs %d found a tenetd that is there", prompt)
	}
	h.Attach("first", webOn(h)) // so that the node has a block
	c.daemons[h].Sleeps(func() {
		var took []time.Duration
		soon := lab.Holds(func() bool {
			late := h.Container(fmt.Sprintf("late%d", len(took)))
			late.Conf = webOn(h)
			begins := time.Now()
			answer := late.Do("ADD")
			took = append(took, time.Since(begins))
			lab.Must(t, answer.Failed())
			if !strings.Contains(answer.Stderr, unpublished) {
				t.Errorf("it says nothing of it: %q", answer.Stderr)
			}
			late.Learn(answer.Stdout)
			return took[len(took)-1] <= lab.Stretch(2*time.Second)
		})
		if !soon {
			t.Errorf("ADDs wait %s for a tenetd that does not answer", took)
		}
	})
	c.settled()
}
