package vnet

import (
	"net/netip"
	"slices"
)

// NodeName names a node in its cluster.
type NodeName string

// Validate reports whether n can name a node.
func (n NodeName) Validate() error { return checkName("node", string(n)) }

// Encapsulation is how frames are wrapped between nodes.
type Encapsulation string

// The encapsulations.
const (
	VXLAN  Encapsulation = "vxlan"  // RFC 7348
	Geneve Encapsulation = "geneve" // RFC 8926, without options
)

// Encapsulations are all of them. A bridge has a tunnel port for each.
var Encapsulations = []Encapsulation{VXLAN, Geneve}

// Validate reports whether e is one that nodes know.
func (e Encapsulation) Validate() error {
	if !slices.Contains(Encapsulations, e) {
		return Invalidf("encapsulation %q: must be vxlan or geneve", e)
	}
	return nil
}

// OFPort is the OpenFlow port number of the encapsulation's tunnel port on every bridge.
func (e Encapsulation) OFPort() uint32 {
	if e == Geneve {
		return 3
	}
	return 1
}

// Link is the name of its tunnel port.
func (e Encapsulation) Link() string { return "tenet-" + string(e) }

// UDPPort is where it is received, on every node.
func (e Encapsulation) UDPPort() int {
	if e == Geneve {
		return 6081
	}
	return 4789
}

// TunnelHeader is what a tunnel adds to a frame's payload, between such addresses: Ethernet 14, IPv4 20 or IPv6 40,
// UDP 8, VXLAN or Geneve without options 8.
func TunnelHeader(vtep netip.Addr) int {
	if vtep.Is6() {
		return 70
	}
	return 50
}

// Peer is a node as the others see it.
type Peer struct {
	Name NodeName   `json:"name"`
	VTEP netip.Addr `json:"vtep"`
	// Encapsulation is what the node wants to receive.
	Encapsulation Encapsulation `json:"encapsulation"`
	MTU           int           `json:"mtu"` // of its underlay
	// Off: neither its tenetd nor its address answers. What each node has noted of it, not what it says itself.
	Off bool `json:"off,omitempty"`
}

// Normal checks a peer and returns it with defaults filled in.
func (p Peer) Normal() (Peer, error) {
	if err := p.Name.Validate(); err != nil {
		return p, err
	}
	p.VTEP = p.VTEP.Unmap()
	if a := p.VTEP; !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Zone() != "" || a.IsLinkLocalUnicast() {
		return p, Invalidf("vtep %s: other nodes could not send to it", a)
	}
	if p.Encapsulation == "" {
		p.Encapsulation = VXLAN
	}
	return p, p.Encapsulation.Validate()
}

// Remote is an endpoint of another node: as much of it as others need.
type Remote struct {
	Attachment
	ID      EndpointID     `json:"id"`
	Node    NodeName       `json:"node"`
	Tenant  TenantName     `json:"tenant"`
	Network NetworkName    `json:"network"`
	MAC     MAC            `json:"mac"`
	Addrs   []netip.Prefix `json:"addrs,omitempty"`
	Labels  Labels         `json:"labels,omitempty"`
	// Function says which port of a service function it is, nil: none.
	Function *FunctionPort `json:"function,omitempty"`
}

// Ref returns the network the endpoint is in.
func (r Remote) Ref() Ref { return Ref{r.Tenant, r.Network} }

// Publish returns what others see of an endpoint on that node.
func (e Endpoint) Publish(node NodeName) Remote {
	return Remote{
		Attachment: e.Attachment, ID: e.ID, Node: node, Tenant: e.Tenant, Network: e.Network,
		MAC: e.MAC, Addrs: e.Addrs, Labels: e.Labels, Function: e.Function,
	}
}
