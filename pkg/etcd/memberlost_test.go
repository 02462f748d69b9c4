package etcd_test

import (
	"context"
	"strconv"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
)

// asking asks a store's client for something, again and again, as who keeps watch over etcd does.
func asking(t *testing.T, s *etcd.Store) {
	t.Helper()
	life, end := context.WithCancel(t.Context())
	ended := make(chan struct{})
	t.Cleanup(func() { end(); <-ended })
	go func() {
		defer close(ended)
		for pause := time.NewTicker(300 * time.Millisecond); life.Err() == nil; {
			ctx, cancel := context.WithTimeout(life, time.Second)
			_, _ = s.Client().Get(ctx, s.Prefix()+"a") // whether it answers is the store's own to note
			cancel()
			select {
			case <-pause.C:
			case <-life.Done():
			}
		}
	}()
}

// Whatever befalls a member, what follows changes and what keeps a lease goes on with another, while the lease lasts.
func TestWatchesAndLeasesOutliveTheMemberInUse(t *testing.T) {
	for what, fault := range map[string]struct {
		begins, ends func(*etcdtest.Cluster, int)
		alone        bool // it is noticed by who only waits, too
	}{
		"stopped": {(*etcdtest.Cluster).Stop, (*etcdtest.Cluster).Start, true},
		"killed":  {(*etcdtest.Cluster).Kill, (*etcdtest.Cluster).Start, true},
		"hangs":   {(*etcdtest.Cluster).Pause, (*etcdtest.Cluster).Continue, false},
	} {
		t.Run(what, func(t *testing.T) {
			c := etcdtest.Start(t, etcdtest.Members(3))
			s, other := open(t, configOf(c)), open(t, configOf(c))
			if !fault.alone {
				asking(t, s)
			}
			lease, err := s.Client().Grant(t.Context(), 15)
			if err != nil {
				t.Fatal(err)
			}
			kept, err := s.Client().KeepAlive(t.Context(), lease.ID)
			if err != nil {
				t.Fatal(err)
			}
			<-kept // until then the client is less patient than the lease
			seen := make(chan string, 100)
			mirror := func(_ context.Context, _ bool, events []etcd.Event, _ int64) error {
				for _, e := range events {
					seen <- string(e.Value)
				}
				return nil
			}
			ctx, end := context.WithCancel(t.Context())
			ended := make(chan struct{})
			defer func() { end(); <-ended }()
			go func() { defer close(ended); _ = s.Mirror(ctx, []string{"followed/"}, nil, mirror) }()
			for i := range c.Endpoints() {
				fault.begins(c, i)
				value := strconv.Itoa(i)
				storetest.Update(t, other, storetest.Put("followed/a", value))
				etcdtest.Wait(t, "what another wrote while member "+value+" is "+what, func() bool {
					select {
					case v := <-seen:
						return v == value
					default:
						return false
					}
				})
				for len(kept) > 0 {
					<-kept
				}
				etcdtest.Wait(t, "the lease to be kept while member "+value+" is "+what, func() bool {
					select {
					case r, ok := <-kept:
						if !ok {
							t.Fatal("it was lost")
						}
						return r != nil
					default:
						return false
					}
				})
				fault.ends(c, i)
				c.Leader()
			}
			var left *clientv3.LeaseTimeToLiveResponse
			if left, err = other.Client().TimeToLive(t.Context(), lease.ID); err != nil || left.TTL <= 0 {
				t.Errorf("the lease: %v, %v", left, err)
			}
		})
	}
}

// A client that has only just begun goes on to a member that is there, whatever it asks.
func TestTheFirstMemberMayBeDead(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Members(3))
	for i := range c.Endpoints() {
		c.Kill(i)
		for range 6 { // begins with any of them
			s := open(t, configOf(c))
			etcdtest.Wait(t, "a lease", func() bool {
				_, err := s.Client().Grant(t.Context(), 15)
				return err == nil
			})
		}
		c.Start(i)
	}
}
