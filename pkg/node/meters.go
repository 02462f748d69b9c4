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
			meters = append(meters, meterOf(l))
		}
	}
	return meters
}

// meterOf turns a limit into a meter. TCP sends as much as its window lets it, at once, and takes
// a lost packet for a sign that the way is full: with a burst that holds less than what it sends
// in a round trip it never reaches the rate. A fifth of a second's worth is enough for round trips
// of up to that long; less is given only to whom a packet of 64 kB, as the kernel makes them, must fit.
func meterOf(l vnet.Limit) openflow.MeterConfig {
	const packet = 8 * 65536 // bits
	least := max(l.Rate/5, packet)
	burst := max(l.Burst, least)
	if most := l.Rate * 10; burst > most { // runtimes that know no burst say 2^31-1: ten seconds at full speed are plenty
		burst = max(most, least)
	}
	return openflow.MeterConfig{ID: l.Meter, RateKbps: uint32(l.Rate / 1000), BurstKbits: uint32(burst / 1000)}
}

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
func (n *Node) diffMeters(ctx context.Context, c *openflow.Conn) (put []openflow.MeterConfig, drop []uint32, err error) {
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
