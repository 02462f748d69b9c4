package vnet

import (
	"crypto/sha256"
	"net"
	"net/netip"
)

// MAC is an Ethernet address. Its text form is six lower-case hexadecimal pairs with colons.
type MAC [6]byte

// RouterMAC is the address of every network's gateway, on every node, in every tenant: a
// container that moves keeps its neighbour entry.
var RouterMAC = MAC{0x0a, 0x58, 0, 0, 0, 0x01}

// ParseMAC parses a unicast address that an endpoint may have.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, Invalidf("MAC %q: want six hexadecimal pairs such as 0a:58:0a:00:00:02", s)
	}
	m := MAC(hw)
	return m, m.Validate()
}

// Validate reports whether an endpoint may have m.
func (m MAC) Validate() error {
	switch {
	case m == MAC{}:
		return Invalidf("MAC %s is all zeros", m)
	case m[0]&1 != 0:
		return Invalidf("MAC %s is a multicast address: the first byte must be even", m)
	case m == RouterMAC:
		return Invalidf("MAC %s is the gateway's", m)
	}
	return nil
}

// MACFor derives an endpoint's address: 0a:58 and the IPv4 address, so that the same address
// has the same MAC wherever it is used next and stale neighbour entries do no harm; for an
// IPv6-only endpoint 0a:59 and a hash of the address.
func MACFor(addrs []netip.Addr) MAC {
	for _, a := range addrs {
		if a.Is4() {
			b := a.As4()
			return MAC{0x0a, 0x58, b[0], b[1], b[2], b[3]}
		}
	}
	m := MAC{0x0a, 0x59}
	if len(addrs) > 0 {
		sum := sha256.Sum256(addrs[0].AsSlice())
		copy(m[2:], sum[:])
	}
	return m
}

// MACOf derives a MAC from the endpoint alone, for when the one of its address is taken.
func MACOf(id EndpointID) MAC {
	sum := sha256.Sum256([]byte(id))
	return MAC{0x0a, 0x5a, sum[0], sum[1], sum[2], sum[3]}
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// HardwareAddr returns m as the standard library spells it.
func (m MAC) HardwareAddr() net.HardwareAddr { return net.HardwareAddr(m[:]) }

// LinkLocal returns the IPv6 link-local address made from m (RFC 4291, appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 8: m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]})
}

// MarshalText and UnmarshalText are the text form.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText parses a MAC and validates it, see ParseMAC.
func (m *MAC) UnmarshalText(b []byte) error {
	p, err := ParseMAC(string(b))
	if err == nil {
		*m = p
	}
	return err
}
