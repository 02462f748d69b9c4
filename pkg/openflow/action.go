package openflow

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// Action is one thing that a flow does with a packet. Only this package makes actions.
type Action interface {
	// String is the action as ovs-ofctl writes it.
	String() string
	append(b []byte) ([]byte, error)
}

// Action types: OpenFlow 1.5.1, 7.2.6, enum ofp_action_type; and OVS ofp-actions.c for Nicira's subtypes.
const (
	typeOutput       = 0
	typePushVLAN     = 17
	typePopVLAN      = 18
	typeGroup        = 22
	typeDecTTL       = 24
	typeSetField     = 25
	typeCopyField    = 28
	typeMeter        = 29
	typeExperimenter = 0xffff

	nicira          = 0x00002320 // NX_VENDOR_ID
	subtypeNote     = 8          // NXAST_NOTE
	subtypeResubmit = 14         // NXAST_RESUBMIT_TABLE
	subtypeOutput   = 15         // NXAST_OUTPUT_REG
	subtypeCT       = 35         // NXAST_CT
	subtypeNAT      = 36         // NXAST_NAT
)

// Port numbers with a meaning: OpenFlow 1.5.1, 7.2.1.2.
const (
	PortInPort     = 0xfffffff8
	PortTable      = 0xfffffff9
	PortNormal     = 0xfffffffa
	PortFlood      = 0xfffffffb
	PortAll        = 0xfffffffc
	PortController = 0xfffffffd
	PortLocal      = 0xfffffffe
	portAny        = 0xffffffff
)

// Output sends the packet out of this port; a packet never goes out of the port it came in by, see InPortAction.
type Output uint32

// InPortAction sends the packet back where it came from (IN_PORT).
func InPortAction() Action { return Output(PortInPort) }

func (a Output) append(b []byte) ([]byte, error) {
	b = header(b, typeOutput, 16)
	b = binary.BigEndian.AppendUint32(b, uint32(a))
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0), nil
}

func (a Output) String() string {
	if name := portName(uint32(a)); name != "" {
		return name
	}
	return fmt.Sprintf("output:%d", uint32(a))
}

// outputReg is OutputReg.
type outputReg struct{ field *Field }

// OutputReg sends the packet out of the port whose number stands in a register.
func OutputReg(f *Field) Action { return outputReg{f} }

func (a outputReg) append(b []byte) ([]byte, error) {
	if a.field.subf == "" {
		return nil, fmt.Errorf("output: %s holds no port", a.field)
	}
	b = experimenter(b, subtypeOutput, 24)
	b = binary.BigEndian.AppendUint16(b, uint16(a.field.bits-1)) // offset 0 in the upper ten bits
	b = binary.BigEndian.AppendUint32(b, a.field.header)
	return append(b, 0xff, 0xff, 0, 0, 0, 0, 0, 0), nil // max_len, which counts for controllers only, as ovs-ofctl has it
}

func (a outputReg) String() string { return "output:" + a.field.subf + "[]" }

// SetField writes a field, or the bits of it that the term's mask has set.
type SetField Term

func (a SetField) append(b []byte) ([]byte, error) {
	t := Term(a).canonical()
	start := len(b)
	b, err := t.append(header(b, typeSetField, 0))
	if err != nil {
		return nil, fmt.Errorf("set_field: %w", err)
	}
	b = pad(b, start)
	binary.BigEndian.PutUint16(b[start+2:], uint16(len(b)-start))
	return b, nil
}

func (a SetField) String() string {
	t := Term(a).canonical()
	return "set_field:" + t.setValue() + "->" + t.Field.set
}

// move is Move and MoveBits.
type move struct {
	src       *Field
	srcOffset int
	dst       *Field
	dstOffset int
	bits      int
}

// Move copies the whole of src into dst; if their widths differ, the low bits that both have.
func Move(src, dst *Field) Action { return move{src: src, dst: dst, bits: min(src.bits, dst.bits)} }

// MoveBits copies that many bits of src, from bit srcOffset on, to those of dst from bit dstOffset on; bit 0 is the
// lowest. The other bits of dst stay.
func MoveBits(src *Field, srcOffset int, dst *Field, dstOffset, bits int) Action {
	return move{src, srcOffset, dst, dstOffset, bits}
}

// append writes OFPAT_COPY_FIELD, which OpenFlow 1.5 has in the place of NXAST_REG_MOVE (ofp-actions.c).
func (a move) append(b []byte) ([]byte, error) {
	for _, part := range []struct {
		field  *Field
		offset int
	}{{a.src, a.srcOffset}, {a.dst, a.dstOffset}} {
		f := part.field
		if f.subf == "" {
			return nil, fmt.Errorf("move: %s cannot be copied", f)
		}
		if part.offset < 0 || a.bits < 1 || a.bits > f.bits-part.offset {
			return nil, fmt.Errorf("move: %s has no %d bits from bit %d on", f, a.bits, part.offset)
		}
	}
	b = header(b, typeCopyField, 24)
	b = binary.BigEndian.AppendUint16(b, uint16(a.bits))
	b = binary.BigEndian.AppendUint16(b, uint16(a.srcOffset))
	b = binary.BigEndian.AppendUint16(b, uint16(a.dstOffset))
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, a.src.header)
	b = binary.BigEndian.AppendUint32(b, a.dst.header)
	return append(b, 0, 0, 0, 0), nil
}

func (a move) String() string {
	return "move:" + a.src.part(a.srcOffset, a.bits) + "->" + a.dst.part(a.dstOffset, a.bits)
}

// decTTL is DecTTL.
type decTTL struct{}

// DecTTL counts the TTL or hop limit down. A packet whose TTL has run out goes no further in the pipeline: catch TTL 1
// before.
func DecTTL() Action { return decTTL{} }

func (decTTL) append(b []byte) ([]byte, error) {
	return append(header(b, typeDecTTL, 8), 0, 0, 0, 0), nil
}
func (decTTL) String() string { return "dec_ttl" }

// pushVLAN is PushVLAN.
type pushVLAN struct{}

// PushVLAN puts an empty 802.1Q tag on the packet; SetField of VLANTCI fills it.
func PushVLAN() Action { return pushVLAN{} }

func (pushVLAN) append(b []byte) ([]byte, error) {
	return append(binary.BigEndian.AppendUint16(header(b, typePushVLAN, 8), etherVLAN), 0, 0), nil
}
func (pushVLAN) String() string { return fmt.Sprintf("push_vlan:0x%04x", etherVLAN) }

// popVLAN is PopVLAN.
type popVLAN struct{}

// PopVLAN takes the outermost VLAN tag off.
func PopVLAN() Action { return popVLAN{} }

func (popVLAN) append(b []byte) ([]byte, error) {
	return append(header(b, typePopVLAN, 8), 0, 0, 0, 0), nil
}
func (popVLAN) String() string { return "pop_vlan" }

// Resubmit looks the packet up in a table, earlier ones included, and comes back to the next action.
type Resubmit uint8

func (a Resubmit) append(b []byte) ([]byte, error) {
	const samePort = 0xfff8 // OFPP_IN_PORT in 16 bits
	b = binary.BigEndian.AppendUint16(experimenter(b, subtypeResubmit, 16), samePort)
	return append(b, uint8(a), 0, 0, 0), nil
}
func (a Resubmit) String() string { return fmt.Sprintf("resubmit(,%d)", uint8(a)) }

// GotoTable goes on in a later table. It is an instruction, not an action: at most one, and last.
type GotoTable uint8

func (a GotoTable) append([]byte) ([]byte, error) {
	return nil, fmt.Errorf("%s: goto_table comes last", a)
}
func (a GotoTable) String() string { return fmt.Sprintf("goto_table:%d", uint8(a)) }

// Note does nothing: it carries bytes for whoever reads the flow. The switch fills them up with zeros to 6, 14, 22, …
type Note []byte

func (a Note) append(b []byte) ([]byte, error) {
	note := a.padded()
	return append(experimenter(b, subtypeNote, min(10+len(note), maxMessage)), note...), nil
}

func (a Note) padded() []byte {
	n := clone(a)
	for (10+len(n))%8 != 0 || len(n) == 0 {
		n = append(n, 0)
	}
	return n
}

func (a Note) String() string {
	note := a.padded()
	words := make([]string, len(note))
	for i := range note {
		words[i] = hex.EncodeToString(note[i : i+1])
	}
	return "note:" + strings.Join(words, ".")
}

// Unknown is a part of a flow from the switch that this package does not know: of a foreign flow, since we send
// none. A flow with an Unknown differs from every flow of ours and can be deleted, but not added.
type Unknown struct {
	Part string // "action", "instruction" or "attributes": timeouts, flags and importance
	Raw  []byte // as on the wire
}

func (a Unknown) append([]byte) ([]byte, error) { return nil, fmt.Errorf("%s cannot be sent", a) }
func (a Unknown) String() string                { return fmt.Sprintf("unknown(%s 0x%x)", a.Part, a.Raw) }

// header starts an action of this type and length.
func header(b []byte, typ, length int) []byte {
	return binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, uint16(typ)), uint16(length))
}

// experimenter starts one of Nicira's actions.
func experimenter(b []byte, subtype, length int) []byte {
	b = binary.BigEndian.AppendUint32(header(b, typeExperimenter, length), nicira)
	return binary.BigEndian.AppendUint16(b, uint16(subtype))
}
