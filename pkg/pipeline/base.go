package pipeline

import (
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// flow makes a flow of owner o that passes traffic on.
func (o Owner) flow(table uint8, priority uint16, match openflow.Match, actions ...openflow.Action) openflow.Flow {
	return openflow.Flow{Table: table, Priority: priority, Cookie: o.cookie(Forward), Match: match, Actions: actions}
}

// drop makes a flow of owner o that drops, counted as k.
func (o Owner) drop(table uint8, priority uint16, k Kind, match ...openflow.Term) openflow.Flow {
	return openflow.Flow{Table: table, Priority: priority, Cookie: o.cookie(k), Match: match}
}

// BaseFlows are what every bridge of ours has: the end of each table, what no container may
// send, the router's ways. The marker is the last.
func BaseFlows() []openflow.Flow {
	const b = Base
	router := openflow.EthDst.MAC(vnet.RouterMAC.HardwareAddr())
	flows := []openflow.Flow{
		b.drop(Classify, 0, UnknownPort),

		b.flow(Classify, 100, match(openflow.InPort.Is(vnet.GatewayPort)),
			openflow.SetField(from(classGateway)), openflow.GotoTable(GatewayIn)),

		b.drop(GatewayIn, 200, HostMulticast, multicastBit),
		b.drop(GatewayIn, 0, UnknownAlias),

		b.drop(GatewayTracked, 200, InvalidConnection, openflow.CTStateIs(openflow.CTInvalid|openflow.CTTracked, 0)),
		b.flow(GatewayTracked, 150, match(openflow.CTStateIs(openflow.CTEstablished|openflow.CTTracked, 0)), openflow.GotoTable(ChainClassify)),
		b.flow(GatewayTracked, 150, match(openflow.CTStateIs(openflow.CTRelated|openflow.CTTracked, 0)), openflow.GotoTable(ChainClassify)),
		b.flow(GatewayTracked, 140, match(openflow.Reg0.Masked(mayOpen, mayOpen), openflow.CTStateIs(openflow.CTNew|openflow.CTTracked, 0)), openflow.GotoTable(ChainClassify)),
		b.drop(GatewayTracked, 0, Unsolicited),

		b.drop(PortSecurity, 210, VLANTag, openflow.VLANTCI.Masked(0x1000, 0x1000)), // any tag: the CFI bit stands for "present"
		b.drop(PortSecurity, 200, BridgeControl, openflow.EthDst.MACMasked(bridgeGroup, bridgeGroupMask)),
		b.drop(PortSecurity, 0, Stray),

		b.drop(Neighbour, 0, UnknownNeighbour),

		b.drop(Route, 128, TunnelForbidden, match(openflow.UDP, router, openflow.UDPDst.Is(4789))...), // VXLAN, RFC 7348
		b.drop(Route, 128, TunnelForbidden, match(openflow.UDP, router, openflow.UDPDst.Is(6081))...), // Geneve, RFC 8926
		b.drop(Route, 128, TunnelForbidden, match(openflow.UDP6, router, openflow.UDPDst.Is(4789))...),
		b.drop(Route, 128, TunnelForbidden, match(openflow.UDP6, router, openflow.UDPDst.Is(6081))...),
		b.drop(Route, 10, Unroutable, router),
		b.flow(Route, 0, nil, openflow.GotoTable(Destination)),

		b.drop(NextHop, 0, UnknownAddress),

		// From the host, whose kernel has counted the TTL down.
		b.flow(RouterSource, 110, match(from(classGateway)), openflow.SetField(routerSource), openflow.GotoTable(Destination)),
		b.flow(RouterSource, 100, match(openflow.IP), openflow.DecTTL(), openflow.SetField(routerSource), openflow.GotoTable(Destination)),
		b.flow(RouterSource, 100, match(openflow.IPv6), openflow.DecTTL(), openflow.SetField(routerSource), openflow.GotoTable(Destination)),
		b.drop(RouterSource, 0, Stray),

		b.flow(Destination, 200, openflow.Match{multicastBit}, openflow.GotoTable(Flood)),
		b.drop(Destination, 0, UnknownMAC),

		b.drop(Flood, 0, NoMulticast),

		b.drop(Egress, 0, Unroutable),

		b.drop(EgressReply, 0, HostForbidden),

		b.drop(EgressTracked, 100, InvalidConnection, openflow.CTStateIs(openflow.CTInvalid|openflow.CTTracked, 0)),
		b.flow(EgressTracked, 0, nil, toHost()...),

		b.drop(Output, 100, NoPort, outPort.Is(0)),
		b.flow(Output, 0, nil, openflow.OutputReg(outPort)),
	}
	// What is left of neighbour and multicast-listener discovery once the honest part has been
	// let through: above the plain IPv6 flows, which would pass it as data.
	for _, nd := range []struct {
		icmpType uint64
		kind     Kind
	}{
		{133, RouterSolicit}, {134, RouterAdvert}, {135, ForgedND}, {136, ForgedND}, {137, Redirect}, // RFC 4861
		{130, ListenerReport}, {131, ListenerReport}, {132, ListenerReport}, {143, ListenerReport}, // RFC 2710, RFC 3810
	} {
		flows = append(flows, b.drop(PortSecurity, 112, nd.kind, match(openflow.ICMPv6, openflow.ICMPv6Type.Is(nd.icmpType))...))
	}
	for _, f := range []family{ipv4, ipv6} {
		for _, ttl := range []uint64{0, 1} {
			flows = append(flows, b.drop(Route, 125, TTLExpired, match(f.proto, from(classEndpoint), router, openflow.IPTTL.Is(ttl))...))
		}
		// A network's flow below takes what else the host's own address sends by ICMP for its kernel's errors.
		flows = append(flows, b.flow(RouterSource, 121, match(f.icmp, f.echo, from(classGateway)), openflow.SetField(routerSource), openflow.GotoTable(Destination)))
		flows = append(flows, f.egress()...)
	}
	flows = append(flows, tunnelBase()...)
	return append(append(flows, ChainBase()...), markerFlow())
}

// markerFlow is the note that says the pipeline stands, and which.
func markerFlow() openflow.Flow {
	return openflow.Flow{Table: Marker, Cookie: Base.cookie(Mark), Actions: []openflow.Action{openflow.Note([]byte{Version, 0, 0, 0, 0, 0})}}
}

// IsMarker reports whether f says that this version of the pipeline stands.
func IsMarker(f openflow.Flow) bool { return f.String() == markerFlow().String() }

// bridgeGroup are the reserved addresses of IEEE 802.1Q, 8.6.3: STP, LACP, LLDP and others.
var (
	bridgeGroup     = vnet.MAC{0x01, 0x80, 0xc2}.HardwareAddr()
	bridgeGroupMask = vnet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0}.HardwareAddr()
	groupBit        = vnet.MAC{0x01}.HardwareAddr()
	multicastBit    = openflow.EthDst.MACMasked(groupBit, groupBit)
	routerSource    = openflow.EthSrc.MAC(vnet.RouterMAC.HardwareAddr())
)

// match spells a match without the type's name.
func match(terms ...openflow.Term) openflow.Match { return terms }

// with returns a new match of m and terms.
func with(m openflow.Match, terms ...openflow.Term) openflow.Match {
	return append(slices.Clip(m), terms...)
}
