package ipam

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// holding is what of a network this node may hand out: all of it, or, in a cluster, the blocks that it holds.
type holding struct {
	network vnet.Ref
	member  bool
	blocks  []store.Block // a member's, in the order of their addresses
}

func held(tx store.Tx, network vnet.Ref) (holding, error) {
	h := holding{network: network}
	if _, h.member = store.Member(tx); !h.member {
		return h, nil
	}
	var err error
	h.blocks, err = store.BlocksOf(tx, network)
	return h, err
}

// pools returns the prefixes with a pool that addresses of s may be taken from, in their order.
func (h holding) pools(s vnet.Subnet) []netip.Prefix {
	if !h.member {
		return []netip.Prefix{s.Prefix}
	}
	var open []netip.Prefix
	for _, b := range h.blocks {
		if b.State == store.Held && s.Prefix.Contains(b.Prefix.Addr()) {
			open = append(open, b.Prefix)
		}
	}
	return open
}

// poolOf returns the prefix with the pool that a goes back to, false if its block is another node's by now.
func (h holding) poolOf(s vnet.Subnet, a netip.Addr) (netip.Prefix, bool) {
	if !h.member {
		return s.Prefix, true
	}
	i, ok := h.find(s.BlockOf(a))
	if !ok {
		return netip.Prefix{}, false
	}
	return h.blocks[i].Prefix, true
}

// gives reports whether a is of a pool that addresses may be taken from.
func (h holding) gives(s vnet.Subnet, a netip.Addr) bool {
	if !h.member {
		return true
	}
	i, ok := h.find(s.BlockOf(a))
	return ok && h.blocks[i].State == store.Held
}

func (h holding) find(block netip.Prefix) (int, bool) {
	return slices.BinarySearchFunc(h.blocks, block, func(b store.Block, p netip.Prefix) int { return b.Prefix.Compare(p) })
}

// hasMore reports whether claiming a block of s would bring addresses: whether there is one that this node does not
// hold and that has any.
func (h holding) hasMore(s vnet.Subnet) bool {
	if !h.member {
		return false
	}
	a := s.Next(s.Prefix.Addr())
	for a.IsValid() && h.gives(s, a) {
		a = s.Next(a.Next())
	}
	return a.IsValid()
}
