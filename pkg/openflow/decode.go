package openflow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// errShort says that a structure ends before its length says so.
var errShort = errors.New("cut short")

// decodeFlows reads the body of an OFPMP_FLOW_DESC reply: an array of struct ofp_flow_desc (OpenFlow 1.5.1, 7.3.5.2).
func decodeFlows(b []byte) ([]FlowStats, error) {
	const fixed = 24
	var flows []FlowStats
	for len(b) > 0 {
		if len(b) < fixed {
			return nil, fmt.Errorf("a flow: %w", errShort)
		}
		length := int(binary.BigEndian.Uint16(b))
		if length < fixed || length > len(b) {
			return nil, fmt.Errorf("a flow says it has %d of %d bytes", length, len(b))
		}
		f := FlowStats{Flow: Flow{
			Table:    b[4],
			Priority: binary.BigEndian.Uint16(b[6:]),
			Cookie:   binary.BigEndian.Uint64(b[16:]),
		}}
		attributes := b[8:16] // timeouts, flags, importance: zero in our flows
		if err := f.decode(b[fixed:length]); err != nil {
			return nil, fmt.Errorf("a flow of table %d: %w", f.Table, err)
		}
		if !isZero(attributes) {
			f.Actions = append(f.Actions, Unknown{"attributes", clone(attributes)})
		}
		flows = append(flows, f)
		b = b[length:]
	}
	return flows, nil
}

// decode reads match, statistics and instructions.
func (f *FlowStats) decode(b []byte) error {
	var err error
	if f.Match, b, err = decodeMatch(b); err != nil {
		return err
	}
	if b, err = f.decodeCounters(b); err != nil {
		return err
	}
	f.Actions, err = decodeInstructions(b)
	return err
}

// decodeMatch reads a struct ofp_match and returns what comes behind it.
func decodeMatch(b []byte) (Match, []byte, error) {
	const typeOXM = 1
	if len(b) < 4 {
		return nil, nil, fmt.Errorf("match: %w", errShort)
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	padded := (length + 7) / 8 * 8
	if typ := binary.BigEndian.Uint16(b); typ != typeOXM || length < 4 || padded > len(b) {
		return nil, nil, fmt.Errorf("match of type %d with %d of %d bytes", typ, length, len(b))
	}
	var m Match
	for rest := b[4:length]; len(rest) > 0; {
		t, n, err := decodeTerm(rest)
		if err != nil {
			return nil, nil, fmt.Errorf("match: %w", err)
		}
		m = append(m, splitRegisters(t)...)
		rest = rest[n:]
	}
	return m.canonical(), b[padded:], nil
}

// decodeTerm reads an OXM TLV and returns its length.
func decodeTerm(b []byte) (Term, int, error) {
	const maskBit = 1 << 8
	if len(b) < 4 {
		return Term{}, 0, fmt.Errorf("field: %w", errShort)
	}
	header := binary.BigEndian.Uint32(b)
	length := int(header & 0xff)
	if 4+length > len(b) {
		return Term{}, 0, fmt.Errorf("field 0x%08x: %w", header, errShort)
	}
	value := clone(b[4 : 4+length])
	exact := header
	if header&maskBit != 0 {
		exact = header&^(maskBit|0xff) | uint32(length/2)
	}
	t := Term{Field: fields[exact], Value: value}
	if t.Field != nil && header&maskBit != 0 {
		t.Value, t.Mask = value[:length/2], value[length/2:]
	}
	if t.Field == nil || t.check() != nil {
		t = Term{Field: &Field{match: "unknown", set: "unknown", header: header, kind: unrecognized}, Value: value}
	}
	return t, 4 + length, nil
}

// splitRegisters takes apart a pair of registers. We write registers one by one; the OpenFlow 1.5 in which OVS answers
// has them in pairs of 64 bits, the even one in the upper half (OXM class 0x8001, nx_put_raw). A pair of which we know
// only one register, while the other one counts, stays unknown.
func splitRegisters(t Term) []Term {
	const masked, exact, number = 0x80010110, 0x80010008, 0x07 << 9 // eight pairs
	mask := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	switch t.Field.header &^ number {
	case exact:
	case masked:
		mask = t.Value[8:]
	default:
		return []Term{t}
	}
	pair := t.Field.header & number >> 9
	var terms []Term
	for i := range uint32(2) {
		half := Term{Value: t.Value[4*i:][:4], Mask: mask[4*i:][:4]}
		if isZero(half.Mask) {
			continue
		}
		if half.Field = fields[oxm(classNXM1, 2*pair+i, 4)]; half.Field == nil {
			return []Term{t}
		}
		terms = append(terms, half)
	}
	return terms
}

// decodeCounters reads a struct ofp_stats, a list of OXS TLVs (OpenFlow 1.5.1, 7.2.5), and returns what comes behind.
func (f *FlowStats) decodeCounters(b []byte) ([]byte, error) {
	const (
		duration = 0x8002<<16 | 0<<9 | 8 // OXS_OF_DURATION: seconds, nanoseconds
		packets  = 0x8002<<16 | 4<<9 | 8 // OXS_OF_PACKET_COUNT
		octets   = 0x8002<<16 | 5<<9 | 8 // OXS_OF_BYTE_COUNT
	)
	if len(b) < 4 {
		return nil, fmt.Errorf("counters: %w", errShort)
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	padded := (length + 7) / 8 * 8
	if length < 4 || padded > len(b) {
		return nil, fmt.Errorf("counters say they have %d of %d bytes", length, len(b))
	}
	for rest := b[4:length]; len(rest) > 0; {
		if len(rest) < 4 {
			return nil, fmt.Errorf("counter: %w", errShort)
		}
		header := binary.BigEndian.Uint32(rest)
		n := 4 + int(header&0xff)
		if n > len(rest) {
			return nil, fmt.Errorf("counter 0x%08x: %w", header, errShort)
		}
		switch header {
		case duration:
			seconds, nanos := binary.BigEndian.Uint32(rest[4:]), binary.BigEndian.Uint32(rest[8:])
			f.Duration = time.Duration(seconds)*time.Second + time.Duration(nanos)
		case packets:
			f.Packets = binary.BigEndian.Uint64(rest[4:])
		case octets:
			f.Bytes = binary.BigEndian.Uint64(rest[4:])
		}
		rest = rest[n:]
	}
	return b[padded:], nil
}

// decodeInstructions reads the list of instructions (OpenFlow 1.5.1, 7.2.4) as actions.
func decodeInstructions(b []byte) ([]Action, error) {
	var actions, next []Action
	for len(b) > 0 {
		raw, err := cut(b)
		if err != nil {
			return nil, fmt.Errorf("instruction: %w", err)
		}
		b = b[len(raw):]
		switch typ := binary.BigEndian.Uint16(raw); {
		case typ == instructionApply:
			applied, err := decodeActions(raw[8:])
			if err != nil {
				return nil, err
			}
			actions = append(actions, applied...)
		case typ == instructionGoto && len(raw) == 8 && next == nil:
			next = []Action{GotoTable(raw[4])}
		default:
			actions = append(actions, Unknown{"instruction", clone(raw)})
		}
	}
	return append(actions, next...), nil
}

// decodeActions reads a list of actions.
func decodeActions(b []byte) ([]Action, error) {
	var actions []Action
	for len(b) > 0 {
		raw, err := cut(b)
		if err != nil {
			return nil, fmt.Errorf("action: %w", err)
		}
		actions = append(actions, decodeAction(raw))
		b = b[len(raw):]
	}
	return actions, nil
}

// cut returns the first of a list of structures that start with type and length, of 8 bytes at least.
func cut(b []byte) ([]byte, error) {
	if len(b) < 8 {
		return nil, errShort
	}
	length := int(binary.BigEndian.Uint16(b[2:]))
	if length < 8 || length%8 != 0 || length > len(b) {
		return nil, fmt.Errorf("%d of %d bytes", length, len(b))
	}
	return b[:length], nil
}

// decodeAction reads one action. It is one of ours only if our encoder writes the very same bytes: so nothing that we
// do not look at, an offset or a length limit, makes a foreign action look like ours.
func decodeAction(raw []byte) Action {
	a := guessAction(raw)
	if a != nil {
		if same, err := a.append(nil); err == nil && string(same) == string(raw) {
			return a
		}
	}
	return Unknown{"action", clone(raw)}
}

func guessAction(raw []byte) Action {
	switch typ := binary.BigEndian.Uint16(raw); {
	case typ == typeOutput:
		return Output(binary.BigEndian.Uint32(raw[4:]))
	case typ == typePushVLAN:
		return PushVLAN()
	case typ == typePopVLAN:
		return PopVLAN()
	case typ == typeMeter:
		return Meter(binary.BigEndian.Uint32(raw[4:]))
	case typ == typeGroup:
		return Group(binary.BigEndian.Uint32(raw[4:]))
	case typ == typeDecTTL:
		return DecTTL()
	case typ == typeSetField:
		if t, _, err := decodeTerm(raw[4:]); err == nil && t.Field.kind != unrecognized {
			return SetField(t)
		}
	case typ == typeCopyField && len(raw) == 24:
		src, dst := fields[binary.BigEndian.Uint32(raw[12:])], fields[binary.BigEndian.Uint32(raw[16:])]
		if src != nil && dst != nil {
			bits, srcOffset, dstOffset := binary.BigEndian.Uint16(raw[4:]), binary.BigEndian.Uint16(raw[6:]), binary.BigEndian.Uint16(raw[8:])
			return MoveBits(src, int(srcOffset), dst, int(dstOffset), int(bits))
		}
	case typ == typeExperimenter && len(raw) >= 16 && binary.BigEndian.Uint32(raw[4:]) == nicira:
		switch binary.BigEndian.Uint16(raw[8:]) {
		case subtypeNote:
			return Note(clone(raw[10:]))
		case subtypeResubmit:
			return Resubmit(raw[12])
		case subtypeOutput:
			if f := fields[binary.BigEndian.Uint32(raw[12:])]; f != nil {
				return OutputReg(f)
			}
		case subtypeCT:
			return guessCT(raw)
		}
	}
	return nil
}
