package ipam

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Free returns how many addresses of the subnet its blocks can still give: those that this node holds and is not
// giving back. A node on its own has none. vnet.ErrNotFound if the network has no such subnet.
func Free(tx store.Tx, n vnet.Network, subnet netip.Prefix) (int, error) {
	i := slices.IndexFunc(n.Subnets, func(s vnet.Subnet) bool { return s.Prefix == subnet })
	if i < 0 {
		return 0, vnet.NotFoundf("network %s has no subnet %s", n.Ref(), subnet)
	}
	s := n.Subnets[i]
	blocks, err := store.BlocksOf(tx, n.Ref())
	free := 0
	for _, b := range blocks {
		if b.State != store.Held || !s.Prefix.Contains(b.Prefix.Addr()) {
			continue
		}
		for a := s.Next(b.Prefix.Addr()); b.Prefix.Contains(a); a = s.Next(a.Next()) {
			used, err := inUse(tx, n.Ref(), a)
			if err != nil {
				return 0, err
			}
			if !used {
				free++
			}
		}
	}
	return free, err
}

// InUse returns how many addresses of the block have an owner on this node, whether it holds the block or not; those
// of reserved ranges that a foreign IPAM plugin gave count. vnet.ErrInvalid if it is no block of the network.
func InUse(tx store.Tx, n vnet.Network, block netip.Prefix) (int, error) {
	if s, ok := n.SubnetOf(block.Addr()); !ok || s.BlockOf(block.Addr()) != block {
		return 0, vnet.Invalidf("%s is no block of network %s", block, n.Ref())
	}
	count := 0
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		used, err := inUse(tx, n.Ref(), a)
		if err != nil {
			return 0, err
		}
		if used {
			count++
		}
	}
	return count, nil
}

func inUse(tx store.Tx, network vnet.Ref, a netip.Addr) (bool, error) {
	rec, err := store.Load[store.Address](tx, store.AddressKey(network, a))
	if errors.Is(err, vnet.ErrNotFound) {
		return false, nil
	}
	return rec.Owner != "", err
}
