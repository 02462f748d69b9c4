package node

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Drop is how many packets were dropped for one reason since their flows were written.
type Drop struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Text    string `json:"text"` // the reason in words
}

// Traffic is what an endpoint sent and was sent, since its flows were written. The switch counts
// with about a second's delay. What reached it as multicast is not in it.
type Traffic struct {
	SentPackets     uint64 `json:"sentPackets"`
	SentBytes       uint64 `json:"sentBytes"`
	ReceivedPackets uint64 `json:"receivedPackets"`
	ReceivedBytes   uint64 `json:"receivedBytes"`
	Drops           []Drop `json:"drops"` // of what it sent
}

// Drops returns the bridge's drop counters that are not zero, the largest first.
func (n *Node) Drops(ctx context.Context) ([]Drop, error) {
	flows, err := n.dropping(ctx)
	return drops(flows), err
}

// Traffic returns the endpoint's counters.
func (n *Node) Traffic(ctx context.Context, e vnet.Endpoint) (Traffic, error) {
	flows, err := n.flowsOf(ctx, e.Bridge, openflow.FlowFilter{
		Cookie: uint64(pipeline.EndpointOwner(e.ID)), CookieMask: pipeline.OwnerMask,
	})
	t := Traffic{Drops: drops(flows)}
	for _, f := range flows {
		switch f.Table {
		case pipeline.Classify: // all that comes in by its port
			t.SentPackets += f.Packets
			t.SentBytes += f.Bytes
		case pipeline.Destination: // all that goes out of it
			t.ReceivedPackets += f.Packets
			t.ReceivedBytes += f.Bytes
		}
	}
	return t, err
}

// dropping are the bridge's flows that drop.
func (n *Node) dropping(ctx context.Context) ([]openflow.FlowStats, error) {
	return n.flowsOf(ctx, n.Bridge, openflow.FlowFilter{Cookie: pipeline.DropBit, CookieMask: pipeline.DropBit})
}

func (n *Node) flowsOf(ctx context.Context, bridge string, filter openflow.FlowFilter) ([]openflow.FlowStats, error) {
	c, err := n.openflow(ctx, bridge)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	flows, err := c.Flows(ctx, filter)
	return flows, kind(err)
}

// drops sums the packets of flows that drop, by reason.
func drops(flows []openflow.FlowStats) []Drop {
	sums := map[pipeline.Kind]uint64{}
	for _, f := range flows {
		if k := pipeline.KindOf(f.Cookie); k.Drops() && f.Packets > 0 {
			sums[k] += f.Packets
		}
	}
	list := []Drop{}
	for _, k := range slices.Sorted(maps.Keys(sums)) {
		list = append(list, Drop{k.String(), sums[k], k.Text()})
	}
	slices.SortStableFunc(list, func(a, b Drop) int { return cmp.Compare(b.Packets, a.Packets) })
	return list
}
