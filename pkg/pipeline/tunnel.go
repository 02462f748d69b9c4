package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Between nodes a frame travels in a tunnel, with its network's VNI. Who sends is known by the
// tunnel's source address, which is a node's; who it was inside, the node that it came from has
// looked at. What came by a tunnel never leaves by one.

// tunnelBase are the base's flows of tunnels.
func tunnelBase() []openflow.Flow {
	const b = Base
	var flows []openflow.Flow
	for _, e := range vnet.Encapsulations {
		port := uint64(e.OFPort())
		flows = append(flows,
			b.flow(Classify, 100, match(openflow.InPort.Is(port)), openflow.SetField(from(classTunnel)), openflow.GotoTable(TunnelSource)),
			// The switch never sends a packet back out of its own port by itself.
			b.flow(Output, 110, match(openflow.InPort.Is(port), outPort.Is(port)), openflow.InPortAction()))
	}
	return append(flows,
		b.drop(TunnelSource, 0, UnknownVTEP),
		b.flow(TunnelDemux, 50, match(openflow.TunID.Masked(hopVNI, hopVNI)), openflow.GotoTable(TunnelHop)),
		b.drop(TunnelDemux, 50, Greets, openflow.TunID.Is(0)),
		b.drop(TunnelDemux, 0, UnknownVNI),
		b.drop(TunnelHop, 0, UnknownVNI),
		// An answer that has left its chain: its receiver's node is to know.
		b.flow(TunnelOut, 110, match(openflow.Reg0.Masked(chainDone, chainDone), where.Masked(answer, hopMask)),
			openflow.SetField(openflow.TunID.Is(hopVNI|hopAnswerBit)), openflow.MoveBits(where, pathAt, openflow.TunID, hopPathAt, hopPathBits),
			openflow.GotoTable(Output)),
		b.drop(TunnelOut, 100, SplitHorizon, from(classTunnel)),
		b.flow(TunnelOut, 0, nil, openflow.GotoTable(Output)))
}

// PeerFlows let another node's tunnels in.
func PeerFlows(p vnet.Peer) []openflow.Flow {
	src := openflow.TunSrc
	if p.VTEP.Is6() {
		src = openflow.TunIPv6Src
	}
	return []openflow.Flow{PeerOwner(p.Name).flow(TunnelSource, 100, match(src.Addr(p.VTEP)), openflow.GotoTable(TunnelDemux))}
}

// to addresses what leaves by a tunnel.
func to(p vnet.Peer, vni vnet.VNI) []openflow.Action {
	return []openflow.Action{openflow.SetField(openflow.TunID.Is(uint64(vni))), openflow.SetField(tunnelDst(p.VTEP))}
}

func tunnelDst(vtep netip.Addr) openflow.Term {
	if vtep.Is6() {
		return openflow.TunIPv6Dst.Addr(vtep)
	}
	return openflow.TunDst.Addr(vtep)
}

// EtcdServices are where etcd's members listen: to clients, and to each other.
func EtcdServices(members []netip.AddrPort) []netip.AddrPort {
	const peers = 2380 // unless told otherwise (IANA, etcd-server)
	var all []netip.AddrPort
	for _, m := range members {
		for _, at := range []netip.AddrPort{m, netip.AddrPortFrom(m.Addr(), peers)} {
			if !slices.Contains(all, at) {
				all = append(all, at)
			}
		}
	}
	return all
}

// EtcdFlows keep containers from the cluster's etcd, which is outside their tenant, and which a network's way out may
// lead to. Fragments have no ports here: the host keeps back what they are of (gateway.State).
func EtcdFlows(members []netip.AddrPort) []openflow.Flow {
	var flows []openflow.Flow
	for _, s := range EtcdServices(members) {
		tcp := openflow.TCP
		if s.Addr().Is6() {
			tcp = openflow.TCP6
		}
		flows = append(flows, EtcdOwner.drop(Egress, 165, EtcdForbidden, match(tcp, familyOf(s.Addr()).dst.Addr(s.Addr()), openflow.TCPDst.Is(uint64(s.Port())))...))
	}
	return flows
}

// Greeting sends a frame to another node that means nothing there. The userspace datapath looks for the way to a node
// when there is something to send there, and loses what that was.
func Greeting(p vnet.Peer) []openflow.Action {
	return append(to(p, 0), openflow.Output(p.Encapsulation.OFPort()))
}

// arrives: what comes by a tunnel with the network's VNI is for somebody in it.
func (n Network) arrives() openflow.Flow {
	return NetworkOwner(n.Ref()).flow(TunnelDemux, 100, match(openflow.TunID.Is(uint64(n.VNI))), n.place()[0], openflow.GotoTable(Destination))
}

// Hops of chains have VNIs of their own, above all networks': 0xF00000 | path<<5 | answer<<4 | hop. Hop 0 is that of an
// answer which has left its chain, on its way to its receiver's node: without it that would lead it once more.
const (
	hopVNI       = 0xF00000
	hopPathAt    = 5
	hopPathBits  = 15
	hopAnswerBit = 1 << 4
)

func hopVNIOf(p vnet.PathID, h uint64, back bool) vnet.VNI {
	v := hopVNI | vnet.VNI(p)<<hopPathAt | vnet.VNI(h)
	if back {
		v |= hopAnswerBit
	}
	return v
}

// hopTo sends a packet to the node that has the function of the hop.
func hopTo(node vnet.Peer, p vnet.PathID, h uint64, back bool) []openflow.Action {
	return append(to(node, hopVNIOf(p, h, back)), openflow.SetField(outPort.Is(uint64(node.Encapsulation.OFPort()))), openflow.GotoTable(Output))
}

// arrive takes what comes by a tunnel for a function here, and answers that come home.
func (c chain) arrive(p vnet.Path) []openflow.Flow {
	if !slices.ContainsFunc(p.Hops, func(h vnet.Hop) bool { return !h.On(c.Here) }) && len(c.Peers) == 0 {
		return nil
	}
	arrives := func(h uint64, back bool) openflow.Flow {
		v := at(p.ID, h)
		if back {
			v = at(p.ID, answer|h)
		}
		return c.flow(TunnelHop, 100, match(openflow.TunID.Is(uint64(hopVNIOf(p.ID, h, back)))),
			openflow.SetField(openflow.Metadata.Is(uint64(c.TenantNumber)<<32)), openflow.SetField(from(classFunction)),
			openflow.SetField(where.Is(v)), openflow.GotoTable(ChainHop))
	}
	flows := []openflow.Flow{arrives(0, true)}
	for i, hop := range p.Hops {
		if !hop.On(c.Here) {
			continue
		}
		flows = append(flows, arrives(uint64(i)+1, false))
		if c.Modes[hop.Group] != vnet.Rewriting {
			flows = append(flows, arrives(uint64(i)+1, true))
		}
	}
	return flows
}

// Remote is an endpoint of another node.
type Remote struct {
	vnet.Remote
	Peer vnet.Peer
	// Chained: its tenant has chains.
	Chained bool
}

// RemoteFlows lead to an endpoint of another node: by its MAC in its network, and no other way.
func RemoteFlows(n Network, e Remote) []openflow.Flow {
	r := endpoint{Owner: RemoteOwner(e.Remote), n: n, mac: e.MAC}
	flows := []openflow.Flow{r.flow(Destination, 100, openflow.Match{n.inNetwork(), openflow.EthDst.MAC(e.MAC.HardwareAddr())},
		append(to(e.Peer, n.VNI), openflow.SetField(outPort.Is(uint64(e.Peer.Encapsulation.OFPort()))), openflow.GotoTable(TunnelOut))...)}
	if e.Chained {
		flows = append(flows, r.restore(e.Addrs)...)
	}
	for _, p := range e.Addrs {
		if a := p.Addr(); a.Is4() {
			flows = append(flows, r.found4(a)...)
			flows = append(flows, r.answered4(a))
		} else {
			r.addrs6 = append(r.addrs6, a)
		}
	}
	if routed := r.addrs6; len(routed) > 0 {
		r.addrs6 = append(slices.Clip(routed), e.MAC.LinkLocal())
		flows = append(flows, r.found6(routed)...)
		for _, a := range r.addrs6 {
			flows = append(flows, r.answered6(a))
		}
	}
	return flows
}

// answered4 answers who asks all of the network for a; who asks its owner alone, whether it still is there, is
// answered by it.
func (r endpoint) answered4(a netip.Addr) openflow.Flow {
	return r.flow(Neighbour, 110, match(openflow.ARP, multicastBit, r.n.inNetwork(), openflow.ARPOp.Is(1), openflow.ARPTpa.Addr(a)),
		answerARP(a, r.mac)...)
}

// answered6: the same for IPv6. The question is turned round, see gateway6; that the owner lives the asker finds out
// by a question for it alone, or by its first packet.
func (r endpoint) answered6(a netip.Addr) openflow.Flow {
	return r.flow(Neighbour, 110, match(openflow.ICMPv6, multicastBit, r.n.inNetwork(), openflow.ICMPv6Type.Is(135), openflow.ICMPv6Code.Is(0), openflow.NDTarget.Addr(a)),
		turnSolicit(a, r.mac)...)
}
