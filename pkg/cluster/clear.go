package cluster

import (
	"context"
	"errors"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// fewBlocks is how many blocks go in one transaction: of each there are two records, and etcd takes 128 if it was not told
// otherwise.
const fewBlocks = 40

// DeleteNetwork deletes a network that nobody is in from the cluster, by a change that commit makes. If nodes hold many blocks of it
// these go after it, some at a time. Cut short there it can be done again, and until it has been no network of that name is
// declared (store.DeclareNetwork).
//
// Errors: as of store.DeleteNetwork.
func DeleteNetwork(ctx context.Context, s store.Store, r vnet.Ref, commit func(func(store.Tx) error) error) error {
	err := commit(func(tx store.Tx) error {
		some, err := someBlocks(tx, r, fewBlocks+1)
		if err == nil && len(some) > fewBlocks {
			return store.DeleteNetworkAlone(tx, r)
		}
		return errors.Join(err, store.DeleteNetwork(tx, r))
	})
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return err
	}
	for {
		left, failed := clearSome(ctx, s, r)
		switch {
		case failed != nil:
			return failed
		case left == 0:
			return err
		}
		err = nil // what was cut short is finished
	}
}

// clearSome deletes some blocks of a network that has gone, and returns how many: none if there are no more, or if it stands, or
// somebody is in it nevertheless.
func clearSome(ctx context.Context, s store.Store, r vnet.Ref) (int, error) {
	cleared := 0
	err := s.Update(ctx, Planned(func(tx store.Tx) error {
		cleared = 0
		used, err := store.NetworkUsed(tx, r)
		if err != nil || used || tx.Get(networkKey(r)) != nil {
			return err
		}
		some, err := someBlocks(tx, r, fewBlocks)
		if err != nil {
			return err
		}
		for _, key := range some {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		cleared = len(some)
		return nil
	}))
	return cleared, err
}

// someBlocks are the keys of blocks of a network, as many at most.
func someBlocks(tx store.Tx, r vnet.Ref, most int) ([]string, error) {
	var some []string
	err := tx.Range(store.BlocksIn(r), func(key string, _ []byte) error {
		if len(some) == most {
			return store.ErrStop
		}
		some = append(some, key)
		return nil
	})
	return some, err
}
