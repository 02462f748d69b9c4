package gateway

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers. The kernel has sixteen of 4 bytes, and four names of 16 bytes for
// the same room; it tells those of 4 bytes that begin one of 16 by the latter's
// name, and so does this package, to recognize what it wrote.
const (
	regA      = unix.NFT_REG_1 // words 0 to 3
	regB      = unix.NFT_REG_2 // words 4 to 7
	regWord1  = unix.NFT_REG32_01
	regWord2  = unix.NFT_REG32_02
	regWord5  = unix.NFT_REG32_05
	ipsDNAT   = 1 << 5 // IPS_DST_NAT in linux/netfilter/nf_conntrack_common.h
	ifNameLen = unix.IFNAMSIZ
)

// side is an address of a packet.
type side int

const (
	source side = iota
	destination
)

// exprs joins parts of a rule.
func exprs(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// comes and goes match packets by the link they come in or go out by; op is
// CmpOpEq or CmpOpNeq.
func comes(op expr.CmpOp, link string) []expr.Any { return byLink(expr.MetaKeyIIFNAME, op, link) }
func goes(op expr.CmpOp, link string) []expr.Any  { return byLink(expr.MetaKeyOIFNAME, op, link) }

func byLink(key expr.MetaKey, op expr.CmpOp, link string) []expr.Any {
	name := make([]byte, ifNameLen)
	copy(name, link)
	return []expr.Any{&expr.Meta{Key: key, Register: regA}, &expr.Cmp{Op: op, Register: regA, Data: name}}
}

// nfproto is netfilter's number of a's family.
func nfproto(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// load matches packets of the family of like, and loads an address of theirs
// to register A.
func load(s side, like netip.Addr) []expr.Any {
	at := &expr.Payload{DestRegister: regA, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4} // RFC 791 section 3.1
	if like.Is6() {
		at.Offset, at.Len = 8, 16 // RFC 8200 section 3
	}
	if s == destination {
		at.Offset += at.Len
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: regA},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: []byte{nfproto(like)}},
		at,
	}
}

// within matches packets with an address of p.
func within(s side, p netip.Prefix) []expr.Any {
	n := ipNet(p)
	e := load(s, p.Addr())
	if !p.IsSingleIP() {
		e = append(e, &expr.Bitwise{SourceRegister: regA, DestRegister: regA, Len: uint32(len(n.Mask)), Mask: n.Mask, Xor: make([]byte, len(n.Mask))})
	}
	return append(e, &expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: n.IP})
}

// oneOf matches packets with an address in set.
func oneOf(s side, set *set, like netip.Addr) []expr.Any {
	return append(load(s, like), &expr.Lookup{SourceRegister: regA, SetName: set.Name, SetID: set.ID})
}

// toHost matches packets for an address of the host.
func toHost() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: regA, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// toPort matches packets of a protocol, TCP or UDP, for a port.
func toPort(protocol byte, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regA},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: []byte{protocol}},
		&expr.Payload{DestRegister: regA, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regA, Data: []byte{byte(port >> 8), byte(port)}},
	}
}

func notrack() []expr.Any { return []expr.Any{&expr.Notrack{}} }

// translated matches packets of connections whose destination is translated,
// by us or others. The status has other bits as well: it is not equality.
func translated() []expr.Any { return anyBit(expr.CtKeySTATUS, ipsDNAT) }

// known matches packets of connections that have been let pass.
func known() []expr.Any {
	return anyBit(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED)
}

func anyBit(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: regA},
		&expr.Bitwise{SourceRegister: regA, DestRegister: regA, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regA, Data: make([]byte, 4)},
	}
}

func accept() []expr.Any { return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}} }
func jump(to string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: to}}
}

func drop() []expr.Any       { return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}} }
func masquerade() []expr.Any { return []expr.Any{&expr.Masq{}} }

// leaveAs translates the source to a.
func leaveAs(a netip.Addr) []expr.Any {
	return []expr.Any{&expr.Immediate{Register: regA, Data: a.AsSlice()}, sourceNAT(a)}
}

// leaveBy translates the source to what the map says of it, if it does.
func leaveBy(m *set, like netip.Addr) []expr.Any {
	return append(load(source, like),
		&expr.Lookup{SourceRegister: regA, DestRegister: regA, IsDestRegSet: true, SetName: m.Name, SetID: m.ID}, sourceNAT(like))
}

func sourceNAT(like netip.Addr) expr.Any {
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: uint32(nfproto(like)), RegAddrMin: regA, RegAddrMax: regA}
}

// publish translates the destination, address and port, to what the map says
// of protocol and port, or of address, protocol and port.
func publish(m *set, like netip.Addr, byAddress bool) []expr.Any {
	// Where the protocol and the port go, after the address if there is one.
	protocol, port := uint32(regA), uint32(regWord1)
	e := load(destination, like)
	switch {
	case !byAddress:
		e = e[:len(e)-1]
	case like.Is4():
		protocol, port = regWord1, regWord2
	default:
		protocol, port = regB, regWord5
	}
	toPort := uint32(regWord1) // the port in the map's answer, after the address
	if like.Is6() {
		toPort = regB
	}
	return append(e,
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: protocol},
		&expr.Payload{DestRegister: port, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, // the same in TCP, UDP and SCTP
		&expr.Lookup{SourceRegister: regA, DestRegister: regA, IsDestRegSet: true, SetName: m.Name, SetID: m.ID},
		&expr.NAT{
			Type: expr.NATTypeDestNAT, Family: uint32(nfproto(like)),
			RegAddrMin: regA, RegAddrMax: regA, RegProtoMin: toPort, RegProtoMax: toPort,
		})
}

// typeOf is nftables' type of a's family.
func typeOf(a netip.Addr) nftables.SetDatatype {
	if a.Is4() {
		return nftables.TypeIPAddr
	}
	return nftables.TypeIP6Addr
}
