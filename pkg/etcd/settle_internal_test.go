package etcd

import (
	"context"
	"errors"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// wire is what stands in for the connection when a Txn is sent: send sends it.
type wire func(n int, send func() error) error

func (w wire) option() grpc.DialOption {
	n := 0
	return grpc.WithChainUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if method != pb.KV_Txn_FullMethodName {
			return next(ctx, method, req, reply, cc, opts...)
		}
		n++
		// Sent late, a request has no caller any more.
		return w(n, func() error { return next(context.WithoutCancel(ctx), method, req, reply, cc, opts...) })
	})
}

// lost is the answer of a connection that breaks.
var lost = status.Error(codes.Unavailable, "error reading from server: EOF")

func TestLostAnswerMakesNoChangeTwice(t *testing.T) {
	c := etcdtest.Start(t)
	config := Config{Endpoints: c.Endpoints()}
	other, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	others := func() error {
		return other.Update(t.Context(), func(tx store.Tx) error { return storetest.Increment(tx, "other") })
	}
	for what, test := range map[string]struct {
		wire wire
		runs int
	}{
		"made": {func(n int, send func() error) error {
			if err := send(); n > 1 || err != nil {
				return err
			}
			return lost
		}, 1},
		"made, and others after it": {func(n int, send func() error) error {
			if err := send(); n > 1 || err != nil {
				return err
			}
			return errors.Join(lost, others(), others(), others())
		}, 1},
		"made, and the member out of time": {func(n int, send func() error) error {
			if err := send(); n > 1 || err != nil {
				return err
			}
			return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
		}, 1},
		"not made": {func(n int, send func() error) error {
			if n == 1 {
				return lost
			}
			return send()
		}, 2},
		"not made, and others meanwhile": {func(n int, send func() error) error {
			if n == 1 {
				return errors.Join(lost, others(), others())
			}
			return send()
		}, 2},
		"nobody there": {func(n int, send func() error) error {
			if n == 1 {
				return status.Error(codes.Unavailable, "Error while dialing: connection refused")
			}
			return send()
		}, 1},
	} {
		t.Run(what, func(t *testing.T) {
			s, err := open(config, test.wire.option())
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			storetest.Update(t, other, storetest.Put("n", "0"))
			runs := 0
			rev, err := s.Commit(t.Context(), func(tx store.Tx) error { runs++; return storetest.Increment(tx, "n") })
			if err != nil || runs != test.runs {
				t.Errorf("%v after %d runs, want %d", err, runs, test.runs)
			}
			storetest.View(t, other, storetest.Wants("n", "1"))
			if r, err := c.Client().Get(t.Context(), s.Prefix()+"n"); err != nil || r.Kvs[0].ModRevision != rev {
				t.Errorf("it stands at %v, told is %d: %v", r.Kvs, rev, err)
			}
		})
	}
}

// A change that is still on its way when its answer is given up arrives in vain, also if it has read nothing.
func TestLateChangeIsNotMade(t *testing.T) {
	c := etcdtest.Start(t)
	config := Config{Endpoints: c.Endpoints()}
	for what, fn := range map[string]func(store.Tx) error{
		"read":  func(tx store.Tx) error { return storetest.Increment(tx, "n") },
		"blind": storetest.Put("blind", "x"),
	} {
		for _, before := range []bool{true, false} {
			var first func() error
			s, err := open(config, wire(func(n int, send func() error) error {
				if n == 1 {
					first = send
					return lost
				}
				if before {
					return errors.Join(first(), send())
				}
				return errors.Join(send(), first())
			}).option())
			if err != nil {
				t.Fatal(err)
			}
			rev, err := s.Commit(t.Context(), fn)
			if err != nil {
				t.Fatal(err)
			}
			r, err := c.Client().Get(t.Context(), s.Prefix()+commitKey)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.Kvs[0]; got.ModRevision != rev {
				t.Errorf("%s: the last change is at %d, want %d", what, got.ModRevision, rev)
			}
			s.Close()
		}
	}
	s, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storetest.View(t, s, storetest.Wants("n", "2"))
}

func TestChangeOfWhichNothingIsKnownIsTold(t *testing.T) {
	c := etcdtest.Start(t)
	s, err := open(Config{Endpoints: c.Endpoints()}, wire(func(_ int, send func() error) error {
		err := send()
		for range 3 { // the history in which it would be found
			_, perr := c.Client().Put(t.Context(), "/tenet/v1/"+commitKey, "another's")
			err = errors.Join(err, perr)
		}
		c.Compact()
		return errors.Join(lost, err)
	}).option())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Update(t.Context(), storetest.Put("a", "x"))
	if !errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), "whether the change was made is not known") {
		t.Errorf("got %v", err)
	}
}
