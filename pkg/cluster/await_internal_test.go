package cluster

import (
	"context"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
)

// hears has d take over that the records of these keys went at a revision.
func (d *tenetd) hears(revision int64, keys ...string) {
	d.Helper()
	var events []etcd.Event
	for _, key := range keys {
		events = append(events, etcd.Event{Key: key, Revision: revision})
	}
	if err := d.apply(d.life, false, events, revision); err != nil {
		d.Fatal(err)
	}
}

// wantsThere checks whether d says at once that it has what was changed at a revision.
func (d *tenetd) wantsThere(there bool, revision int64, prefixes ...string) {
	d.Helper()
	ctx, end := context.WithCancel(d.life)
	end() // it does not wait
	_, err := d.Answer(ctx, socket.Request{Do: socket.Await, Revision: revision, Prefixes: prefixes})
	if (err == nil) != there {
		d.Errorf("asked for revision %d of %q: %v; that it is there is %t", revision, prefixes, err, there)
	}
}

// Who waits for a change is told when all of it is in the node's store and not before, in whatever order news arrives of
// what is followed apart.
func TestAwaitEndsWhenTheChangeIsHere(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	d := w.member(0).started()
	const tenant, network, other = store.Tenants + "x", store.Networks + "x/a", store.Networks + "x/b"

	const half = 1000 // of a transaction
	d.hears(half, network)
	d.wantsThere(true, half, store.Networks)
	d.wantsThere(false, half, store.Tenants, store.Networks)
	d.wantsThere(false, half)
	d.hears(half, tenant)
	d.wantsThere(true, half, store.Tenants, store.Networks)

	const later, earlier = half + 2, half + 1 // which comes after it
	d.hears(later, network)
	d.wantsThere(false, earlier, store.Tenants)
	d.hears(earlier, tenant)
	d.wantsThere(true, earlier, store.Tenants)
	d.wantsThere(true, later, store.Networks)
	if got := d.Status(d.life).Revision; got != later {
		t.Errorf("it is at revision %d, want %d", got, later)
	}

	const last = later + 1
	waits := make(chan error)
	go func() {
		_, err := d.Answer(d.life, socket.Request{Do: socket.Await, Revision: last, Prefixes: []string{store.Tenants, store.Networks}})
		waits <- err
	}()
	d.hears(last, other)
	d.hears(last, tenant)
	if err := <-waits; err != nil {
		t.Error(err)
	}

	if err := d.apply(d.life, true, nil, last+1); err != nil {
		t.Fatal(err)
	}
	d.wantsThere(true, last+1)
	d.wantsThere(false, last+2)
}

// To have caught up a node needs the latest of everything, and no more than that: it is not told of anything else.
func TestANodeHasCaughtUpWithTheLatestOfEverything(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	d := w.member(0).started()
	latest, err := d.latest(d.life, declared...)
	if err != nil {
		t.Fatal(err)
	}
	caughtUp := func() bool {
		ctx, end := context.WithCancel(d.life)
		end()
		return d.await(ctx, latest) == nil
	}
	d.hears(latest[store.Tenants]+1000, store.Tenants+"x") // something of one of them
	if latest[store.Networks] == 0 || caughtUp() {
		t.Error("it counts as having networks of which it has not heard")
	}
	d.hears(latest[store.Networks], store.Networks+"x/a")
	if !caughtUp() {
		t.Error("it waits for what nobody will tell it of")
	}
}
