package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

const (
	// deadline is that of a transaction whose ctx has none.
	deadline = 10 * time.Second
	// txnPatience is how long a member has to make a Txn before its answer is taken for lost.
	txnPatience = 3 * time.Second
	// maxCompares is how many comparisons etcd takes in a Txn (--max-txn-ops, if not told).
	maxCompares = 128
	// The pauses before a closure runs again double between these.
	firstPause = 5 * time.Millisecond
	lastPause  = 160 * time.Millisecond
)

// View runs fn over etcd at one revision. See store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	return s.untilDone(ctx, func(ctx context.Context) (bool, error) {
		err := s.begin(ctx, false).run(fn)
		return !passing(err), err
	})
}

// Commit is Update that tells the revision at which what fn wrote stands, or, if that changes nothing, what it has
// read: 0 if it has not read anything either.
func (s *Store) Commit(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	var revision int64
	err := s.untilDone(ctx, func(ctx context.Context) (bool, error) {
		t := s.begin(ctx, true)
		changes, err := t.outcome(fn)
		if err != nil {
			return !passing(err), err
		}
		if revision = t.snapshot.revision; len(changes) == 0 {
			return true, nil
		}
		revision, err = s.txn(t.snapshot, operations(s.prefix, changes))
		return revision != 0 || err != nil, err
	})
	if err != nil {
		return 0, err
	}
	return revision, nil
}

// untilDone runs a transaction until a run is the one that counts.
func (s *Store) untilDone(ctx context.Context, run func(context.Context) (bool, error)) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		defer cancel()
	}
	longest := firstPause
	for runs := 1; ; runs++ {
		done, err := run(ctx)
		if done {
			return err
		}
		if ended := pause(ctx, longest); ended != nil {
			return vnet.WithHint(answer{fmt.Errorf("%s: %w: in each of %d runs another transaction was quicker: %w", s.name, vnet.ErrUnavailable, runs, ended)},
				"many change the same records at once; try again")
		}
		longest = min(2*longest, lastPause)
	}
}

// txn makes the changes if what the snapshot has read still stands. It returns the revision at which they were made,
// 0 if they were not.
func (s *Store) txn(n *snapshot, changes []clientv3.Op) (int64, error) {
	id := rand.Text()
	compares := n.compares()
	changes = append(changes, clientv3.OpPut(s.prefix+commitKey, id))
	for {
		var r *clientv3.TxnResponse
		err := try(n.ctx, txnPatience, func(ctx context.Context) error {
			var err error
			r, err = s.client.Txn(ctx).If(compares...).Then(changes...).Commit()
			return err
		})
		switch {
		case err == nil && r.Succeeded:
			return r.Header.GetRevision(), nil
		case err == nil:
			return 0, nil
		case errors.Is(err, rpctypes.ErrTooManyOps):
			return 0, s.explain(sizeError{err, len(changes)})
		case asRefusal(err) != nil:
			return 0, s.explain(err)
		case !unsent(err):
			return s.settle(n, id, err)
		}
		if ended := pause(n.ctx, pauseBetween); ended != nil {
			return 0, s.explain(because(ended, err))
		}
	}
}

// compares returns what holds as long as nothing that was read has changed.
func (n *snapshot) compares() []clientv3.Cmp {
	ranged, keys := n.ranged, []string{}
	for key := range n.seen {
		if !n.covers(key) {
			keys = append(keys, key)
		}
	}
	// A change beside what was read makes the closure run again for nothing, but it can be compared.
	if ranged = outermost(ranged); len(ranged)+len(keys)+2 > maxCompares {
		for i := range ranged {
			ranged[i] = wider(ranged[i])
		}
		for _, key := range keys {
			ranged = append(ranged, wider(key))
		}
		ranged, keys = outermost(ranged), nil
	}
	old := func(key string) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(n.store.prefix+key), "<", n.revision+1)
	}
	compares := []clientv3.Cmp{old(fenceKey)}
	for _, key := range keys {
		mod := n.seen[key].GetModRevision() // 0 if there is none, which is what etcd says of it too
		compares = append(compares, clientv3.Compare(clientv3.ModRevision(n.store.prefix+key), "=", mod))
	}
	for _, prefix := range ranged {
		compares = append(compares, old(prefix).WithPrefix())
	}
	if len(ranged) > 0 {
		compares = append(compares, old(deletedKey))
	}
	return compares
}

// wider is the directory in which a key or prefix is, or itself.
func wider(key string) string {
	if dir, _ := split(key); dir != "" {
		return dir
	}
	return key
}

// outermost returns the prefixes without those that another one covers.
func outermost(prefixes []string) []string {
	var outer []string
	for _, p := range slices.Sorted(slices.Values(prefixes)) { // what covers it comes before it
		if len(outer) == 0 || !strings.HasPrefix(p, outer[len(outer)-1]) {
			outer = append(outer, p)
		}
	}
	return outer
}
