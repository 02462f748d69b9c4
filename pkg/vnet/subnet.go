package vnet

import (
	"fmt"
	"net/netip"
	"strings"
)

// Subnet is one prefix of a network.
type Subnet struct {
	Prefix netip.Prefix `json:"prefix"`
	// Gateway is the router's address in the prefix. Empty: the first address, or none where
	// the prefix has no room for one (/31, /32, /127, /128).
	Gateway netip.Addr `json:"gateway,omitzero"`
	// Reserved are addresses that are never handed out, not even on request: they are the tenant's own.
	Reserved []Range `json:"reserved,omitempty"`
}

// unusable are prefixes whose addresses no endpoint can have: this network (RFC 791), loopback,
// link-local, multicast and limited broadcast of IPv4 (RFC 6890); unspecified, loopback,
// link-local and multicast of IPv6 (RFC 4291).
var unusable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
	TransitRange6, // TransitRange4 is link-local
}

// Normal checks s and returns it with defaults filled in.
func (s Subnet) Normal() (Subnet, error) {
	p := s.Prefix
	switch {
	case !p.IsValid():
		return s, Invalidf("subnet without a prefix")
	case p.Masked() != p:
		return s, Invalidf("subnet %s: host bits are set, did you mean %s?", p, p.Masked())
	case p.Addr().Is4In6(), p.Addr().Zone() != "":
		return s, Invalidf("subnet %s: neither an IPv4 nor an IPv6 prefix", p)
	}
	for _, u := range unusable {
		if p.Overlaps(u) {
			return s, Invalidf("subnet %s: no endpoint can have an address of %s", p, u)
		}
	}
	if !s.Gateway.IsValid() && s.hostBits() >= 2 {
		s.Gateway = p.Addr().Next()
	}
	if g := s.Gateway; g.IsValid() {
		if !p.Contains(g) {
			return s, Invalidf("gateway %s is outside its subnet %s", g, p)
		}
		if s.isNetworkAddress(g) {
			return s, Invalidf("gateway %s is the network or broadcast address of %s", g, p)
		}
	}
	for _, r := range s.Reserved {
		if !p.Contains(r.First) || !p.Contains(r.Last) {
			return s, Invalidf("reserved range %s is outside its subnet %s", r, p)
		}
	}
	return s, nil
}

// Assignable returns nil if an endpoint may have a, else an ErrInvalid that says why not.
func (s Subnet) Assignable(a netip.Addr) error {
	switch {
	case !s.Prefix.Contains(a):
		return Invalidf("address %s is outside subnet %s", a, s.Prefix)
	case a == s.Gateway:
		return Invalidf("address %s is the gateway of subnet %s", a, s.Prefix)
	case s.isNetworkAddress(a):
		return Invalidf("address %s is the network, broadcast or anycast address of subnet %s", a, s.Prefix)
	}
	for _, r := range s.Reserved {
		if r.Contains(a) {
			return Invalidf("address %s is in the reserved range %s of subnet %s", a, r, s.Prefix)
		}
	}
	return nil
}

// Next returns the first address at or after a that may be assigned, or the zero Addr at the
// subnet's end; after the zero Addr comes nothing. Reserved ranges are stepped over as a whole,
// however large.
func (s Subnet) Next(a netip.Addr) netip.Addr {
	for s.Prefix.Contains(a) {
		if s.Assignable(a) == nil {
			return a
		}
		for _, r := range s.Reserved {
			if r.Contains(a) {
				a = r.Last
			}
		}
		a = a.Next()
	}
	return netip.Addr{}
}

func (s Subnet) hostBits() int { return s.Prefix.Addr().BitLen() - s.Prefix.Bits() }

// isNetworkAddress: the all-zeros and all-ones host parts of IPv4, the subnet-router anycast
// address of IPv6 (RFC 4291, 2.6.1). A /31 (RFC 3021), /127 (RFC 6164) and single address have neither.
func (s Subnet) isNetworkAddress(a netip.Addr) bool {
	if s.hostBits() < 2 {
		return false
	}
	return a == s.Prefix.Addr() || a.Is4() && a == lastAddr(s.Prefix)
}

// lastAddr returns the highest address of p.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// Range is an inclusive range of addresses. Its text form is "a-b", a single address, or a prefix.
type Range struct{ First, Last netip.Addr }

// Contains reports whether a lies in r.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return fmt.Sprintf("%s-%s", r.First, r.Last)
}

// MarshalText returns the text form.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText parses the text form.
func (r *Range) UnmarshalText(b []byte) error {
	text := string(b)
	if p, err := netip.ParsePrefix(text); err == nil {
		*r = Range{p.Masked().Addr(), lastAddr(p)}
		return nil
	}
	first, last, found := strings.Cut(text, "-")
	if !found {
		last = first
	}
	f, err1 := netip.ParseAddr(strings.TrimSpace(first))
	l, err2 := netip.ParseAddr(strings.TrimSpace(last))
	if err1 != nil || err2 != nil || f.BitLen() != l.BitLen() || l.Less(f) || f.Zone() != "" || l.Zone() != "" {
		return Invalidf("range %q: want an address, a prefix, or first-last such as 10.0.0.2-10.0.0.9", text)
	}
	*r = Range{f, l}
	return nil
}
