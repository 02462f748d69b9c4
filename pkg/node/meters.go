package node

import (
	"context"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// metersOf returns the switch's meters for the endpoint's limits.
func metersOf(e vnet.Endpoint) []openflow.MeterConfig {
	var meters []openflow.MeterConfig
	for _, l := range []vnet.Limit{e.Bandwidth.Ingress, e.Bandwidth.Egress} {
		if l.Meter != 0 {
			meters = append(meters, meterOf(l, e.MTU))
		}
	}
	return meters
}

// meterOf turns a limit into a meter, which counts the bits of Ethernet frames, without what the
// wire adds to them, as tc does: TCP's payload is 95 % of that with frames of 1,464 bytes.
//
// The burst is what was asked for, but within half a second's and a second's worth of the rate. TCP
// takes a dropped packet for a sign that the way is full, and when the bucket is empty it loses so
// many at once that it waits for its retransmission timer: 200 ms on Linux, plus the round trip. What
// comes in meanwhile must find room in the bucket, or the rate is never reached. With a tenth of a
// second TCP got half of the rate, with a fifth 86 to 96 %, from a quarter on all of it, cubic as
// well as BBR; the half is for long round trips and for busy machines, whose timers are late. More
// than a second's worth would let the average of ten seconds exceed the rate by more than 10 %, and
// runtimes that know no burst ask for one of 2^31-1 bits.
//
// Slow limits have a burst of four frames, for a frame larger than the burst never passes. One of 64 kB,
// which the kernel's datapath sees before it is cut up, need not: TCP makes smaller ones when it is lost.
func meterOf(l vnet.Limit, mtu int) openflow.MeterConfig {
	frames := uint64(4 * 8 * (mtu + ethernetHeader))
	burst := max(min(max(l.Burst, l.Rate/2), l.Rate), frames)
	return openflow.MeterConfig{ID: l.Meter, RateKbps: kilo(l.Rate), BurstKbits: kilo(burst)}
}

// ethernetHeader is a frame's, in bytes, with a VLAN tag (IEEE 802.3, clause 3.1.1).
const ethernetHeader = 18

// kilo rounds to thousands: cut off, 8,999 bits would be 11 % less.
func kilo(bits uint64) uint32 { return uint32((bits + 500) / 1000) }

func meterIDs(e vnet.Endpoint) []uint32 {
	var ids []uint32
	for _, m := range metersOf(e) {
		ids = append(ids, m.ID)
	}
	return ids
}

// putMeters makes the endpoint's meters: before its flows, which name them.
func putMeters(ctx context.Context, c *openflow.Conn, e vnet.Endpoint) error {
	return kind(c.PutMeters(ctx, metersOf(e)...))
}

// diffMeters returns the meters that are missing or differ, and those that nobody has.
func (n *Node) diffMeters(ctx context.Context, c *openflow.Conn) ([]openflow.MeterConfig, []uint32, error) {
	var put []openflow.MeterConfig
	var drop []uint32
	endpoints, err := n.endpoints(ctx)
	if err != nil {
		return nil, nil, err
	}
	have, err := c.Meters(ctx)
	if err != nil {
		return nil, nil, kind(err)
	}
	want := map[uint32]bool{}
	for _, e := range endpoints {
		if e.Bridge != n.Bridge || e.State == vnet.Leaving {
			continue
		}
		for _, m := range metersOf(e) {
			want[m.ID] = true
			if !slices.Contains(have, m) {
				put = append(put, m)
			}
		}
	}
	for _, m := range have {
		if !want[m.ID] {
			drop = append(drop, m.ID)
		}
	}
	return put, drop, nil
}
