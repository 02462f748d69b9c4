package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// wantUnavailable checks that each way to use a store ends with ctx and says which etcd does not answer.
func wantUnavailable(t *testing.T, s *etcd.Store, endpoint string) {
	t.Helper()
	for what, use := range map[string]func(context.Context) error{
		"View": func(ctx context.Context) error { return s.View(ctx, storetest.Wants("a", "")) },
		"Range": func(ctx context.Context) error {
			return s.View(ctx, func(tx store.Tx) error { return tx.Range("", nil) })
		},
		"Update": func(ctx context.Context) error { return s.Update(ctx, storetest.Put("a", "x")) },
		"its own view": func(ctx context.Context) error {
			return s.View(ctx, func(tx store.Tx) error { tx.Get("a"); return errors.New("no a") })
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		err := use(ctx)
		late := ctx.Err() == nil
		cancel()
		if !errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), endpoint) || vnet.Hint(err) == "" {
			t.Errorf("%s: got %v (hint %q), want an ErrUnavailable that names %s", what, err, vnet.Hint(err), endpoint)
		}
		if late {
			t.Errorf("%s gave up before its time: %v", what, err)
		}
	}
}

func TestEtcdThatDoesNotAnswerIsUnavailable(t *testing.T) {
	t.Run("nobody listens", func(t *testing.T) {
		c := etcdtest.Start(t)
		s := open(t, configOf(c))
		c.Stop(0)
		wantUnavailable(t, s, c.Endpoints()[0])
		c.Start(0)
		put(t, s, "a", "x")
	})
	t.Run("never there", func(t *testing.T) {
		s := open(t, etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}})
		wantUnavailable(t, s, "http://127.0.0.1:1")
		err := s.View(canceled(t), storetest.Wants("a", ""))
		if !errors.Is(err, vnet.ErrUnavailable) || !errors.Is(err, context.Canceled) {
			t.Errorf("canceled: %v", err)
		}
	})
	t.Run("never there, with a user", func(t *testing.T) {
		s := open(t, etcd.Config{Endpoints: []string{"http://127.0.0.1:1"}, Username: "u", PasswordFile: file(t, "p")})
		wantUnavailable(t, s, "http://127.0.0.1:1")
	})
	t.Run("somebody else", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // and it never accepts
		wantUnavailable(t, open(t, etcd.Config{Endpoints: []string{"http://" + l.Addr().String()}}), l.Addr().String())
	})
	t.Run("it hangs", func(t *testing.T) {
		c := etcdtest.Start(t)
		s := open(t, configOf(c))
		storetest.View(t, s, storetest.Wants("a", ""))
		c.Pause(0)
		wantUnavailable(t, s, c.Endpoints()[0])
		c.Continue(0)
		put(t, s, "b", "x")
	})
	t.Run("no quorum", func(t *testing.T) {
		c := etcdtest.Start(t, etcdtest.Members(3))
		s := open(t, configOf(c))
		storetest.View(t, s, storetest.Wants("a", ""))
		c.Kill(0)
		c.Kill(1)
		wantUnavailable(t, s, c.Endpoints()[2])
	})
}

func canceled(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestEveryMemberShowsWhatWasWritten(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Members(3))
	s := open(t, configOf(c))
	for round := range 5 {
		put(t, s, "a", strconv.Itoa(round))
		for _, e := range c.Endpoints() {
			config := configOf(c)
			config.Endpoints = []string{e}
			storetest.View(t, open(t, config), storetest.Wants("a", strconv.Itoa(round)))
		}
	}
}

// Members die, hang and come back, always so that two of three are there, while many count. None of what was told as
// done is lost, and nothing is done twice.
func TestMembersMayDieWhileUpdatesRun(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Members(3))
	var all sync.WaitGroup
	var done atomic.Int64
	end := make(chan struct{})
	const writers = 6
	for w := range writers {
		s := open(t, configOf(c))
		all.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				err := s.Update(t.Context(), func(tx store.Tx) error {
					return errors.Join(
						storetest.Increment(tx, "counter"),
						storetest.Increment(tx, fmt.Sprintf("mine/%d", w)),
						tx.Put(fmt.Sprintf("path-ids/%d", w*1000+i), []byte("x")))
				})
				if err != nil {
					t.Errorf("writer %d, update %d: %v", w, i, err)
					return
				}
				done.Add(1)
			}
		})
	}
	more := func() {
		t.Helper()
		had := done.Load()
		etcdtest.Wait(t, "updates to go on", func() bool { return t.Failed() || done.Load() > had+2*writers })
	}
	more()
	for range 2 {
		leader := c.Leader()
		c.Kill(leader)
		more()
		c.Start(leader)
		leader = c.Leader()
		c.Pause(leader)
		more()
		c.Continue(leader)
		other := (c.Leader() + 1) % 3
		c.Stop(other)
		more()
		c.Start(other)
	}
	close(end)
	all.Wait()
	want := int(done.Load())
	storetest.View(t, open(t, configOf(c)), storetest.Wants("counter", strconv.Itoa(want)), func(tx store.Tx) error {
		if n := len(storetest.Keys(t, tx, "path-ids/", want+1)); n != want {
			t.Errorf("%d records, want %d", n, want)
		}
		sum := 0
		for w := range writers {
			n, _ := strconv.Atoi(string(tx.Get(fmt.Sprintf("mine/%d", w))))
			sum += n
		}
		if sum != want {
			t.Errorf("the writers have counted to %d, want %d", sum, want)
		}
		return nil
	})
}
