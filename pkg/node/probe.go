package node

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Protocol of a probe.
type Protocol string

// The protocols a probe can have.
const (
	ICMP Protocol = "icmp" // an echo request, of the family's own kind
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
)

// Probe is a packet that an endpoint would send.
type Probe struct {
	From     vnet.Endpoint
	To       netip.Addr
	Protocol Protocol // empty: icmp
	Port     uint16   // destination port of tcp and udp
	// SourcePort is theirs, too; 0: one that stands for any. Of a connection that there is, its path is shown.
	SourcePort uint16
	// Source and SourceMAC pose as somebody else; zero: the endpoint's own.
	Source    netip.Addr
	SourceMAC vnet.MAC
}

// packet is a probe as the container's kernel would send it.
type packet struct {
	Probe
	dstMAC vnet.MAC
	how    string // how its kernel comes by dstMAC, in words
	asks   bool   // nobody has the address: what goes out is the question for it, and no more
}

// sourcePort stands for one that a kernel would choose.
const sourcePort = 40000

var broadcast = vnet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// address fills in what the container's kernel would: the source address, and the MAC that the
// packet is sent to. In the same subnet that is the owner's, else the router's. neighbours are
// the endpoints of the sender's network.
func (p Probe) address(net vnet.Network, neighbours []vnet.Endpoint) (packet, error) {
	if p.Protocol == "" {
		p.Protocol = ICMP
	}
	family := "IPv4"
	if p.To.Is6() {
		family = "IPv6"
	}
	if !p.Source.IsValid() {
		i := slices.IndexFunc(p.From.Addrs, func(a netip.Prefix) bool { return a.Addr().Is6() == p.To.Is6() })
		switch {
		case p.To.Is6() && p.To.IsLinkLocalUnicast():
			p.Source = p.From.MAC.LinkLocal()
		case i < 0:
			return packet{}, vnet.WithHint(vnet.Invalidf("%s has no %s address", p.From.Attachment, family), "name an address of the other family")
		default:
			p.Source = p.From.Addrs[i].Addr()
		}
	}
	if p.Source.Is6() != p.To.Is6() {
		return packet{}, vnet.Invalidf("source %s and destination %s are of different families", p.Source, p.To)
	}
	if p.SourceMAC == (vnet.MAC{}) {
		p.SourceMAC = p.From.MAC
	}
	out := packet{Probe: p}
	subnet, near := net.SubnetOf(p.To)
	owner := slices.IndexFunc(neighbours, func(e vnet.Endpoint) bool {
		return e.Has(p.To) || e.MAC.LinkLocal() == p.To
	})
	switch {
	case p.To == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		out.dstMAC, out.how = broadcast, "as a broadcast"
	case p.To.IsMulticast():
		out.dstMAC, out.how = multicastMAC(p.To), "as a multicast"
	case near && p.To == subnet.Gateway && !net.IsProvider():
		out.dstMAC, out.how = vnet.RouterMAC, "the gateway"
	case owner >= 0 && neighbours[owner].ID == p.From.ID:
		out.dstMAC, out.how = p.From.MAC, "its own address, whose packets a kernel keeps to itself"
	case owner >= 0:
		out.dstMAC, out.how = neighbours[owner].MAC, fmt.Sprintf("%s, in the same network", neighbours[owner].Attachment)
	case near && net.IsProvider():
		out.asks = true
		out.dstMAC, out.how = question(p.To), "on the wire, if anywhere: what is sent first is the question for it"
	case near || p.To.Is6() && p.To.IsLinkLocalUnicast():
		out.asks = true
		out.dstMAC, out.how = question(p.To), "nobody's address, so all that is sent is the question for it"
	case net.IsProvider() && !vnet.TransitRange4.Contains(p.To) && !vnet.TransitRange6.Contains(p.To):
		gateway, ok := gatewayFor(net, p.To)
		if !ok {
			return packet{}, vnet.Invalidf("network %s has no %s gateway: the container has no route to %s by itself", net.Ref(), family, p.To)
		}
		out.asks, out.To = true, gateway
		out.dstMAC, out.how = question(gateway), "by "+gateway.String()+", a router on the wire: what is sent first is the question for it"
	default:
		out.dstMAC, out.how = vnet.RouterMAC, "by the router"
		if _, ok := gatewayFor(net, p.To); !ok {
			out.how += fmt.Sprintf(" (network %s has no %s gateway: the container has no such route by itself)", net.Ref(), family)
		}
	}
	return out, nil
}

// gatewayFor is the network's gateway of a's family.
func gatewayFor(net vnet.Network, a netip.Addr) (netip.Addr, bool) {
	i := slices.IndexFunc(net.Subnets, func(s vnet.Subnet) bool { return s.Gateway.IsValid() && s.Gateway.Is6() == a.Is6() })
	if i < 0 {
		return netip.Addr{}, false
	}
	return net.Subnets[i].Gateway, true
}

// multicastMAC: RFC 1112, 6.4, and RFC 2464, 7.
func multicastMAC(a netip.Addr) vnet.MAC {
	b := a.AsSlice()
	if a.Is4() {
		return vnet.MAC{0x01, 0x00, 0x5e, b[1] & 0x7f, b[2], b[3]}
	}
	return vnet.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// solicited is the multicast address that a neighbour is asked for at: RFC 4291, 2.7.1.
func solicited(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// question is where a question for a neighbour goes.
func question(a netip.Addr) vnet.MAC {
	if a.Is4() {
		return broadcast
	}
	return multicastMAC(solicited(a))
}

// text is the packet as ofproto/trace takes it (ovs-fields(7)).
func (p packet) text(port uint32) string {
	return p.textFrom(strconv.Itoa(int(port)), p.SourceMAC, p.dstMAC)
}

// textFrom is the packet coming in by a port, with these addresses.
func (p packet) textFrom(port string, src, dst vnet.MAC) string {
	words := []string{fmt.Sprintf("in_port=%s,dl_src=%s,dl_dst=%s", port, src, dst)}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	switch {
	case p.asks && p.To.Is4():
		add("arp,arp_op=1,arp_sha=%s,arp_spa=%s,arp_tpa=%s", p.SourceMAC, p.Source, p.To)
	case p.asks:
		add("icmp6,ipv6_src=%s,ipv6_dst=%s,nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target=%s,nd_sll=%s", p.Source, solicited(p.To), p.To, p.SourceMAC)
	default:
		six, src := "", "nw"
		if p.To.Is6() {
			six, src = "6", "ipv6"
		}
		add("%s%s,%s_src=%s,%s_dst=%s,nw_ttl=64", p.Protocol, six, src, p.Source, src, p.To)
		switch {
		case p.Protocol != ICMP:
			add("%s_src=%d,%s_dst=%d", p.Protocol, cmp.Or(p.SourcePort, sourcePort), p.Protocol, p.Port)
		case p.To.Is6():
			add("icmpv6_type=128,icmpv6_code=0")
		default:
			add("icmp_type=8,icmp_code=0")
		}
	}
	return strings.Join(words, ",")
}
