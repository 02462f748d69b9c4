package lab

import (
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Frame serializes layers, with lengths and checksums filled in.
func Frame(list ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, list...); err != nil {
		panic(fmt.Sprintf("frame: %v", err)) // the test's own mistake
	}
	return buf.Bytes()
}

var tokens atomic.Int64

// Token is a payload that no other frame has.
func Token(what string) string { return fmt.Sprintf("%s#%d.", what, tokens.Add(1)) }

// PingToken is one of a fixed length, which fits into a ping.
func PingToken(what string) string { return (Token(what) + "________________")[:16] }

// Broadcast and the router's address, which is every network's gateway.
var (
	Broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	Router    = vnet.RouterMAC.HardwareAddr()
)

// Eth is an Ethernet header.
func Eth(src vnet.MAC, dst net.HardwareAddr, t layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: src.HardwareAddr(), DstMAC: dst, EthernetType: t}
}

// IP4 is an IPv4 header for UDP; Proto changes it.
func IP4(src, dst netip.Addr) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// IP6 is an IPv6 header.
func IP6(src, dst netip.Addr, next layers.IPProtocol, hops uint8) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: hops, NextHeader: next, SrcIP: src.AsSlice(), DstIP: dst.AsSlice()}
}

// Datagram is a UDP header over ip with a payload.
func Datagram(ip gopacket.NetworkLayer, port uint16, payload string) []gopacket.SerializableLayer {
	u := &layers.UDP{SrcPort: 9, DstPort: layers.UDPPort(port)}
	if err := u.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return []gopacket.SerializableLayer{u, gopacket.Payload(payload)}
}

// Sums makes a TCP header's checksum cover ip's addresses.
func Sums(tcp *layers.TCP, ip gopacket.NetworkLayer) {
	if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
}

// UDP4 is a whole IPv4 datagram, to the discard port.
func UDP4(eth *layers.Ethernet, ip *layers.IPv4, payload string) []byte {
	return Frame(append([]gopacket.SerializableLayer{eth, ip}, Datagram(ip, 9, payload)...)...)
}

// UDP6 is a whole IPv6 datagram, to the discard port.
func UDP6(eth *layers.Ethernet, ip *layers.IPv6, payload string) []byte {
	return Frame(append([]gopacket.SerializableLayer{eth, ip}, Datagram(ip, 9, payload)...)...)
}

// UDP is an honest datagram from one container to another of its network.
func UDP(from, to *Container, payload string) []byte {
	return UDP4(Eth(from.MAC, to.MAC.HardwareAddr(), layers.EthernetTypeIPv4), IP4(from.IP4, to.IP4), payload)
}

// ARP is an ARP packet (RFC 826); payload, after it, is padding that identifies it.
func ARP(eth *layers.Ethernet, op uint16, sha vnet.MAC, spa, tpa netip.Addr, payload string) []byte {
	return Frame(eth, &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: op,
		SourceHwAddress: sha[:], SourceProtAddress: spa.AsSlice(), DstHwAddress: make([]byte, 6), DstProtAddress: tpa.AsSlice(),
	}, gopacket.Payload(payload))
}

// ICMPv6 is a message of a type with a body, which begins behind the checksum.
func ICMPv6(eth *layers.Ethernet, ip *layers.IPv6, kind uint8, body []byte) []byte {
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}
	if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
		panic(err)
	}
	return Frame(eth, ip, icmp, gopacket.Payload(body))
}

// Neighbour is the body of a solicitation or advertisement (RFC 4861 section 4.3, 4.4): flags, target, with a MAC the
// option that carries it, and an option that nobody knows around the token.
func Neighbour(flags byte, target netip.Addr, option byte, lladdr vnet.MAC, token string) []byte {
	body := append([]byte{flags, 0, 0, 0}, target.AsSlice()...)
	if option != 0 {
		body = append(append(body, option, 1), lladdr[:]...)
	}
	const experiment = 253 // RFC 4727 section 5
	units := (2 + len(token) + 7) / 8
	return append(append(append(body, experiment, byte(units)), token...), make([]byte, 8*units-2-len(token))...)
}

// SolicitedNode is the group that questions for a are sent to, and its MAC (RFC 4291 section 2.7.1, RFC 2464 section 7).
func SolicitedNode(a netip.Addr) (netip.Addr, net.HardwareAddr) {
	b := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	return group, net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}
