package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// classified is a match of what a classifier wants, and of what may be an answer to it.
type classified struct{ forward, backward openflow.Match }

func (m classified) with(forward, backward openflow.Match) classified {
	return classified{with(m.forward, forward...), with(m.backward, backward...)}
}

// linkLocal6 are addresses that no router leads to (RFC 4291, 2.5.6).
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// fragment is set of each fragment of a packet, the first one too.
var fragment = openflow.IPFrag.Masked(1, 1)

// matches are those of the classifier in each family that both its sides have. Of a packet in fragments only the first has
// ports, and in IPv6 only the first has a protocol, as the switch sees it: see fragments.
func (k Classifier) matches(within openflow.Match) []classified {
	var all []classified
	k.between(within, func(f family, m classified) {
		for _, p := range k.services(f) {
			all = append(all, m.with(p.forward, p.backward))
		}
	})
	return all
}

// fragments are all between its sides, whatever their protocol and ports: which chain is to have them is known once they
// are tracked. None gets round a firewall.
func (k Classifier) fragments(within openflow.Match) []classified {
	var all []classified
	k.between(within, func(f family, m classified) {
		p := match(f.proto, fragment)
		all = append(all, m.with(p, p))
	})
	return all
}

// whole are the matches of what the tracker has put together to one packet, as the kernel's datapath does.
func (k Classifier) whole(within openflow.Match) []openflow.Match {
	var all []openflow.Match
	for _, m := range k.matches(within) {
		all = append(all, with(m.forward, openflow.IPFrag.Is(0)))
	}
	return all
}

// guessed are those of fragments that go on as such, as on the userspace datapath, and may be wanted: the tracker
// knows their protocol, but only the first has ports, and they must not part.
func (k Classifier) guessed(within openflow.Match) []openflow.Match {
	var all []openflow.Match
	k.between(within, func(f family, m classified) {
		all = append(all, with(m.forward, k.guess(f)...))
	})
	return all
}

func (k Classifier) guess(f family) openflow.Match {
	m := match(f.proto, fragment, openflow.CTStateIs(openflow.CTTracked, openflow.CTInvalid))
	if k.Protocol != "" {
		m = append(m, openflow.CTNwProto.Is(f.number(k.Protocol)))
	}
	return m
}

// between calls visit with matches of the addresses of each family that both its sides have.
func (k Classifier) between(within openflow.Match, visit func(family, classified)) {
	for _, f := range []family{ipv4, ipv6} {
		for _, from := range f.of(k.From) {
			for _, to := range f.of(k.To) {
				m := classified{slices.Clone(within), slices.Clone(within)}
				if from.IsValid() {
					m.forward, m.backward = append(m.forward, f.src.Prefix(from)), append(m.backward, f.dst.Prefix(from))
				}
				if to.IsValid() {
					m.forward, m.backward = append(m.forward, f.dst.Prefix(to)), append(m.backward, f.src.Prefix(to))
				}
				visit(f, m)
			}
		}
	}
}

// of returns the prefixes of the family; for any address the zero one.
func (f family) of(prefixes []netip.Prefix) []netip.Prefix {
	if prefixes == nil {
		return []netip.Prefix{{}}
	}
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() != f.is4 })
}

// services are protocol and ports.
func (k Classifier) services(f family) []classified {
	proto, src, dst := f.proto, openflow.TCPSrc, openflow.TCPDst
	switch k.Protocol {
	case vnet.TCP:
		if proto = openflow.TCP; !f.is4 {
			proto = openflow.TCP6
		}
	case vnet.UDP:
		if proto, src, dst = openflow.UDP, openflow.UDPSrc, openflow.UDPDst; !f.is4 {
			proto = openflow.UDP6
		}
	case vnet.ICMP:
		proto = f.icmp
	}
	var all []classified
	for _, s := range masks(k.SourcePorts) {
		for _, d := range masks(k.DestinationPorts) {
			all = append(all, classified{match(proto, s.term(src), d.term(dst)), match(proto, s.term(dst), d.term(src))})
		}
	}
	return all
}

// number is IANA's of the protocol.
func (f family) number(p vnet.Protocol) uint64 {
	switch {
	case p == vnet.TCP:
		return 6
	case p == vnet.UDP:
		return 17
	case f.is4:
		return 1 // ICMP
	}
	return 58 // ICMPv6
}

type portMask vnet.PortMask

// masks are those of the ports; of none, which means any, the one that matches all.
func masks(p vnet.PortRanges) []portMask {
	if len(p) == 0 {
		return []portMask{{}}
	}
	var all []portMask
	for _, m := range p.Masks() {
		all = append(all, portMask(m))
	}
	return all
}

func (m portMask) term(f *openflow.Field) openflow.Term {
	return f.Masked(uint64(m.Port), uint64(m.Mask))
}

// linkLocal are packets between link-local addresses of the network that the classifier wants, since both its sides
// may be there: they cannot be led through functions, and are not to get round them. The second are all fragments.
func (k Classifier) linkLocal(n Network) ([]openflow.Match, []openflow.Match) {
	if n.IsProvider() || !covers(k.From, n) || !covers(k.To, n) {
		return nil, nil
	}
	var whole, fragments []openflow.Match
	from, to := []netip.Prefix{{}}, []netip.Prefix{linkLocal6}
	if k.FromLocal != nil {
		from = append(hosts(k.FromLocal), ipv6.of(k.From)...)
	}
	if k.ToLocal != nil {
		to = hosts(k.ToLocal)
	}
	for _, from := range from {
		for _, to := range to {
			m := match(n.inNetwork(), openflow.IPv6Dst.Prefix(to))
			if from.IsValid() {
				m = append(m, openflow.IPv6Src.Prefix(from))
			}
			for _, p := range k.services(ipv6) {
				whole = append(whole, with(m, p.forward...))
			}
			fragments = append(fragments, with(m, openflow.IPv6, fragment))
		}
	}
	return whole, fragments
}

func hosts(addrs []netip.Addr) []netip.Prefix {
	var all []netip.Prefix
	for _, a := range addrs {
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	return all
}

// covers reports whether one of the prefixes, nil for any, shares an address with an IPv6 subnet of the network.
func covers(prefixes []netip.Prefix, n Network) bool {
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is6() && (prefixes == nil || slices.ContainsFunc(prefixes, s.Prefix.Overlaps)) {
			return true
		}
	}
	return false
}
