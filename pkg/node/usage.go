package node

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Usage is how much of a subnet's pool is handed out.
type Usage struct {
	Prefix netip.Prefix `json:"prefix"`
	Used   uint64       `json:"used"`
	// Free is at most Plenty: a /64 has more addresses than a number in JSON can tell. Of a cluster's node it is what its blocks
	// have left.
	Free uint64 `json:"free"`
}

// Plenty is the highest count given: 2^53-1, the largest integer that every reader of JSON keeps exact.
const Plenty uint64 = 1<<53 - 1

// PoolUsage counts, for each subnet of the network, the addresses that are held here and those that
// are left to hand out.
func PoolUsage(tx store.Tx, net vnet.Network) ([]Usage, error) {
	leases, err := store.All[store.Lease](tx, store.Leases)
	if err != nil {
		return nil, err
	}
	_, member := store.Member(tx)
	pools := make([]Usage, len(net.Subnets))
	for i, s := range net.Subnets {
		pools[i] = Usage{Prefix: s.Prefix, Free: assignable(s)}
		for _, l := range leases {
			for _, a := range l.Addrs {
				if l.Ref() != net.Ref() || !s.Prefix.Contains(a) {
					continue
				}
				pools[i].Used++
				// A foreign IPAM plugin may use addresses that are not ours to hand out.
				if s.Assignable(a) == nil && pools[i].Free < Plenty {
					pools[i].Free--
				}
			}
		}
		if member {
			free, err := ipam.Free(tx, net, s.Prefix)
			if err != nil {
				return nil, err
			}
			pools[i].Free = uint64(free)
		}
	}
	return pools, nil
}

// assignable counts the addresses of a subnet that an endpoint may have, up to Plenty.
func assignable(s vnet.Subnet) uint64 {
	bits := s.Prefix.Addr().BitLen() - s.Prefix.Bits()
	if bits >= 53 { // what is taken out of so many makes no difference
		return Plenty
	}
	base := low(s.Prefix.Addr())
	size := uint64(1) << bits
	var count, at uint64
	for _, taken := range unassignable(s, size) {
		if first := low(taken.First) - base; first > at {
			count += first - at
		}
		at = max(at, low(taken.Last)-base+1)
	}
	return count + size - at
}

// unassignable are the parts of the subnet that nobody may have, in order; the last one ends the
// subnet or is followed by free addresses. They may overlap.
func unassignable(s vnet.Subnet, size uint64) []vnet.Range {
	taken := slices.Clone(s.Reserved)
	for _, a := range []netip.Addr{s.Prefix.Addr(), s.Gateway, above(s.Prefix.Addr(), size-1)} {
		if a.IsValid() && s.Assignable(a) != nil {
			taken = append(taken, vnet.Range{First: a, Last: a})
		}
	}
	slices.SortFunc(taken, func(a, b vnet.Range) int { return a.First.Compare(b.First) })
	return taken
}

// low is the lower half of an address as a number.
func low(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:])
}

// above returns the address n above a, which has enough zeros at its end.
func above(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	binary.BigEndian.PutUint64(b[8:], low(a)+n)
	if a.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}
