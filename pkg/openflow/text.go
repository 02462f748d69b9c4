package openflow

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// String is the match as ovs-ofctl writes it; the empty match is "".
func (m Match) String() string { return strings.Join(m.words(), ",") }

// words are the parts of the match between commas.
func (m Match) words() []string {
	c := m.canonical()
	name, whole := c.protocol()
	words := make([]string, 0, len(c)+1)
	for _, t := range c {
		if t.Field.beforeProtocol() {
			words = append(words, t.matchWord())
		}
	}
	if name != "" {
		words = append(words, name)
	}
	// EthType and IPProto go first on the wire. Where they do not come together as a name, their place in the text is
	// behind the Ethernet and behind the IP addresses.
	var etherTerm, protoTerm *Term
	for i := range c {
		switch c[i].Field {
		case EthType:
			if name == "" {
				etherTerm = &c[i]
			}
		case IPProto:
			if !whole {
				protoTerm = &c[i]
			}
		}
	}
	flush := func(t **Term) {
		if *t != nil {
			words = append(words, (*t).matchWord())
			*t = nil
		}
	}
	for _, t := range c {
		if t.Field == EthType || t.Field == IPProto || t.Field.beforeProtocol() {
			continue
		}
		if t.Field.rank > EthDst.rank || t.Field.kind == unrecognized {
			flush(&etherTerm)
		}
		if t.Field.rank > ARPTpa.rank || t.Field.kind == unrecognized {
			flush(&protoTerm)
		}
		words = append(words, t.matchWord())
	}
	flush(&etherTerm)
	flush(&protoTerm)
	return words
}

// beforeProtocol says whether OVS writes the field before the protocol's name.
func (f *Field) beforeProtocol() bool { return f.rank > 0 && f.rank < EthType.rank }

// protocol is the name that OVS gives to the match's EtherType and IP protocol together ("" if it has none for the
// EtherType), and whether it says the IP protocol too. See match_format.
func (m Match) protocol() (string, bool) {
	ether, proto := -1, -1
	for _, t := range m {
		switch {
		case t.Mask != nil || t.check() != nil:
		case t.Field == EthType:
			ether = int(binary.BigEndian.Uint16(t.Value))
		case t.Field == IPProto:
			proto = int(t.Value[0])
		}
	}
	const sctp = 132
	switch ether {
	case etherIP:
		switch proto {
		case protoICMP:
			return "icmp", true
		case protoTCP:
			return "tcp", true
		case protoUDP:
			return "udp", true
		case sctp:
			return "sctp", true
		}
		return "ip", false
	case etherIPv6:
		switch proto {
		case protoICMPv6:
			return "icmp6", true
		case protoTCP:
			return "tcp6", true
		case protoUDP:
			return "udp6", true
		case sctp:
			return "sctp6", true
		}
		return "ipv6", false
	case etherARP:
		return "arp", false
	case 0x8035:
		return "rarp", false
	case 0x8847:
		return "mpls", false
	case 0x8848:
		return "mplsm", false
	}
	return "", false
}

// String is the term as it stands in a match.
func (t Term) String() string { return Match{t}.String() }

func (t Term) matchWord() string {
	if t.Field == nil || t.Field.kind == unrecognized || t.check() != nil {
		return t.unknown()
	}
	name := t.Field.match + "="
	switch t.Field.kind {
	case etherType:
		return fmt.Sprintf("%s0x%04x", name, number(t.Value))
	case vlan:
		return t.vlanWord()
	case decimal:
		if t.Mask != nil {
			return fmt.Sprintf("%s0x%x/0x%x", name, number(t.Value), number(t.Mask))
		}
	}
	return name + t.setValue()
}

// vlanWord follows the case distinction of match_format.
func (t Term) vlanWord() string {
	const present, vid, all = 0x1000, 0x0fff, 0x1fff
	value, mask := number(t.Value), uint64(all)
	if t.Mask != nil {
		mask = number(t.Mask)
	}
	if mask == all && value&present != 0 {
		return fmt.Sprintf("dl_vlan=%d", value&vid)
	}
	return fmt.Sprintf("vlan_tci=0x%04x/0x%04x", value, mask)
}

// setValue is the value, and the mask if there is one, as set_field has it.
func (t Term) setValue() string {
	if t.check() != nil {
		return t.unknown()
	}
	switch t.Field.kind {
	case ctState:
		return flagsWord(t, ctFlags)
	case tcpFlags:
		return flagsWord(t, tcpFlagNames)
	case ipFrag:
		return fragWord(t)
	case mac:
		if t.Mask == nil {
			return net.HardwareAddr(t.Value).String()
		}
		return net.HardwareAddr(t.Value).String() + "/" + net.HardwareAddr(t.Mask).String()
	case ipv4, ipv6:
		if t.Mask == nil {
			return address(t.Value)
		}
		if n, ok := prefixLen(t.Mask); ok {
			return address(t.Value) + "/" + strconv.Itoa(n)
		}
		return address(t.Value) + "/" + address(t.Mask)
	case port:
		if name := portName(uint32(number(t.Value))); name != "" && t.Mask == nil {
			return name
		}
	}
	s := strconv.FormatUint(number(t.Value), 10)
	if t.Field.kind == hexadecimal {
		s = hexadecimalWord(t.Value)
	}
	if t.Mask != nil {
		s += "/" + hexadecimalWord(t.Mask)
	}
	return s
}

// hexadecimalWord is C's "%#x", which has no prefix for zero.
func hexadecimalWord(b []byte) string {
	if isZero(b) {
		return "0"
	}
	return "0x" + strings.TrimLeft(hex.EncodeToString(b), "0")
}

// tcpFlagNames are the names that ovs-ofctl has for the bits of TCPFlags, the lowest first.
var tcpFlagNames = []string{"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]"}

// flagsWord is a value of bits with these names as ovs-ofctl writes it: +trk-new, or with every bit given new|trk.
func flagsWord(t Term, names []string) string {
	value, mask := number(t.Value), uint64(0)
	if t.Mask != nil {
		mask = number(t.Mask)
	}
	var signed strings.Builder
	var set []string
	for i, name := range names {
		bit := uint64(1) << i
		switch {
		case value&bit != 0:
			set = append(set, name)
			signed.WriteString("+" + name)
		case mask&bit != 0:
			signed.WriteString("-" + name)
		}
	}
	switch {
	case t.Mask != nil:
		return signed.String()
	case set == nil:
		return "0"
	}
	return strings.Join(set, "|")
}

// fragWord follows the case distinction of match_format.
func fragWord(t Term) string {
	value, mask := number(t.Value), uint64(IPFragAny|IPFragLater)
	if t.Mask != nil {
		mask = number(t.Mask)
	}
	switch {
	case mask == IPFragAny && value == 0:
		return "no"
	case mask == IPFragAny:
		return "yes"
	case mask == IPFragLater && value == 0:
		return "not_later"
	case mask == IPFragLater:
		return "later"
	}
	return [...]string{"no", "first", "<error>", "later"}[value]
}

// unknown writes a term that is not ours, or malformed, in a form that tells apart what differs.
func (t Term) unknown() string {
	if t.Field == nil {
		return "unknown()"
	}
	s := fmt.Sprintf("unknown(0x%08x 0x%x", t.Field.header, t.Value)
	if t.Mask != nil {
		s += fmt.Sprintf("/0x%x", t.Mask)
	}
	return s + ")"
}

// number reads at most eight bytes.
func number(b []byte) uint64 {
	var v uint64
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}

// address writes an address as inet_ntop does, which OVS uses: IPv6 addresses with 96 leading zero bits end like IPv4.
func address(b []byte) string {
	a, _ := netip.AddrFromSlice(b)
	if a.Is6() && isZero(b[:12]) && (b[12] != 0 || b[13] != 0) {
		return "::" + netip.AddrFrom4([4]byte(b[12:])).String()
	}
	return a.String()
}

// prefixLen is the length of the prefix that mask stands for, and whether it stands for one.
func prefixLen(mask []byte) (int, bool) {
	n := 0
	for n < len(mask) && mask[n] == 0xff {
		n++
	}
	length := 8 * n
	if n < len(mask) {
		ones := bits.LeadingZeros8(^mask[n])
		if mask[n] != ^byte(0xff>>ones) || !isZero(mask[n+1:]) {
			return 0, false
		}
		length += ones
	}
	return length, true
}

// portName is OVS's name for a port number with a meaning, else "".
func portName(p uint32) string {
	switch p {
	case PortInPort:
		return "IN_PORT"
	case PortTable:
		return "TABLE"
	case PortNormal:
		return "NORMAL"
	case PortFlood:
		return "FLOOD"
	case PortAll:
		return "ALL"
	case PortController:
		return "CONTROLLER"
	case PortLocal:
		return "LOCAL"
	case portAny:
		return "ANY"
	}
	return ""
}
