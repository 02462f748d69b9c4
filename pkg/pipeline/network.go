package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Network is a network with its tenant's number.
type Network struct {
	vnet.Network
	TenantNumber uint32
	// Zone and Transit are its way to the host, 0 on a bridge that the host is not linked to.
	Zone    vnet.Zone
	Transit vnet.Transit
	// Outside is where chains track connections between the network and what is outside its tenant, 0: none leads any.
	Outside vnet.Zone
	// UplinkPort is the OpenFlow port of a provider network's uplink.
	UplinkPort uint32
}

// NetworkFlows are what a network needs as soon as one endpoint of it lives here: its gateway
// and the way to it from the tenant's other networks.
func NetworkFlows(n Network) []openflow.Flow {
	flows := n.hostFlows()
	if n.IsProvider() {
		flows = append(flows, n.wire()...)
		flows = append(flows, n.stays()...)
	} else {
		flows = append(flows, n.arrives())
	}
	for _, s := range n.Subnets {
		flows = append(flows, n.route(s.Prefix), n.routeEnd(s.Prefix))
		g := s.Gateway
		if n.IsProvider() { // that is a router on the wire
			g = netip.Addr{}
		}
		if !g.IsValid() && n.linked() {
			g = n.HostAddr(s)
		}
		switch {
		case g.Is4():
			flows = append(flows, n.gateway4(g)...)
		case g.Is6():
			flows = append(flows, n.gateway6(g)...)
		}
	}
	return flows
}

// route leads packets for the prefix, sent to the router from anywhere in the tenant, into this network.
func (n Network) route(p netip.Prefix) openflow.Flow {
	f := familyOf(p.Addr())
	priority := uint16(100)
	if n.IsProvider() {
		priority = 102
	}
	return NetworkOwner(n.Ref()).flow(Route, priority, match(f.proto, n.mayReach(), routerDst, f.dst.Prefix(p)),
		openflow.SetField(n.inNetwork()), openflow.GotoTable(NextHop))
}

// stays: out of a network on a wire no way leads but by the router on the wire. By ours answers would not come back, and
// chains would be got round.
func (n Network) stays() []openflow.Flow {
	var flows []openflow.Flow
	for _, f := range []family{ipv4, ipv6} {
		flows = append(flows, NetworkOwner(n.Ref()).drop(Route, 101, Unroutable, match(f.proto, n.inNetwork(), from(classEndpoint), routerDst)...))
	}
	return flows
}

// mayReach matches packets that the router may lead into the network: those of the tenant, but
// only its own where its way to others is a router on the wire.
func (n Network) mayReach() openflow.Term {
	if n.IsProvider() {
		return n.inNetwork()
	}
	return n.inTenant()
}

// routeEnd drops what would be led into this network and must not go further: the host, which
// tells senders of such packets that leave the tenant, may have the address itself.
func (n Network) routeEnd(p netip.Prefix) openflow.Flow {
	f := familyOf(p.Addr())
	return NetworkOwner(n.Ref()).drop(Route, 127, TTLExpired, match(f.proto, n.mayReach(), from(classEndpoint), routerDst, openflow.IPTTL.Is(1), f.dst.Prefix(p))...)
}

// asks matches who may ask for the gateway's echo: all of the tenant, or, where the host's own
// address stands for a gateway, which other networks of the tenant may have as well, this network.
func (n Network) asks(g netip.Addr) openflow.Term {
	if g == vnet.HostTransit.Like(g) {
		return n.inNetwork()
	}
	return n.inTenant()
}

// gateway4 answers ARP for the gateway, and ping.
func (n Network) gateway4(g netip.Addr) []openflow.Flow {
	o := NetworkOwner(n.Ref())
	return []openflow.Flow{
		o.flow(Neighbour, 100, match(openflow.ARP, n.inNetwork(), openflow.ARPOp.Is(1), openflow.ARPTpa.Addr(g)),
			answerARP(g, vnet.RouterMAC)...),
		o.flow(Route, 130, match(openflow.ICMP, n.asks(g), routerDst, openflow.ICMPType.Is(8), openflow.ICMPCode.Is(0), openflow.IPv4Dst.Addr(g)),
			openflow.Move(openflow.EthSrc, openflow.EthDst),
			openflow.SetField(routerSource),
			openflow.Move(openflow.IPv4Src, openflow.IPv4Dst),
			openflow.SetField(openflow.IPv4Src.Addr(g)),
			openflow.SetField(openflow.ICMPType.Is(0)),
			openflow.SetField(openflow.IPTTL.Is(64)),
			openflow.InPortAction()),
	}
}

// answerARP makes a question for a the answer that m has it, and sends it back.
func answerARP(a netip.Addr, m vnet.MAC) []openflow.Action {
	return []openflow.Action{
		openflow.Move(openflow.EthSrc, openflow.EthDst),
		openflow.SetField(openflow.EthSrc.MAC(m.HardwareAddr())),
		openflow.SetField(openflow.ARPOp.Is(2)),
		openflow.Move(openflow.ARPSha, openflow.ARPTha),
		openflow.SetField(openflow.ARPSha.MAC(m.HardwareAddr())),
		openflow.Move(openflow.ARPSpa, openflow.ARPTpa),
		openflow.SetField(openflow.ARPSpa.Addr(a)),
		openflow.InPortAction(),
	}
}

// turnSolicit makes a question for a one from a, which m has, to the asker, and sends it back.
func turnSolicit(a netip.Addr, m vnet.MAC) []openflow.Action {
	return []openflow.Action{
		openflow.Move(openflow.EthSrc, openflow.EthDst),
		openflow.SetField(openflow.EthSrc.MAC(m.HardwareAddr())),
		openflow.Move(openflow.IPv6Src, openflow.NDTarget),
		openflow.Move(openflow.IPv6Src, openflow.IPv6Dst),
		openflow.SetField(openflow.IPv6Src.Addr(a)),
		openflow.SetField(openflow.NDSLL.MAC(m.HardwareAddr())),
		openflow.InPortAction(),
	}
}

// gateway6 does the same for IPv6, with fields that every datapath can write: the kernel's
// cannot make an answer of a question (nd_reserved, nd_options_type). So a question for the
// gateway becomes a question *from* the gateway to the asker, whose kernel learns the router's
// MAC from it; and the asker's answer, turned round as well, tells it that the gateway lives.
func (n Network) gateway6(g netip.Addr) []openflow.Flow {
	o := NetworkOwner(n.Ref())
	router := vnet.RouterMAC.HardwareAddr()
	back := []openflow.Action{
		openflow.Move(openflow.EthSrc, openflow.EthDst),
		openflow.SetField(routerSource),
	}
	return []openflow.Flow{
		o.flow(Neighbour, 100, match(openflow.ICMPv6, n.inNetwork(), openflow.ICMPv6Type.Is(135), openflow.ICMPv6Code.Is(0), openflow.NDTarget.Addr(g)),
			turnSolicit(g, vnet.RouterMAC)...),
		o.flow(Destination, 210, match(openflow.ICMPv6, n.inNetwork(), from(classEndpoint), routerDst, openflow.ICMPv6Type.Is(136), openflow.ICMPv6Code.Is(0), openflow.IPv6Dst.Addr(g)),
			append(back[:2:2],
				openflow.Move(openflow.IPv6Src, openflow.IPv6Dst),
				openflow.SetField(openflow.IPv6Src.Addr(g)),
				openflow.SetField(openflow.NDTarget.Addr(g)),
				openflow.SetField(openflow.NDTLL.MAC(router)),
				openflow.InPortAction())...),
		o.flow(Route, 130, match(openflow.ICMPv6, n.asks(g), routerDst, openflow.ICMPv6Type.Is(128), openflow.ICMPv6Code.Is(0), openflow.IPv6Dst.Addr(g)),
			append(back[:2:2],
				openflow.Move(openflow.IPv6Src, openflow.IPv6Dst),
				openflow.SetField(openflow.IPv6Src.Addr(g)),
				openflow.SetField(openflow.ICMPv6Type.Is(129)),
				openflow.SetField(openflow.IPTTL.Is(64)),
				openflow.InPortAction())...),
	}
}

// FloodFlows carry broadcast and multicast to the members of a network that asks for it: to the ports of those that are
// here, and, unless it came from there, to the nodes that have others. They depend on all its endpoints, and are
// rendered anew when one comes or goes.
func FloodFlows(n Network, ports []uint32, nodes []vnet.Peer) []openflow.Flow {
	if !n.Floods() || len(ports) == 0 {
		return nil
	}
	o := FloodOwner(n.Ref())
	var members []openflow.Action
	for _, port := range ports { // the switch never sends a packet back out of its own port
		members = append(members, openflow.Output(port))
	}
	if !n.IsProvider() {
		all := slices.Clip(members)
		for _, p := range nodes {
			all = append(append(all, to(p, n.VNI)...), openflow.Output(p.Encapsulation.OFPort()))
		}
		return []openflow.Flow{
			o.flow(Flood, 110, match(from(classTunnel), n.inNetwork()), members...),
			o.flow(Flood, 100, openflow.Match{n.inNetwork()}, all...),
		}
	}
	out := append(slices.Clip(members), n.ToWire()...)
	return []openflow.Flow{
		o.flow(Flood, 110, match(from(classUplink), n.inNetwork()), members...),
		o.flow(Flood, 100, openflow.Match{n.inNetwork()}, out...),
	}
}

var routerDst = openflow.EthDst.MAC(vnet.RouterMAC.HardwareAddr())
