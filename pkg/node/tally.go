package node

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
)

// Work is what a process has done for its node's switch since it began.
type Work struct {
	Since time.Time `json:"since"`
	// Restores is how often the flows of all bridges were brought up to date since it, or ovs-vswitchd, had begun.
	Restores uint64 `json:"restores"`
	Syncs    Syncs  `json:"syncs"`
	// Drift is what differed from the store when the whole was looked at, by what it was (see Drift.Kinds): not what a change
	// of networks or chains brings.
	Drift map[string]uint64 `json:"drift"`
	// BundleErrors is how many bundles of flows the switch refused, or did not answer to.
	BundleErrors uint64 `json:"bundleErrors"`
}

// Differences is how many there were of whatever kind.
func (w Work) Differences() uint64 {
	var sum uint64
	for _, n := range w.Drift {
		sum += n
	}
	return sum
}

// Syncs are the passes that made all flows of a bridge, or those of its chains, agree with the store, and how long they took.
type Syncs struct {
	Count   uint64  `json:"count"`
	Seconds float64 `json:"seconds"` // of all of them together
	Last    float64 `json:"last"`    // seconds, of the last one
	// Within is a histogram, from the shortest to the longest; each has those before it in it.
	Within []Within `json:"within"`
}

// Within is how many took no longer than that.
type Within struct {
	Seconds float64 `json:"seconds"`
	Count   uint64  `json:"count"`
}

func (s *Syncs) add(took time.Duration) {
	s.Count++
	s.Last = took.Seconds()
	s.Seconds += s.Last
	for i := range s.Within {
		if s.Last <= s.Within[i].Seconds {
			s.Within[i].Count++
		}
	}
}

// Tally counts the work of a process that runs on, and the drops of its node's bridges. It may be used from any goroutine;
// a nil one counts nothing.
type Tally struct {
	mu    sync.Mutex
	work  Work
	drops dropCounter
}

// NewTally begins to count.
func NewTally() *Tally {
	t := &Tally{work: Work{Since: time.Now(), Drift: Drift{}.Kinds()}}
	for _, seconds := range []float64{0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30} {
		t.work.Syncs.Within = append(t.work.Syncs.Within, Within{Seconds: seconds})
	}
	return t
}

// Work returns what has been done so far.
func (t *Tally) Work() Work {
	var w Work
	t.count(func() {
		w = t.work
		w.Drift, w.Syncs.Within = maps.Clone(w.Drift), slices.Clone(w.Syncs.Within)
	})
	return w
}

func (t *Tally) count(do func()) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	do()
}

// synced counts a pass over flows that began then, if it came to its end.
func (t *Tally) synced(begun time.Time, err error) {
	if err == nil {
		t.count(func() { t.work.Syncs.add(time.Since(begun)) })
	}
}

func (t *Tally) restored() { t.count(func() { t.work.Restores++ }) }

func (t *Tally) found(d Drift) {
	t.count(func() {
		for what, n := range d.Kinds() {
			t.work.Drift[what] += n
		}
	})
}

// sent counts a bundle that failed. Who did not want to wait for the answer any longer is not to be counted.
func (t *Tally) sent(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		t.count(func() { t.work.BundleErrors++ })
	}
}

func (t *Tally) dropped() []Dropped {
	all := []Dropped{}
	t.count(func() { all = t.drops.list() })
	return all
}

// commit sends the changes as one bundle, and counts it if that fails.
func (t *Tally) commit(ctx context.Context, c *openflow.Conn, changes []openflow.Change) error {
	err := c.Commit(ctx, changes)
	t.sent(err)
	return err
}

// Kinds are the differences by what they are about. All kinds are there.
func (d Drift) Kinds() map[string]uint64 {
	return map[string]uint64{
		"endpoints": uint64(len(d.Endpoints)), "ports": uint64(len(d.Ports)), "links": uint64(len(d.Links)), "unplugged": uint64(len(d.Unplugged)),
		"missing-flows": uint64(d.MissingFlows), "stray-flows": uint64(d.StrayFlows), "groups": uint64(len(d.Groups)), "meters": uint64(len(d.Meters)), "host": uint64(len(d.Host)),
	}
}
