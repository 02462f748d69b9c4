package node

import (
	"context"
	"errors"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Switch is what the node's switch says of itself and of one bridge.
type Switch struct {
	Version string `json:"version"` // of the ovs-vswitchd that runs
	Bridge  string `json:"bridge"`
	// Datapath is "system" (the kernel's) or "netdev" (userspace); empty: there is no such bridge yet.
	Datapath string `json:"datapath"`
	Ports    int    `json:"ports"` // of ours
	// RestoreWait: ovs-vswitchd was told to wait for its flows, and nobody has let it go.
	RestoreWait bool `json:"restoreWait"`
}

// Switch asks the switch. A bridge that is not there yet is no error; somebody else's is a vnet.ErrExists.
func (n *Node) Switch(ctx context.Context) (Switch, error) {
	s := Switch{Bridge: n.Bridge}
	sw, err := n.dial(ctx)
	if err != nil {
		return s, err
	}
	state, err := sw.State(ctx)
	if err != nil {
		return s, kind(err)
	}
	s.RestoreWait = state.RestoreWait
	if s.Version, err = ovs.Version(ctx, n.OVSRunDir); err != nil {
		return s, kind(err)
	}
	b, err := sw.Bridge(ctx, n.Bridge)
	if errors.Is(err, ovs.ErrNotFound) {
		return s, nil
	}
	if err != nil {
		return s, kind(err)
	}
	if err := n.owns(b); err != nil {
		return s, err
	}
	s.Datapath = b.Datapath
	ports, err := sw.Ports(ctx, n.Bridge)
	s.Ports = len(ports)
	return s, kind(err)
}

// PortState is what the switch says of an endpoint's port.
type PortState struct {
	OFPort int    `json:"ofport"` // as the switch numbers it; 0 or less: it does not work
	Link   string `json:"link"`   // "up", "down", or empty: unknown
	Error  string `json:"error"`  // what the switch has against it
}

// PortState asks the switch for the endpoint's port. vnet.ErrNotFound if there is none.
func (n *Node) PortState(ctx context.Context, e vnet.Endpoint) (PortState, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return PortState{}, err
	}
	p, err := sw.Port(ctx, e.Bridge, e.ID.Port())
	return PortState{p.OFPort, p.LinkState, p.Error}, kind(err)
}
