package vnet

import (
	"fmt"
	"net/netip"
	"strconv"
)

// PortMapping publishes a port of an endpoint on the host.
type PortMapping struct {
	// HostIP is the host's address; zero: all of them, loopback included, in every family that the endpoint has.
	HostIP        netip.Addr `json:"hostIP,omitzero"`
	HostPort      uint16     `json:"hostPort"`
	ContainerPort uint16     `json:"containerPort"`
	Protocol      string     `json:"protocol"` // "tcp", "udp" or "sctp"
}

// ParsePortMapping checks what a runtime asks for. Ports are checked as they come, before they
// are cut to 16 bits; an empty protocol is TCP, an empty or unspecified address all of its family.
func ParsePortMapping(hostIP string, hostPort, containerPort int, protocol string) (PortMapping, error) {
	m := PortMapping{Protocol: protocol}
	if m.Protocol == "" {
		m.Protocol = "tcp"
	}
	switch m.Protocol {
	case "tcp", "udp", "sctp":
	default:
		return m, Invalidf("portMappings: protocol %q: must be tcp, udp or sctp", protocol)
	}
	for _, p := range []struct {
		name  string
		given int
		port  *uint16
	}{{"hostPort", hostPort, &m.HostPort}, {"containerPort", containerPort, &m.ContainerPort}} {
		if p.given < 1 || p.given > 65535 {
			return m, Invalidf("portMappings: %s %d: must be 1 to 65535", p.name, p.given)
		}
		*p.port = uint16(p.given)
	}
	if hostIP == "" {
		return m, nil
	}
	a, err := netip.ParseAddr(hostIP)
	if err != nil || a.Zone() != "" {
		return m, Invalidf("portMappings: hostIP %q: not an address", hostIP)
	}
	if a = a.Unmap(); a.IsMulticast() {
		return m, Invalidf("portMappings: hostIP %s: a multicast address is nobody's", a)
	}
	m.HostIP = a
	return m, nil
}

// Overlaps reports whether one packet could be meant for both m and o.
func (m PortMapping) Overlaps(o PortMapping) bool {
	if m.Protocol != o.Protocol || m.HostPort != o.HostPort {
		return false
	}
	a, b := m.HostIP, o.HostIP
	switch {
	case !a.IsValid(), !b.IsValid():
		return true
	case a.Is4() != b.Is4():
		return false
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

// Serves reports whether m publishes an endpoint's address a: whether it is of the right family.
func (m PortMapping) Serves(a netip.Addr) bool {
	return !m.HostIP.IsValid() || m.HostIP.Is4() == a.Is4()
}

func (m PortMapping) String() string {
	port := strconv.Itoa(int(m.HostPort))
	if m.HostIP.IsValid() {
		port = netip.AddrPortFrom(m.HostIP, m.HostPort).String()
	}
	return fmt.Sprintf("%s %s to port %d", m.Protocol, port, m.ContainerPort)
}
