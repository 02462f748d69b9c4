package ipam

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Adopt returns the blocks, in order, that the network's addresses in use lie in and that this node does not hold: a
// node that was on its own claims them when it joins a cluster, and then has Convert do the rest. It writes nothing.
// Addresses of reserved ranges count too.
func Adopt(tx store.Tx, n vnet.Network) ([]netip.Prefix, error) {
	blocks, _, err := lacking(tx, n, nil)
	return blocks, err
}

// Convert makes the network's pools those of blocks: of those given, which have been claimed for this node, and of
// those that it holds already. What is in use stays with who has it; addresses that rest are as if they had never been
// handed out. To do it again changes no more. Join the cluster (store.JoinCluster) first, or in the same transaction,
// and nothing is handed out of another block between Adopt and this.
//
// Errors: a *NeedBlocks, which is a vnet.ErrExhausted, with the addresses in use that lie in other blocks (those of
// reserved ranges may: no node hands them out by itself); vnet.ErrInvalid if one is no block of the network. The
// transaction is to be given up then.
func Convert(tx store.Tx, n vnet.Network, blocks []netip.Prefix) error {
	_, addrs, err := lacking(tx, n, blocks)
	if err != nil {
		return err
	}
	addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool {
		s, _ := n.SubnetOf(a)
		return s.Assignable(a) != nil
	})
	if len(addrs) > 0 {
		return &NeedBlocks{Network: n.Ref(), Addrs: addrs}
	}
	for _, s := range n.Subnets {
		if err := store.DeletePool(tx, n.Ref(), s.Prefix); err != nil {
			return err
		}
	}
	for _, p := range blocks {
		if err := store.PutBlock(tx, n.Ref(), store.Block{Prefix: p, State: store.Held}); err != nil {
			return err
		}
	}
	all, err := store.BlocksOf(tx, n.Ref())
	if err != nil {
		return err
	}
	// A block that was there before has stepped over what rested in the subnet's queue: it begins anew.
	for _, b := range all {
		if err := tx.Delete(store.PoolKey(n.Ref(), b.Prefix)); err != nil {
			return err
		}
	}
	return nil
}

// lacking returns the addresses in use that lie neither in a block of this node's nor in one of those claimed, and the
// blocks that they lie in.
func lacking(tx store.Tx, n vnet.Network, claimed []netip.Prefix) ([]netip.Prefix, []netip.Addr, error) {
	recorded, err := store.BlocksOf(tx, n.Ref())
	if err != nil {
		return nil, nil, err
	}
	used, err := store.AddrsInUse(tx, n.Ref())
	if err != nil {
		return nil, nil, err
	}
	var blocks []netip.Prefix
	var addrs []netip.Addr
	for _, a := range used {
		s, ok := n.SubnetOf(a)
		if !ok {
			return nil, nil, fmt.Errorf("record %s: in no subnet of %s: %w", store.AddressKey(n.Ref(), a), n.Ref(), vnet.ErrCorrupt)
		}
		p := s.BlockOf(a)
		if slices.Contains(claimed, p) || slices.ContainsFunc(recorded, func(b store.Block) bool { return b.Prefix == p }) {
			continue
		}
		blocks, addrs = append(blocks, p), append(addrs, a)
	}
	slices.SortFunc(blocks, netip.Prefix.Compare)
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(blocks), addrs, nil
}
