package vnet_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestSizeAndNumberOfBlocks(t *testing.T) {
	for _, test := range []struct {
		prefix string
		bits   int
		blocks uint64
		last   string // that a number reaches
	}{
		{"10.0.0.7/32", 32, 1, "10.0.0.7/32"},
		{"10.0.0.0/31", 32, 2, "10.0.0.1/32"},
		{"10.0.0.0/30", 32, 4, "10.0.0.3/32"},
		{"10.0.0.0/29", 31, 4, "10.0.0.6/31"},
		{"10.0.0.0/28", 31, 8, "10.0.0.14/31"},
		{"10.0.0.0/26", 30, 16, "10.0.0.60/30"},
		{"10.0.0.0/24", 29, 32, "10.0.0.248/29"},
		{"10.1.0.0/16", 26, 1024, "10.1.255.192/26"},
		{"10.0.0.0/8", 26, 1 << 18, "10.255.255.192/26"},
		{"fd00::7/128", 128, 1, "fd00::7/128"},
		{"fd00::/120", 125, 32, "fd00::f8/125"},
		{"fd00::/64", 122, 1 << 58, "fd00::ffff:ffff:ffff:ffc0/122"},
		{"fd00::/59", 122, 1 << 63, "fd00::1f:ffff:ffff:ffff:ffc0/122"},
		{"fd00::/58", 122, math.MaxUint64, "fd00::3f:ffff:ffff:ffff:ffc0/122"},
		{"fd00::/8", 122, math.MaxUint64, "fd00::3f:ffff:ffff:ffff:ffc0/122"}, // and there are more
	} {
		s := vnet.Subnet{Prefix: netip.MustParsePrefix(test.prefix)}
		if s.BlockBits() != test.bits || s.Blocks() != test.blocks {
			t.Errorf("%s: %d blocks of /%d, want %d of /%d", s.Prefix, s.Blocks(), s.BlockBits(), test.blocks, test.bits)
		}
		last := test.blocks - 1
		if test.blocks == math.MaxUint64 {
			last = math.MaxUint64
		} else if got := s.Block(test.blocks); got.IsValid() {
			t.Errorf("%s: after the last block comes %s", s.Prefix, got)
		}
		if got := s.Block(last).String(); got != test.last {
			t.Errorf("%s: last block %s, want %s", s.Prefix, got, test.last)
		}
	}
}

func TestAddressOutsideTheSubnetIsInNoBlock(t *testing.T) {
	s := normal(t, "10.0.0.0/24", "")
	for _, text := range []string{"10.0.1.0", "9.255.255.255", "fd00::1", "::ffff:10.0.0.1"} {
		if got := s.BlockOf(netip.MustParseAddr(text)); got.IsValid() {
			t.Errorf("%s is in %s", text, got)
		}
	}
	if got := s.BlockOf(netip.Addr{}); got.IsValid() {
		t.Errorf("no address is in %s", got)
	}
}

func TestBlockThatNobodyMayHaveAnythingOfIsNotUsable(t *testing.T) {
	for _, test := range []struct {
		subnet vnet.Subnet
		block  string
		want   bool
	}{
		{normal(t, "10.0.0.0/24", ""), "10.0.0.0/29", true},
		{normal(t, "10.0.0.0/30", ""), "10.0.0.0/32", false}, // network
		{normal(t, "10.0.0.0/30", ""), "10.0.0.1/32", false}, // gateway
		{normal(t, "10.0.0.0/30", ""), "10.0.0.2/32", true},
		{normal(t, "10.0.0.0/30", ""), "10.0.0.3/32", false}, // broadcast
		{normal(t, "10.0.0.0/31", ""), "10.0.0.0/32", true},
		{normal(t, "10.0.0.0/28", ""), "10.0.0.0/31", false},
		{normal(t, "10.0.0.0/28", "", "10.0.0.2-10.0.0.5"), "10.0.0.4/31", false},
		{normal(t, "10.0.0.0/28", "", "10.0.0.2-10.0.0.6"), "10.0.0.6/31", true},
		{normal(t, "fd00::/64", "", "fd00::/65"), "fd00::/122", false},
		{normal(t, "fd00::/64", "", "fd00::/65"), "fd00::8000:0:0:0/122", true},
		{normal(t, "10.0.0.0/24", ""), "10.0.1.0/29", false}, // none of its
	} {
		if got := test.subnet.Usable(netip.MustParsePrefix(test.block)); got != test.want {
			t.Errorf("%s of %v: got %v", test.block, test.subnet, got)
		}
	}
}

// drawSubnet makes a subnet of either family with at least that many bits in its prefix.
func drawSubnet(rt *rapid.T, least4, least6 int) vnet.Subnet {
	var a netip.Addr
	var bits int
	if rapid.Bool().Draw(rt, "is6") {
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], rapid.Uint64().Draw(rt, "high"))
		binary.BigEndian.PutUint64(b[8:], rapid.Uint64().Draw(rt, "low"))
		b[0] = 0x20
		a, bits = netip.AddrFrom16(b), rapid.IntRange(least6, 128).Draw(rt, "bits")
	} else {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], rapid.Uint32().Draw(rt, "address"))
		b[0] = 10
		a, bits = netip.AddrFrom4(b), rapid.IntRange(least4, 32).Draw(rt, "bits")
	}
	s, err := vnet.Subnet{Prefix: netip.PrefixFrom(a, bits).Masked()}.Normal()
	if err != nil {
		rt.Fatal(err)
	}
	return s
}

func TestEveryBlockIsFoundByItsNumberAndByItsAddresses(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSubnet(rt, 8, 8)
		i := rapid.Uint64Max(s.Blocks()-1).Draw(rt, "i")
		b := s.Block(i)
		if b != b.Masked() || b.Bits() != s.BlockBits() || !s.Prefix.Contains(b.Addr()) {
			rt.Fatalf("block %d of %s is %s", i, s.Prefix, b)
		}
		n := 0
		for a := b.Addr(); b.Contains(a); a = a.Next() {
			if s.BlockOf(a) != b {
				rt.Fatalf("%s of block %s is in %s", a, b, s.BlockOf(a))
			}
			n++
			if after := a.Next(); !b.Contains(after) && i+1 < s.Blocks() && s.Block(i+1).Addr() != after {
				rt.Fatalf("after block %s, which ends with %s, comes %s", b, a, s.Block(i+1))
			}
		}
		if n > 64 {
			rt.Fatalf("block %s has %d addresses", b, n)
		}
	})
}

func TestBlocksCoverASubnetOnceAndSayWhatIsUsable(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := drawSubnet(rt, 20, 116)
		for range rapid.IntRange(0, 3).Draw(rt, "ranges") {
			first, last := s.Block(rapid.Uint64Max(s.Blocks()-1).Draw(rt, "first")), s.Block(rapid.Uint64Max(s.Blocks()-1).Draw(rt, "last"))
			if last.Addr().Less(first.Addr()) {
				first, last = last, first
			}
			s.Reserved = append(s.Reserved, vnet.Range{First: first.Addr(), Last: last.Addr()})
		}
		var addrs, want []netip.Addr
		for i := range s.Blocks() {
			usable := false
			for a := s.Block(i).Addr(); s.Block(i).Contains(a); a = a.Next() {
				addrs = append(addrs, a)
				usable = usable || s.Assignable(a) == nil
			}
			if s.Usable(s.Block(i)) != usable {
				rt.Fatalf("block %s of %v is usable: got %v", s.Block(i), s, !usable)
			}
		}
		for a := s.Prefix.Addr(); s.Prefix.Contains(a); a = a.Next() {
			want = append(want, a)
		}
		if !slices.Equal(addrs, want) {
			rt.Fatalf("%s: %s", s.Prefix, fmt.Sprint(addrs))
		}
	})
}
