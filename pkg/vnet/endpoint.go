package vnet

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/netip"
	"slices"
)

// Attachment is CNI's view of an endpoint: a container and the name of an interface in it.
type Attachment struct {
	Container string `json:"container"`
	IfName    string `json:"ifName"`
}

func (a Attachment) String() string { return a.Container + "/" + a.IfName }

// EndpointID is an endpoint's name on the switch: 14 hexadecimal digits, the same for the same
// attachment. It is written on OVSDB rows (external_ids), and hashed again into flow cookies.
type EndpointID string

// ID derives the endpoint id of a. Both parts are length-prefixed by the zero byte, which
// neither may contain.
func (a Attachment) ID() EndpointID {
	sum := sha256.Sum256([]byte(a.Container + "\x00" + a.IfName))
	return EndpointID(hex.EncodeToString(sum[:7]))
}

// Port returns the name of the endpoint's port and host-side link: 15 bytes, the most that a
// link's name may have (IFNAMSIZ-1).
func (id EndpointID) Port() string { return "t" + string(id) }

// State says how far an endpoint's life has come. Anything but Ready with nobody at work on
// it was cut short, and is to be removed.
type State string

// The states, in the order of a life.
const (
	Pending State = "pending" // ADD has recorded it and is at work
	Ready   State = "ready"   // ADD has finished
	Leaving State = "leaving" // DEL has begun
)

// Endpoint is one container interface in a network: what the store holds.
type Endpoint struct {
	Attachment
	ID      EndpointID  `json:"id"`
	Tenant  TenantName  `json:"tenant"`
	Network NetworkName `json:"network"`
	State   State       `json:"state"`
	// CNINetwork is the netconf's name: garbage collection is scoped to it.
	CNINetwork string `json:"cniNetwork"`
	// Conf is a hash of the part of the netconf that shapes the endpoint.
	Conf  string `json:"conf"`
	NetNS string `json:"netns"`
	// Bridge is the bridge that the port is on.
	Bridge string         `json:"bridge"`
	MAC    MAC            `json:"mac,omitzero"`
	Addrs  []netip.Prefix `json:"addrs,omitempty"` // each with its subnet's length
	// Routes are those of the container's interface, as far as they were free.
	Routes []Route `json:"routes,omitempty"`
	MTU    int     `json:"mtu"`
	// OFPort is the OpenFlow port asked of the switch (ofport_request); the switch says what it gave.
	OFPort int `json:"ofport"`
	// Transit numbers the endpoint's alias: the address by which the host reaches it. 0: none,
	// on a bridge that the host is not linked to.
	Transit   Transit       `json:"transit,omitempty"`
	Ports     []PortMapping `json:"ports,omitempty"` // published on the host
	Bandwidth Bandwidth     `json:"bandwidth,omitzero"`
	// Zone is where the switch tracks the connections of its that chains lead. 0: its tenant has no chain.
	Zone   Zone   `json:"zone,omitempty"`
	Labels Labels `json:"labels,omitempty"`
	// Function says which port of a service function the endpoint is, nil: none.
	Function *FunctionPort `json:"function,omitempty"`
	// Boot names the boot and the host namespace that the endpoint's links were made in.
	Boot string `json:"boot"`
	// Delegate is how a foreign IPAM plugin is called again to release what it gave.
	Delegate *Delegate `json:"delegate,omitempty"`
}

// Route is a route of an endpoint's interface.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	Via netip.Addr   `json:"via,omitzero"` // zero: on the link
}

// Delegate holds what it takes to call a foreign IPAM plugin once more.
type Delegate struct {
	Type string          `json:"type"`
	Conf json.RawMessage `json:"conf"`
	Path string          `json:"path"` // CNI_PATH
	Args string          `json:"args,omitempty"`
}

// Ref returns the network the endpoint is in.
func (e Endpoint) Ref() Ref { return Ref{e.Tenant, e.Network} }

// Alias is an address by which the host reaches one of an endpoint's.
type Alias struct {
	Alias netip.Addr `json:"alias"`
	Addr  netip.Addr `json:"addr"`
}

// Aliases lead to the endpoint's first address of each family. None without a Transit.
func (e Endpoint) Aliases() []Alias {
	var aliases []Alias
	for _, p := range e.Addrs {
		a := p.Addr()
		alias := Alias{e.Transit.Like(a), a}
		if e.Transit != 0 && !slices.ContainsFunc(aliases, func(o Alias) bool { return o.Alias == alias.Alias }) {
			aliases = append(aliases, alias)
		}
	}
	return aliases
}

// Has reports whether a is one of the endpoint's addresses.
func (e Endpoint) Has(a netip.Addr) bool {
	for _, p := range e.Addrs {
		if p.Addr() == a {
			return true
		}
	}
	return false
}
