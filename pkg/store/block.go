package store

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Member returns the name of the node that the store is of, in its cluster; false: it is of a node on its own.
func Member(tx Tx) (vnet.NodeName, bool) {
	name := tx.Get(memberKey)
	return vnet.NodeName(name), name != nil
}

// JoinCluster makes the store one of a cluster's node: from now on addresses come from blocks.
func JoinCluster(tx Tx, n vnet.NodeName) error { return tx.Put(memberKey, []byte(n)) }

// LeaveCluster makes it one of a node on its own.
func LeaveCluster(tx Tx) error { return tx.Delete(memberKey) }

// BlockState says what becomes of a block.
type BlockState string

// The states of a block.
const (
	Held      BlockState = "held"      // addresses of it are handed out
	Returning BlockState = "returning" // nobody gets one any more: it is being given back
)

// Block is a part of a subnet that the node holds.
type Block struct {
	Prefix netip.Prefix `json:"prefix"`
	State  BlockState   `json:"state"`
}

// BlocksOf returns the blocks of a network that the node holds, in the order of their keys.
func BlocksOf(tx Tx, r vnet.Ref) ([]Block, error) { return All[Block](tx, BlocksIn(r)) }

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

// PutBlock writes a block that the node holds.
func PutBlock(tx Tx, r vnet.Ref, b Block) error { return Save(tx, BlockKey(r, b.Prefix), b) }

// DeleteBlock removes a block, and what is recorded of its addresses. vnet.ErrExists if one of them is in use.
func DeleteBlock(tx Tx, r vnet.Ref, block netip.Prefix) error {
	keys := []string{BlockKey(r, block), PoolKey(r, block)}
	err := tx.Range(ReleasedOf(r, block), func(key string, value []byte) error {
		a, err := netip.ParseAddr(string(value))
		if err != nil {
			return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
		}
		keys = append(keys, key, AddressKey(r, a))
		return nil
	})
	for _, key := range keys {
		err = errors.Join(err, tx.Delete(key))
	}
	return err
}
