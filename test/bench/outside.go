package main

import (
	"net/netip"
	"os"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
)

// The wire between the node and the world, with addresses of RFC 5737's.
const (
	outsideLink    = "ext0"
	outsideNode    = "203.0.113.1"
	outsideAddress = "203.0.113.9"
)

// outside makes a server on a wire of its own with the node, and returns its address. It has no route to any
// container: who wants an answer must come as the node.
func (w *world) outside() (netip.Addr, error) {
	addr := netip.MustParseAddr(outsideAddress)
	ns, err := w.newContainer()
	if err != nil {
		return addr, err
	}
	node, err := w.ovsNode.netlink()
	if err != nil {
		return addr, err
	}
	defer node.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = outsideLink
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerNamespace = ifName, netlink.NsFd(int(ns.file.Fd()))
	if err := node.LinkAdd(pair); err != nil {
		return addr, err
	}
	if err := w.ovsNode.dress(outsideLink, outsideNode+"/24"); err != nil {
		return addr, err
	}
	if err := ns.dress(ifName, outsideAddress+"/24"); err != nil {
		return addr, err
	}
	if err := w.ovsNode.masquerade([]byte{10, 66}); err != nil {
		return addr, err
	}
	return addr, w.serve(ns)
}

// dress gives a link in a namespace its address, and brings it up.
func (n namespace) dress(link, prefix string) error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(link)
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(prefix)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(l, addr); err != nil {
		return err
	}
	return h.LinkSetUp(l)
}

// masquerade lets the namespace forward, and gives what has an IPv4 source that begins so (joinNormal's do) its own:
// what the reference plugins do with ipMasq.
func (n namespace) masquerade(source []byte) error {
	if err := n.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600) }); err != nil {
		return err
	}
	c, err := nftables.New(nftables.WithNetNSFd(int(n.file.Fd())))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Name: "bench", Family: nftables.TableFamilyIPv4})
	chain := c.AddChain(&nftables.Chain{
		Name: "out", Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	const sourceOffset = 12 // of struct iphdr, RFC 791
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: sourceOffset, Len: uint32(len(source)), DestRegister: 1},
		&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: source},
		&expr.Masq{},
	}})
	return c.Flush()
}
