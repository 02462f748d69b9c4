package openflow

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Field is one header or metadata field that a flow can match on or set. The fields below are all there are; compare
// them by pointer.
type Field struct {
	match  string // its name in a match
	set    string // its name in set_field
	subf   string // its name in move and output, "" where the pipeline has no use for it
	header uint32 // OXM header without mask: class 16, field 7, mask bit 1, length of the value 8
	bits   int    // how many bits of the value mean something; the low ones
	kind   kind   // how its value is written
	rank   int    // its place in a match; prerequisites come earlier
}

// kind is how OVS writes a field's value; see the MFS_* constants and match_format.
type kind uint8

const (
	hexadecimal  kind = iota // 0x3e9
	decimal                  // 80
	port                     // 1, LOCAL
	mac                      // 0a:58:0a:00:00:02
	ipv4                     // 10.0.0.2
	ipv6                     // fd00:1::2
	vlan                     // dl_vlan=100 or vlan_tci=0x1000/0x1000 in a match, 4196 in set_field
	ctState                  // +est+trk
	tcpFlags                 // +syn-ack
	ipFrag                   // not_later
	etherType                // a protocol's name, or dl_type=0x88cc
	ipProto                  // part of a protocol's name, or nw_proto=50
	protocol                 // not on the wire: EtherType and IP protocol in one term
	unrecognized             // not one of ours
)

// OXM classes: OpenFlow 1.5.1, 7.2.3.3; the Nicira ones are those of nicira-ext.h.
const (
	classNXM1         = 0x0001
	classBasic        = 0x8000
	classExperimenter = 0xffff
)

func oxm(class, field, length uint32) uint32 { return class<<16 | field<<9 | length }

// The fields, in the order in which ovs-ofctl writes a match; only EthType and IPProto are moved to the front, where
// the wire wants prerequisites (OpenFlow 1.5.1, 7.2.3.6).
var (
	// CTState is what connection tracking knows of the packet: see CTStateIs. It is zero until the packet has been
	// through CT, and it cannot be set.
	CTState = &Field{"ct_state", "ct_state", "", oxm(classNXM1, 105, 4), 8, ctState, 1}
	// CTMark is the connection's mark; only Exec of CT can set it.
	CTMark = &Field{"ct_mark", "ct_mark", "NXM_NX_CT_MARK", oxm(classNXM1, 107, 4), 32, hexadecimal, 2}
	// CTLabel is the connection's label, 128 bits: Bits makes its terms. Only Exec of CT can set it.
	CTLabel = &Field{"ct_label", "ct_label", "NXM_NX_CT_LABEL", oxm(classNXM1, 108, 16), 128, hexadecimal, 3}

	EthType = &Field{"dl_type", "eth_type", "NXM_OF_ETH_TYPE", oxm(classBasic, 5, 2), 16, etherType, 7}
	IPProto = &Field{"nw_proto", "nw_proto", "NXM_OF_IP_PROTO", oxm(classBasic, 10, 1), 8, ipProto, 8}

	// CTNwProto is the protocol of the tracked connection, also where the packet itself does not show it: a later fragment of
	// IPv6. A term with it needs one of CTState that says that it is tracked and valid.
	CTNwProto = &Field{"ct_nw_proto", "ct_nw_proto", "", oxm(classNXM1, 119, 1), 8, decimal, 4}

	Reg0 = &Field{"reg0", "reg0", "NXM_NX_REG0", oxm(classNXM1, 0, 4), 32, hexadecimal, 10}
	Reg1 = &Field{"reg1", "reg1", "NXM_NX_REG1", oxm(classNXM1, 1, 4), 32, hexadecimal, 11}
	Reg2 = &Field{"reg2", "reg2", "NXM_NX_REG2", oxm(classNXM1, 2, 4), 32, hexadecimal, 12}
	Reg3 = &Field{"reg3", "reg3", "NXM_NX_REG3", oxm(classNXM1, 3, 4), 32, hexadecimal, 13}
	Reg4 = &Field{"reg4", "reg4", "NXM_NX_REG4", oxm(classNXM1, 4, 4), 32, hexadecimal, 14}
	Reg5 = &Field{"reg5", "reg5", "NXM_NX_REG5", oxm(classNXM1, 5, 4), 32, hexadecimal, 15}
	Reg6 = &Field{"reg6", "reg6", "NXM_NX_REG6", oxm(classNXM1, 6, 4), 32, hexadecimal, 16}
	Reg7 = &Field{"reg7", "reg7", "NXM_NX_REG7", oxm(classNXM1, 7, 4), 32, hexadecimal, 17}
	Reg9 = &Field{"reg9", "reg9", "NXM_NX_REG9", oxm(classNXM1, 9, 4), 32, hexadecimal, 19}

	TunID  = &Field{"tun_id", "tun_id", "NXM_NX_TUN_ID", oxm(classBasic, 38, 8), 64, hexadecimal, 30}
	TunSrc = &Field{"tun_src", "tun_src", "NXM_NX_TUN_IPV4_SRC", oxm(classNXM1, 31, 4), 32, ipv4, 31}
	TunDst = &Field{"tun_dst", "tun_dst", "NXM_NX_TUN_IPV4_DST", oxm(classNXM1, 32, 4), 32, ipv4, 32}

	TunIPv6Src = &Field{"tun_ipv6_src", "tun_ipv6_src", "NXM_NX_TUN_IPV6_SRC", oxm(classNXM1, 109, 16), 128, ipv6, 33}
	TunIPv6Dst = &Field{"tun_ipv6_dst", "tun_ipv6_dst", "NXM_NX_TUN_IPV6_DST", oxm(classNXM1, 110, 16), 128, ipv6, 34}

	Metadata = &Field{"metadata", "metadata", "OXM_OF_METADATA", oxm(classBasic, 2, 8), 64, hexadecimal, 40}
	InPort   = &Field{"in_port", "in_port", "OXM_OF_IN_PORT", oxm(classBasic, 0, 4), 32, port, 41}

	// VLANTCI is the 802.1Q tag without its priority: bit 12 says that there is one (set it, always, with the VLAN id), bits
	// 0 to 11 are the VLAN id. On the wire it is OXM_OF_VLAN_VID, because OVS answers with that whatever it was given.
	// Is(0) matches frames without a tag, Masked(0x1000, 0x1000) any tag, Is(0x1064) VLAN 100.
	VLANTCI = &Field{"vlan_tci", "vlan_vid", "", oxm(classBasic, 6, 2), 13, vlan, 42}

	EthSrc  = &Field{"dl_src", "eth_src", "NXM_OF_ETH_SRC", oxm(classBasic, 4, 6), 48, mac, 50}
	EthDst  = &Field{"dl_dst", "eth_dst", "NXM_OF_ETH_DST", oxm(classBasic, 3, 6), 48, mac, 51}
	IPv6Src = &Field{"ipv6_src", "ipv6_src", "NXM_NX_IPV6_SRC", oxm(classBasic, 26, 16), 128, ipv6, 60}
	IPv6Dst = &Field{"ipv6_dst", "ipv6_dst", "NXM_NX_IPV6_DST", oxm(classBasic, 27, 16), 128, ipv6, 61}
	IPv4Src = &Field{"nw_src", "ip_src", "NXM_OF_IP_SRC", oxm(classBasic, 11, 4), 32, ipv4, 62}
	IPv4Dst = &Field{"nw_dst", "ip_dst", "NXM_OF_IP_DST", oxm(classBasic, 12, 4), 32, ipv4, 63}
	ARPSpa  = &Field{"arp_spa", "arp_spa", "NXM_OF_ARP_SPA", oxm(classBasic, 22, 4), 32, ipv4, 64}
	ARPTpa  = &Field{"arp_tpa", "arp_tpa", "NXM_OF_ARP_TPA", oxm(classBasic, 23, 4), 32, ipv4, 65}
	ARPOp   = &Field{"arp_op", "arp_op", "NXM_OF_ARP_OP", oxm(classBasic, 21, 2), 16, decimal, 66}
	ARPSha  = &Field{"arp_sha", "arp_sha", "NXM_NX_ARP_SHA", oxm(classBasic, 24, 6), 48, mac, 67}
	ARPTha  = &Field{"arp_tha", "arp_tha", "NXM_NX_ARP_THA", oxm(classBasic, 25, 6), 48, mac, 68}

	// IPTTL is the TTL of IPv4 and the hop limit of IPv6.
	IPTTL = &Field{"nw_ttl", "nw_ttl", "NXM_NX_IP_TTL", oxm(classNXM1, 29, 1), 8, decimal, 70}
	// IPFrag tells fragments of IPv4 and IPv6: see the IPFrag constants. It cannot be set.
	IPFrag = &Field{"nw_frag", "nw_frag", "", oxm(classNXM1, 26, 1), 2, ipFrag, 71}

	TCPSrc     = &Field{"tp_src", "tcp_src", "NXM_OF_TCP_SRC", oxm(classBasic, 13, 2), 16, decimal, 80}
	TCPDst     = &Field{"tp_dst", "tcp_dst", "NXM_OF_TCP_DST", oxm(classBasic, 14, 2), 16, decimal, 81}
	UDPSrc     = &Field{"tp_src", "udp_src", "NXM_OF_UDP_SRC", oxm(classBasic, 15, 2), 16, decimal, 82}
	UDPDst     = &Field{"tp_dst", "udp_dst", "NXM_OF_UDP_DST", oxm(classBasic, 16, 2), 16, decimal, 83}
	ICMPType   = &Field{"icmp_type", "icmp_type", "NXM_OF_ICMP_TYPE", oxm(classBasic, 19, 1), 8, decimal, 84}
	ICMPCode   = &Field{"icmp_code", "icmp_code", "NXM_OF_ICMP_CODE", oxm(classBasic, 20, 1), 8, decimal, 85}
	ICMPv6Type = &Field{"icmp_type", "icmpv6_type", "NXM_NX_ICMPV6_TYPE", oxm(classBasic, 29, 1), 8, decimal, 86}
	ICMPv6Code = &Field{"icmp_code", "icmpv6_code", "NXM_NX_ICMPV6_CODE", oxm(classBasic, 30, 1), 8, decimal, 87}
	// TCPFlags are the flags of TCP: see TCPFlagsAre. It cannot be set.
	TCPFlags = &Field{"tcp_flags", "tcp_flags", "NXM_NX_TCP_FLAGS", oxm(classBasic, 42, 2), 12, tcpFlags, 88}
	NDTarget = &Field{"nd_target", "nd_target", "NXM_NX_ND_TARGET", oxm(classBasic, 31, 16), 128, ipv6, 90}
	NDSLL    = &Field{"nd_sll", "nd_sll", "NXM_NX_ND_SLL", oxm(classBasic, 32, 6), 48, mac, 91}
	NDTLL    = &Field{"nd_tll", "nd_tll", "NXM_NX_ND_TLL", oxm(classBasic, 33, 6), 48, mac, 92}
)

// fields finds a field by its header without the mask bit. Read only.
var fields = byHeader(
	CTState, CTMark, CTLabel, CTNwProto, EthType, IPProto, Reg0, Reg1, Reg2, Reg3, Reg4, Reg5, Reg6, Reg7, Reg9, TunID, TunSrc, TunDst, TunIPv6Src, TunIPv6Dst,
	Metadata, InPort, VLANTCI, EthSrc, EthDst, IPv6Src, IPv6Dst, IPv4Src, IPv4Dst, ARPSpa, ARPTpa, ARPOp, ARPSha, ARPTha, IPTTL, IPFrag,
	TCPSrc, TCPDst, TCPFlags, UDPSrc, UDPDst, ICMPType, ICMPCode, ICMPv6Type, ICMPv6Code, NDTarget, NDSLL, NDTLL,
)

func byHeader(all ...*Field) map[uint32]*Field {
	m := make(map[uint32]*Field, len(all))
	for _, f := range all {
		m[f.header] = f
	}
	return m
}

// String is the field's name as set_field has it.
func (f *Field) String() string { return f.set }

// width is the length of the value in bytes.
func (f *Field) width() int { return int(f.header & 0xff) }

// meaning has the bits set that mean something in byte i of the value.
func (f *Field) meaning(i int) byte {
	bits := min(max(f.bits-8*(f.width()-1-i), 0), 8)
	return byte(1<<bits - 1)
}

// part names n bits of the field from bit offset on, as move and zone have it.
func (f *Field) part(offset, n int) string {
	switch {
	case offset == 0 && n == f.bits:
		return f.subf + "[]"
	case n == 1:
		return fmt.Sprintf("%s[%d]", f.subf, offset)
	}
	return fmt.Sprintf("%s[%d..%d]", f.subf, offset, offset+n-1)
}

// Is is the field with exactly this value. A value that does not fit is refused when the flow is sent.
func (f *Field) Is(v uint64) Term { return Term{Field: f, Value: f.number(v)} }

// Masked is the field with this value in the bits that mask has set; bits of v outside the mask do not count.
func (f *Field) Masked(v, mask uint64) Term {
	return Term{Field: f, Value: f.number(v), Mask: f.number(mask)}
}

// Bits is the field with v in width bits, the lowest of which is bit shift of the field (0 is the lowest); the other
// bits do not count. A v that does not fit there is refused when the flow is sent, and so are bits that the field does
// not have.
func (f *Field) Bits(v uint64, shift, width int) Term {
	n := f.width()
	if shift < 0 || width < 0 || width > f.bits-shift || v>>width != 0 {
		return Term{Field: f, Value: binary.BigEndian.AppendUint64(make([]byte, n), v)} // which is too long for any field
	}
	t := Term{Field: f, Value: make([]byte, n), Mask: make([]byte, n)}
	for i := range width {
		at, bit := n-1-(shift+i)/8, byte(1)<<((shift+i)%8)
		t.Mask[at] |= bit
		if v>>i&1 == 1 {
			t.Value[at] |= bit
		}
	}
	return t
}

// MAC is the field with exactly this hardware address.
func (f *Field) MAC(a net.HardwareAddr) Term { return Term{Field: f, Value: clone(a)} }

// MACMasked is the field with this hardware address in the bits that mask has set.
func (f *Field) MACMasked(a, mask net.HardwareAddr) Term {
	return Term{Field: f, Value: clone(a), Mask: clone(mask)}
}

// Addr is the field with exactly this address. An address of the wrong family is refused when the flow is sent.
func (f *Field) Addr(a netip.Addr) Term { return Term{Field: f, Value: a.AsSlice()} }

// Prefix is the field with an address of this prefix; a prefix of length 0 is no condition at all.
func (f *Field) Prefix(p netip.Prefix) Term {
	value := p.Masked().Addr().AsSlice()
	mask := make([]byte, len(value))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return Term{Field: f, Value: value, Mask: mask}
}

// number writes v in the width of f. What does not fit keeps all its eight bytes, which Term.check refuses: a
// truncated value would match something else without a word.
func (f *Field) number(v uint64) []byte {
	width := f.width()
	b := binary.BigEndian.AppendUint64(make([]byte, max(width-8, 0), max(width, 8)), v)
	if width < 8 && v>>(8*width) == 0 {
		return b[8-width:]
	}
	return b
}

func clone(b []byte) []byte { return append([]byte{}, b...) }
