package cluster

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// revisions are etcd's, by the prefixes of declared. Each prefix is followed apart. Under one, changes come in their order and
// transactions as a whole; but what a transaction changes under two may come one after the other, and a later change under
// one before an earlier one under another. So no single number says what a node has.
type revisions map[string]int64

// at is one revision under these prefixes; under all, if there are none.
func at(revision int64, prefixes []string) revisions {
	if len(prefixes) == 0 {
		prefixes = declared
	}
	r := revisions{}
	for _, p := range prefixes {
		r[p] = revision
	}
	return r
}

// has reports whether these are at least those.
func (r revisions) has(those revisions) bool {
	for p, revision := range those {
		if r[p] < revision {
			return false
		}
	}
	return true
}

// took notes what has been taken over: all there is at a revision, or events.
func (a *Agent) took(whole bool, events []etcd.Event, revision int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision = max(a.revision, revision)
	if whole {
		a.revision, a.taken = revision, at(revision, nil)
	}
	for _, e := range events {
		if p := Followed(e.Key); p != "" {
			a.taken[p] = max(a.taken[p], e.Revision)
		}
	}
	a.pending = time.Time{}
	close(a.moved)
	a.moved = make(chan struct{})
}

// latest is, for each of the prefixes, when something that still stands was written last in etcd.
func (a *Agent) latest(ctx context.Context, prefixes ...string) (revisions, error) {
	r := revisions{}
	for _, prefix := range prefixes {
		got, err := a.etcd.Client().Get(ctx, a.etcd.Prefix()+prefix, append(clientv3.WithLastRev(), clientv3.WithPrefix())...)
		if err != nil {
			return nil, a.told(ctx, err)
		}
		for _, kv := range got.Kvs {
			r[prefix] = kv.ModRevision
		}
	}
	return r, nil
}

// await waits until the node's store has what is declared at these revisions.
func (a *Agent) await(ctx context.Context, those revisions) error {
	for {
		a.mu.Lock()
		there, moved := a.taken.has(those), a.moved
		a.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("this node has not heard of it yet: %w", context.Cause(ctx)))
		}
	}
}
