package cluster

import (
	"cmp"
	"slices"
)

// claims are records of etcd some of whose fields only one of them may have: of endpoints the MAC and the addresses within
// their network, of nodes the address of their tunnels. The switch has one flow for such a thing, which a second record would
// take over, and take away when it goes. So the first that came stands, and whoever comes with what is another's is left out
// of account until that one has gone.
//
// What only one may have is told as a text, and keys are told to people by name.
type claims[K ~string, R any] struct {
	of    func(R) []string  // what of a record no other may have
	name  func(K) string    // whose a record is
	fits  func(R) objection // what stands in its way beside other records
	takes map[K]R           // what is taken over
	out   map[K]leftOut[R]  // and what is not
	whose map[string]K
}

// written is a record as etcd has it.
type written[R any] struct {
	record   R
	revision int64
}

// leftOut is a record that is left out of account, and why.
type leftOut[R any] struct {
	written[R]
	why objection
}

// objection is why a record is left out of account; empty: it is not.
type objection struct {
	why   string
	whose string // whose it is that the record claims; "" where that is nobody's
	quiet bool   // it is to be expected, and told to nobody
	moot  bool   // nothing has to be known of the record, now or later: its key may have gone as well
}

// changed is what has become of records: those that were written, those that were written and cannot be read, so that they stay what they were,
// and those that have gone; whole: all others have.
type changed[K ~string, R any] struct {
	whole   bool
	written map[K]written[R]
	unread  []K
	gone    []K
	doubted []K     // that stand, and may not fit any more
	before  map[K]R // whole: what stood before this tenetd ran
}

// change takes over what has become of records. It returns the keys of those that were written, have gone or stand
// otherwise now, and of those that are newly left out.
//
// Whoever has what it had comes first, then all others in the order in which they were written. One that is left out keeps
// its record of before, as long as nobody else claims that.
func (c *claims[K, R]) change(n changed[K, R]) (map[K]bool, []K) {
	touched := map[K]bool{}
	var refused []K
	if c.out == nil {
		c.out, c.whose = map[K]leftOut[R]{}, map[string]K{}
	}
	gone := n.gone
	if n.whole {
		gone = append(slices.Clone(gone), c.absent(n)...)
		c.seed(n)
	}
	for _, k := range gone {
		c.release(k)
		delete(c.out, k)
		touched[k] = true
	}
	newcomers := map[K]written[R]{}
	for k, o := range c.out {
		newcomers[k] = o.written
	}
	for _, k := range n.doubted {
		if stands, has := c.takes[k]; has {
			newcomers[k] = written[R]{record: stands} // before all others
		}
	}
	for k, w := range n.written {
		touched[k] = true
		stands, has := c.takes[k]
		_, again := newcomers[k]
		if has && !again && slices.Equal(c.of(stands), c.of(w.record)) {
			c.takes[k] = w.record
			continue
		}
		newcomers[k] = w
	}
	if len(newcomers) == 0 {
		return touched, nil
	}
	order := make([]K, 0, len(newcomers))
	before := map[K]R{}
	for k := range newcomers {
		order = append(order, k)
		if stands, has := c.takes[k]; has {
			before[k] = stands
			c.release(k)
		}
	}
	slices.SortFunc(order, func(a, b K) int {
		return cmp.Or(cmp.Compare(newcomers[a].revision, newcomers[b].revision), cmp.Compare(a, b))
	})
	for _, k := range order {
		w := newcomers[k]
		why := c.refuses(w.record)
		if why == (objection{}) {
			c.admit(k, w.record)
			delete(c.out, k)
			touched[k] = true
			continue
		}
		if why.moot {
			delete(c.out, k)
			if _, stood := before[k]; stood {
				touched[k] = true
			} else {
				delete(touched, k)
			}
			continue
		}
		if !why.quiet && c.out[k].why != why {
			refused = append(refused, k)
		}
		c.out[k] = leftOut[R]{w, why}
	}
	for _, k := range order {
		if _, out := c.out[k]; !out {
			continue
		}
		stands, has := before[k]
		if has && c.refuses(stands) == (objection{}) {
			c.admit(k, stands)
			continue
		}
		if has {
			touched[k] = true
		} else { // it never stood
			delete(touched, k)
		}
	}
	return touched, refused
}

// absent are those that a whole list has no more.
func (c *claims[K, R]) absent(n changed[K, R]) []K {
	var absent []K
	stays := func(k K) bool { _, ok := n.written[k]; return ok || slices.Contains(n.unread, k) }
	for k := range c.takes {
		if !stays(k) {
			absent = append(absent, k)
		}
	}
	for k := range c.out {
		if _, ok := c.takes[k]; !ok && !stays(k) {
			absent = append(absent, k)
		}
	}
	return absent
}

// seed has stand again what stood before this tenetd ran, and is still listed.
func (c *claims[K, R]) seed(n changed[K, R]) {
	listed := slices.Clone(n.unread)
	for k := range n.written {
		listed = append(listed, k)
	}
	slices.Sort(listed)
	for _, k := range listed {
		r, ok := n.before[k]
		if _, has := c.takes[k]; ok && !has && c.refuses(r) == (objection{}) {
			c.admit(k, r)
		}
	}
}

func (c *claims[K, R]) refuses(r R) objection {
	if why := c.fits(r); why != (objection{}) {
		return why
	}
	for _, what := range c.of(r) {
		if other, taken := c.whose[what]; taken {
			return objection{why: what + " is another's", whose: c.name(other)}
		}
	}
	return objection{}
}

func (c *claims[K, R]) admit(k K, r R) {
	c.takes[k] = r
	for _, what := range c.of(r) {
		c.whose[what] = k
	}
}

func (c *claims[K, R]) release(k K) {
	for _, what := range c.of(c.takes[k]) {
		if c.whose[what] == k {
			delete(c.whose, what)
		}
	}
	delete(c.takes, k)
}
