package test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// An attack is a frame that a container must not send, and the name that its drop is counted under.
type attack struct {
	what, counted string
	frame         func(token string) []byte
}

func TestPortSecurityDropsAndCountsWhatAContainerForges(t *testing.T) {
	h := lab.NewHost(t)
	conf := declared(t, h, "blue", true) // a network that floods: nothing else keeps a frame from the victim
	attacker, victim := h.Attach("attacker", conf), h.Attach("victim", conf)
	at := victim.Capture()
	lab.Settled(t, attacker, victim, at)
	f := forger{attacker, victim}
	for _, a := range slices.Concat(f.addresses(), f.arp(), f.nd(), f.layer2(), f.tunnels()) {
		t.Run(a.what, func(t *testing.T) {
			before, token := h.Drops(), lab.Token("forged")
			attacker.Send(a.frame(token), a.frame(token), a.frame(token))
			h.Counts(t, before, a.counted, 3)
			lab.Settled(t, attacker, victim, at)
			if n := at.Count(token); n > 0 {
				t.Errorf("the victim gets it %d times", n)
			}
		})
	}
}

// An honest frame passes each time: the counters above do not count everything.
func TestPortSecurityLetsHonestFramesPass(t *testing.T) {
	h := lab.NewHost(t)
	conf := declared(t, h, "blue", false)
	a, b := h.Attach("a", conf), h.Attach("b", conf)
	at := b.Capture()
	f := forger{a, b}
	before := h.Drops()
	for what, frame := range map[string]func(string) []byte{
		"IPv4":            func(token string) []byte { return lab.UDP(a, b, token) },
		"IPv6":            func(token string) []byte { return f.udp6(a.MAC, a.IP6, token) },
		"link-local IPv6": func(token string) []byte { return f.udp6(a.MAC, a.MAC.LinkLocal(), token) },
		"ARP reply":       func(token string) []byte { return f.arpFrame(2, a.MAC, a.MAC, a.IP4, b.IP4, token) },
		"ARP probe": func(token string) []byte {
			return f.arpFrame(1, a.MAC, a.MAC, netip.IPv4Unspecified(), b.IP4, token)
		},
		"NA":                func(token string) []byte { return f.advert(a.IP6, a.IP6, a.MAC, token) },
		"NA without option": func(token string) []byte { return f.advert(a.IP6, a.IP6, vnet.MAC{}, token) },
		"link-local NA":     func(token string) []byte { return f.advert(a.MAC.LinkLocal(), a.MAC.LinkLocal(), a.MAC, token) },
		"NS":                func(token string) []byte { return f.solicit(a.IP6, b.IP6, a.MAC, token) },
	} {
		t.Run(what, func(*testing.T) {
			token := lab.Token(what)
			a.Send(frame(token))
			at.Await(token)
		})
	}
	h.Counts(t, before, "spoofed-mac", 0)
}

type forger struct{ attacker, victim *lab.Container }

var (
	someMAC  = vnet.MAC{0x0a, 0xaa, 0, 0, 0, 0x63}
	someIP4  = netip.MustParseAddr("10.0.0.99")
	someIP6  = netip.MustParseAddr("fd00:1::99")
	router4  = netip.MustParseAddr("10.0.0.1")
	router6  = netip.MustParseAddr("fd00:1::1")
	outside4 = netip.MustParseAddr("192.0.2.9") // a VTEP
	outside6 = netip.MustParseAddr("2001:db8::9")
	allNodes = netip.MustParseAddr("ff02::1")
)

func (f forger) eth(src vnet.MAC, t layers.EthernetType) *layers.Ethernet {
	return lab.Eth(src, f.victim.MAC.HardwareAddr(), t)
}

func (f forger) udp4(mac vnet.MAC, src, dst netip.Addr, token string) []byte {
	return lab.UDP4(f.eth(mac, layers.EthernetTypeIPv4), lab.IP4(src, dst), token)
}

func (f forger) udp6(mac vnet.MAC, src netip.Addr, token string) []byte {
	dst := f.victim.IP6
	if src.IsLinkLocalUnicast() {
		dst = f.victim.MAC.LinkLocal()
	}
	return lab.UDP6(f.eth(mac, layers.EthernetTypeIPv6), lab.IP6(src, dst, layers.IPProtocolUDP, 64), token)
}

// addresses: frames with a source that is not the sender's.
func (f forger) addresses() []attack {
	own, ip4, ip6 := f.attacker.MAC, f.attacker.IP4, f.attacker.IP6
	return []attack{
		{"another MAC", "spoofed-mac", func(s string) []byte { return f.udp4(someMAC, ip4, f.victim.IP4, s) }},
		{"the victim's MAC", "spoofed-mac", func(s string) []byte { return f.udp4(f.victim.MAC, ip4, f.victim.IP4, s) }},
		{"the gateway's MAC", "spoofed-mac", func(s string) []byte { return f.udp4(vnet.RouterMAC, ip4, f.victim.IP4, s) }},
		{"another MAC with IPv6", "spoofed-mac", func(s string) []byte { return f.udp6(someMAC, ip6, s) }},
		{"another IPv4 address", "spoofed-ipv4", func(s string) []byte { return f.udp4(own, someIP4, f.victim.IP4, s) }},
		{"the victim's IPv4 address", "spoofed-ipv4", func(s string) []byte { return f.udp4(own, f.victim.IP4, f.victim.IP4, s) }},
		{"the gateway's IPv4 address", "spoofed-ipv4", func(s string) []byte { return f.udp4(own, router4, f.victim.IP4, s) }},
		{"DHCP from 0.0.0.0", "spoofed-ipv4", func(s string) []byte {
			ip := lab.IP4(netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255"))
			return lab.Frame(append([]gopacket.SerializableLayer{lab.Eth(own, lab.Broadcast, layers.EthernetTypeIPv4), ip}, lab.Datagram(ip, 67, s)...)...)
		}},
		{"another IPv6 address", "spoofed-ipv6", func(s string) []byte { return f.udp6(own, someIP6, s) }},
		{"the victim's IPv6 address", "spoofed-ipv6", func(s string) []byte { return f.udp6(own, f.victim.IP6, s) }},
		{"the gateway's IPv6 address", "spoofed-ipv6", func(s string) []byte { return f.udp6(own, router6, s) }},
		{"another link-local address", "spoofed-ipv6", func(s string) []byte { return f.udp6(own, someMAC.LinkLocal(), s) }},
		{"the unspecified IPv6 address", "spoofed-ipv6", func(s string) []byte { return f.udp6(own, netip.IPv6Unspecified(), s) }},
	}
}

func (f forger) arpFrame(op uint16, mac, sha vnet.MAC, spa, tpa netip.Addr, token string) []byte {
	dst := f.victim.MAC.HardwareAddr()
	if op == 1 {
		dst = lab.Broadcast
	}
	return lab.ARP(lab.Eth(mac, dst, layers.EthernetTypeARP), op, sha, spa, tpa, token)
}

// arp: questions and answers that would put a false entry into the victim's table.
func (f forger) arp() []attack {
	own, ip4, victim := f.attacker.MAC, f.attacker.IP4, f.victim.IP4
	frame := func(op uint16, mac, sha vnet.MAC, spa, tpa netip.Addr) func(string) []byte {
		return func(token string) []byte { return f.arpFrame(op, mac, sha, spa, tpa, token) }
	}
	return []attack{
		{"ARP request from another address", "forged-arp", frame(1, own, own, someIP4, victim)},
		{"ARP request with another MAC inside", "forged-arp", frame(1, own, someMAC, ip4, victim)},
		{"ARP request from another MAC", "spoofed-mac", frame(1, someMAC, someMAC, ip4, victim)},
		{"ARP reply for the gateway", "forged-arp", frame(2, own, own, router4, victim)},
		{"ARP reply with another MAC inside", "forged-arp", frame(2, own, someMAC, ip4, victim)},
		{"gratuitous request for the victim's address", "forged-arp", frame(1, own, own, victim, victim)},
		{"gratuitous reply for the gateway", "forged-arp", frame(2, own, own, router4, router4)},
		{"gratuitous request for its own address", "self-probe", frame(1, own, own, ip4, ip4)},
		{"reverse ARP inside ARP", "forged-arp", frame(3, own, own, ip4, victim)},
	}
}

func (f forger) nd6(kind uint8, src netip.Addr, body []byte) []byte {
	return lab.ICMPv6(f.eth(f.attacker.MAC, layers.EthernetTypeIPv6), lab.IP6(src, f.victim.IP6, layers.IPProtocolICMPv6, 255), kind, body)
}

func (f forger) advert(src, target netip.Addr, tll vnet.MAC, token string) []byte {
	const solicitedOverride = 0x60
	return f.nd6(layers.ICMPv6TypeNeighborAdvertisement, src, lab.Neighbour(solicitedOverride, target, option(tll, 2), tll, token))
}

func (f forger) solicit(src, target netip.Addr, sll vnet.MAC, token string) []byte {
	return f.nd6(layers.ICMPv6TypeNeighborSolicitation, src, lab.Neighbour(0, target, option(sll, 1), sll, token))
}

func option(m vnet.MAC, kind byte) byte {
	if m == (vnet.MAC{}) {
		return 0
	}
	return kind
}

// nd: the same for IPv6, and whatever poses as a router.
func (f forger) nd() []attack {
	own, ip6, local := f.attacker.MAC, f.attacker.IP6, f.attacker.MAC.LinkLocal()
	na := func(src, target netip.Addr, tll vnet.MAC) func(string) []byte {
		return func(token string) []byte { return f.advert(src, target, tll, token) }
	}
	ns := func(src netip.Addr, sll vnet.MAC) func(string) []byte {
		return func(token string) []byte { return f.solicit(src, f.victim.IP6, sll, token) }
	}
	plain := func(kind uint8, src netip.Addr, n int) func(string) []byte {
		return func(token string) []byte { return f.nd6(kind, src, append(make([]byte, n), token...)) }
	}
	return []attack{
		{"NA for another address", "forged-nd", na(ip6, someIP6, own)},
		{"NA for the gateway", "forged-nd", na(ip6, router6, own)},
		{"NA for the victim's address", "forged-nd", na(ip6, f.victim.IP6, own)},
		{"NA with another MAC inside", "forged-nd", na(ip6, ip6, someMAC)},
		{"NA from another address", "forged-nd", na(someIP6, ip6, own)},
		{"NA without option for another address", "forged-nd", na(ip6, someIP6, vnet.MAC{})},
		{"NS with another MAC inside", "forged-nd", ns(ip6, someMAC)},
		{"NS from another address", "forged-nd", ns(someIP6, own)},
		{"NS from the gateway", "forged-nd", ns(router6, own)},
		{"DAD for the victim's address", "forged-nd", ns(netip.IPv6Unspecified(), vnet.MAC{})},
		{"router advertisement", "router-advertisement", func(token string) []byte {
			return lab.ICMPv6(lab.Eth(own, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, layers.EthernetTypeIPv6),
				lab.IP6(local, allNodes, layers.IPProtocolICMPv6, 255), layers.ICMPv6TypeRouterAdvertisement, append(make([]byte, 12), token...))
		}},
		{"unicast router advertisement", "router-advertisement", plain(layers.ICMPv6TypeRouterAdvertisement, local, 12)},
		{"router solicitation", "router-solicitation", plain(layers.ICMPv6TypeRouterSolicitation, local, 4)},
		{"redirect", "redirect", plain(layers.ICMPv6TypeRedirect, local, 36)},
		{"multicast listener report", "multicast-listener", plain(layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2, local, 4)},
	}
}

// layer2: tags, bridge control, and protocols that no container has a use for.
func (f forger) layer2() []attack {
	own, ip4 := f.attacker.MAC, f.attacker.IP4
	tagged := func(outer layers.EthernetType, tags ...layers.Dot1Q) func(string) []byte {
		return func(token string) []byte {
			list := []gopacket.SerializableLayer{f.eth(own, outer)}
			for _, tag := range tags {
				list = append(list, &tag)
			}
			ip := lab.IP4(ip4, f.victim.IP4)
			return lab.Frame(append(append(list, ip), lab.Datagram(ip, 9, token)...)...)
		}
	}
	q, ip := layers.EthernetTypeDot1Q, layers.EthernetTypeIPv4
	attacks := []attack{
		{"VLAN tag", "vlan-tag", tagged(q, layers.Dot1Q{VLANIdentifier: 100, Type: ip})},
		{"priority tag", "vlan-tag", tagged(q, layers.Dot1Q{Priority: 5, Type: ip})},
		{"tag of VLAN 0", "vlan-tag", tagged(q, layers.Dot1Q{Type: ip})},
		{"two tags", "vlan-tag", tagged(q, layers.Dot1Q{VLANIdentifier: 100, Type: q}, layers.Dot1Q{VLANIdentifier: 200, Type: ip})},
		{"QinQ", "vlan-tag", tagged(layers.EthernetTypeQinQ, layers.Dot1Q{VLANIdentifier: 100, Type: q}, layers.Dot1Q{VLANIdentifier: 200, Type: ip})},
	}
	for _, last := range []byte{0, 1, 2, 3, 0xe, 0xf} {
		attacks = append(attacks, attack{fmt.Sprintf("01:80:c2:00:00:%02x", last), "bridge-control", func(token string) []byte {
			return lab.Frame(lab.Eth(own, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last}, layers.EthernetTypeLLC), gopacket.Payload("\x42\x42\x03"+token))
		}})
	}
	other := func(t layers.EthernetType) func(string) []byte {
		return func(token string) []byte { return lab.Frame(f.eth(own, t), gopacket.Payload(token)) }
	}
	return append(attacks,
		attack{"LLDP", "bridge-control", func(token string) []byte {
			return lab.Frame(lab.Eth(own, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0xe}, layers.EthernetTypeLinkLayerDiscovery), gopacket.Payload(token))
		}},
		attack{"LLDP to a unicast address", "other-protocol", other(layers.EthernetTypeLinkLayerDiscovery)},
		attack{"PPPoE", "other-protocol", other(layers.EthernetTypePPPoEDiscovery)},
		attack{"an experimental protocol", "other-protocol", other(0x88b5)},
		attack{"802.3 without a type", "other-protocol", other(layers.EthernetTypeLLC)})
}

// tunnels: a container must not reach a VTEP with what looks like a frame of another tenant.
func (f forger) tunnels() []attack {
	via := func(t layers.EthernetType) *layers.Ethernet { return lab.Eth(f.attacker.MAC, lab.Router, t) }
	var attacks []attack
	for _, port := range []uint16{4789, 6081} {
		name := map[uint16]string{4789: "VXLAN", 6081: "Geneve"}[port]
		attacks = append(attacks,
			attack{name + " to a VTEP", "tunnel", func(token string) []byte {
				ip := lab.IP4(f.attacker.IP4, outside4)
				return lab.Frame(append([]gopacket.SerializableLayer{via(layers.EthernetTypeIPv4), ip}, lab.Datagram(ip, port, "\x08\x00\x00\x00\x00\x07\xd1\x00"+token)...)...)
			}},
			attack{name + " to an IPv6 VTEP", "tunnel", func(token string) []byte {
				ip := lab.IP6(f.attacker.IP6, outside6, layers.IPProtocolUDP, 64)
				return lab.Frame(append([]gopacket.SerializableLayer{via(layers.EthernetTypeIPv6), ip}, lab.Datagram(ip, port, "\x08\x00\x00\x00\x00\x07\xd1\x00"+token)...)...)
			}})
	}
	return append(attacks, attack{"anything to the outside", "unroutable", func(token string) []byte {
		return lab.UDP4(via(layers.EthernetTypeIPv4), lab.IP4(f.attacker.IP4, outside4), token)
	}})
}
