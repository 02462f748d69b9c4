package etcd

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Event is what became of a key, which is without the prefix. Value nil: it was deleted.
type Event struct {
	Key      string
	Value    []byte
	Revision int64
	Lease    int64 // that it goes with, 0: none
}

// Mirror calls apply with the whole state under the prefixes, and from then on with each change, in their order, until
// ctx ends or apply returns an error, which it returns. All that has come by then goes in one call, with the highest of
// its revisions. The prefixes are followed apart: a transaction's changes under one come in one call and those of each
// prefix in their order, but what is earlier under one prefix may come after what is later under another. When etcd has
// forgotten what came after an outage, apply is called with the whole state again: what is not in it has gone.
//
// connected is told when etcd stops to answer and when it does again; it may be nil.
func (s *Store) Mirror(ctx context.Context, prefixes []string, connected func(bool),
	apply func(ctx context.Context, whole bool, events []Event, revision int64) error,
) error {
	if connected == nil {
		connected = func(bool) {}
	}
	for {
		err := s.follow(ctx, prefixes, connected, apply)
		var own *applyError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &own):
			return own.error
		case errors.Is(err, rpctypes.ErrCompacted):
			continue
		}
		connected(false)
		select {
		case <-ctx.Done():
		case <-time.After(retryPause):
		}
	}
}

const (
	retryPause   = 200 * time.Millisecond
	listTimeout  = 30 * time.Second
	pagePatience = 10 * time.Second // not all that long, or a member that hangs were never left for it
)

// applyError is an error of the caller's on its way out.
type applyError struct{ error }

// follow lists, and then follows the changes until the watch ends.
func (s *Store) follow(ctx context.Context, prefixes []string, connected func(bool),
	apply func(ctx context.Context, whole bool, events []Event, revision int64) error,
) error {
	events, revision, err := s.List(ctx, prefixes)
	if err != nil {
		return err
	}
	connected(true)
	s.past.mirrored(s.Prefix(), events)
	if err := apply(ctx, true, events, revision); err != nil {
		return &applyError{err}
	}
	watching, stop := context.WithCancel(clientv3.WithRequireLeader(ctx)) // a member without one says nothing for ever
	defer stop()
	all := make(chan clientv3.WatchResponse, len(prefixes))
	for _, prefix := range prefixes {
		watch := s.client.Watch(watching, s.Prefix()+prefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithProgressNotify())
		go func() {
			for r := range watch {
				select {
				case all <- r:
				case <-watching.Done():
					return
				}
			}
			select {
			case all <- clientv3.WatchResponse{Canceled: true}:
			case <-watching.Done():
			}
		}()
	}
	for {
		var got []clientv3.WatchResponse
		select {
		case <-ctx.Done():
			return ctx.Err()
		case r := <-all:
			got = append(got, r)
		}
		for more := true; more; {
			select {
			case r := <-all:
				got = append(got, r)
			default:
				more = false
			}
		}
		events = events[:0]
		latest := int64(0)
		for _, r := range got {
			if err := r.Err(); err != nil {
				return err
			}
			if r.Canceled {
				return errors.New("the watch ended")
			}
			s.past.heard(r.Header)
			for _, e := range r.Events {
				event := Event{Key: strings.TrimPrefix(string(e.Kv.Key), s.Prefix()), Revision: e.Kv.ModRevision, Lease: e.Kv.Lease}
				if e.Type == clientv3.EventTypePut {
					event.Value = append([]byte{}, e.Kv.Value...)
				}
				events = append(events, event)
				latest = max(latest, event.Revision)
			}
		}
		if len(events) == 0 {
			continue
		}
		s.past.mirrored(s.Prefix(), events)
		slices.SortStableFunc(events, func(a, b Event) int { return int(a.Revision - b.Revision) })
		if err := apply(ctx, false, events, latest); err != nil {
			return &applyError{err}
		}
	}
}

// List reads all under the prefixes as it is at one revision, which it returns.
func (s *Store) List(ctx context.Context, prefixes []string) ([]Event, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	var events []Event
	var revision int64
	for _, prefix := range prefixes {
		const page = 1000
		from, end := s.Prefix()+prefix, clientv3.GetPrefixRangeEnd(s.Prefix()+prefix)
		for {
			opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(page)}
			if revision != 0 {
				opts = append(opts, clientv3.WithRev(revision))
			}
			var got *clientv3.GetResponse
			err := try(ctx, pagePatience, func(ctx context.Context) error {
				var err error
				got, err = s.client.Get(ctx, from, opts...)
				return err
			})
			if err != nil {
				return nil, 0, err
			}
			if revision == 0 {
				revision = got.Header.Revision
			}
			for _, kv := range got.Kvs {
				events = append(events, Event{Key: strings.TrimPrefix(string(kv.Key), s.Prefix()), Value: append([]byte{}, kv.Value...), Revision: kv.ModRevision, Lease: kv.Lease})
			}
			if !got.More {
				break
			}
			from = string(got.Kvs[len(got.Kvs)-1].Key) + "\x00"
		}
	}
	return events, revision, nil
}
