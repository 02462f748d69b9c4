package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

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
func (w *world) deleteNetwork(ctx context.Context) error {
	return deleteWith(ctx, w.etcd, w.etcd, w.net.Ref())
}

func deleteWith(ctx context.Context, first, then store.Store, r vnet.Ref) error {
	gone := first.Update(ctx, Planned(func(tx store.Tx) error { return DeleteNetwork(tx, r) }))
	if gone != nil && !errors.Is(gone, vnet.ErrNotFound) {
		return gone
	}
	cleared, err := ClearNetwork(ctx, then, r)
	if err != nil || cleared > 0 {
		return err
	}
	return gone
}

var errCut = errors.New("cut")

// However many blocks of it nodes hold, a network that nobody is in can be deleted. If that is cut it is done by another, and no
// network of the name is declared before.
func TestANetworkOfManyBlocksIsDeleted(t *testing.T) {
	const many = 100 // which go by three changes after the network
	for cut := range 4 {
		w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/16"}`)
		d := w.member(1).started()
		d.holds(many)
		if cut > 0 {
			ctx, end := context.WithCancelCause(t.Context())
			made := 0
			err := deleteWith(ctx, w.etcd, cutting{w.etcd, func() {
				if made++; made == cut {
					end(errCut)
				}
			}}, w.net.Ref())
			if err == nil {
				t.Fatalf("it is not cut after %d changes", cut)
			}
			err = w.etcd.Update(t.Context(), func(tx store.Tx) error {
				_, err := store.DeclareNetwork(tx, w.net)
				return err
			})
			if left := len(w.keys(store.Blocks)); left > fewBlocks && (!errors.Is(err, vnet.ErrExists) || !strings.Contains(vnet.Hint(err), "tenetctl network del")) {
				t.Errorf("with %d blocks of before it is declared: %v, hint %q", left, err, vnet.Hint(err))
			}
		}
		if err := w.deleteNetwork(t.Context()); err != nil {
			t.Errorf("cut after %d changes: %v", cut, err)
		}
		if left := w.keys(store.Networks, store.Blocks, holdings); len(left) > 0 {
			t.Errorf("cut after %d changes: left are %v", cut, left)
		}
		if err := w.deleteNetwork(t.Context()); !errors.Is(err, vnet.ErrNotFound) {
			t.Errorf("deleted once more: %v", err)
		}
		w.declare(&w.net)
	}
}

// cutting calls before each change.
type cutting struct {
	store.Store

	before func()
}

func (c cutting) Update(ctx context.Context, fn func(store.Tx) error) error {
	c.before()
	return c.Store.Update(ctx, fn)
}

// Who comes into a network before it has gone stops its deletion, of which nothing is left then; who comes after is refused.
func TestWhoComesStopsTheDeletionOfANetwork(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/16"}`)
	m, other := w.member(1), w.member(2)
	d, o := m.started(), other.started()
	d.holds(100)
	o.mustAdd("new", "10.0.200.9")
	if !o.follow(o.life) {
		t.Error(o.failures)
	}
	err := w.deleteNetwork(t.Context())
	if !errors.Is(err, vnet.ErrExists) || !strings.Contains(fmt.Sprint(err), "new/eth0 on "+string(other.Name)) || vnet.Hint(err) == "" {
		t.Errorf("got %v (hint %q)", err, vnet.Hint(err))
	}
	w.agree([]*member{m, other})
	other.mustErase("new")
	o.rest()
	e, err := m.allocate("late") // of a block that d holds
	must(t, err)
	must(t, w.deleteNetwork(t.Context()))
	if err := d.publish(t.Context(), e.Publish(m.Name), m.net); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("it is told of who came when the network had gone: %v", err)
	}
}
