package openflow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
)

// The bits of CTState: nicira-ext.h, ovs-fields(7). CTTracked says that the packet has been through CT; without it the
// others are zero.
const (
	CTNew = 1 << iota
	CTEstablished
	CTRelated
	CTReply
	CTInvalid
	CTTracked
	CTSNAT
	CTDNAT
)

// ctFlags are the names that ovs-ofctl has for the bits, the lowest first.
var ctFlags = []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}

// CTStateIs is connection tracking's state with the bits of set set and those of unset not; the others do not
// count.
func CTStateIs(set, unset uint32) Term { return CTState.Masked(uint64(set), uint64(set|unset)) }

// CT looks the packet's connection up, and with Commit remembers it. The switch takes it only in a flow that matches
// on IP or IPv6. The zero CT looks up in zone 0 and nothing more.
//
// What was found shows, as CTState, CTMark and CTLabel, in the copy of the packet that goes on in Table. The packet itself goes
// on with the flow's next action, and knows nothing of it: mostly there should be none.
type CT struct {
	Commit   bool
	Zone     uint16
	ZoneFrom *Field      // the zone stands in the low 16 bits of this field; Zone must be 0
	Table    uint8       // where the tracked packet goes on; 0: nowhere, table 0 cannot be said
	NAT      Translation // the zero Translation: none
	Exec     []Action    // SetField, Move and MoveBits, which set CTMark and CTLabel of a connection that is committed
}

const (
	ctCommit  = 1    // NX_CT_F_COMMIT
	ctNoTable = 0xff // NX_CT_RECIRC_NONE
)

// append writes struct nx_action_conntrack (ofp-actions.c).
func (a CT) append(b []byte) ([]byte, error) {
	start := len(b)
	flags, source, zone, table := uint16(0), uint32(0), a.Zone, a.Table
	if a.Commit {
		flags = ctCommit
	}
	if f := a.ZoneFrom; f != nil {
		if f.subf == "" || f.bits < ctZoneBits || a.Zone != 0 {
			return nil, fmt.Errorf("ct: zone %d of %s: a zone is a number or the low 16 bits of a field", a.Zone, f)
		}
		source, zone = f.header, ctZoneBits-1 // offset 0 in the upper ten bits
	}
	switch table {
	case 0:
		table = ctNoTable
	case ctNoTable:
		return nil, errors.New("ct: there is no table 255")
	}
	b = binary.BigEndian.AppendUint16(experimenter(b, subtypeCT, 0), flags)
	b = binary.BigEndian.AppendUint32(b, source)
	b = binary.BigEndian.AppendUint16(b, zone)
	b = append(b, table, 0, 0, 0, 0, 0) // padding; no application's helper
	b, err := a.NAT.append(b)
	if err != nil {
		return nil, fmt.Errorf("ct: %w", err)
	}
	for _, e := range a.Exec {
		switch e.(type) {
		case SetField, move:
		default:
			return nil, fmt.Errorf("ct: exec(%s): only set_field and move", e)
		}
		if b, err = e.append(b); err != nil {
			return nil, fmt.Errorf("ct: %w", err)
		}
	}
	binary.BigEndian.PutUint16(b[start+2:], uint16(min(len(b)-start, maxMessage)))
	return b, nil
}

const ctZoneBits = 16

func (a CT) String() string {
	var words []string
	if a.Commit {
		words = append(words, "commit")
	}
	if a.Table != 0 {
		words = append(words, fmt.Sprintf("table=%d", a.Table))
	}
	if a.ZoneFrom != nil {
		words = append(words, "zone="+a.ZoneFrom.part(0, ctZoneBits))
	} else if a.Zone != 0 {
		words = append(words, fmt.Sprintf("zone=%d", a.Zone))
	}
	if a.NAT != (Translation{}) {
		words = append(words, a.NAT.String())
	}
	if len(a.Exec) > 0 {
		exec := make([]string, len(a.Exec))
		for i, e := range a.Exec {
			exec[i] = e.String()
		}
		words = append(words, "exec("+strings.Join(exec, ",")+")")
	}
	return "ct(" + strings.Join(words, ",") + ")"
}

// guessCT reads what append writes, and gives nil for what it surely does not write.
func guessCT(raw []byte) Action {
	if len(raw) < 24 {
		return nil
	}
	a := CT{Commit: binary.BigEndian.Uint16(raw[10:])&ctCommit != 0, Zone: binary.BigEndian.Uint16(raw[16:])}
	if source := binary.BigEndian.Uint32(raw[12:]); source != 0 {
		if a.ZoneFrom = fields[source]; a.ZoneFrom == nil {
			return nil
		}
		a.Zone = 0
	}
	if raw[18] != ctNoTable {
		a.Table = raw[18]
	}
	rest := raw[24:]
	if nat, err := cut(rest); err == nil && isNicira(nat, subtypeNAT) {
		a.NAT = guessTranslation(nat)
		rest = rest[len(nat):]
	}
	for len(rest) > 0 {
		e, err := cut(rest)
		if err != nil || isNicira(e, subtypeCT) { // a hostile switch could nest them without end
			return nil
		}
		a.Exec = append(a.Exec, decodeAction(e))
		rest = rest[len(e):]
	}
	return a
}

// Translation is what CT does to the packet's addresses.
type Translation struct {
	how  uint16 // natPlain, natSource or natDestination; 0: no translation
	addr netip.Addr
}

// NAT translates as the connection's entry says, in either direction; a connection without one stays as it is.
func NAT() Translation { return Translation{how: natPlain} }

// SNAT gives the new connection this source address, and a source port of the switch's choice where its own is taken.
// It needs Commit, and a flow that matches on the address's family.
func SNAT(a netip.Addr) Translation { return Translation{natSource, a} }

// DNAT gives the new connection this destination address. It needs Commit, and a flow that matches on the address's
// family.
func DNAT(a netip.Addr) Translation { return Translation{natDestination, a} }

const (
	natSource      = 1      // NX_NAT_F_SRC
	natDestination = 2      // NX_NAT_F_DST
	natPlain       = 0x8000 // ours: neither

	natIPv4 = 1 // NX_NAT_RANGE_IPV4_MIN
	natIPv6 = 4 // NX_NAT_RANGE_IPV6_MIN
)

// append writes struct nx_action_nat (ofp-actions.c).
func (n Translation) append(b []byte) ([]byte, error) {
	if n.how == 0 {
		return b, nil
	}
	start := len(b)
	b = append(experimenter(b, subtypeNAT, 0), 0, 0)
	b = binary.BigEndian.AppendUint16(b, n.how&^natPlain)
	present := uint16(0)
	switch {
	case n.how == natPlain:
	case n.addr.Is4():
		present = natIPv4
	case n.addr.Is6():
		present = natIPv6
	default:
		return nil, errors.New("nat: no address")
	}
	b = append(binary.BigEndian.AppendUint16(b, present), n.addr.AsSlice()...)
	b = pad(b, start)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

func (n Translation) String() string {
	direction := "src"
	switch n.how {
	case 0:
		return ""
	case natPlain:
		return "nat"
	case natDestination:
		direction = "dst"
	}
	if !n.addr.IsValid() {
		return "nat(" + direction + ")"
	}
	return "nat(" + direction + "=" + address(n.addr.AsSlice()) + ")"
}

// guessTranslation reads what append writes; of anything else it makes something that append writes otherwise.
func guessTranslation(raw []byte) Translation {
	n := Translation{how: binary.BigEndian.Uint16(raw[12:])}
	length := 0
	switch binary.BigEndian.Uint16(raw[14:]) {
	case natIPv4:
		length = 4
	case natIPv6:
		length = 16
	}
	if n.how == 0 {
		n.how = natPlain
	}
	if rest := raw[16:]; length > 0 && len(rest) >= length {
		n.addr, _ = netip.AddrFromSlice(rest[:length])
	}
	return n
}

// isNicira tells whether this is Nicira's action of this subtype.
func isNicira(raw []byte, subtype uint16) bool {
	return len(raw) >= 16 && binary.BigEndian.Uint16(raw) == typeExperimenter &&
		binary.BigEndian.Uint32(raw[4:]) == nicira && binary.BigEndian.Uint16(raw[8:]) == subtype
}
