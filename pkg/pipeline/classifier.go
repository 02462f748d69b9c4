package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// classified is a match of what a classifier wants, and of what may be an answer to it.
type classified struct{ forward, backward openflow.Match }

// linkLocal6 are addresses that no router leads to (RFC 4291, 2.5.6).
var linkLocal6 = netip.MustParsePrefix("fe80::/10")

// matches are those of the classifier in each family that both its sides have.
func (k Classifier) matches(within openflow.Match) []classified {
	var all []classified
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
				all = append(all, k.services(f, m)...)
			}
		}
	}
	return all
}

// of returns the prefixes of the family; for any address the zero one.
func (f family) of(prefixes []netip.Prefix) []netip.Prefix {
	if prefixes == nil {
		return []netip.Prefix{{}}
	}
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return p.Addr().Is4() != f.is4 })
}

// services adds protocol and ports. Of a packet in fragments only the first has ports, and in IPv6 only the first has a
// protocol, as the switch sees it. So where those are asked for, all fragments that may belong to such a packet are
// taken: none gets round a firewall.
func (k Classifier) services(f family, m classified) []classified {
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
	if k.Protocol != "" && !f.is4 {
		later := match(f.proto, openflow.IPFrag.Masked(2, 2))
		all = append(all, classified{with(m.forward, later...), with(m.backward, later...)})
	}
	m.forward, m.backward = with(m.forward, proto), with(m.backward, proto)
	if len(k.SourcePorts)+len(k.DestinationPorts) == 0 {
		return append(all, m)
	}
	fragment := openflow.IPFrag.Masked(1, 1)
	all = append(all, classified{with(m.forward, fragment), with(m.backward, fragment)})
	for _, s := range masks(k.SourcePorts) {
		for _, d := range masks(k.DestinationPorts) {
			all = append(all, classified{
				with(m.forward, s.term(src), d.term(dst)),
				with(m.backward, s.term(dst), d.term(src)),
			})
		}
	}
	return all
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
// may be there: they cannot be led through functions, and are not to get round them.
func (k Classifier) linkLocal(n Network) []openflow.Match {
	if n.IsProvider() || !covers(k.From, n) || !covers(k.To, n) {
		return nil
	}
	var matches []openflow.Match
	for _, m := range k.services(ipv6, classified{forward: match(n.inNetwork(), openflow.IPv6Dst.Prefix(linkLocal6))}) {
		matches = append(matches, m.forward)
	}
	return matches
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
