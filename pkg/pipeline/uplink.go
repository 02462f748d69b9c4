package pipeline

import (
	"github.com/tenet-cni/tenet/pkg/openflow"
)

// A provider network is a VLAN of an uplink. Nothing is learnt: a MAC of ours is at its port,
// every other is on the wire, and what came from the wire never goes back to it.

// tagged matches the network's frames on the uplink.
func (n Network) tagged() openflow.Term {
	if n.Provider.VLAN == 0 {
		return openflow.VLANTCI.Is(0)
	}
	return openflow.VLANTCI.Is(vlanPresent | uint64(n.Provider.VLAN))
}

const vlanPresent = 0x1000 // the bit that stands for "there is a tag"

// tag gives a frame the network's tag, if it has one.
func (n Network) tag() []openflow.Action {
	if n.Provider.VLAN == 0 {
		return nil
	}
	return []openflow.Action{openflow.PushVLAN(), openflow.SetField(n.tagged())}
}

// ToWire sends a frame of the network out by its uplink.
func (n Network) ToWire() []openflow.Action { return append(n.tag(), openflow.Output(n.UplinkPort)) }

// wire joins the network to its uplink.
func (n Network) wire() []openflow.Flow {
	o := NetworkOwner(n.Ref())
	var untag []openflow.Action
	if n.Provider.VLAN != 0 {
		untag = []openflow.Action{openflow.PopVLAN()}
	}
	return []openflow.Flow{
		o.flow(Classify, 100, match(openflow.InPort.Is(uint64(n.UplinkPort)), n.tagged()), append(untag,
			n.place()[0], openflow.SetField(from(classUplink)), openflow.GotoTable(Destination))...),
		o.flow(Neighbour, 50, match(n.inNetwork()), openflow.GotoTable(Destination)),
		o.drop(Destination, 60, UnknownMAC, from(classUplink), n.inNetwork()),
		o.flow(Destination, 50, match(n.inNetwork()),
			append(n.tag(), openflow.SetField(outPort.Is(uint64(n.UplinkPort))), openflow.GotoTable(Output))...),
	}
}

// onWire keeps out what comes from the wire with the endpoint's own MAC: a loop, or an impostor.
func (r endpoint) onWire() openflow.Flow {
	return r.drop(Classify, 150, UplinkLoop, openflow.InPort.Is(uint64(r.n.UplinkPort)), r.n.tagged(), r.src())
}

// selfProbe treats a question for the sender's own address: announcements and the detection of
// duplicates. In a network of ours nobody else can have the address, and an answer would look
// like a conflict; on a wire somebody may.
func (r endpoint) selfProbe(m openflow.Match) openflow.Flow {
	if r.n.IsProvider() {
		return r.flow(PortSecurity, 120, m, openflow.GotoTable(Destination))
	}
	return r.drop(PortSecurity, 120, SelfProbe, m...)
}

// listens lets the endpoint say which multicast groups it listens to, for the switches on a
// wire: without it those that snoop do not carry neighbour discovery to it.
func (r endpoint) listens() []openflow.Flow {
	if !r.n.IsProvider() {
		return nil
	}
	var flows []openflow.Flow
	for _, report := range []uint64{131, 132, 143} { // RFC 2710, RFC 3810
		flows = append(flows, r.flow(PortSecurity, 115, match(openflow.ICMPv6, r.in, r.src(), openflow.ICMPv6Type.Is(report),
			openflow.IPv6Src.Addr(r.mac.LinkLocal())), openflow.GotoTable(Destination)))
	}
	return flows
}
