package openflow

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
)

const typePacketOut = 13

// Send has the switch take the frames as if they came from nowhere, and do the actions with each: Output, SetField and
// the like, but no GotoTable. It returns when the switch has taken them, with the first that it refused.
func (c *Conn) Send(ctx context.Context, frames [][]byte, actions ...Action) error {
	end, err := c.begin(ctx)
	if err != nil {
		return fmt.Errorf("send frames: %w", err)
	}
	defer end()
	body, err := packetOut(actions)
	if err != nil {
		return err
	}
	first := c.xid + 1
	var send []byte
	for _, frame := range frames {
		c.xid++
		packet := message{typ: typePacketOut, xid: c.xid, body: append(slices.Clip(body), frame...)}
		if send, err = packet.append(send); err != nil {
			return fmt.Errorf("send frames: %w", err)
		}
	}
	c.xid++
	if send, err = (message{typ: typeBarrierRequest, xid: c.xid}).append(send); err != nil {
		return err
	}
	last := c.xid
	var refused error
	err = c.converse(ctx, first, last, send, func(m message) (bool, error) {
		if m.typ == typeError && refused == nil {
			refused = refusal(m)
		}
		return m.xid == last, nil
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return fmt.Errorf("send frames: %w", err)
	}
	return nil
}

// packetOut is the body of an OFPT_PACKET_OUT (OpenFlow 1.5.1, 7.3.6) up to the frame.
func packetOut(actions []Action) ([]byte, error) {
	const fromController = 0xfffffffd // OFPP_CONTROLLER
	var list []byte
	for _, a := range actions {
		var err error
		if list, err = a.append(list); err != nil {
			return nil, fmt.Errorf("send frames: %s: %w", a, err)
		}
	}
	b := binary.BigEndian.AppendUint32(nil, noBuffer)
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	b = append(b, 0, 0)
	// The match holds the port that the frame came in by, and nothing else: its type (OXM), its length, the field, padding.
	b = append(b, 0, 1, 0, 12)
	b = binary.BigEndian.AppendUint32(b, InPort.header)
	b = binary.BigEndian.AppendUint32(b, fromController)
	b = append(b, 0, 0, 0, 0)
	return append(b, list...), nil
}
