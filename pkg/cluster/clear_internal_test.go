package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// holds has d hold blocks of which nobody has an address.
func (d *tenetd) holds(blocks int) {
	d.Helper()
	var names []string
	for i := range blocks {
		names = append(names, fmt.Sprint("gone", i))
		d.mustAdd(names[i], fmt.Sprintf("10.0.%d.9", i))
	}
	d.mustErase(names...)
}

// deleteNetwork deletes the world's network as tenetctl does.
func (w *world) deleteNetwork(ctx context.Context, s *etcd.Store) error {
	return ClearNetwork(ctx, s, w.net.Ref(), func() error {
		return s.Update(ctx, Planned(func(tx store.Tx) error { return store.DeleteNetwork(tx, w.net.Ref()) }))
	})
}

// However many blocks of it nodes hold, a network that nobody is in can be deleted; and if that is cut, once more.
func TestANetworkOfManyBlocksIsDeleted(t *testing.T) {
	const many = 100 // which are cleared by two changes, and go with the network by a third
	for cut := range 3 {
		w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/16"}`)
		d := w.member(1).started()
		d.holds(many)
		for range cut {
			taken, err := clearSome(t.Context(), w.etcd, w.net.Ref())
			if err != nil || len(taken) == 0 {
				t.Fatalf("cleared %d blocks: %v", len(taken), err)
			}
		}
		if err := w.deleteNetwork(t.Context(), w.etcd); err != nil {
			t.Errorf("cut after %d changes: %v", cut, err)
		}
		if left := w.keys(store.Networks, store.Blocks, holdings); len(left) > 0 {
			t.Errorf("cut after %d changes: left are %v", cut, left)
		}
	}
}

// Somebody may come into a network while it is being deleted. Then it stays, and so do the blocks of those who hold some.
func TestWhoComesStopsTheDeletionOfANetwork(t *testing.T) {
	for changes := range 3 {
		t.Run(fmt.Sprintf("after %d changes", changes), func(t *testing.T) {
			w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/16"}`)
			m, other := w.member(1), w.member(2)
			d, o := m.started(), other.started()
			d.holds(100)
			ctl := w.member(3).tenetd(nil)
			defer ctl.bury()
			made := 0
			ctl.befalls = func() fault {
				if made++; made == changes+1 {
					o.mustAdd("new", "10.0.200.9")
					if !o.follow(o.life) {
						t.Error(o.failures)
					}
				}
				return none
			}
			err := w.deleteNetwork(t.Context(), ctl.etcd)
			if !errors.Is(err, vnet.ErrExists) || !strings.Contains(fmt.Sprint(err), "new/eth0 on "+string(other.Name)) || vnet.Hint(err) == "" {
				t.Errorf("got %v (hint %q)", err, vnet.Hint(err))
			}
			w.agree([]*member{m, other})
		})
	}
}

// A deletion that was cut has taken blocks whose nodes do not know. Whoever of these comes has them claim what they had.
func TestABlockThatWasClearedIsClaimedAgain(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/16"}`)
	m := w.member(1)
	d := m.started()
	d.holds(100)
	_, err := clearSome(t.Context(), w.etcd, w.net.Ref())
	must(t, err)
	if got := len(w.keys(store.Blocks)); got >= 100 {
		t.Fatalf("etcd has %d blocks: this test proves nothing", got)
	}
	d.Rest = 1 << 40
	for i := range 100 {
		d.mustAdd(fmt.Sprint("back", i), fmt.Sprintf("10.0.%d.10", i))
	}
	d.rest()
	w.agree([]*member{m})
}
