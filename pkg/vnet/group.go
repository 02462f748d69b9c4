package vnet

import (
	"cmp"
	"time"
)

// Group is a port pair group: service functions that do the same, of which each connection visits one.
type Group struct {
	Tenant TenantName `json:"tenant"`
	Name   GroupName  `json:"name"`
	Mode   Mode       `json:"mode,omitempty"` // empty: transparent
	// OnFailure is what becomes of traffic when the function that it is led to is dead. Empty: closed.
	OnFailure OnFailure `json:"onFailure,omitempty"`
	Probe     Probe     `json:"probe,omitzero"`
}

// Mode says what a function does to packets, and so how they find their way behind it.
type Mode string

// The modes.
const (
	// Transparent functions leave packets as they are: a bridge, an inline IDS. Their ports have no address.
	Transparent Mode = "transparent"
	// Routed functions forward packets by their kernel's routes, addresses unchanged: a router with a firewall.
	Routed Mode = "routed"
	// Rewriting functions change addresses or ports: NAT, a proxy. What leaves their egress port is traffic of that endpoint.
	Rewriting Mode = "rewriting"
)

// Addressed reports whether the ports of such functions have addresses.
func (m Mode) Addressed() bool { return m != Transparent }

// OnFailure says what becomes of traffic to a dead function.
type OnFailure string

// What can become of it.
const (
	Open   OnFailure = "open"   // it goes on to the next hop
	Closed OnFailure = "closed" // it is dropped, and counted
)

// Probe is how a node finds out that a function hangs whose ports are up: it sends a packet in and
// looks whether it comes out. The zero Probe: not at all.
type Probe struct {
	Interval  Duration `json:"interval,omitempty"`  // between two packets
	Threshold int      `json:"threshold,omitempty"` // so many in a row are lost before the function counts as dead; 0: 3
}

// Limits of a probe.
const (
	minProbeInterval = Duration(50 * time.Millisecond)
	maxProbeInterval = Duration(time.Hour)
	maxThreshold     = 100
	defaultThreshold = 3
)

// GroupRef names a group: tenant/group.
type GroupRef struct {
	Tenant TenantName
	Group  GroupName
}

func (r GroupRef) String() string { return string(r.Tenant) + "/" + string(r.Group) }

// Ref returns the group's name with its tenant's.
func (g Group) Ref() GroupRef { return GroupRef{g.Tenant, g.Name} }

// Normal checks a declaration and returns it with defaults filled in.
func (g Group) Normal() (Group, error) {
	if err := g.Tenant.Validate(); err != nil {
		return g, err
	}
	if err := g.Name.Validate(); err != nil {
		return g, err
	}
	g.Mode = cmp.Or(g.Mode, Transparent)
	switch g.Mode {
	case Transparent, Routed, Rewriting:
	default:
		return g, Invalidf("mode %q: must be transparent, routed or rewriting", g.Mode)
	}
	g.OnFailure = cmp.Or(g.OnFailure, Closed)
	switch {
	case g.OnFailure != Open && g.OnFailure != Closed:
		return g, Invalidf("onFailure %q: must be open or closed", g.OnFailure)
	case g.Probe == Probe{}:
		return g, nil
	case g.Mode == Rewriting:
		return g, Invalidf("probe: a packet does not come out of a rewriting function as it went in; its ports are watched all the same")
	case g.Probe.Interval < minProbeInterval || g.Probe.Interval > maxProbeInterval:
		return g, Invalidf("probe: interval %s: must be %s to %s", g.Probe.Interval, minProbeInterval, maxProbeInterval)
	case g.Probe.Threshold < 0 || g.Probe.Threshold > maxThreshold:
		return g, Invalidf("probe: threshold %d: must be 1 to %d", g.Probe.Threshold, maxThreshold)
	}
	g.Probe.Threshold = cmp.Or(g.Probe.Threshold, defaultThreshold)
	return g, nil
}

// Duration is a time span. Its text form is Go's: "1s", "500ms".
type Duration time.Duration

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText and UnmarshalText are the text form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText parses a span such as "1s".
func (d *Duration) UnmarshalText(b []byte) error {
	p, err := time.ParseDuration(string(b))
	if err != nil {
		return Invalidf("duration %q: want one such as 1s or 500ms", b)
	}
	*d = Duration(p)
	return nil
}
