package etcd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// deletedKey changes with every transaction that deletes: a range cannot tell by itself that something in it has gone.
const deletedKey = "meta/deleted"

// maxOps is how many conditions, and how many changes, etcd takes in a transaction (--max-txn-ops).
const maxOps = 128

// Update runs fn in a transaction. See store.Store.
func (s *Store) Update(ctx context.Context, fn func(store.Tx) error) error {
	_, err := s.Commit(ctx, fn)
	return err
}

// Commit is Update, and returns the revision of etcd at which what it wrote stands, or, if it wrote nothing, what it read.
func (s *Store) Commit(ctx context.Context, fn func(store.Tx) error) (int64, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	for {
		t := s.begin(ctx)
		if err := t.run(fn); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				continue
			}
			return 0, err
		}
		revision, done, err := t.commit()
		if done || err != nil {
			return revision, err
		}
		const most = 20 * time.Millisecond
		select {
		case <-ctx.Done():
			return 0, s.Error(fmt.Errorf("others change the same all the time: %w", ctx.Err()))
		case <-time.After(rand.N(most)):
		}
	}
}

// View runs fn over the records as they are at one revision. See store.Store.
func (s *Store) View(ctx context.Context, fn func(store.Tx) error) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	for {
		t := s.begin(ctx)
		t.view = true
		if err := t.run(fn); !errors.Is(err, rpctypes.ErrCompacted) {
			return err
		}
	}
}

func (s *Store) begin(ctx context.Context) *tx {
	return &tx{s: s, ctx: ctx, read: map[string]read{}, writes: map[string][]byte{}}
}

// tx is one run of a transaction.
type tx struct {
	s        *Store
	ctx      context.Context //nolint:containedctx // a transaction is as short as a call, and store.Tx has none
	view     bool
	failed   error // of etcd: what fn makes of it does not count
	revision int64 // that everything is read at; 0: nothing was
	read     map[string]read
	ranged   []string
	writes   map[string][]byte // nil: deleted
}

type read struct {
	value    []byte
	revision int64 // 0: there is none
}

// run runs fn. An error of etcd while it read is what it returns, whatever fn does.
func (t *tx) run(fn func(store.Tx) error) error {
	err := fn(t)
	if t.failed == nil {
		return err
	}
	if errors.Is(t.failed, rpctypes.ErrCompacted) {
		return t.failed
	}
	return t.s.Error(t.failed)
}

func (t *tx) get(key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, bool) {
	if t.failed != nil {
		return nil, false
	}
	if t.revision != 0 {
		opts = append(opts, clientv3.WithRev(t.revision))
	}
	got, err := t.s.client.Get(t.ctx, t.s.Prefix()+key, opts...)
	if err != nil {
		t.failed = err
		return nil, false
	}
	if t.revision == 0 {
		t.revision = got.Header.Revision
	}
	return got, true
}

func (t *tx) inRange(key string) bool {
	return slices.ContainsFunc(t.ranged, func(p string) bool { return strings.HasPrefix(key, p) })
}

// Shared says that the records are a whole cluster's.
func (t *tx) Shared() bool { return true }

// Get: see store.Tx.
func (t *tx) Get(key string) []byte {
	if value, ok := t.writes[key]; ok {
		return value
	}
	if r, ok := t.read[key]; ok || t.inRange(key) {
		return r.value
	}
	got, ok := t.get(key)
	if !ok {
		return nil
	}
	var r read
	if len(got.Kvs) > 0 {
		r = read{got.Kvs[0].Value, got.Kvs[0].ModRevision}
	}
	t.read[key] = r
	return r.value
}

var errReadOnly = errors.New("a view cannot write")

// Put: see store.Tx.
func (t *tx) Put(key string, value []byte) error {
	if t.view {
		return errReadOnly
	}
	if key == "" {
		return vnet.Invalidf("a record without a key")
	}
	t.writes[key] = append([]byte{}, value...)
	return nil
}

// Delete: see store.Tx.
func (t *tx) Delete(key string) error {
	if t.view {
		return errReadOnly
	}
	t.writes[key] = nil
	return nil
}

// Range: see store.Tx.
func (t *tx) Range(prefix string, visit func(key string, value []byte) error) error {
	if !t.inRange(prefix) {
		if err := t.load(prefix); err != nil {
			return err
		}
	}
	all := map[string][]byte{}
	for key, r := range t.read {
		if strings.HasPrefix(key, prefix) && r.value != nil {
			all[key] = r.value
		}
	}
	for key, value := range t.writes {
		if strings.HasPrefix(key, prefix) {
			all[key] = value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if all[key] == nil {
			continue
		}
		if err := visit(key, all[key]); err != nil {
			if errors.Is(err, store.ErrStop) {
				return nil
			}
			return err
		}
	}
	return nil
}

// load reads all of a prefix.
func (t *tx) load(prefix string) error {
	const page = 1000
	from := prefix
	end := clientv3.GetPrefixRangeEnd(t.s.Prefix() + prefix)
	for {
		got, ok := t.get(from, clientv3.WithRange(end), clientv3.WithLimit(page))
		if !ok {
			return t.failed
		}
		for _, kv := range got.Kvs {
			t.read[strings.TrimPrefix(string(kv.Key), t.s.Prefix())] = read{kv.Value, kv.ModRevision}
		}
		if !got.More {
			break
		}
		from = strings.TrimPrefix(string(got.Kvs[len(got.Kvs)-1].Key), t.s.Prefix()) + "\x00"
	}
	t.ranged = append(t.ranged, prefix)
	if !t.view {
		t.Get(deletedKey)
	}
	return t.failed
}

// commit writes what the run wrote, if all that it read still is so; false: it is not.
func (t *tx) commit() (int64, bool, error) {
	if len(t.writes) == 0 {
		return t.revision, true, nil
	}
	p := t.s.Prefix()
	var conditions []clientv3.Cmp
	for key, r := range t.read {
		if !t.inRange(key) {
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(p+key), "=", r.revision))
		}
	}
	for _, prefix := range t.ranged {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(p+prefix), "<", t.revision+1).WithPrefix())
	}
	var changes []clientv3.Op
	deletes := false
	for key, value := range t.writes {
		if value == nil {
			deletes = true
			changes = append(changes, clientv3.OpDelete(p+key))
		} else if r, ok := t.read[key]; !ok || r.value == nil || string(r.value) != string(value) {
			changes = append(changes, clientv3.OpPut(p+key, string(value)))
		}
	}
	if len(changes) == 0 {
		return t.revision, true, nil
	}
	if deletes {
		changes = append(changes, clientv3.OpPut(p+deletedKey, ""))
	}
	if len(conditions) > maxOps || len(changes) > maxOps {
		return 0, false, vnet.WithHint(fmt.Errorf("a change of %d records that depends on %d others: etcd takes %d at once: %w", len(changes), len(conditions), maxOps, vnet.ErrExhausted),
			"make it in smaller steps")
	}
	put, err := t.s.client.Txn(t.ctx).If(conditions...).Then(changes...).Commit()
	if err != nil {
		return 0, false, t.s.Error(err)
	}
	return put.Header.Revision, put.Succeeded, nil
}
