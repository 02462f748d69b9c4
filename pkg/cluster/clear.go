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

// DeleteNetwork is store.DeleteNetwork of a cluster's network. If nodes hold many blocks of it these are left for ClearNetwork.
func DeleteNetwork(tx store.Tx, r vnet.Ref) error {
	some, err := someBlocks(tx, r, fewBlocks+1)
	if err == nil && len(some) > fewBlocks {
		return store.DeleteNetworkAlone(tx, r)
	}
	return errors.Join(err, store.DeleteNetwork(tx, r))
}

// ClearNetwork deletes the blocks that nodes hold of a network that has gone, some at a time, and returns how many there were. Cut
// short it can be done again, and until it has been no network of that name is declared (store.DeclareNetwork).
func ClearNetwork(ctx context.Context, s store.Store, r vnet.Ref) (int, error) {
	for cleared := 0; ; {
		some, err := clearSome(ctx, s, r)
		if cleared += some; err != nil || some == 0 {
			return cleared, err
		}
	}
}

// clearSome deletes some blocks of a network that has gone, and returns how many: none if there are no more, or if it stands, or
// somebody is in it nevertheless.
func clearSome(ctx context.Context, s store.Store, r vnet.Ref) (int, error) {
	cleared := 0
	err := s.Update(ctx, Planned(func(tx store.Tx) error {
		cleared = 0
		used, err := store.HasEndpoints(tx, r)
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
