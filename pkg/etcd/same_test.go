package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
)

// An etcd that was set back is another one, whether it has come to less than was heard of it, or to more by now. One that was
// only compacted, or started again, is the same.
func TestSameTellsOneEtcdFromAnother(t *testing.T) {
	c := etcdtest.Start(t)
	put := func(s *etcd.Store, name string, times int) {
		t.Helper()
		for i := range times {
			if err := s.Update(t.Context(), func(tx store.Tx) error { return tx.Put("a/"+name, fmt.Append(nil, name, i)) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	open := func() *etcd.Store {
		t.Helper()
		s, err := etcd.Open(etcd.Config{Endpoints: c.Endpoints()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
	other := open()
	put(other, "before", 3)
	snapshot := c.Snapshot()
	for what, later := range map[string]int{"behind": 0, "ahead": 40} {
		s, heard := open(), make(chan struct{}, 100)
		go func() {
			_ = s.Mirror(t.Context(), []string{"a/"}, nil, func(_ context.Context, _ bool, events []etcd.Event, _ int64) error {
				for range events {
					heard <- struct{}{}
				}
				return nil
			})
		}()
		<-heard // what was before
		put(other, "since", 20)
		for range 20 {
			<-heard
		}
		for range 2 {
			etcdtest.Wait(t, what+": the same to be told", func() bool {
				err := s.Same(t.Context())
				if errors.Is(err, etcd.ErrAnother) {
					t.Fatalf("%s: it has not changed: %v", what, err)
				}
				return err == nil
			})
			c.Kill(0)
			c.Start(0)
		}
		c.Restore(snapshot)
		put(other, "else", later)
		etcdtest.Wait(t, what+": another to be told", func() bool { return errors.Is(s.Same(t.Context()), etcd.ErrAnother) })

		s = open()
		if _, _, err := s.List(t.Context(), []string{"a/"}); err != nil {
			t.Error(err)
		}
		c.Compact()
		if err := s.Same(t.Context()); err != nil {
			t.Errorf("%s: it was compacted: %v", what, err)
		}
	}
}
