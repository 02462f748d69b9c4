package cluster

import (
	"strconv"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
)

// The next block is claimed before the one that there is is full, and one that nobody has an address of any more is kept until it
// has rested.
func TestBlocksAreClaimedAheadAndRest(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	m := w.member(1)
	d := m.started()
	d.Rest = time.Hour
	wants := func(what string, want int) {
		t.Helper()
		d.rest()
		if got := len(m.blocks()); got != want {
			t.Errorf("%s: it holds %d blocks, not %d", what, got, want)
		}
	}
	var names []string
	for i := range 8 {
		names = append(names, strconv.Itoa(i))
		d.mustAdd(names[i])
		if i == 4 {
			wants("with most of the first free", 1)
		}
	}
	wants("when the first is full", 2)
	m.mustErase(names...)
	wants("when all have gone", 2)
	d.Rest = time.Nanosecond
	wants("when they have rested", 0)
	w.agree([]*member{m})
}
