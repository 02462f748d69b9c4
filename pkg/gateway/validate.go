package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// minMTU6 is the least MTU on which the kernel runs IPv6 (RFC 8200 section 5).
const minMTU6 = 1280

// net is the transit range of a's family; the zero Net if there is none.
func (s State) net(a netip.Addr) Net {
	for _, n := range s.Nets {
		if n.Via.Is4() == a.Is4() {
			return n
		}
	}
	return Net{}
}

// rng is the transit range.
func (n Net) rng() netip.Prefix { return n.Host.Masked() }

// needsIPv6 names something of s that cannot do without IPv6; "" if there is none.
func (s State) needsIPv6() string {
	switch {
	case s.Forward6:
		return "forwarding"
	case slices.ContainsFunc(s.Routes, func(r Route) bool { return r.Prefix.Addr().Is6() }):
		return "a route"
	case slices.ContainsFunc(s.Egress, func(e Egress) bool { return e.Address.Is6() }):
		return "an egress address"
	case slices.ContainsFunc(s.Masked, netip.Addr.Is6):
		return "an alias"
	case slices.ContainsFunc(s.Published, func(p Published) bool { return p.To.Addr().Is6() }):
		return "a published port"
	}
	return ""
}

// withoutIPv6 is s, without its range of IPv6 if the kernel or the link can
// have none.
func (s State) withoutIPv6() (State, error) {
	var why string
	switch _, has := readSysctl("ipv6", "all", "forwarding"); {
	case has != nil:
		why = "the kernel has no IPv6"
	case s.MTU < minMTU6:
		why = fmt.Sprintf("IPv6 needs an MTU of %d or more, not %d", minMTU6, s.MTU)
	default:
		return s, nil
	}
	if what := s.needsIPv6(); what != "" {
		return s, fmt.Errorf("%w: %s is of IPv6, and %s", ErrUnsupported, what, why)
	}
	s.Nets = slices.DeleteFunc(slices.Clone(s.Nets), func(n Net) bool { return n.Via.Is6() })
	return s, nil
}

// validate says what of s cannot stand, before anything is changed.
func (s State) validate() error {
	if !validName(s.Link) {
		return invalid("%q is not a link name (1 to %d bytes, no spaces, slashes or colons)", s.Link, unix.IFNAMSIZ-1)
	}
	for _, mac := range []net.HardwareAddr{s.MAC, s.Peer} {
		if len(mac) != 6 || mac[0]&0x01 != 0 || slices.Equal(mac, make([]byte, 6)) {
			return invalid("%q is not the hardware address of one Ethernet station", mac)
		}
	}
	if s.MTU < 68 || s.MTU > 65535 { // RFC 791 section 3.2; the greatest of Ethernet links
		return invalid("an MTU of %d is not between 68 and 65535", s.MTU)
	}
	for _, part := range []func() error{s.validateNets, s.validateRoutes, s.validateTransit, s.validatePublished} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

func (s State) validateNets() error {
	for i, n := range s.Nets {
		host := n.Host.Addr()
		switch {
		case !n.Host.IsValid() || !station(host) || host.IsLoopback():
			return invalid("%v is not an address of the host with the length of its range", n.Host)
		case !n.rng().Contains(n.Via) || n.Via == host || n.Via.Zone() != "":
			return invalid("the router %v is not another address of the range %v", n.Via, n.rng())
		case slices.ContainsFunc(s.Nets[:i], func(o Net) bool { return o.Via.Is4() == n.Via.Is4() }):
			return invalid("%v is a second range of its family", n.rng())
		}
	}
	if s.Forward4 && s.net(netip.IPv4Unspecified()) == (Net{}) || s.Forward6 && s.net(netip.IPv6Unspecified()) == (Net{}) {
		return invalid("forwarding without a range of the family")
	}
	return nil
}

func (s State) validateRoutes() error {
	for i, r := range s.Routes {
		p := r.Prefix
		n := s.net(p.Addr())
		switch {
		case !p.IsValid() || p != p.Masked() || p.Bits() == 0 || !station(p.Addr()):
			return invalid("%v is not a prefix to be led to the link", p)
		case n == (Net{}):
			return invalid("route %v without a range of its family", p)
		case p.Overlaps(n.rng()):
			return invalid("route %v overlaps the range %v", p, n.rng())
		case p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast():
			return invalid("route %v is of addresses that are not routed", p)
		case r.MTU < 0:
			return invalid("route %v has an MTU of %d", p, r.MTU)
		}
		for _, o := range s.Routes[:i] {
			if o.Prefix.Overlaps(p) {
				return invalid("route %v overlaps route %v", p, o.Prefix)
			}
		}
	}
	return nil
}

// validateTransit is about the addresses of the range that have a part of their own.
func (s State) validateTransit() error {
	for _, a := range s.Masked {
		if !s.transit(a) {
			return invalid("the alias %v is not of the range", a)
		}
	}
	seen := map[netip.Addr]bool{}
	for _, e := range s.Egress {
		switch {
		case !s.transit(e.Transit):
			return invalid("%v, which is to leave as %v, is not of the range", e.Transit, e.Address)
		case !station(e.Address) || e.Address.IsLoopback() || s.net(e.Address).rng().Contains(e.Address):
			return invalid("%v is not an address with which %v can leave", e.Address, e.Transit)
		case e.Address.Is4() != e.Transit.Is4():
			return invalid("%v cannot leave as %v, which is of the other family", e.Transit, e.Address)
		case seen[e.Transit]:
			return invalid("%v is to leave as two addresses", e.Transit)
		}
		seen[e.Transit] = true
	}
	return nil
}

func (s State) validatePublished() error {
	type key struct {
		protocol string
		ip       netip.Addr
		port     uint16
		is4      bool
	}
	seen := map[key]bool{}
	for _, p := range s.Published {
		to := p.To.Addr()
		k := key{p.Protocol, p.HostIP, p.HostPort, to.Is4()}
		_, known := protocols[p.Protocol]
		switch {
		case !known:
			return invalid("published %s: the protocol must be tcp, udp or sctp", p)
		case p.HostPort == 0 || p.To.Port() == 0:
			return invalid("published %s: port 0 is none", p)
		case !station(to) || to.IsLoopback():
			return invalid("published %s: %v is not a container's address", p, to)
		case s.net(to) == (Net{}):
			return invalid("published %s without a range of its family", p)
		case s.net(to).Host.Addr() == to || s.net(to).Via == to:
			return invalid("published %s: %v is no container's", p, to)
		case p.HostIP.IsValid() && !station(p.HostIP):
			return invalid("published %s: %v is not an address that the host can have", p, p.HostIP)
		case p.HostIP.IsValid() && p.HostIP.Is4() != to.Is4():
			return invalid("published %s: %v is of the other family than %v", p, p.HostIP, to)
		case seen[k]:
			return invalid("published %s: the port is published twice", p)
		}
		seen[k] = true
	}
	return nil
}

// transit tells whether a is an address of a range that is neither of the link's ends.
func (s State) transit(a netip.Addr) bool {
	n := s.net(a)
	return station(a) && n != (Net{}) && n.rng().Contains(a) && a != n.Host.Addr() && a != n.Via
}

// station tells whether a can be the address of one station, without a zone.
func station(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && !a.IsUnspecified() && !a.IsMulticast()
}

// String is p as in "tcp 192.0.2.1:8080 to 169.254.64.9:80".
func (p Published) String() string {
	port := strconv.Itoa(int(p.HostPort))
	if p.HostIP.IsValid() {
		port = netip.AddrPortFrom(p.HostIP, p.HostPort).String()
	}
	return fmt.Sprintf("%s %s to %v", p.Protocol, port, p.To)
}

// validName follows dev_valid_name and sysctl_dev_name_is_allowed in the
// kernel: "all" and "default" would be written through to every link.
func validName(name string) bool {
	switch name {
	case "", ".", "..", "all", "default":
		return false
	}
	return len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/:% \t\n\v\f\r\x00")
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}
