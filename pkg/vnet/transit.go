package vnet

import "net/netip"

// Transit is a number of the transit range, a node's own: it stands for one IPv4 and one IPv6
// address between the switch and the host, which no tenant has. A network that leaves its
// tenant is seen by the host as one of them, and an endpoint is reached from the host by one,
// its alias.
type Transit uint16

// The numbers at the range's beginning that nobody is given: the host's end of the link and the switch's.
const (
	HostTransit  Transit = 1
	PeerTransit  Transit = 2
	FirstTransit Transit = 3
	LastTransit  Transit = 1<<14 - 2 // the range's last address is its broadcast address
)

// The transit range. 169.254.64.0/18 is of IPv4's link-local addresses (RFC 3927), which no
// router forwards; fd74:656e:6574::/64 is a unique local prefix (RFC 4193).
var (
	TransitRange4 = netip.MustParsePrefix("169.254.64.0/18")
	TransitRange6 = netip.MustParsePrefix("fd74:656e:6574::/64")
)

// Addr4 returns the IPv4 address that t stands for.
func (t Transit) Addr4() netip.Addr {
	b := TransitRange4.Addr().As4()
	b[2] |= byte(t >> 8)
	b[3] = byte(t)
	return netip.AddrFrom4(b)
}

// Addr6 returns the IPv6 address that t stands for.
func (t Transit) Addr6() netip.Addr {
	b := TransitRange6.Addr().As16()
	b[14], b[15] = byte(t>>8), byte(t)
	return netip.AddrFrom16(b)
}

// Like returns the address of t that is of a's family.
func (t Transit) Like(a netip.Addr) netip.Addr {
	if a.Is4() {
		return t.Addr4()
	}
	return t.Addr6()
}

// Zone is a conntrack zone of the switch. Zones are shared by all who use conntrack on the
// node: ours are of a range of our own, recorded, and emptied before they are used.
type Zone uint16

// The range of zones that are ours by default: networks' from FirstZone to LastZone, and that
// in which the host is translated, for all networks, to what their endpoints see it as.
const (
	FirstZone Zone = 1000
	LastZone  Zone = 29999
	HostZone  Zone = 30000
)

// GatewayPort is the OpenFlow port number of the host's link to the switch, GatewayLink its name.
const (
	GatewayPort = 2
	GatewayLink = "tenet-gw"
)

// GatewayMAC is the address of the host's end of that link, PeerMAC that of the switch's.
var (
	GatewayMAC = MAC{0x0a, 0x58, 0, 0, 0, 0x03}
	PeerMAC    = MAC{0x0a, 0x58, 0, 0, 0, 0x02}
)
