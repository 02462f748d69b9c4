package vnet

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Tenant owns networks. It is a layer-3 domain of its own: two tenants may overlap in everything.
type Tenant struct {
	Name TenantName `json:"name"`
	// Number stands for the tenant in the pipeline (24 bits, from 1). It is this node's own.
	Number uint32 `json:"number"`
}

// MaxTenant is the highest number of a tenant.
const MaxTenant = 1<<24 - 1

// Validate reports whether t can be a tenant that has its number.
func (t Tenant) Validate() error {
	if t.Number < 1 || t.Number > MaxTenant {
		return Invalidf("tenant number %d: must be 1 to %d", t.Number, MaxTenant)
	}
	return t.Name.Validate()
}

// VNI is a network's identifier in tunnels and in the pipeline (24 bits).
type VNI uint32

// MaxVNI is the highest VNI of a network; above it are the hop VNIs of chains.
const MaxVNI VNI = 0xEFFFFF

// Validate reports whether v can be a network's VNI.
func (v VNI) Validate() error {
	if v == 0 || v > MaxVNI {
		return Invalidf("vni %d: must be 1 to %d (0x%X)", v, MaxVNI, MaxVNI)
	}
	return nil
}

// Gateway says how a network reaches what is outside its tenant.
type Gateway string

// The ways out. The networks of a tenant reach each other whichever they have.
const (
	GatewayNone   Gateway = "none"   // nothing leaves the tenant
	GatewayNAT    Gateway = "nat"    // containers open connections to the outside, and are seen there as the node
	GatewayRouted Gateway = "routed" // the host routes the network's prefixes: they can be nobody else's
)

// Leads reports whether packets leave the tenant by it.
func (g Gateway) Leads() bool { return g == GatewayNAT || g == GatewayRouted }

// Network is one layer-2 segment of a tenant, with one or more subnets.
type Network struct {
	Tenant  TenantName  `json:"tenant"`
	Name    NetworkName `json:"name"`
	VNI     VNI         `json:"vni,omitempty"` // 0 in a declaration: one is chosen
	Subnets []Subnet    `json:"subnets"`
	Gateway Gateway     `json:"gateway,omitempty"` // empty: none
	MTU     int         `json:"mtu,omitempty"`     // 0: the underlay's less the tunnel header
	// Multicast lets broadcast and multicast frames reach the members of the network.
	Multicast bool `json:"multicast,omitempty"`
	// EgressAddress is the node's address that the network is seen as outside, with gateway nat. Zero: any.
	EgressAddress netip.Addr `json:"egressAddress,omitzero"`
	// Provider makes the network a VLAN of an uplink: its gateway is a router on the wire, if any.
	Provider Provider `json:"provider,omitzero"`
	DNS      DNS      `json:"dns,omitzero"`
}

// IsProvider reports whether the network is a VLAN of an uplink.
func (n Network) IsProvider() bool { return n.Provider != Provider{} }

// Floods reports whether the network carries broadcast and multicast. On a wire nobody else
// answers for those who are asked for.
func (n Network) Floods() bool { return n.Multicast || n.IsProvider() }

// Ref names a network: tenant/network.
type Ref struct {
	Tenant  TenantName
	Network NetworkName
}

func (r Ref) String() string { return fmt.Sprintf("%s/%s", r.Tenant, r.Network) }

// Ref returns the network's name with its tenant's.
func (n Network) Ref() Ref { return Ref{n.Tenant, n.Name} }

// MTU limits: RFC 8200 asks 1280 of every IPv6 link, RFC 791 says 68 for IPv4; an IPv4
// network below 576 serves nobody.
const (
	minMTU4 = 576
	minMTU6 = 1280
	maxMTU  = 65535
)

const maxSubnets = 16

// Normal checks a declaration and returns it with defaults filled in (but for the VNI and the MTU).
func (n Network) Normal() (Network, error) {
	if err := n.Tenant.Validate(); err != nil {
		return n, err
	}
	if err := n.Name.Validate(); err != nil {
		return n, err
	}
	if n.VNI != 0 {
		if err := n.VNI.Validate(); err != nil {
			return n, err
		}
	}
	if n.Gateway == "" {
		n.Gateway = GatewayNone
	}
	if err := n.checkWayOut(); err != nil {
		return n, err
	}
	if err := n.DNS.validate(); err != nil {
		return n, err
	}
	if len(n.Subnets) == 0 {
		return n, Invalidf("network %s has no subnets", n.Ref())
	}
	if len(n.Subnets) > maxSubnets {
		return n, Invalidf("network %s has %d subnets: at most %d", n.Ref(), len(n.Subnets), maxSubnets)
	}
	n.Subnets = slices.Clone(n.Subnets)
	for i, s := range n.Subnets {
		normal, err := s.Normal()
		if err != nil {
			return n, err
		}
		for _, earlier := range n.Subnets[:i] {
			if earlier.Prefix.Overlaps(s.Prefix) {
				return n, Invalidf("subnets %s and %s overlap", earlier.Prefix, s.Prefix)
			}
		}
		n.Subnets[i] = normal
	}
	if a := n.EgressAddress; a.IsValid() && !slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is4() == a.Is4() }) {
		return n, Invalidf("egressAddress %s: network %s has no subnet of that family", a, n.Ref())
	}
	return n, n.CheckMTU(maxMTU)
}

// checkWayOut checks how the network reaches what is outside its tenant.
func (n Network) checkWayOut() error {
	switch n.Gateway {
	case GatewayNone, GatewayNAT, GatewayRouted:
	default:
		return Invalidf("gateway %q: must be none, nat or routed", n.Gateway)
	}
	if a := n.EgressAddress; a.IsValid() {
		switch {
		case n.Gateway != GatewayNAT:
			return Invalidf("egressAddress %s: only a network with gateway nat has one", a)
		case a.Zone() != "", a.Is4In6(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), TransitRange4.Contains(a), TransitRange6.Contains(a):
			return Invalidf("egressAddress %s: nobody outside could answer it", a)
		}
	}
	if n.IsProvider() {
		if n.Gateway != GatewayNone {
			return Invalidf("gateway %q: a provider network's way out is a router on the wire", n.Gateway)
		}
		return n.Provider.validate()
	}
	return nil
}

// CheckMTU reports whether n's MTU (if it has one) serves its families and fits in limit bytes.
func (n Network) CheckMTU(limit int) error {
	least := minMTU4
	if slices.ContainsFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Addr().Is6() }) {
		least = minMTU6
	}
	switch {
	case n.MTU == 0:
	case n.MTU < least:
		return Invalidf("mtu %d: below %d, the least for this network's address families", n.MTU, least)
	case n.MTU > limit:
		return Invalidf("mtu %d: above %d, the underlay's MTU less the tunnel header", n.MTU, limit)
	}
	return nil
}

// HostAddr is what the host is seen as by endpoints of subnet s: the gateway, or, where that is
// nobody's or a router on the wire, the host's own transit address.
func (n Network) HostAddr(s Subnet) netip.Addr {
	if s.Gateway.IsValid() && !n.IsProvider() {
		return s.Gateway
	}
	return HostTransit.Like(s.Prefix.Addr())
}

// SubnetOf returns the subnet that contains a.
func (n Network) SubnetOf(a netip.Addr) (Subnet, bool) {
	i := slices.IndexFunc(n.Subnets, func(s Subnet) bool { return s.Prefix.Contains(a) })
	if i < 0 {
		return Subnet{}, false
	}
	return n.Subnets[i], true
}

// Routes are those of an endpoint with these addresses: by default to the gateway of its first
// subnet in each family, and on the link to the host where the gateway does not stand for it.
func (n Network) Routes(addrs []netip.Prefix) []Route {
	routes := n.DefaultRoutes(addrs)
	for _, p := range addrs {
		s, ok := n.SubnetOf(p.Addr())
		host := HostTransit.Like(p.Addr())
		if !ok || n.HostAddr(s) != host {
			continue
		}
		r := Route{Dst: netip.PrefixFrom(host, host.BitLen())}
		if !slices.ContainsFunc(routes, func(o Route) bool { return o.Dst == r.Dst }) {
			routes = append(routes, r)
		}
	}
	return routes
}

// DefaultRoutes are the ways out for an endpoint with these addresses: by the gateway of its
// first subnet in each family.
func (n Network) DefaultRoutes(addrs []netip.Prefix) []Route {
	var routes []Route
	for _, p := range addrs {
		s, ok := n.SubnetOf(p.Addr())
		if !ok || !s.Gateway.IsValid() {
			continue
		}
		r := Route{netip.PrefixFrom(netip.IPv4Unspecified(), 0), s.Gateway}
		if s.Gateway.Is6() {
			r.Dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
		if !slices.ContainsFunc(routes, func(o Route) bool { return o.Dst == r.Dst }) {
			routes = append(routes, r)
		}
	}
	return routes
}

// Differs compares a declaration with the network that stands and names the first field in
// which they differ, or returns "". What the declaration leaves empty is not compared.
func (n Network) Differs(stands Network) string {
	switch {
	case n.VNI != 0 && n.VNI != stands.VNI:
		return fmt.Sprintf("vni: %d is asked, %d stands", n.VNI, stands.VNI)
	case n.Gateway != stands.Gateway:
		return fmt.Sprintf("gateway: %q is asked, %q stands", n.Gateway, stands.Gateway)
	case n.MTU != 0 && n.MTU != stands.MTU:
		return fmt.Sprintf("mtu: %d is asked, %d stands", n.MTU, stands.MTU)
	case n.Multicast && !stands.Multicast:
		return "multicast: true is asked, false stands"
	case n.EgressAddress.IsValid() && n.EgressAddress != stands.EgressAddress:
		return fmt.Sprintf("egressAddress: %s is asked, %s stands", n.EgressAddress, textOr(stands.EgressAddress.IsValid(), stands.EgressAddress, "none"))
	case n.Provider != stands.Provider:
		return fmt.Sprintf("provider: %s is asked, %s stands", textOr(n.IsProvider(), n.Provider, "none"), textOr(stands.IsProvider(), stands.Provider, "none"))
	case !n.DNS.IsZero() && !stands.DNS.IsZero() && !n.DNS.equal(stands.DNS): // a network without leaves it to each configuration
		return fmt.Sprintf("dns: %+v is asked, %+v stands", n.DNS, stands.DNS)
	case !slices.EqualFunc(n.Subnets, stands.Subnets, equalSubnet):
		return fmt.Sprintf("subnets: %s is asked, %s stands", subnetList(n.Subnets), subnetList(stands.Subnets))
	}
	return ""
}

func textOr(has bool, value fmt.Stringer, otherwise string) string {
	if has {
		return value.String()
	}
	return otherwise
}

func equalSubnet(a, b Subnet) bool {
	return a.Prefix == b.Prefix && a.Gateway == b.Gateway && slices.Equal(a.Reserved, b.Reserved)
}

func subnetList(list []Subnet) string {
	var texts []string
	for _, s := range list {
		words := []string{s.Prefix.String()}
		if s.Gateway.IsValid() {
			words = append(words, "gateway", s.Gateway.String())
		}
		for _, r := range s.Reserved {
			words = append(words, "reserved", r.String())
		}
		texts = append(texts, strings.Join(words, " "))
	}
	return fmt.Sprintf("%q", texts)
}
