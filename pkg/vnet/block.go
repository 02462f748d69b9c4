package vnet

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// A subnet is cut into blocks, of which the nodes of a cluster hold some each.

// maxBlockBits is of the largest block: 64 addresses.
const maxBlockBits = 6

// BlockBits is the length of the prefixes of the subnet's blocks: of 2^h addresses a block has 2^⌊3h/8⌋, and 64 at most.
func (s Subnet) BlockBits() int {
	return s.Prefix.Addr().BitLen() - min(3*s.hostBits()/8, maxBlockBits)
}

// BlockOf is the block that a, an address of the subnet, is in.
func (s Subnet) BlockOf(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, s.BlockBits()).Masked()
}

// Blocks is how many there are; a number that does not fit counts as the largest that does.
func (s Subnet) Blocks() uint64 {
	n := s.BlockBits() - s.Prefix.Bits()
	if n >= 64 {
		return math.MaxUint64
	}
	return 1 << n
}

// Block is the i-th block of the subnet, from 0.
func (s Subnet) Block(i uint64) netip.Prefix {
	shift := s.Prefix.Addr().BitLen() - s.BlockBits()
	if s.Prefix.Addr().Is4() {
		a := s.Prefix.Addr().As4()
		binary.BigEndian.PutUint32(a[:], binary.BigEndian.Uint32(a[:])+uint32(i<<shift))
		return netip.PrefixFrom(netip.AddrFrom4(a), s.BlockBits())
	}
	a := s.Prefix.Addr().As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(a[8:]), i<<shift, 0)
	binary.BigEndian.PutUint64(a[8:], low)
	binary.BigEndian.PutUint64(a[:8], binary.BigEndian.Uint64(a[:8])+i>>(64-shift)+carry)
	return netip.PrefixFrom(netip.AddrFrom16(a), s.BlockBits())
}

// Usable reports whether the block has an address that may be assigned.
func (s Subnet) Usable(block netip.Prefix) bool {
	a := s.Next(block.Addr())
	return a.IsValid() && block.Contains(a)
}
