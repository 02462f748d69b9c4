package store

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Block records a part of a subnet that this node, as a cluster's member, has claimed.
type Block struct {
	Prefix netip.Prefix `json:"prefix"`
	State  BlockState   `json:"state"`
}

// BlockState says whether addresses of a block are handed out.
type BlockState string

// The states of a block.
const (
	Held      BlockState = "held"
	Returning BlockState = "returning" // it is being given back: nothing of it is handed out any more
)

// BlocksOf returns the network's blocks in the order of their addresses.
func BlocksOf(tx Tx, r vnet.Ref) ([]Block, error) {
	var found []Block
	err := tx.Range(BlocksIn(r), func(key string, value []byte) error {
		b, err := decode[Block](key, value)
		if err == nil && (BlockKey(r, b.Prefix) != key || b.State != Held && b.State != Returning) {
			err = fmt.Errorf("record %s: state %q of block %s: %w", key, b.State, b.Prefix, vnet.ErrCorrupt)
		}
		found = append(found, b)
		return err
	})
	slices.SortFunc(found, func(a, b Block) int { return a.Prefix.Compare(b.Prefix) })
	return found, err
}

// PutBlock writes b, whether it was there or not. vnet.ErrNotFound if there is no such network, vnet.ErrInvalid if b
// is no block of it.
func PutBlock(tx Tx, r vnet.Ref, b Block) error {
	n, err := Network(tx, r)
	if err != nil {
		return err
	}
	if s, ok := n.SubnetOf(b.Prefix.Addr()); !ok || s.BlockOf(b.Prefix.Addr()) != b.Prefix {
		return vnet.Invalidf("%s is no block of network %s", b.Prefix, r)
	}
	if b.State != Held && b.State != Returning {
		return vnet.Invalidf("block %s: state %q: must be %s or %s", b.Prefix, b.State, Held, Returning)
	}
	return Save(tx, BlockKey(r, b.Prefix), b)
}

// DeleteBlock removes the block with its pool: see DeletePool. It is no error if it is gone.
func DeleteBlock(tx Tx, r vnet.Ref, p netip.Prefix) error {
	if err := tx.Delete(BlockKey(r, p)); err != nil {
		return err
	}
	if err := DeletePool(tx, r, p); err != nil {
		return err
	}
	if left, err := count(tx, BlocksIn(r)); err != nil || left > 0 {
		return err
	}
	return tx.Delete(releasesKey(r)) // no queue is left in which an older release could stand
}

// EachBlock visits the blocks of all networks.
func EachBlock(tx Tx, visit func(vnet.Ref, Block) error) error {
	return tx.Range(Blocks, func(key string, value []byte) error {
		b, err := decode[Block](key, value)
		if err != nil {
			return err
		}
		names := strings.SplitN(key, "/", 4)
		return visit(vnet.Ref{Tenant: vnet.TenantName(names[1]), Network: vnet.NetworkName(names[2])}, b)
	})
}
