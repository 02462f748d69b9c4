package vnet

import (
	"encoding/binary"
	"math"
	"net/netip"
)

// maxBlockBits: a block has at most 64 addresses, so that all of one can be looked at, and a node that holds one for
// its last container keeps few from the others.
const maxBlockBits = 6

// BlockBits returns the prefix length of s's blocks: the parts that nodes of a cluster claim and hand out on their own.
// Of h host bits a block has 3h/8, rounded down, and 6 at most: a /24 is 32 blocks of 8, a /16 1024 of 64, a /64 of
// IPv6 blocks of 64. Bigger ones would be held half empty, smaller ones claimed for every other container.
func (s Subnet) BlockBits() int {
	return s.Prefix.Addr().BitLen() - min(s.hostBits()*3/8, maxBlockBits)
}

// BlockOf returns the block that a lies in, the zero Prefix if a is outside s.
func (s Subnet) BlockOf(a netip.Addr) netip.Prefix {
	if !s.Prefix.Contains(a) {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, s.BlockBits()).Masked()
}

// Blocks returns how many blocks s is cut into: math.MaxUint64 stands for that many and more.
func (s Subnet) Blocks() uint64 {
	if bits := s.BlockBits() - s.Prefix.Bits(); bits < 64 {
		return 1 << bits
	}
	return math.MaxUint64
}

// Block returns s's block number i in the order of their addresses, from 0, the zero Prefix if there are not so many.
// Numbers do not reach the blocks after the first 2^64.
func (s Subnet) Block(i uint64) netip.Prefix {
	if n := s.Blocks(); i >= n && n != math.MaxUint64 {
		return netip.Prefix{}
	}
	a, shift := s.Prefix.Addr().As16(), s.Prefix.Addr().BitLen()-s.BlockBits()
	high, low := a[:8], a[8:]
	binary.BigEndian.PutUint64(high, binary.BigEndian.Uint64(high)|i>>(64-shift))
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)|i<<shift)
	first := netip.AddrFrom16(a)
	if s.Prefix.Addr().Is4() {
		first = first.Unmap()
	}
	return netip.PrefixFrom(first, s.BlockBits())
}

// Usable reports whether an endpoint may have any address of the block.
func (s Subnet) Usable(block netip.Prefix) bool { return block.Contains(s.Next(block.Addr())) }
