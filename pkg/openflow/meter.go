package openflow

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Meter is the action that drops the packet if it is too much for the meter with this number; else the flow's next
// action follows.
//
// The meter must be there before the flow: the switch refuses a flow whose meter is missing (OFPMMFC_INVALID_METER).
// Let it be the first of the flow's actions, and the only Meter: of a flow with a Meter further behind, Open vSwitch 3.1
// forgets that it uses that one, and leaves the flow when the meter is deleted.
type Meter uint32

func (a Meter) append(b []byte) ([]byte, error) {
	return binary.BigEndian.AppendUint32(header(b, typeMeter, 8), uint32(a)), nil
}
func (a Meter) String() string { return fmt.Sprintf("meter:%d", uint32(a)) }

// MeterConfig is a meter: a bucket that holds BurstKbits, is full to begin with, and fills at RateKbps. A packet that
// is larger than what is in the bucket is dropped and takes nothing out: so one that is larger than the burst never
// passes, at no rate. Time goes by in steps of a millisecond for the bucket: a rate is reached only with a burst that
// holds a millisecond of it and a packet.
type MeterConfig struct {
	// ID goes from 1 to 0xffff0000, each bridge has numbers of its own. How many there may be is the datapath's
	// affair: the userspace datapath of Open vSwitch 3.1 has room for 262,144.
	ID         uint32
	RateKbps   uint32 // 1,000 bits a second; not 0
	BurstKbits uint32 // 1,000 bits; not 0
}

func (m MeterConfig) String() string {
	return fmt.Sprintf("meter %d of %d kbit/s with a burst of %d kbit", m.ID, m.RateKbps, m.BurstKbits)
}

// Meters: OpenFlow 1.5.1, 7.3.4.5 and 7.3.5.14.
const (
	maxMeter  = 0xffff0000 // OFPM_MAX; the numbers beyond are not meters of flows
	allMeters = 0xffffffff // OFPM_ALL

	meterAdd    = 0
	meterModify = 1
	meterDelete = 2

	meterFlags = 1 | 4 // OFPMF_KBPS, OFPMF_BURST
	bandDrop   = 1     // OFPMBT_DROP
	bandSize   = 16
	meterSize  = 8 + bandSize // struct ofp_meter_desc with one band
)

// PutMeters adds the meters, or changes those that are there. It costs one round trip however many they are. If the
// switch refuses some, the error names the first and wraps the *Error; the others are put.
//
// A meter that is put again, even unchanged, starts again with a full bucket and with counters of zero.
//
// It is no part of a bundle, which Open vSwitch allows for no meter: put meters before the flows that name them.
func (c *Conn) PutMeters(ctx context.Context, meters ...MeterConfig) error {
	mods := make([]meterMod, 0, 2*len(meters))
	for _, m := range meters {
		if m.BurstKbits == 0 { // the switch would take the rate for it, and say so when it is asked
			return fmt.Errorf("put %s: nothing would pass", m)
		}
		// The one that there is not is added, the one that there is is modified, and no answer in between is waited for.
		mods = append(mods, meterMod{meterAdd, m}, meterMod{meterModify, m})
	}
	return c.modMeters(ctx, mods)
}

// DeleteMeters deletes meters, and with each the flows that use it: delete or replace those before. That there is no
// such meter is no error. It costs one round trip.
func (c *Conn) DeleteMeters(ctx context.Context, ids ...uint32) error {
	mods := make([]meterMod, len(ids))
	for i, id := range ids {
		mods[i] = meterMod{meterDelete, MeterConfig{ID: id}}
	}
	return c.modMeters(ctx, mods)
}

// meterMod is an OFPT_METER_MOD.
type meterMod struct {
	command uint16
	meter   MeterConfig
}

func (m meterMod) String() string {
	if m.command == meterDelete {
		return fmt.Sprintf("delete meter %d", m.meter.ID)
	}
	return "put " + m.meter.String()
}

func (m meterMod) body() []byte {
	b := binary.BigEndian.AppendUint16(nil, m.command)
	b = binary.BigEndian.AppendUint16(b, meterFlags)
	b = binary.BigEndian.AppendUint32(b, m.meter.ID)
	if m.command == meterDelete {
		return b
	}
	b = header(b, bandDrop, bandSize)
	b = binary.BigEndian.AppendUint32(b, m.meter.RateKbps)
	b = binary.BigEndian.AppendUint32(b, m.meter.BurstKbits)
	return append(b, 0, 0, 0, 0)
}

// excuses says whether it is no error that the switch refuses this: to add what is there.
func (m meterMod) excuses(err error) bool {
	refused, ok := errors.AsType[*Error](err)
	return ok && m.command == meterAdd && refused.Type == errorMeterModFailed && refused.Code == meterExists
}

// modMeters sends all, and a barrier, whose answer says that the switch has answered all before.
func (c *Conn) modMeters(ctx context.Context, mods []meterMod) error {
	if len(mods) == 0 {
		return nil
	}
	end, err := c.begin(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", mods[0], err)
	}
	defer end()
	first, barrier := c.xid+1, c.xid+1+uint32(len(mods))
	c.xid = barrier
	var send []byte
	for i, m := range mods {
		if m.meter.ID == 0 || m.meter.ID > maxMeter { // some of these stand for several meters
			return fmt.Errorf("%s: a meter has a number from 1 to 0x%x", m, uint32(maxMeter))
		}
		if send, err = (message{typ: typeMeterMod, xid: first + uint32(i), body: m.body()}).append(send); err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
	}
	if send, err = (message{typ: typeBarrierRequest, xid: barrier}).append(send); err != nil {
		return err
	}
	var refused error
	err = c.converse(ctx, first, barrier, send, func(m message) (bool, error) {
		switch {
		case m.xid == barrier && m.typ != typeBarrierReply:
			return false, fmt.Errorf("an answer of type %d instead of %d", m.typ, typeBarrierReply)
		case m.typ == typeError && refused == nil:
			if mod, err := mods[m.xid-first], refusal(m); !mod.excuses(err) {
				refused = fmt.Errorf("%s: %w", mod, err)
			}
		}
		return m.xid == barrier, nil
	})
	if err != nil {
		return fmt.Errorf("%s: %w", mods[0], err)
	}
	return refused
}

// Meters asks the switch for its meters, in no order. A meter of another kind than ours, with several bands or
// counting packets, comes with a rate and a burst of 0.
func (c *Conn) Meters(ctx context.Context) ([]MeterConfig, error) {
	request := []byte{0, multipartMeterDesc, 0, 0, 0, 0, 0, 0}
	request = append(binary.BigEndian.AppendUint32(request, allMeters), 0, 0, 0, 0)
	var meters []MeterConfig
	err := c.multipart(ctx, request, func(b []byte) error {
		more, err := decodeMeters(b)
		meters = append(meters, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read meters: %w", err)
	}
	return meters, nil
}

// decodeMeters reads the body of an OFPMP_METER_DESC reply: an array of struct ofp_meter_desc.
func decodeMeters(b []byte) ([]MeterConfig, error) {
	var meters []MeterConfig
	for len(b) > 0 {
		if len(b) < 8 {
			return nil, fmt.Errorf("a meter: %w", errShort)
		}
		length := int(binary.BigEndian.Uint16(b))
		if length < 8 || length > len(b) {
			return nil, fmt.Errorf("a meter says it has %d of %d bytes", length, len(b))
		}
		m := MeterConfig{ID: binary.BigEndian.Uint32(b[4:])}
		if length == meterSize {
			m.RateKbps, m.BurstKbits = binary.BigEndian.Uint32(b[12:]), binary.BigEndian.Uint32(b[16:])
			// It is ours only if we would write the very same.
			if ours := (meterMod{meterAdd, m}).body(); string(ours[2:]) != string(b[2:length]) {
				m.RateKbps, m.BurstKbits = 0, 0
			}
		}
		if m.ID <= maxMeter {
			meters = append(meters, m)
		}
		b = b[length:]
	}
	return meters, nil
}
