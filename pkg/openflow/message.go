package openflow

import (
	"encoding/binary"
	"fmt"
	"io"
)

// version is the only one spoken here: OpenFlow 1.5.
const version = 6

// Message types: OpenFlow 1.5.1, 7.1.1, enum ofp_type.
const (
	typeHello            = 0
	typeError            = 1
	typeEchoRequest      = 2
	typeEchoReply        = 3
	typeFlowMod          = 14
	typeGroupMod         = 15
	typeMultipartRequest = 18
	typeMultipartReply   = 19
	typeBarrierRequest   = 20
	typeBarrierReply     = 21
	typeMeterMod         = 29
	typeBundleControl    = 33
	typeBundleAdd        = 34
)

const (
	headerLen  = 8
	maxMessage = 0xffff // the length field has 16 bits
)

// message is one OpenFlow message: its header taken apart, its body as it came.
type message struct {
	version uint8
	typ     uint8
	xid     uint32
	body    []byte
}

// append writes the message.
func (m message) append(b []byte) ([]byte, error) {
	length := headerLen + len(m.body)
	if length > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes is longer than OpenFlow allows", length)
	}
	b = append(b, version, m.typ)
	b = binary.BigEndian.AppendUint16(b, uint16(length))
	b = binary.BigEndian.AppendUint32(b, m.xid)
	return append(b, m.body...), nil
}

// readMessage reads one message; it is never longer than maxMessage.
func readMessage(r io.Reader) (message, error) {
	var h [headerLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return message{}, err
	}
	length := int(binary.BigEndian.Uint16(h[2:]))
	if length < headerLen {
		return message{}, fmt.Errorf("a message says it has %d bytes", length)
	}
	m := message{version: h[0], typ: h[1], xid: binary.BigEndian.Uint32(h[4:]), body: make([]byte, length-headerLen)}
	if _, err := io.ReadFull(r, m.body); err != nil {
		return message{}, fmt.Errorf("a message of %d bytes ends early: %w", length, err)
	}
	return m, nil
}

// Flow mod commands: OpenFlow 1.5.1, 7.3.4.2.
const (
	commandAdd          = 0
	commandDelete       = 3
	commandDeleteStrict = 4
)

const (
	anyTable    = 0xff       // OFPTT_ALL
	anyGroup    = 0xffffffff // OFPG_ANY
	noBuffer    = 0xffffffff // OFP_NO_BUFFER
	flowModSize = 40
)

// flowMod is the body of an OFPT_FLOW_MOD (OpenFlow 1.5.1, 7.3.4.1) without match and instructions. No flag is set:
// without OFPFF_RESET_COUNTS a flow that is added again keeps its counters.
func flowMod(command uint8, f Flow, cookieMask uint64, outGroup uint32) []byte {
	b := make([]byte, 0, 256)
	b = binary.BigEndian.AppendUint64(b, f.Cookie)
	b = binary.BigEndian.AppendUint64(b, cookieMask)
	b = append(b, f.Table, command, 0, 0, 0, 0) // no timeouts
	b = binary.BigEndian.AppendUint16(b, f.Priority)
	b = binary.BigEndian.AppendUint32(b, noBuffer)
	b = binary.BigEndian.AppendUint32(b, portAny)
	b = binary.BigEndian.AppendUint32(b, outGroup)
	return append(b, 0, 0, 0, 0) // flags, importance
}

// FlowFilter chooses flows. The zero filter takes all.
type FlowFilter struct {
	Table      *uint8 // nil: every table
	Cookie     uint64
	CookieMask uint64 // the bits of Cookie that count
}

// Multipart: OpenFlow 1.5.1, 7.3.5. OFPMP_FLOW_DESC is what older versions call flow statistics.
const (
	multipartFlowDesc  = 1
	multipartGroupDesc = 7
	multipartMeterDesc = 10
	multipartMore      = 1
)

// request is the body of the OFPT_MULTIPART_REQUEST for these flows.
func (f FlowFilter) request() ([]byte, error) {
	b := binary.BigEndian.AppendUint16(nil, multipartFlowDesc)
	b = append(b, 0, 0, 0, 0, 0, 0)
	table := uint8(anyTable)
	if f.Table != nil {
		table = *f.Table
	}
	b = append(b, table, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, portAny)
	b = binary.BigEndian.AppendUint32(b, anyGroup)
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint64(b, f.Cookie)
	b = binary.BigEndian.AppendUint64(b, f.CookieMask)
	return Match{}.append(b)
}
