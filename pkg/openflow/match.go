package openflow

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// Term is one condition of a match, or the new content of a field in SetField. Make it with the methods of Field.
type Term struct {
	Field *Field
	Value []byte // big endian, in the width of the field
	Mask  []byte // nil: every bit counts
}

// Match is what a packet must have for a flow to take it: all the terms. The empty match takes every packet. Order
// and repetition do not matter; a mask of all ones is no mask, and a term with a mask of zeros vanishes.
type Match []Term

// The protocols, which OpenFlow asks for before it lets a flow match on their fields (prerequisites, OpenFlow 1.5.1,
// 7.2.3.6): Match{openflow.ICMPv6, openflow.ICMPv6Type.Is(135)}.
var (
	ARP    = EthType.Is(etherARP)
	IP     = EthType.Is(etherIP)
	IPv6   = EthType.Is(etherIPv6)
	ICMP   = ipTerm(etherIP, protoICMP)
	TCP    = ipTerm(etherIP, protoTCP)
	UDP    = ipTerm(etherIP, protoUDP)
	ICMPv6 = ipTerm(etherIPv6, protoICMPv6)
	TCP6   = ipTerm(etherIPv6, protoTCP)
	UDP6   = ipTerm(etherIPv6, protoUDP)
)

// EtherTypes and IP protocol numbers, as IANA has them.
const (
	etherIP   = 0x0800
	etherARP  = 0x0806
	etherVLAN = 0x8100
	etherIPv6 = 0x86dd

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// The bits of IPFrag: ovs-fields(7). Is(0) matches whole packets, Is(IPFragAny) first fragments, Is(IPFragAny|IPFragLater)
// later ones, Masked(IPFragAny, IPFragAny) fragments of either kind, and Masked(0, IPFragLater) what has the header of
// its transport protocol, first fragments with the whole packets.
const (
	IPFragAny   = 1 << iota // it is a fragment
	IPFragLater             // and not the first one
)

// The bits of TCPFlags: RFC 9293, 3.1. The field has three more, which have no name any more.
const (
	TCPFin = 1 << iota
	TCPSyn
	TCPRst
	TCPPsh
	TCPAck
	TCPUrg
	TCPEce
	TCPCwr
)

// TCPFlagsAre is TCPFlags with the bits of set set and those of unset not; the others do not count.
func TCPFlagsAre(set, unset uint16) Term { return TCPFlags.Masked(uint64(set), uint64(set|unset)) }

// ipProtocol is EthType and IPProto in one term, so that a protocol is one word in a match. Match.canonical takes it
// apart.
var ipProtocol = &Field{match: "protocol", set: "protocol", header: 3, bits: 24, kind: protocol}

// noField stands in for the field of a zero Term, which no flow can have.
var noField = &Field{match: "no field", set: "no field"}

func ipTerm(ether, proto uint64) Term { return ipProtocol.Is(ether<<8 | proto) }

// canonical is the one form of all matches that take the same packets, in the order in which OVS writes them.
//
// A match with terms that are not ours keeps its order, in which it came from the switch: only the switch knows which
// of those need which others before them.
func (m Match) canonical() Match {
	c := make(Match, 0, len(m)+1)
	foreign := false
	add := func(t Term) {
		if t = t.canonical(); t.Mask != nil && isZero(t.Mask) {
			return
		}
		if !slices.ContainsFunc(c, t.equal) {
			c = append(c, t)
		}
	}
	for _, t := range m {
		switch t.Field {
		case nil:
			t.Field = noField
			add(t)
		case ipProtocol:
			add(EthType.Is(uint64(binary.BigEndian.Uint16(t.Value))))
			add(IPProto.Is(uint64(t.Value[2])))
		default:
			foreign = foreign || t.Field.kind == unrecognized
			add(t)
		}
	}
	if !foreign {
		slices.SortStableFunc(c, func(a, b Term) int { return a.Field.rank - b.Field.rank })
	}
	return c
}

// canonical drops a full mask and the bits of the value that the mask leaves out. A malformed term stays as it is.
func (t Term) canonical() Term {
	if t.Mask == nil || len(t.Mask) != len(t.Value) {
		return t
	}
	full := t.Field.kind != unrecognized && len(t.Mask) == t.Field.width()
	value := make([]byte, len(t.Value))
	for i := range t.Value {
		value[i] = t.Value[i] & t.Mask[i]
		full = full && t.Mask[i] == t.Field.meaning(i)
	}
	t.Value = value
	if full {
		t.Mask = nil
	}
	return t
}

func (t Term) equal(u Term) bool {
	return t.Field.header == u.Field.header && bytes.Equal(t.Value, u.Value) &&
		(t.Mask == nil) == (u.Mask == nil) && bytes.Equal(t.Mask, u.Mask)
}

// check refuses what the field cannot hold, so that a mistake is an error here and not another match on the switch.
func (t Term) check() error {
	switch {
	case t.Field == nil:
		return errors.New("no field")
	case t.Field.kind == protocol:
		return errors.New("a protocol is nothing to set")
	case t.Field.kind == unrecognized:
		return nil
	}
	for _, b := range [][]byte{t.Value, t.Mask} {
		if b == nil {
			continue
		}
		if len(b) != t.Field.width() {
			return fmt.Errorf("%s: 0x%x does not fit: %d bytes are wanted", t.Field, b, t.Field.width())
		}
		for i := range b {
			if b[i]&^t.Field.meaning(i) != 0 {
				return fmt.Errorf("%s: 0x%x does not fit: %d bits are wanted", t.Field, b, t.Field.bits)
			}
		}
	}
	if t.Value == nil {
		return fmt.Errorf("%s: no value", t.Field)
	}
	return nil
}

// append writes the term as an OXM TLV (OpenFlow 1.5.1, 7.2.3.2).
func (t Term) append(b []byte) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	header := t.Field.header
	if t.Mask != nil && t.Field.kind != unrecognized {
		header = header&^0xff | 1<<8 | uint32(len(t.Value)+len(t.Mask))
	}
	b = binary.BigEndian.AppendUint32(b, header)
	return append(append(b, t.Value...), t.Mask...), nil
}

// append writes the match as struct ofp_match, padded (OpenFlow 1.5.1, 7.2.3.1).
func (m Match) append(b []byte) ([]byte, error) {
	const typeOXM = 1
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, typeOXM)
	b = append(b, 0, 0)
	for _, t := range m.canonical() {
		var err error
		if b, err = t.append(b); err != nil {
			return nil, err
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(min(len(b)-start, maxMessage)))
	return pad(b, start), nil
}

func isZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// pad fills b with zeros until its length from start on is a multiple of 8, as every OpenFlow structure wants it.
func pad(b []byte, start int) []byte {
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	return b
}
