package etcd

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A snapshot is etcd at one revision, the one of its first read. What it has read it keeps. Its keys are etcd's
// without the prefix.
type snapshot struct {
	store    *Store
	ctx      context.Context
	revision int64                       // 0 before the first read
	seen     map[string]*mvccpb.KeyValue // nil: there is none
	ranged   []string                    // the prefixes of which seen has all
}

func (s *Store) snapshot(ctx context.Context) *snapshot {
	return &snapshot{store: s, ctx: ctx, seen: map[string]*mvccpb.KeyValue{}}
}

// known returns what is at key if that is known without asking.
func (n *snapshot) known(key string) (*mvccpb.KeyValue, bool) {
	kv, ok := n.seen[key]
	return kv, ok || n.covers(key)
}

// covers tells whether all keys that begin with prefix have been read.
func (n *snapshot) covers(prefix string) bool {
	return slices.ContainsFunc(n.ranged, func(r string) bool { return strings.HasPrefix(prefix, r) })
}

// get returns what is at key, nil if nothing.
func (n *snapshot) get(key string) (*mvccpb.KeyValue, error) {
	if kv, ok := n.known(key); ok {
		return kv, nil
	}
	r, err := n.read(n.store.prefix + key)
	if err != nil {
		return nil, err
	}
	n.seen[key] = nil
	n.keep(r.Kvs)
	return n.seen[key], nil
}

// pin fixes the revision, if no read has done so.
func (n *snapshot) pin() error {
	if n.revision != 0 {
		return nil
	}
	_, err := n.read(n.store.prefix + fenceKey)
	return err
}

// list returns what is at the keys that begin with prefix, in their order.
func (n *snapshot) list(prefix string) ([]*mvccpb.KeyValue, error) {
	if !n.covers(prefix) {
		if err := n.fetch(n.store.prefix + prefix); err != nil {
			return nil, err
		}
		n.ranged = append(n.ranged, prefix)
	}
	var kvs []*mvccpb.KeyValue
	for key, kv := range n.seen {
		if kv != nil && strings.HasPrefix(key, prefix) {
			kvs = append(kvs, kv)
		}
	}
	slices.SortFunc(kvs, func(a, b *mvccpb.KeyValue) int { return cmp.Compare(string(a.Key), string(b.Key)) })
	return kvs, nil
}

// page is how many keys are read at once: an answer should be no hundred megabytes.
const page = 1000

func (n *snapshot) fetch(prefix string) error {
	end := clientv3.GetPrefixRangeEnd(prefix)
	for from := prefix; ; {
		r, err := n.read(from, clientv3.WithRange(end), clientv3.WithLimit(page))
		if err != nil {
			return err
		}
		n.keep(r.Kvs)
		if !r.More {
			return nil
		}
		from = string(r.Kvs[len(r.Kvs)-1].Key) + "\x00" // the next key there can be
	}
}

func (n *snapshot) keep(kvs []*mvccpb.KeyValue) {
	for _, kv := range kvs {
		n.seen[n.store.bare(kv)] = kv
	}
}

// read reads at the snapshot's revision. Its error has a kind, or is one that is passing.
func (n *snapshot) read(key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	var r *clientv3.GetResponse
	err := insist(n.ctx, func(ctx context.Context) error {
		var err error
		r, err = n.store.client.Get(ctx, key, append(opts, clientv3.WithRev(n.revision))...)
		return err
	})
	switch {
	case err == nil && n.revision == 0:
		n.revision = r.Header.GetRevision()
	case err != nil && !passing(err):
		err = n.store.explain(err)
	}
	return r, err
}

// bare is a key without the prefix.
func (s *Store) bare(kv *mvccpb.KeyValue) string { return strings.TrimPrefix(string(kv.Key), s.prefix) }
