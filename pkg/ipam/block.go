package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// NeedBlocksError is that the blocks which this node holds do not suffice. It is a vnet.ErrExhausted as long as nobody gets it more.
type NeedBlocksError struct {
	Network vnet.Ref
	Subnets []netip.Prefix // that could serve, of each family that lacks an address
	Addrs   []netip.Addr   // that were asked for and are in no block of this node
}

func (n *NeedBlocksError) Error() string {
	if len(n.Addrs) > 0 {
		return fmt.Sprintf("network %s: this node does not hold the block of %s", n.Network, join(n.Addrs, ", "))
	}
	return fmt.Sprintf("network %s: this node's blocks of subnet %s have no free address", n.Network, join(n.Subnets, ", "))
}

// Unwrap gives its kind.
func (n *NeedBlocksError) Unwrap() error { return vnet.ErrExhausted }

func (n *NeedBlocksError) any() bool { return len(n.Subnets)+len(n.Addrs) > 0 }

// note adds what err says is needed, and returns any other error.
func (n *NeedBlocksError) note(err error) error {
	more, ok := errors.AsType[*NeedBlocksError](err)
	if !ok {
		return err
	}
	n.Subnets, n.Addrs = append(n.Subnets, more.Subnets...), append(n.Addrs, more.Addrs...)
	return nil
}

// partsOf are the prefixes that addresses of the subnet are handed out from: all of it, or the blocks of it that the
// node holds.
func partsOf(tx store.Tx, r vnet.Ref, s vnet.Subnet) ([]netip.Prefix, error) {
	if _, member := store.Member(tx); !member {
		return []netip.Prefix{s.Prefix}, nil
	}
	blocks, err := store.BlocksOf(tx, r)
	var parts []netip.Prefix
	for _, b := range blocks {
		if b.State == store.Held && s.Prefix.Overlaps(b.Prefix) {
			parts = append(parts, b.Prefix)
		}
	}
	return parts, err
}

// partOf is the one that a is in; a *NeedBlocksError if that is another node's.
func partOf(tx store.Tx, r vnet.Ref, s vnet.Subnet, a netip.Addr) (netip.Prefix, error) {
	parts, err := partsOf(tx, r, s)
	if err != nil {
		return netip.Prefix{}, err
	}
	i := slices.IndexFunc(parts, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return netip.Prefix{}, &NeedBlocksError{Network: r, Addrs: []netip.Addr{a}}
	}
	return parts[i], nil
}

// Free is how many addresses of the subnet the node could hand out of its blocks.
func Free(tx store.Tx, n vnet.Network, subnet netip.Prefix) (int, error) {
	i := slices.IndexFunc(n.Subnets, func(s vnet.Subnet) bool { return s.Prefix == subnet })
	if i < 0 {
		return 0, vnet.Invalidf("network %s has no subnet %s", n.Ref(), subnet)
	}
	s := n.Subnets[i]
	parts, err := partsOf(tx, n.Ref(), s)
	if err != nil {
		return 0, err
	}
	free := 0
	for _, part := range parts {
		for a := s.Next(part.Addr()); part.Contains(a); a = s.Next(a.Next()) {
			owned, err := owned(tx, n.Ref(), a)
			if err != nil {
				return 0, err
			}
			if !owned {
				free++
			}
		}
	}
	return free, nil
}

// InUse is how many addresses of the block somebody has.
func InUse(tx store.Tx, r vnet.Ref, block netip.Prefix) (int, error) {
	used := 0
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		owned, err := owned(tx, r, a)
		if err != nil {
			return 0, err
		}
		if owned {
			used++
		}
	}
	return used, nil
}

func owned(tx store.Tx, r vnet.Ref, a netip.Addr) (bool, error) {
	rec, err := store.Load[address](tx, store.AddressKey(r, a))
	if errors.Is(err, vnet.ErrNotFound) {
		return false, nil
	}
	return rec.Owner != "", err
}
