package ipam

import (
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

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
