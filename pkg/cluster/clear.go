package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// fewBlocks is how many blocks go in one transaction: of each there are two records, and etcd takes 128 if it was not told
// otherwise.
const fewBlocks = 40

// ClearNetwork takes the blocks of a network that is to be deleted from the nodes that hold them, down to so few that they go with
// the network; then is to delete that. It is refused as the deletion is: vnet.ErrExists while somebody is in the network or a chain
// names it, vnet.ErrNotFound if there is none. Cut anywhere it can be done again.
//
// Who comes into the network meanwhile is told of in etcd before the next blocks go, and stops it; or else has an address of a block
// that has gone, and is not published before that node has claimed it once more (publish). The other nodes would not notice: if
// it comes to nothing they are given back what they had.
func ClearNetwork(ctx context.Context, s store.Store, r vnet.Ref, then func() error) error {
	cleared := map[string][]byte{}
	for {
		taken, err := clearSome(ctx, s, r)
		if err == nil && len(taken) == 0 {
			err = then()
		}
		if err != nil && len(cleared) > 0 && !errors.Is(err, vnet.ErrNotFound) {
			err = errors.Join(err, restore(context.WithoutCancel(ctx), s, r, cleared))
		}
		if err != nil || len(taken) == 0 {
			return err
		}
		maps.Copy(cleared, taken)
	}
}

// clearSome takes away a few of the network's blocks and returns their records: none, if there are no more than a few.
func clearSome(ctx context.Context, s store.Store, r vnet.Ref) (map[string][]byte, error) {
	taken := map[string][]byte{}
	return taken, s.Update(ctx, Planned(func(tx store.Tx) error {
		clear(taken)
		if err := store.NetworkUnused(tx, r); err != nil {
			return err
		}
		all := 0
		err := tx.Range(store.BlocksIn(r), func(key string, value []byte) error {
			if all++; len(taken) < fewBlocks {
				taken[key] = value
			}
			return nil
		})
		if err != nil || all <= fewBlocks {
			clear(taken)
			return err
		}
		for key := range taken {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		return nil
	}))
}

// restore gives back blocks of the network to who had them, as far as they are nobody's, and that node and the network stand.
func restore(ctx context.Context, s store.Store, r vnet.Ref, blocks map[string][]byte) error {
	for some := range slices.Chunk(slices.Sorted(maps.Keys(blocks)), fewBlocks) {
		err := s.Update(ctx, func(tx store.Tx) error {
			for _, key := range some {
				var h holder
				if err := store.DecodeShared(key, blocks[key], &h); err != nil { // nobody's
					continue
				}
				if tx.Get(key) != nil || tx.Get(networkKey(r)) == nil || tx.Get(nodeKey(h.Node)) == nil {
					continue
				}
				if err := errors.Join(tx.Put(key, blocks[key]), tx.Put(holdings+string(h.Node)+"/"+key, nil)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
