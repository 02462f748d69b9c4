package cluster

import (
	"context"
	"sync"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
)

// A node that was about to have left, which failed, and that is to stay after all takes a lease again.
func TestWhoStaysAfterAllTakesALease(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	d := w.member(1).started()
	first := d.holding()
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.part(cut); err == nil {
		t.Fatal("it has left")
	}
	if _, err := d.etcd.Client().Revoke(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	var kept sync.WaitGroup
	kept.Go(func() { d.keep(d.life) })
	etcdtest.Wait(t, "the lease to be lost", func() bool { return d.holding() == 0 })
	d.house(d.life, nil)
	etcdtest.Wait(t, "another lease", func() bool { return d.holding() != 0 })
	d.end()
	kept.Wait()
}
