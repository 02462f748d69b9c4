package test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// crafted are frames of c to its router that hold a payload.
type crafted struct {
	c     *lab.Container
	token string
}

func (f crafted) eth(t layers.EthernetType) *layers.Ethernet { return lab.Eth(f.c.MAC, lab.Router, t) }

func (f crafted) udp(to string, port uint16) []byte {
	a := netip.MustParseAddr(to)
	if a.Is6() {
		ip := lab.IP6(f.c.IP6, a, layers.IPProtocolUDP, 64)
		return lab.Frame(append([]gopacket.SerializableLayer{f.eth(layers.EthernetTypeIPv6), ip}, lab.Datagram(ip, port, f.token)...)...)
	}
	ip := lab.IP4(f.c.IP4, a)
	return lab.Frame(append([]gopacket.SerializableLayer{f.eth(layers.EthernetTypeIPv4), ip}, lab.Datagram(ip, port, f.token)...)...)
}

func (f crafted) syn(to string) []byte {
	a := netip.MustParseAddr(to)
	tcp := &layers.TCP{SrcPort: 4444, DstPort: 80, SYN: true, Window: 1000}
	if a.Is6() {
		ip := lab.IP6(f.c.IP6, a, layers.IPProtocolTCP, 64)
		lab.Sums(tcp, ip)
		return lab.Frame(f.eth(layers.EthernetTypeIPv6), ip, tcp, gopacket.Payload(f.token))
	}
	ip := lab.IP4(f.c.IP4, a)
	ip.Protocol = layers.IPProtocolTCP
	lab.Sums(tcp, ip)
	return lab.Frame(f.eth(layers.EthernetTypeIPv4), ip, tcp, gopacket.Payload(f.token))
}

// protocol is a packet of any IP protocol, with nothing but the payload in it.
func (f crafted) protocol(to string, p layers.IPProtocol) []byte {
	a := netip.MustParseAddr(to)
	if a.Is6() {
		return lab.Frame(f.eth(layers.EthernetTypeIPv6), lab.IP6(f.c.IP6, a, p, 64), gopacket.Payload(f.token))
	}
	ip := lab.IP4(f.c.IP4, a)
	ip.Protocol = p
	return lab.Frame(f.eth(layers.EthernetTypeIPv4), ip, gopacket.Payload(f.token))
}

// unreachable is an ICMP error about a packet that nobody sent.
func (f crafted) unreachable(to string) []byte {
	a := netip.MustParseAddr(to)
	if a.Is6() {
		about := lab.IP6(a, f.c.IP6, layers.IPProtocolUDP, 64)
		body := lab.Frame(append([]gopacket.SerializableLayer{about}, lab.Datagram(about, 9, f.token)...)...)
		return lab.ICMPv6(f.eth(layers.EthernetTypeIPv6), lab.IP6(f.c.IP6, a, layers.IPProtocolICMPv6, 64),
			layers.ICMPv6TypeDestinationUnreachable, append(make([]byte, 4), body...))
	}
	about := lab.IP4(a, f.c.IP4)
	ip := lab.IP4(f.c.IP4, a)
	ip.Protocol = layers.IPProtocolICMPv4
	return lab.Frame(f.eth(layers.EthernetTypeIPv4), ip, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)},
		gopacket.Payload(lab.Frame(append([]gopacket.SerializableLayer{about}, lab.Datagram(about, 9, f.token)...)...)))
}

// sourceRouted asks routers on its way to send it on to another address (RFC 791, loose source routing).
func (f crafted) sourceRouted(to, then string) []byte {
	ip := lab.IP4(f.c.IP4, netip.MustParseAddr(to))
	hop := netip.MustParseAddr(then).As4()
	ip.Options = []layers.IPv4Option{{OptionType: 131, OptionLength: 7, OptionData: append([]byte{4}, hop[:]...)}, {OptionType: 0}}
	return lab.UDP4(f.eth(layers.EthernetTypeIPv4), ip, f.token)
}

func (f crafted) from(src, dst string) []byte {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is6() {
		return lab.UDP6(f.eth(layers.EthernetTypeIPv6), lab.IP6(s, d, layers.IPProtocolUDP, 64), f.token)
	}
	return lab.UDP4(f.eth(layers.EthernetTypeIPv4), lab.IP4(s, d), f.token)
}

func (f crafted) vlan(to string) []byte {
	return lab.Frame(f.eth(layers.EthernetTypeDot1Q), &layers.Dot1Q{VLANIdentifier: 1, Type: layers.EthernetTypeIPv4},
		lab.IP4(f.c.IP4, netip.MustParseAddr(to)), gopacket.Payload(f.token))
}

func TestWithoutAGatewayNothingLeavesTheTenant(t *testing.T) {
	w := newOutsideWorld(t, "none")
	// Somebody on the host has a way out, and somebody of the tenant a published port: the host forwards.
	w.Attach("c", w.Conf("green", "web", web4, web6).With("gateway", "nat")).Reaches(w.server.IP4)
	w.Attach("d", lab.Published(w.Conf("blue", "web", web4, web6), lab.Port("tcp", 8080, 80)))
	host, gw4, gw6 := w.Itself(), "10.0.0.1", "fd00:1::1"
	host.Reaches(w.a.Alias(w.a.IP4))
	host.Reaches(w.a.Alias(w.a.IP6))
	alias4, alias6 := w.b.Alias(w.b.IP4).String(), w.b.Alias(w.b.IP6).String()
	own4, own6 := w.a.Alias(w.a.IP4).String(), w.a.Alias(w.a.IP6).String()
	transit4, transit6 := vnet.HostTransit.Addr4().String(), vnet.HostTransit.Addr6().String()
	out4, out6, host4, host6 := w.server.IP4.String(), w.server.IP6.String(), "203.0.113.1", "2001:db8:113::1"

	gate, outside := w.On(vnet.GatewayLink).Capture(), w.server.Capture()
	for _, sent := range []struct {
		what   string
		counts string
		frames func(f crafted) [][]byte
	}{
		{"to the outside", "unroutable", func(f crafted) [][]byte {
			return [][]byte{f.udp(out4, 53), f.udp(out6, 53), f.syn(out4), f.syn(out6), f.protocol(out4, 47), f.protocol(out6, 132)}
		}},
		{"to the host's addresses", "unroutable", func(f crafted) [][]byte { return [][]byte{f.syn(host4), f.syn(host6), f.udp(host4, 8080)} }},
		{"to the host's end of the link", "unroutable", func(f crafted) [][]byte { return [][]byte{f.syn(transit4), f.syn(transit6), f.udp(transit4, 9)} }},
		{"to the other tenant's alias", "unroutable", func(f crafted) [][]byte { return [][]byte{f.syn(alias4), f.syn(alias6), f.udp(alias4, 9)} }},
		{"to its own alias", "unroutable", func(f crafted) [][]byte { return [][]byte{f.syn(own4), f.syn(own6)} }},
		{"to the gateway", "host", func(f crafted) [][]byte {
			return [][]byte{
				f.syn(gw4), f.syn(gw6), f.udp(gw4, 9), f.udp(gw6, 9), f.udp(gw4, 53),
				f.unreachable(gw4), f.unreachable(gw6), f.protocol(gw4, 47), f.protocol(gw6, 132),
			}
		}},
		{"tunnel packets", "tunnel", func(f crafted) [][]byte {
			return [][]byte{f.udp(out4, 4789), f.udp(out6, 6081), f.udp(host4, 4789), f.udp(gw4, 4789)}
		}},
		{"a VLAN tag", "vlan-tag", func(f crafted) [][]byte { return [][]byte{f.vlan(out4)} }},
		{"to loopback", "unroutable", func(f crafted) [][]byte { return [][]byte{f.syn("127.0.0.1"), f.syn("::1"), f.udp("127.0.0.1", 8080)} }},
		{"source-routed", "unroutable", func(f crafted) [][]byte {
			return [][]byte{f.sourceRouted(transit4, out4), f.sourceRouted(out4, transit4)}
		}},
		{"with a forged source", "spoofed-ipv4", func(f crafted) [][]byte {
			return [][]byte{f.from(transit4, own4), f.from(alias4, out4), f.from("127.0.0.1", "127.0.0.1"), f.from(host4, gw4)}
		}},
		{"with a forged IPv6 source", "spoofed-ipv6", func(f crafted) [][]byte { return [][]byte{f.from(transit6, own6), f.from(alias6, out6)} }},
		{"to a group", "no-multicast", func(f crafted) [][]byte {
			group, mac := netip.MustParseAddr("224.0.0.1"), net.HardwareAddr{1, 0, 0x5e, 0, 0, 1}
			return [][]byte{lab.UDP4(lab.Eth(f.c.MAC, mac, layers.EthernetTypeIPv4), lab.IP4(f.c.IP4, group), f.token)}
		}},
		{"straight to the host's MAC", "unknown-mac", func(f crafted) [][]byte {
			return [][]byte{lab.UDP4(lab.Eth(f.c.MAC, vnet.GatewayMAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(f.c.IP4, vnet.HostTransit.Addr4()), f.token)}
		}},
	} {
		frames := sent.frames(crafted{w.a, lab.Token(sent.what)})
		before := w.Drops()
		w.a.Send(frames...)
		t.Run(sent.what, func(t *testing.T) { w.For(t).Counts(t, before, sent.counts, uint64(len(frames))) })
	}
	ip := func(f []byte) bool {
		t := binary.BigEndian.Uint16(f[12:])
		listens := f[0] == 0x33 && f[5] == 0x16                                       // a multicast listener report, RFC 3810
		return t != 0x0806 && !listens && (t != 0x86dd || f[20] != 58 || f[54] < 130) // the wire's own ARP and neighbour discovery
	}
	if got := gate.Frames(func([]byte) bool { return true }); len(got) > 0 {
		t.Errorf("%d frames came out to the host: %x", len(got), got[0])
	}
	if got := outside.Frames(ip); len(got) > 0 {
		t.Errorf("%d frames came outside: %x", len(got), got[0])
	}
}
