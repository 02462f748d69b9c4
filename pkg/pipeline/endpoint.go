package pipeline

import (
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Endpoint is an endpoint with the OpenFlow port that the switch gave it.
type Endpoint struct {
	vnet.Endpoint
	Port uint32
	Mode vnet.Mode // of the function that it is a port of, empty: none
}

// serves reports whether what the endpoint sends is what comes out of a function. What a rewriting function lets out
// is traffic of its own.
func (e Endpoint) serves() bool {
	return e.Function != nil && (e.Mode != vnet.Rewriting || e.Function.Port != vnet.Egress)
}

// Hears reports whether broadcast and multicast of the network reach the endpoint, where it carries them.
func (e Endpoint) Hears() bool { return !e.serves() }

// EndpointFlows are an endpoint's own: what it may send, how it is asked for, how it is reached.
func EndpointFlows(n Network, e Endpoint) []openflow.Flow {
	r := endpoint{
		Owner: EndpointOwner(e.ID), n: n, port: uint64(e.Port),
		in: openflow.InPort.Is(uint64(e.Port)), mac: e.MAC, zone: uint64(e.Zone),
	}
	if e.serves() && len(e.Addrs) == 0 {
		return []openflow.Flow{r.comesOut(e.Bandwidth.Egress)}
	}
	flows := append(r.aliases(e.Endpoint), r.reach())
	flows = append(flows, r.limit(e.Bandwidth.Ingress)...)
	if e.serves() {
		flows = append(flows, r.comesOut(e.Bandwidth.Egress))
		flows = append(flows, r.classifyOwn(e.Endpoint)...)
	} else {
		flows = append(flows, r.classify(e.Bandwidth.Egress))
	}
	if e.Zone != 0 {
		flows = append(flows, r.restore(e.Addrs)...)
	}
	if n.IsProvider() {
		flows = append(flows, r.onWire())
	}
	for _, p := range e.Addrs {
		if a := p.Addr(); a.Is4() {
			flows = append(flows, r.mayUse4(a)...)
			flows = append(flows, r.found4(a)...)
		} else {
			r.addrs6 = append(r.addrs6, a)
		}
	}
	if len(r.addrs6) > 0 {
		routed := r.addrs6
		r.addrs6 = append(r.addrs6[:len(routed):len(routed)], e.MAC.LinkLocal())
		flows = append(flows, r.mayUse6()...)
		flows = append(flows, r.found6(routed)...)
		flows = append(flows, r.listens()...)
	}
	return append(flows, r.refuse()...)
}

// endpoint is what the flows of one endpoint are made of.
type endpoint struct {
	Owner
	n      Network
	port   uint64
	in     openflow.Term
	mac    vnet.MAC
	addrs6 []netip.Addr // the link-local address is the last
	zone   uint64       // where chains track its connections, 0: none leads any
}

func (r endpoint) src() openflow.Term { return openflow.EthSrc.MAC(r.mac.HardwareAddr()) }

// classify: by its port alone a packet is known to be of this tenant and network.
func (r endpoint) classify(sent vnet.Limit) openflow.Flow {
	return r.flow(Classify, 100, openflow.Match{r.in}, append(metered(sent), r.sends()...)...)
}

// sends: what an endpoint sends on its own account is looked at by PortSecurity.
func (r endpoint) sends() []openflow.Action {
	actions := []openflow.Action{r.n.place()[0], openflow.SetField(from(classEndpoint))}
	if r.zone != 0 {
		actions = append(actions, openflow.SetField(senderZone.Is(r.zone)))
	}
	return append(actions, openflow.GotoTable(PortSecurity))
}

// data is where packets go that the endpoint may send: past the chains, where its tenant has none.
func (r endpoint) data() openflow.Action {
	if r.zone == 0 {
		return openflow.GotoTable(Route)
	}
	return openflow.GotoTable(ChainClassify)
}

// reach: frames for its MAC in its network leave by its port.
func (r endpoint) reach() openflow.Flow {
	actions := []openflow.Action{openflow.SetField(outPort.Is(r.port))}
	if r.zone == 0 {
		actions = append(actions, openflow.GotoTable(Output))
	} else {
		actions = append(actions, openflow.SetField(receiveZone.Is(r.zone)), openflow.GotoTable(Answer))
	}
	return r.flow(Destination, 100, openflow.Match{r.n.inNetwork(), openflow.EthDst.MAC(r.mac.HardwareAddr())}, actions...)
}

// limit: what it receives is metered as it leaves the switch. An answer that is led comes by Destination twice.
func (r endpoint) limit(received vnet.Limit) []openflow.Flow {
	if received.Meter == 0 {
		return nil
	}
	return []openflow.Flow{r.flow(Output, 50, match(outPort.Is(r.port)), append(metered(received), openflow.OutputReg(outPort))...)}
}

// metered drops what exceeds the limit, if there is one.
func metered(l vnet.Limit) []openflow.Action {
	if l.Meter == 0 {
		return nil
	}
	return []openflow.Action{openflow.Meter(l.Meter)}
}

// mayUse4: it may send IPv4 from a, ask for others as a, and answer as a.
func (r endpoint) mayUse4(a netip.Addr) []openflow.Flow {
	arp := match(openflow.ARP, r.in, r.src())
	own, unspecified := openflow.ARPSpa.Addr(a), openflow.ARPSpa.Addr(netip.IPv4Unspecified())
	sha := openflow.ARPSha.MAC(r.mac.HardwareAddr())
	request, reply := openflow.ARPOp.Is(1), openflow.ARPOp.Is(2)
	return []openflow.Flow{
		// An announcement or a probe for its own address: an answer would look like a conflict.
		r.selfProbe(with(arp, request, own, openflow.ARPTpa.Addr(a), sha)),
		r.selfProbe(with(arp, request, unspecified, openflow.ARPTpa.Addr(a), sha)),
		r.flow(PortSecurity, 110, with(arp, request, own, sha), openflow.GotoTable(Neighbour)),
		r.flow(PortSecurity, 110, with(arp, request, unspecified, sha), openflow.GotoTable(Neighbour)), // RFC 5227 probe
		r.flow(PortSecurity, 110, with(arp, reply, own, sha), openflow.GotoTable(Destination)),
		r.flow(PortSecurity, 100, match(openflow.IP, r.in, r.src(), openflow.IPv4Src.Addr(a)), r.data()),
	}
}

// mayUse6: the same for its IPv6 addresses. An option that is absent reads as zeros.
func (r endpoint) mayUse6() []openflow.Flow {
	icmp := match(openflow.ICMPv6, r.in, r.src(), openflow.ICMPv6Code.Is(0))
	solicit, advert := openflow.ICMPv6Type.Is(135), openflow.ICMPv6Type.Is(136)
	lladdrs := []vnet.MAC{r.mac, {}}
	var flows []openflow.Flow
	for _, src := range r.addrs6 {
		from := openflow.IPv6Src.Addr(src)
		flows = append(flows,
			// Duplicate address detection: silence means that the address is free, and it is.
			r.selfProbe(with(icmp, solicit, openflow.IPv6Src.Addr(netip.IPv6Unspecified()), openflow.NDTarget.Addr(src))),
			r.flow(PortSecurity, 100, match(openflow.IPv6, r.in, r.src(), from), r.data()))
		for _, lladdr := range lladdrs {
			flows = append(flows, r.flow(PortSecurity, 115, with(icmp, solicit, from, openflow.NDSLL.MAC(lladdr.HardwareAddr())), openflow.GotoTable(Neighbour)))
			for _, target := range r.addrs6 {
				flows = append(flows, r.flow(PortSecurity, 115, with(icmp, advert, from, openflow.NDTarget.Addr(target), openflow.NDTLL.MAC(lladdr.HardwareAddr())),
					openflow.GotoTable(Destination)))
			}
		}
	}
	return flows
}

// refuse: whatever else comes from its port is counted by what it tried.
func (r endpoint) refuse() []openflow.Flow {
	mine := openflow.Match{r.in, r.src()}
	return []openflow.Flow{
		r.drop(PortSecurity, 50, ForgedARP, with(mine, openflow.ARP)...),
		r.drop(PortSecurity, 50, SpoofedIPv4, with(mine, openflow.IP)...),
		r.drop(PortSecurity, 50, SpoofedIPv6, with(mine, openflow.IPv6)...),
		r.drop(PortSecurity, 40, OtherProtocol, mine...),
		r.drop(PortSecurity, 30, SpoofedMAC, r.in),
	}
}

// found4: a question for a goes to its owner alone, and so does what the router has for a.
func (r endpoint) found4(a netip.Addr) []openflow.Flow {
	return []openflow.Flow{
		r.flow(Neighbour, 100, match(openflow.ARP, r.n.inNetwork(), openflow.ARPOp.Is(1), openflow.ARPTpa.Addr(a)),
			r.toOwner(), openflow.GotoTable(Destination)),
		r.flow(NextHop, 100, match(openflow.IP, r.n.inNetwork(), openflow.IPv4Dst.Addr(a)),
			r.toOwner(), openflow.GotoTable(RouterSource)),
	}
}

// found6: the same for IPv6; the link-local address is asked for but never routed to.
func (r endpoint) found6(routed []netip.Addr) []openflow.Flow {
	var flows []openflow.Flow
	for _, a := range r.addrs6 {
		flows = append(flows, r.flow(Neighbour, 100,
			match(openflow.ICMPv6, r.n.inNetwork(), openflow.ICMPv6Type.Is(135), openflow.ICMPv6Code.Is(0), openflow.NDTarget.Addr(a)),
			r.toOwner(), openflow.GotoTable(Destination)))
	}
	for _, a := range routed {
		flows = append(flows, r.flow(NextHop, 100, match(openflow.IPv6, r.n.inNetwork(), openflow.IPv6Dst.Addr(a)),
			r.toOwner(), openflow.GotoTable(RouterSource)))
	}
	return flows
}

func (r endpoint) toOwner() openflow.Action {
	return openflow.SetField(openflow.EthDst.MAC(r.mac.HardwareAddr()))
}
