package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Check compares an endpoint's record with its port, its link, addresses and routes, and its
// flows, and says in words what differs; nothing if all stands.
func (n *Node) Check(ctx context.Context, e vnet.Endpoint) ([]string, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	var differs []string
	if e.State != vnet.Ready {
		differs = append(differs, fmt.Sprintf("the endpoint is %s: its ADD or DEL did not finish", e.State))
	}
	n.bridge, err = sw.Bridge(ctx, e.Bridge)
	if errors.Is(err, ovs.ErrNotFound) {
		return append(differs, fmt.Sprintf("bridge %s is gone", e.Bridge)), nil
	}
	if err != nil {
		return nil, kind(err)
	}
	net, err := n.network(ctx, e.Ref(), e.Bridge)
	if err != nil {
		return nil, err
	}
	cable, err := veth.Check(ctx, n.cable(e))
	if err != nil {
		return nil, kind(err)
	}
	differs = append(differs, cable...)
	row, err := sw.Port(ctx, e.Bridge, e.ID.Port())
	switch {
	case errors.Is(err, ovs.ErrNotFound), errors.Is(err, ovs.ErrNotOurs):
		return append(differs, fmt.Sprintf("port %s is not on bridge %s", e.ID.Port(), e.Bridge)), nil
	case err != nil:
		return nil, kind(err)
	case row.Owner != string(e.ID):
		differs = append(differs, fmt.Sprintf("port %s belongs to %s", row.Name, row.Owner))
	case row.OFPort <= 0:
		return append(differs, fmt.Sprintf("port %s does not work: %s", row.Name, row.Error)), nil
	}
	var p pipeline.Endpoint
	err = n.Store.View(ctx, func(tx store.Tx) error {
		p, err = plugged(tx, e, uint32(row.OFPort))
		return err
	})
	if err != nil {
		return nil, err
	}
	flows, err := n.checkFlows(ctx, net, p)
	if err != nil {
		return nil, err
	}
	host, err := n.checkHost(ctx, net.Network, e)
	return slices.Concat(differs, flows, host), err
}

// checkHost compares the host's side with what the endpoint needs of it.
func (n *Node) checkHost(ctx context.Context, net vnet.Network, e vnet.Endpoint) ([]string, error) {
	switch {
	case e.Transit == 0:
		return nil, nil
	case len(e.Ports) > 0 || net.Gateway.Leads():
		return n.hostDiffers(ctx, &net)
	case !gateway.Standing(vnet.GatewayLink, vnet.PeerTransit.Addr4()):
		return []string{fmt.Sprintf("link %s, by which the host reaches it, does not stand", vnet.GatewayLink)}, nil
	}
	return nil, nil
}

// checkFlows compares the flows of the endpoint and its network with those that stand.
func (n *Node) checkFlows(ctx context.Context, net pipeline.Network, e pipeline.Endpoint) ([]string, error) {
	c, err := n.openflow(ctx, e.Bridge)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stands, err := pipelineStands(ctx, c)
	if err != nil {
		return nil, err
	}
	if !stands {
		return []string{fmt.Sprintf("bridge %s has not got this version's pipeline", e.Bridge)}, nil
	}
	var differs []string
	for _, part := range []struct {
		what  string
		owner pipeline.Owner
		want  []openflow.Flow
	}{
		{"endpoint", pipeline.EndpointOwner(e.ID), pipeline.EndpointFlows(net, e)},
		{"network", pipeline.NetworkOwner(net.Ref()), pipeline.NetworkFlows(net)},
	} {
		have, err := c.Flows(ctx, openflow.FlowFilter{Cookie: uint64(part.owner), CookieMask: pipeline.OwnerMask})
		if err != nil {
			return nil, kind(err)
		}
		for _, f := range part.want {
			if !slices.ContainsFunc(have, func(h openflow.FlowStats) bool { return h.Flow.String() == f.String() }) {
				differs = append(differs, fmt.Sprintf("flow of the %s is missing in table %s: %s", part.what, pipeline.TableName(f.Table), f))
			}
		}
		if extra := len(have) - len(part.want); extra > 0 {
			differs = append(differs, fmt.Sprintf("the %s has %d flows too many", part.what, extra))
		}
	}
	meters, err := missingMeters(ctx, c, e.Endpoint)
	return append(differs, meters...), err
}

// missingMeters compares the endpoint's limits with the switch's meters.
func missingMeters(ctx context.Context, c *openflow.Conn, e vnet.Endpoint) ([]string, error) {
	want := metersOf(e)
	if len(want) == 0 {
		return nil, nil
	}
	have, err := c.Meters(ctx)
	if err != nil {
		return nil, kind(err)
	}
	var differs []string
	for _, m := range want {
		if !slices.Contains(have, m) {
			differs = append(differs, fmt.Sprintf("meter %d, a limit of %d kbit/s, is missing or different", m.ID, m.RateKbps))
		}
	}
	return differs, nil
}
