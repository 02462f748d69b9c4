package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The host is one more neighbour of the switch, at the other end of the link tenet-gw, and the
// way out of every tenant. It knows no tenant: what passes between it and a network has an
// address of the transit range on the network's side, which the network's conntrack zone
// translates. Nothing here costs those anything who do not use it: packets between endpoints
// come to none of these tables.

// toHost sends the packet to the host.
func toHost() []openflow.Action {
	return []openflow.Action{
		openflow.SetField(openflow.EthSrc.MAC(vnet.PeerMAC.HardwareAddr())),
		openflow.SetField(openflow.EthDst.MAC(vnet.GatewayMAC.HardwareAddr())),
		openflow.SetField(outPort.Is(vnet.GatewayPort)),
		openflow.GotoTable(Output),
	}
}

// nowhere are destinations that no packet leaves a tenant for: the host itself would take the
// first for its own loopback (published ports make it accept them), none of the others is routed,
// and link-local addresses are the node's: a cloud answers there with the node's credentials.
var nowhere = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"), linkLocal4,
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

var linkLocal4 = netip.MustParsePrefix("169.254.0.0/16") // RFC 3927; the transit range is in it

// egress are the base's flows of a family for what leaves.
func (f family) egress() []openflow.Flow {
	const b = Base
	var flows []openflow.Flow
	for _, p := range nowhere {
		if p.Addr().Is4() == f.is4 {
			priority := uint16(160)
			if p == linkLocal4 {
				priority = 140 // below what lets answers into the transit range
			}
			flows = append(flows, b.drop(Egress, priority, Unroutable, match(f.proto, f.dst.Prefix(p))...))
		}
	}
	for _, answer := range []openflow.Term{
		openflow.CTStateIs(openflow.CTEstablished|openflow.CTReply|openflow.CTTracked, 0),
		openflow.CTStateIs(openflow.CTRelated|openflow.CTTracked, 0),
	} {
		flows = append(flows,
			b.flow(EgressReply, 110, match(f.proto, answer, f.dst.Prefix(f.transit())), toHost()...),
			// For the network's gateway, which stands for the host: comes back for the host itself.
			b.flow(EgressReply, 100, match(f.proto, answer), openflow.CT{Zone: uint16(vnet.HostZone), Table: EgressReply, NAT: openflow.NAT()}))
	}
	return flows
}

// linked reports whether the network and the host can reach each other.
func (n Network) linked() bool { return n.Zone != 0 }

// hostAddr is what the host is seen as by endpoints of the family: the network's gateway, or,
// where that is nobody's or a router on the wire, the host's own transit address. False if the
// network has no subnet of the family.
func (n Network) hostAddr(f family) (netip.Addr, bool) {
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is4() == f.is4 {
			return n.HostAddr(s), true
		}
	}
	return netip.Addr{}, false
}

// place puts a packet from outside into the network.
func (n Network) place() []openflow.Action {
	actions := []openflow.Action{
		openflow.SetField(openflow.Metadata.Is(uint64(n.TenantNumber)<<32 | uint64(n.VNI))),
		openflow.SetField(routerDst),
	}
	if n.Outside != 0 {
		actions = append(actions, openflow.SetField(senderZone.Is(uint64(n.Outside))))
	}
	return actions
}

// toEgress leads a packet out of the tenant, past the chains, where the tenant has none.
func (n Network) toEgress() []openflow.Action {
	if n.Outside == 0 {
		return []openflow.Action{openflow.GotoTable(Egress)}
	}
	return []openflow.Action{
		openflow.SetField(outPort.Is(vnet.GatewayPort)),
		openflow.SetField(receiveZone.Is(uint64(n.Outside))),
		openflow.GotoTable(Answer),
	}
}

// hostFlows are what a network has for the host's sake.
func (n Network) hostFlows() []openflow.Flow {
	if !n.linked() {
		return nil
	}
	var flows []openflow.Flow
	for _, f := range []family{ipv4, ipv6} {
		if host, ok := n.hostAddr(f); ok {
			flows = append(flows, n.answers(f, host)...)
			flows = append(flows, n.leave(f)...)
		}
	}
	return flows
}

// answers lets endpoints answer the host, which they see as host.
func (n Network) answers(f family, host netip.Addr) []openflow.Flow {
	o := NetworkOwner(n.Ref())
	flows := []openflow.Flow{
		o.flow(Route, 120, match(f.proto, n.inNetwork(), routerDst, f.dst.Addr(host)), n.toEgress()...),
		o.flow(Egress, 155, match(f.proto, n.inNetwork(), f.dst.Addr(host)),
			openflow.CT{Zone: uint16(n.Zone), Table: EgressReply, NAT: openflow.NAT()}),
	}
	own := f.addr(vnet.HostTransit)
	if host != own { // its kernel speaks for the gateway: time exceeded, packet too big
		flows = append(flows, o.flow(RouterSource, 120, match(f.icmp, n.inNetwork(), from(classGateway), f.src.Addr(own)),
			openflow.SetField(f.src.Addr(host)), openflow.SetField(routerSource), openflow.GotoTable(Destination)))
	}
	return flows
}

// leave lets packets of the family leave the tenant, and their answers in.
func (n Network) leave(f family) []openflow.Flow {
	if !n.Gateway.Leads() {
		return nil
	}
	o, zone := NetworkOwner(n.Ref()), uint16(n.Zone)
	toRouter := match(f.proto, n.inNetwork(), routerDst)
	flows := []openflow.Flow{
		o.flow(Route, 126, match(f.proto, n.inNetwork(), from(classEndpoint), routerDst, openflow.IPTTL.Is(1)), openflow.GotoTable(Egress)), // the host's kernel tells the sender
		o.flow(Route, 15, toRouter, n.toEgress()...),
		// Aliases are the host's alone: there only answers go.
		o.flow(Egress, 150, match(f.proto, n.inNetwork(), f.dst.Prefix(f.transit())),
			openflow.CT{Zone: zone, Table: EgressReply, NAT: openflow.NAT()}),
	}
	if n.Gateway == vnet.GatewayNAT {
		transit := f.addr(n.Transit)
		return append(flows,
			o.flow(Egress, 100, match(f.proto, n.inNetwork()),
				openflow.CT{Commit: true, Zone: zone, Table: EgressTracked, NAT: openflow.SNAT(transit)}),
			o.flow(GatewayIn, 100, match(f.proto, f.dst.Addr(transit)),
				append(n.place(), openflow.CT{Zone: zone, Table: GatewayTracked, NAT: openflow.NAT()})...))
	}
	flows = append(flows, o.flow(Egress, 100, match(f.proto, n.inNetwork()), toHost()...))
	for _, s := range n.Subnets {
		if s.Prefix.Addr().Is4() != f.is4 {
			continue
		}
		host, to := f.src.Addr(f.addr(vnet.HostTransit)), f.dst.Prefix(s.Prefix)
		pass := append(n.place(), openflow.GotoTable(ChainClassify))
		// From the transit range it is tracked, so that it can be answered: by the host itself, or by
		// another network to a published port. The host's errors are about packets that were not.
		track := append(n.place(), openflow.SetField(openflow.Reg0.Masked(mayOpen, mayOpen)),
			openflow.CT{Commit: true, Zone: zone, Table: GatewayTracked})
		flows = append(flows,
			o.flow(GatewayIn, 90, match(f.proto, to), pass...),
			o.flow(GatewayIn, 95, match(f.proto, f.src.Prefix(f.transit()), to), track...),
			o.flow(GatewayIn, 96, match(f.icmp, host, to), pass...),
			o.flow(GatewayIn, 97, match(f.icmp, f.echo, host, to), track...))
	}
	return flows
}

// aliases lead from an endpoint's aliases to it: for the host, which the endpoint sees as its
// gateway, and where the network has a way out, for whoever the host lets reach a published port.
func (r endpoint) aliases(e vnet.Endpoint) []openflow.Flow {
	if !r.n.linked() {
		return nil
	}
	var flows []openflow.Flow
	for _, a := range e.Aliases() {
		f := familyOf(a.Addr)
		host, ok := r.n.hostAddr(f)
		if !ok {
			continue
		}
		in := append(r.n.place(), openflow.SetField(openflow.Reg0.Masked(mayOpen, mayOpen)))
		translate := openflow.CT{Commit: true, Zone: uint16(r.n.Zone), Table: GatewayTracked, NAT: openflow.DNAT(a.Addr)}
		own := f.addr(vnet.HostTransit)
		fromHost := slices.Clip(in)
		if host != own {
			// Tracked too, or ICMP errors would speak of a packet that the host never sent.
			fromHost = append(fromHost, openflow.CT{Commit: true, Zone: uint16(vnet.HostZone), NAT: openflow.SNAT(host)})
		}
		flows = append(flows, r.flow(GatewayIn, 110, match(f.proto, f.src.Addr(own), f.dst.Addr(a.Alias)), append(fromHost, translate)...))
		if r.n.Gateway == vnet.GatewayNAT {
			flows = append(flows, r.flow(GatewayIn, 100, match(f.proto, f.dst.Addr(a.Alias)), append(in, translate)...))
		}
	}
	return flows
}
