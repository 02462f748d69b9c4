package ipam

import (
	"net/netip"
	"slices"
	"strings"

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

// NeedBlocks is a vnet.ErrExhausted that says which blocks of a network this node must claim before it can give what
// was asked for. Find it with errors.As.
type NeedBlocks struct { //nolint:errname // named for what a claimer does with it
	Network vnet.Ref
	// Subnets lack a free address in the blocks that are held: any block of any one of them will do, for each family
	// that is among them. They are in the order in which they are taken from.
	Subnets []netip.Prefix
	// Addrs were asked for by name: the blocks of all of them are needed.
	Addrs []netip.Addr
}

func (n *NeedBlocks) Error() string {
	var lacks []string
	if len(n.Subnets) > 0 {
		lacks = append(lacks, "block with a free address of subnet "+strings.Join(texts(n.Subnets), ", "))
	}
	if len(n.Addrs) > 0 {
		lacks = append(lacks, "block with address "+strings.Join(texts(n.Addrs), ", "))
	}
	return "network " + n.Network.String() + ": this node holds no " + strings.Join(lacks, " and no ")
}

// Unwrap gives it its kind.
func (n *NeedBlocks) Unwrap() error { return vnet.ErrExhausted }
