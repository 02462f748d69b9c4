package etcd

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// When a member dies or a connection breaks under a Txn, the answer is lost, and the Txn may have been made, or be
// still on its way to a leader. To run the closure again could make the change twice, to give up would leave the
// caller in doubt. So every Txn writes an id of its own at commitKey, and compares that nobody has written fenceKey
// since its snapshot. Whoever has lost an answer writes fenceKey: from then on the Txn has been made, or never will
// be, and the history of commitKey says which. To others the fence is a change that makes them run again.

// settle finds out what became of the Txn with an id whose answer was lost. It returns the revision at which it was
// made, 0 if it was not and will not be.
func (s *Store) settle(n *snapshot, id string, lost error) (int64, error) {
	unknown := func(err error) error {
		return s.explain(fmt.Errorf("whether the change was made is not known: %w (%w)", plain(lost), err))
	}
	var fence int64
	err := insist(n.ctx, func(ctx context.Context) error {
		r, err := s.client.Put(ctx, s.prefix+fenceKey, id)
		if err == nil {
			fence = r.Header.GetRevision()
		}
		return err
	})
	if err != nil {
		return 0, unknown(err)
	}
	for at := fence; at > n.revision; {
		var r *clientv3.GetResponse
		err := insist(n.ctx, func(ctx context.Context) error {
			var err error
			r, err = s.client.Get(ctx, s.prefix+commitKey, clientv3.WithRev(at))
			return err
		})
		if err != nil {
			return 0, unknown(err)
		}
		if len(r.Kvs) == 0 {
			break
		}
		at = r.Kvs[0].ModRevision
		if string(r.Kvs[0].Value) == id {
			return at, nil
		}
		at-- // to the one before
	}
	return 0, nil
}
