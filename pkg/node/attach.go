package node

import (
	"context"
	"errors"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Endpoint returns the endpoint of that id, vnet.ErrNotFound if there is none.
func (n *Node) Endpoint(ctx context.Context, id vnet.EndpointID) (vnet.Endpoint, error) {
	var e vnet.Endpoint
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		e, err = store.Endpoint(tx, id)
		return err
	})
	return e, err
}

// Network returns the network of that name as it stands, vnet.ErrNotFound if it does not.
func (n *Node) Network(ctx context.Context, r vnet.Ref) (vnet.Network, error) {
	var net vnet.Network
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		net, err = store.Network(tx, r)
		return err
	})
	return net, err
}

func (n *Node) network(ctx context.Context, r vnet.Ref, bridge string) (pipeline.Network, error) {
	var net pipeline.Network
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		net, err = network(tx, r, bridge)
		return err
	})
	return net, err
}

// cable describes the endpoint's cable.
func (n *Node) cable(e vnet.Endpoint) veth.Cable {
	c := veth.Cable{
		Host: e.ID.Port(), Container: e.IfName, NetNS: e.NetNS, MAC: e.MAC.HardwareAddr(), MTU: e.MTU,
		Addrs: e.Addrs, Userspace: n.bridge.Datapath == "netdev", Alias: linkAlias(e.Bridge) + string(e.ID),
	}
	for _, r := range e.Routes {
		c.Routes = append(c.Routes, veth.Route{Dst: r.Dst, Via: r.Via, IfFree: true})
	}
	return c
}

// linkAlias begins the alias of every link of ours on the bridge.
func linkAlias(bridge string) string { return "tenet " + bridge + " " }

// Lay makes the endpoint's cable: a veth pair with its peer in the container's namespace. Of
// the endpoint's routes it keeps those that no other interface of the container had already.
func (n *Node) Lay(ctx context.Context, e *vnet.Endpoint) error {
	laid, err := veth.Lay(ctx, n.cable(*e))
	if err != nil {
		return kind(err)
	}
	e.Routes = nil
	for _, r := range laid.Routes {
		e.Routes = append(e.Routes, vnet.Route{Dst: r.Dst, Via: r.Via})
	}
	return nil
}

// Plug puts the endpoint's port on the bridge, and returns its OpenFlow port number.
func (n *Node) Plug(ctx context.Context, e vnet.Endpoint) (uint32, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return 0, err
	}
	ofport, err := sw.Plug(ctx, e.Bridge, ovs.Port{
		Name: e.ID.Port(), Owner: string(e.ID), OFPortRequest: e.OFPort,
		ExternalIDs: map[string]string{"tenet-network": e.Ref().String(), "tenet-attachment": e.Attachment.String()},
	})
	return uint32(ofport), kind(err)
}

// Connect writes the endpoint's flows, with those of its network, in one bundle, for the port
// number given: as the record is now, which a tenant's first chain may have given a zone meanwhile.
// On a switch that has lost its flows (ovs-vswitchd was restarted and nobody has synced) it writes all.
//
// The port need not be there yet: its number is nobody else's. Written before the cable is laid,
// the flows find ovs-vswitchd idle, and there is never a port that works without them.
func (n *Node) Connect(ctx context.Context, e vnet.Endpoint, ofport uint32) error {
	unlock, err := n.lockFlows(ctx, e.Bridge)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := n.openflow(ctx, e.Bridge)
	if err != nil {
		return err
	}
	defer c.Close()
	stands, err := pipelineStands(ctx, c)
	if err != nil {
		return err
	}
	if !stands {
		_, err := n.syncFlows(ctx, c, true)
		return err
	}
	var net pipeline.Network
	var p pipeline.Endpoint
	err = n.Store.View(ctx, func(tx store.Tx) error {
		now, err := store.Endpoint(tx, e.ID)
		if err != nil {
			return err
		}
		if net, err = network(tx, now.Ref(), now.Bridge); err != nil {
			return err
		}
		p, err = plugged(tx, now, ofport)
		return err
	})
	if err != nil {
		return err
	}
	flows := slices.Concat(pipeline.NetworkFlows(net), pipeline.EndpointFlows(net, p))
	if err := putMeters(ctx, c, e); err != nil {
		return err
	}
	var flood []openflow.Change
	if net.Floods() {
		if flood, err = n.flood(ctx, net, e.Bridge); err != nil {
			return err
		}
	}
	return kind(n.Tally.commit(ctx, c, append(flood, adds(flows)...)))
}

// Confirm marks the endpoint as ready, with the routes that it was laid with: from here on only a DEL, GC or the loss of
// its link ends it. If it makes a function whole, and tenetd runs, which probes it, new connections come to the function
// once a probe has come through: its inside may not be set up yet.
func (n *Node) Confirm(ctx context.Context, e vnet.Endpoint) error {
	return n.Store.Update(ctx, func(tx store.Tx) error {
		now, err := store.Endpoint(tx, e.ID)
		if err != nil {
			return err
		}
		now.State, now.Routes = vnet.Ready, e.Routes
		if err := store.PutEndpoint(tx, &now); err != nil || now.Function == nil {
			return err
		}
		ref := vnet.GroupRef{Tenant: now.Tenant, Group: now.Function.Group}
		g, err := store.Group(tx, ref)
		if err != nil || g.Probe.Interval == 0 {
			return err
		}
		i, err := store.FindInstance(tx, ref, now.Container)
		if err != nil || !i.Whole() {
			return err
		}
		i.Hung, err = n.agentRuns()
		return errors.Join(err, store.PutInstance(tx, i))
	})
}

// agentRuns reports whether a tenetd runs for the node.
func (n *Node) agentRuns() (bool, error) {
	unlock, err := store.TryLock(n.DataDir, agentLock)
	if err != nil || unlock == nil {
		return err == nil, err
	}
	unlock()
	return false, nil
}

// members returns the OpenFlow ports of a network's endpoints on a bridge.
func (n *Node) members(ctx context.Context, net pipeline.Network, bridge string) ([]uint32, error) {
	ports, err := n.ofports(ctx, bridge)
	if err != nil {
		return nil, err
	}
	var members []uint32
	err = n.Store.View(ctx, func(tx store.Tx) error {
		endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(net.Ref()))
		for _, e := range endpoints {
			if e.Bridge != bridge || e.State == vnet.Leaving { // the group of a function that leaves may have gone
				continue
			}
			p, err := plugged(tx, e, portOf(e, ports))
			if errors.Is(err, vnet.ErrNotFound) { // as in render
				continue
			}
			if err != nil {
				return err
			}
			if p.Hears() {
				members = append(members, p.Port)
			}
		}
		return err
	})
	slices.Sort(members)
	return members, err
}

// ofports returns the OpenFlow port number of each endpoint that has one on the bridge.
func (n *Node) ofports(ctx context.Context, bridge string) (map[vnet.EndpointID]uint32, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := sw.Ports(ctx, bridge)
	if err != nil {
		return nil, kind(err)
	}
	ports := make(map[vnet.EndpointID]uint32, len(rows))
	for _, row := range rows {
		if row.OFPort > 0 {
			ports[vnet.EndpointID(row.Owner)] = uint32(row.OFPort)
		}
	}
	return ports, nil
}

// portOf returns the endpoint's OpenFlow port number: what the switch gave it, or, while it has
// no port, what it will ask for.
func portOf(e vnet.Endpoint, ports map[vnet.EndpointID]uint32) uint32 {
	if port, ok := ports[e.ID]; ok {
		return port
	}
	return uint32(e.OFPort)
}

// pipelineStands reports whether this version of the pipeline is on the switch.
func pipelineStands(ctx context.Context, c *openflow.Conn) (bool, error) {
	table := uint8(pipeline.Marker)
	flows, err := c.Flows(ctx, openflow.FlowFilter{Table: &table})
	return slices.ContainsFunc(flows, func(f openflow.FlowStats) bool { return pipeline.IsMarker(f.Flow) }), kind(err)
}

func adds(flows []openflow.Flow) []openflow.Change {
	changes := make([]openflow.Change, len(flows))
	for i, f := range flows {
		changes[i] = openflow.AddFlow(f)
	}
	return changes
}
