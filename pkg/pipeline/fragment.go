package pipeline

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// FragmentFlows drop fragments that open a connection which one of a tenant's chains wants by its ports, or else another:
// which of them cannot be told, and a connection that was led by the wrong one would go on by that.
func FragmentFlows(chains []Chain) []openflow.Flow {
	to := map[netip.Prefix][]claim{} // by what they are for; the zero prefix is any address
	for _, c := range chains {
		for _, k := range c.Classifiers {
			for _, f := range []family{ipv4, ipv6} {
				for _, p := range f.of(k.To) {
					to[p] = append(to[p], claim{chain{ChainOwner(c.Ref()), c}, k, f})
				}
			}
		}
	}
	var flows []openflow.Flow
	for _, p := range slices.SortedFunc(maps.Keys(to), netip.Prefix.Compare) {
		for _, one := range to[p] {
			for _, wider := range widerThan(p) {
				for _, other := range to[wider] {
					if other.is4 == one.is4 && (wider != p || one.before(other)) {
						flows = append(flows, one.against(other, p)...)
					}
				}
			}
		}
	}
	return flows
}

// claim is a classifier of a chain, in one family.
type claim struct {
	chain
	k Classifier
	family
}

// widerThan are the prefixes that the prefix is in, itself and any address among them.
func widerThan(p netip.Prefix) []netip.Prefix {
	all := []netip.Prefix{{}}
	if !p.IsValid() {
		return all
	}
	for bits := range p.Bits() + 1 {
		all = append(all, netip.PrefixFrom(p.Addr(), bits).Masked())
	}
	return all
}

// against are the flows for what both may want and is sent to the prefix. They come before those of the chain that goes first;
// where it wants all of it, whatever the ports, there is nothing to tell.
func (a claim) against(b claim, to netip.Prefix) []openflow.Flow {
	first, second := a, b
	if b.before(a) {
		first, second = b, a
	}
	ports := len(first.k.SourcePorts)+len(first.k.DestinationPorts) > 0
	if a.Ref() == b.Ref() || !ports || second.k.Protocol != "" && second.k.Protocol != first.k.Protocol {
		return nil
	}
	var flows []openflow.Flow
	for _, x := range a.of(a.k.From) {
		for _, y := range a.of(b.k.From) {
			from, overlap := narrower(x, y)
			if !overlap {
				continue
			}
			m := match(first.inTenant())
			if from.IsValid() {
				m = append(m, a.src.Prefix(from))
			}
			if to.IsValid() {
				m = append(m, a.dst.Prefix(to))
			}
			flows = append(flows, first.drop(ChainFragment, classifierPriority(first.Chain.Chain)+1, ChainedFragment, with(m, first.k.guess(a.family)...)...))
		}
	}
	return flows
}

// before reports whether a classifier of the chain has what both want.
func (a claim) before(b claim) bool {
	if a.Priority != b.Priority {
		return a.Priority > b.Priority
	}
	return a.Name < b.Name
}

// narrower is the prefix that both have, where the zero one is any address.
func narrower(a, b netip.Prefix) (netip.Prefix, bool) {
	switch {
	case !a.IsValid():
		return b, true
	case !b.IsValid():
		return a, true
	case !a.Overlaps(b):
		return a, false
	case a.Bits() > b.Bits():
		return a, true
	}
	return b, true
}

// classifierPriority is that of a chain's classifiers; one above is what it can neither lead nor let past.
func classifierPriority(c vnet.Chain) uint16 { return uint16(1000 + 2*c.Priority) }
