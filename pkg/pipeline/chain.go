package pipeline

import (
	"maps"
	"math"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Chain is a chain with what its flows are made of.
type Chain struct {
	vnet.Chain
	TenantNumber uint32
	Legs         []vnet.Leg
	Classifiers  []Classifier
	Functions    map[uint32]Function // by number: those of its groups that are whole, and here
	Networks     []Network           // the tenant's
	// Here is this node's name, and Peers are the others that functions are on; empty where there is one node.
	Here  vnet.NodeName
	Peers map[vnet.NodeName]vnet.Peer
	Modes map[vnet.GroupName]vnet.Mode // of its groups
}

// Classifier is a classifier with its sides as addresses. Nil: any; empty: nobody now.
type Classifier struct {
	vnet.Classifier
	From, To           []netip.Prefix
	FromLocal, ToLocal []netip.Addr // the link-local addresses of a side that is endpoints, nil: it is no endpoints
}

// chain is what the flows of one chain are made of.
type chain struct {
	Owner
	Chain
}

func (c chain) inTenant() openflow.Term { return Network{TenantNumber: c.TenantNumber}.inTenant() }

// ChainFlows are a chain's own: which packets it wants, how a path is chosen, and each path's way.
// Groups of the switch must be there before the flows that name them.
func ChainFlows(ch Chain) ([]openflow.GroupConfig, []openflow.Flow) {
	c := chain{ChainOwner(ch.Ref()), ch}
	var groups []openflow.GroupConfig
	var flows []openflow.Flow
	for i, leg := range ch.Legs {
		if i == 0 {
			flows = append(flows, c.classify(leg)...)
		}
		if len(leg.Groups) > 0 {
			group, choose := c.choose(leg)
			groups, flows = append(groups, group...), append(flows, choose)
		}
		for _, p := range leg.Paths {
			if c.complete(p) {
				flows = append(flows, c.path(p)...)
			}
		}
	}
	for i, g := range ch.Groups {
		for _, port := range c.rewritten(g) {
			if i+1 < len(ch.Groups) {
				flows = append(flows, c.goOn(port, ch.Groups[i+1])...)
			} else {
				flows = append(flows, c.leave(port)...)
			}
		}
	}
	return groups, flows
}

// classify: packets that a classifier wants are tracked in their sender's zone; and what may be
// an answer to such a packet is in its receiver's. Whoever they concern has such a zone.
func (c chain) classify(leg vnet.Leg) []openflow.Flow {
	priority := classifierPriority(c.Chain.Chain)
	var flows []openflow.Flow
	for _, k := range c.Classifiers {
		for _, m := range k.matches(openflow.Match{c.inTenant()}) {
			flows = append(flows,
				c.flow(ChainClassify, priority, m.forward, track(leg.Number)...),
				c.flow(Answer, priority, m.backward, trackAnswer(leg.Number)...))
		}
		for _, m := range k.fragments(openflow.Match{c.inTenant()}) {
			flows = append(flows,
				c.flow(ChainClassify, anyFragment, m.forward, track(legUnknown)...),
				c.flow(Answer, anyFragment, m.backward, trackAnswer(0)...))
		}
		for _, m := range slices.Concat(k.whole(openflow.Match{c.inTenant()}), k.guessed(openflow.Match{c.inTenant()})) {
			flows = append(flows, c.flow(ChainFragment, priority, m, openflow.SetField(inLeg.Is(uint64(leg.Number))), openflow.GotoTable(ChainSelect)))
		}
		for _, n := range c.Networks {
			whole, fragments := k.linkLocal(n)
			for _, m := range whole {
				flows = append(flows, c.drop(ChainClassify, priority+1, ChainedLinkLocal, m...))
			}
			for _, m := range fragments {
				flows = append(flows, c.drop(ChainClassify, anyFragment+1, ChainedLinkLocal, m...))
			}
		}
	}
	return flows
}

// track looks the sender's connection up, and says which leg is to have it.
func track(leg uint32) []openflow.Action {
	return []openflow.Action{openflow.SetField(inLeg.Is(uint64(leg))), openflow.CT{ZoneFrom: senderZone, Table: ChainPinned}}
}

// trackAnswer looks the receiver's up, and says which leg an answer is to have whose path is no more, 0: none.
func trackAnswer(leg uint32) []openflow.Action {
	return []openflow.Action{openflow.SetField(inLeg.Is(uint64(leg))), openflow.CT{ZoneFrom: receiveZone, Table: AnswerTracked}}
}

// legUnknown stands for the leg of a fragment that is not tracked yet. Legs' own numbers have 16 bits.
const legUnknown = 1 << 16

// Priorities above all classifiers: of fragments, and of what concerns the ports of functions.
const (
	anyFragment = 59_000
	own         = 60_000
)

// goOn leads what leaves a function that rewrites into the leg that begins with the next group. Where no leg does, since
// the function gets no new connections or nobody serves before it, those it has keep their path, and no other begins.
func (c chain) goOn(port uint64, next vnet.GroupName) []openflow.Flow {
	var leg vnet.Leg
	if i := slices.IndexFunc(c.Legs, func(l vnet.Leg) bool { return len(l.Groups) > 0 && l.Groups[0] == next }); i >= 0 {
		leg = c.Legs[i]
	}
	var flows []openflow.Flow
	for _, f := range []family{ipv4, ipv6} {
		flows = append(flows,
			c.flow(ChainClassify, own, match(f.proto, openflow.InPort.Is(port)), track(leg.Number)...),
			c.flow(Answer, own, match(f.proto, outPort.Is(port)), trackAnswer(leg.Number)...))
	}
	return flows
}

// leave lets what leaves a function that ends the chain go its way, whatever classifiers say: it has been led.
func (c chain) leave(port uint64) []openflow.Flow {
	return []openflow.Flow{
		c.flow(ChainClassify, own, match(openflow.InPort.Is(port)), openflow.GotoTable(Route)),
		c.flow(Answer, own, match(outPort.Is(port)), openflow.GotoTable(Deliver)),
	}
}

// rewritten are the ports that packets leave the group by, if its functions rewrite them.
func (c chain) rewritten(g vnet.GroupName) []uint64 {
	var ports []uint64
	for _, number := range slices.Sorted(maps.Keys(c.Functions)) {
		if f := c.Functions[number]; f.Mode == vnet.Rewriting && f.Group == g {
			ports = append(ports, uint64(f.Out.Port))
		}
	}
	return ports
}

// Slots of the switch's hash. Open vSwitch 3.1 makes a power of two of them, at least four for each bucket and
// 256 at most, and spreads them over the buckets as their weights say (ofproto-dpif.c, group_setup_dp_hash_table). It
// rounds, so weights are made here that need no rounding: whole slots, in as many buckets as ask for just so many.
// More slots than need be are not wanted, since each is a flow of the datapath when its first packet comes.
const (
	leastSlots = 64
	mostSlots  = vnet.MaxInstances
	nearEnough = 0.05 // of a path's share
)

// slots says how many of the hash's slots each path gets: at least one, so there should be no more paths than mostSlots.
func slots(paths []vnet.Path) []int {
	if len(paths) == 0 {
		return nil
	}
	weight := func(i int) int { return min(max(paths[i].Weight, 1), vnet.MaxShare) } // whatever the store says
	total := 0
	for i := range paths {
		total += weight(i)
	}
	n := leastSlots
	for n < len(paths) {
		n *= 2
	}
	for ; ; n *= 2 {
		got, left, worst := make([]int, len(paths)), n, 0.0
		for i := range paths {
			got[i] = max(1, weight(i)*n/total)
			left -= got[i]
		}
		short := func(i int) float64 { return float64(weight(i))*float64(n)/float64(total) - float64(got[i]) }
		for ; left != 0; left -= sign(left) { // to whom it makes the least difference
			best := -1
			for i := range paths {
				if (left > 0 || got[i] > 1) && (best < 0 || float64(sign(left))*(short(i)-short(best)) > 0) {
					best = i
				}
			}
			got[best] += sign(left)
		}
		for i := range paths {
			worst = max(worst, math.Abs(short(i))*float64(total)/float64(n)/float64(weight(i)))
		}
		if n >= mostSlots || worst < nearEnough && 4*len(paths) <= n {
			return got
		}
	}
}

func sign(n int) int { return min(max(n, -1), 1) }

// weights cuts each path's slots into buckets, so many that the switch makes just as many slots.
func weights(slots []int) [][]int {
	cut, n, buckets := make([][]int, len(slots)), 0, len(slots)
	for i, s := range slots {
		cut[i] = []int{s}
		n += s
	}
	for ; buckets < n/4; buckets++ {
		path, at := 0, 0
		for i, parts := range cut {
			for j, part := range parts {
				if part > cut[path][at] {
					path, at = i, j
				}
			}
		}
		part := cut[path][at]
		cut[path][at] = part / 2
		cut[path] = append(cut[path], part-part/2)
	}
	return cut
}

// complete reports whether all functions of the path are on this bridge, or on a node that is known.
func (c chain) complete(p vnet.Path) bool {
	return !slices.ContainsFunc(p.Hops, func(h vnet.Hop) bool {
		if h.On(c.Here) {
			_, ok := c.Functions[h.Instance]
			return !ok
		}
		_, ok := c.Peers[h.Node]
		return !ok
	})
}

// chosen are the paths that a connection which has none may be given here, with their weights: those of this node's own
// clients, if there are any. As many as the switch can choose from: the nodes of a cluster together may have more instances.
func (c chain) chosen(leg vnet.Leg) []vnet.Path {
	leg.Paths = slices.DeleteFunc(slices.Clone(leg.Paths), func(p vnet.Path) bool { return !c.complete(p) })
	all := leg.Chosen(c.Here)
	return all[:min(len(all), mostSlots)]
}

// anyPath is a group of the switch that leads by one of a leg's paths, dead or alive.
const anyPath = 0x400_0000

// choose picks a path for a connection that has none. Where all are dead it is one of these: each of its functions
// says whether to go on without it.
func (c chain) choose(leg vnet.Leg) ([]openflow.GroupConfig, openflow.Flow) {
	m := openflow.Match{inLeg.Is(uint64(leg.Number))}
	paths := c.chosen(leg)
	pick := func(p vnet.Path) []openflow.Action {
		return []openflow.Action{openflow.SetField(where.Masked(at(p.ID, 0), ^uint64(hopMask)&0xffff_ffff)), openflow.Resubmit(ChainPin)}
	}
	switch {
	case leg.Blocked != "", len(paths) == 0:
		return nil, c.drop(ChainSelect, 100, ChainBlocked, m...)
	case len(paths) == 1:
		return nil, c.flow(ChainSelect, 100, m, pick(paths[0])...)
	}
	group := openflow.GroupConfig{ID: leg.Number, Type: openflow.GroupSelect}
	watched := apart(paths)
	for i, parts := range weights(slots(paths)) {
		for _, weight := range parts {
			b := openflow.Bucket{Weight: uint16(weight), Actions: pick(paths[i])}
			if f, ok := c.Functions[watched[i].Instance]; ok && watched[i].On(c.Here) {
				b.WatchPort = f.In.Port
			}
			group.Buckets = append(group.Buckets, b)
		}
	}
	orAny := openflow.GroupConfig{ID: anyPath | leg.Number, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{
		{WatchGroup: group.ID, Actions: []openflow.Action{openflow.Group(group.ID)}},
		{WatchGroup: alwaysLives, Actions: pick(paths[0])},
	}}
	return []openflow.GroupConfig{group, orAny}, c.flow(ChainSelect, 100, m, openflow.Group(orAny.ID))
}

// apart returns, for each path, the first instance on it that not all paths have: when it dies, the switch by itself
// chooses another path. It can watch no more than one, and none of another node.
func apart(paths []vnet.Path) []vnet.Hop {
	watched := make([]vnet.Hop, len(paths))
	for i, p := range paths {
		for h, hop := range p.Hops {
			if slices.ContainsFunc(paths, func(q vnet.Path) bool { return len(q.Hops) > h && q.Hops[h] != hop }) {
				watched[i] = hop
				break
			}
		}
	}
	return watched
}

// at is reg7 for a path and what comes behind it: the hop, and whether it is an answer.
func at(p vnet.PathID, hop uint64) uint64 { return uint64(p)<<pathAt | hop }

// on matches packets on the path. A connection's path may be no more, and its number another tenant's.
func (c chain) on(p vnet.PathID, hop uint64) openflow.Match {
	return match(c.inTenant(), where.Is(at(p, hop)))
}

// path is the way of one path, forward and back: four flows a hop, two of one that rewrites, and four more. A hop on
// another node has two, or one, and here two, or one, of those that come by a tunnel are added.
func (c chain) path(p vnet.Path) []openflow.Flow {
	last := uint64(len(p.Hops))
	flows := []openflow.Flow{
		c.flow(ChainHop, 100, c.on(p.ID, last+1), endOfChain(chainDone)...),
		c.drop(ChainClosed, 100, FunctionDown, where.Masked(at(p.ID, 0), ^uint64(hopMask)&0xffff_ffff)),
	}
	for i, hop := range p.Hops {
		h := uint64(i) + 1
		flows = append(flows, c.flow(ChainHop, 100, c.on(p.ID, h), c.visit(p.ID, hop, h, false)...))
		if c.Modes[hop.Group] != vnet.Rewriting { // an answer that was rewritten does not come this way
			flows = append(flows, c.flow(ChainHop, 100, c.on(p.ID, answer|h), c.visit(p.ID, hop, h, true)...))
		}
		if hop.On(c.Here) {
			flows = append(flows, c.Functions[hop.Instance].comesBack(c.Owner, p.ID, h)...)
		}
		if h == last {
			flows = append(flows, c.begin(p, hop, h))
		}
	}
	// What answers a rewritten packet is known only behind the function: its receiver has not tracked it yet.
	done := uint64(answerDone)
	if last > 0 && c.Modes[p.Hops[last-1].Group] == vnet.Rewriting {
		done = chainDone
	}
	flows = append(flows, c.flow(ChainHop, 100, c.on(p.ID, answer), endOfChain(done)...))
	if last == 0 {
		flows = append(flows, c.flow(ChainHop, 100, c.on(p.ID, answerBegin), openflow.GotoTable(Deliver)))
	}
	return append(flows, c.arrive(p)...)
}

// visit sends a packet into a function, or to the node that has it.
func (c chain) visit(p vnet.PathID, hop vnet.Hop, h uint64, back bool) []openflow.Action {
	if hop.On(c.Here) {
		return c.Functions[hop.Instance].pass(p, h, back)
	}
	return hopTo(c.Peers[hop.Node], p, h, back)
}

// begin is where the way of an answer begins: at the last function, or, where answers are not led, at its receiver.
func (c chain) begin(p vnet.Path, hop vnet.Hop, h uint64) openflow.Flow {
	m := c.on(p.ID, answerBegin)
	switch {
	case c.Modes[hop.Group] == vnet.Rewriting: // an answer comes from the function itself
		return c.drop(ChainHop, 100, ForgedPath, m...)
	case !c.IsSymmetric():
		return c.flow(ChainHop, 100, m, openflow.GotoTable(Deliver))
	}
	return c.flow(ChainHop, 100, m, append([]openflow.Action{openflow.SetField(where.Is(at(p.ID, answer|h)))}, c.visit(p.ID, hop, h, true)...)...)
}

// endOfChain makes a packet one of its tenant again, for the router to send on.
func endOfChain(done uint64) []openflow.Action {
	return []openflow.Action{
		openflow.SetField(openflow.Reg0.Masked(done|classEndpoint, answerDone|classMask)),
		openflow.SetField(routerDst),
		openflow.GotoTable(ChainEnd),
	}
}

// ChainBase are the flows of the chains' tables that every bridge has.
func ChainBase() []openflow.Flow {
	const b = Base
	done := openflow.Reg0.Masked(answerDone, answerDone)
	tracked := func(set, unset uint32) openflow.Term { return openflow.CTStateIs(set|openflow.CTTracked, unset) }
	path := openflow.MoveBits(openflow.CTLabel, labelAt, where, pathAt, pathBits)
	flows := []openflow.Flow{
		// Tracing goes on behind a function that does not leave packets as they are. Nothing real comes from there.
		b.flow(Classify, 300, match(openflow.InPort.Is(openflow.PortController)), openflow.GotoTable(ChainHop)),

		b.flow(ChainClassify, 65535, match(senderZone.Is(0)), openflow.GotoTable(Route)),
		b.flow(ChainClassify, 65534, openflow.Match{multicastBit}, openflow.GotoTable(Route)),
		b.flow(ChainClassify, 0, nil, openflow.GotoTable(Route)),

		b.drop(ChainPinned, 220, InvalidConnection, tracked(openflow.CTInvalid, 0)),
		b.flow(ChainPinned, 210, match(tracked(openflow.CTReply, 0)), openflow.GotoTable(Route)),
		b.flow(ChainPinned, 200, match(tracked(0, openflow.CTReply), pinned), path, openflow.SetField(where.Masked(1, hopMask)), openflow.GotoTable(ChainHop)),
		b.flow(ChainPinned, 150, match(tracked(openflow.CTRelated, openflow.CTReply)), openflow.GotoTable(Route)),
		b.flow(ChainPinned, 100, match(tracked(0, openflow.CTReply)), openflow.SetField(where.Masked(1, hopMask)), openflow.GotoTable(ChainSelect)),
		b.drop(ChainPinned, 0, Stray),

		b.flow(ChainFragment, 0, nil, openflow.GotoTable(Route)),

		b.flow(ChainSelect, 90, match(inLeg.Is(legUnknown)), openflow.Resubmit(ChainFragment)),
		b.drop(ChainSelect, 0, ChainBlocked),
		b.drop(ChainPin, 0, Stray),

		// Its path is no more, with an instance that has gone: it gets another one, whoever speaks first.
		b.flow(ChainHop, 10, match(where.Masked(1, hopMask)), openflow.Resubmit(ChainSelect)),
		b.flow(ChainHop, 10, match(where.Masked(answerBegin, hopMask)), openflow.Resubmit(ChainSelect)),
		b.drop(ChainHop, 0, ForgedPath),

		b.flow(FunctionEnter, 0, nil, openflow.GotoTable(Output)),

		b.drop(ChainClosed, 0, FunctionDown),

		b.drop(FunctionReturn, 210, VLANTag, openflow.VLANTCI.Masked(0x1000, 0x1000)),
		b.drop(FunctionReturn, 90, ProbeReturn, openflow.EthType.Is(ProbeType), openflow.EthSrc.MAC(ProbeMAC(false).HardwareAddr())),
		b.drop(FunctionReturn, 150, ProbeReturn, openflow.IP, openflow.IPv4Dst.Addr(ProbeAddr4)),
		b.drop(FunctionReturn, 150, ProbeReturn, openflow.IPv6, openflow.IPv6Dst.Addr(ProbeAddr6)),
		b.drop(FunctionReturn, 60, FunctionStray, multicastBit),
		b.drop(FunctionReturn, 50, ForgedPath, openflow.EthSrc.MACMasked(vnet.MAC{tagFirst}.HardwareAddr(), vnet.MAC{0xff}.HardwareAddr())),
		b.drop(FunctionReturn, 0, FunctionStray),

		b.drop(FunctionFound, 0, ForgedPath),

		b.flow(ChainEnd, 0, nil, openflow.GotoTable(Route)),

		b.flow(Answer, 65534, openflow.Match{done}, openflow.GotoTable(Deliver)),
		b.flow(Answer, 0, nil, openflow.GotoTable(Deliver)),

		b.drop(AnswerTracked, 220, InvalidConnection, tracked(openflow.CTInvalid, 0)),
		b.flow(AnswerTracked, 215, match(tracked(openflow.CTReply, 0), openflow.Reg0.Masked(chainDone, chainDone)), openflow.GotoTable(Deliver)), // it has been led
		b.flow(AnswerTracked, 210, match(tracked(openflow.CTReply, 0), pinned), path, openflow.SetField(where.Masked(answerBegin, hopMask)), openflow.Resubmit(ChainHop)),
		b.flow(AnswerTracked, 0, nil, openflow.GotoTable(Deliver)),

		b.flow(Deliver, 100, match(outPort.Is(vnet.GatewayPort)), openflow.GotoTable(Egress)),
		b.flow(Deliver, 0, nil, openflow.GotoTable(Output)),
	}
	for hop := uint64(1); hop <= vnet.MaxHops; hop++ {
		flows = append(flows,
			b.flow(ChainBypass, 100, match(where.Masked(hop, hopMask)), openflow.SetField(where.Masked(hop+1, hopMask)), openflow.Resubmit(ChainHop)),
			b.flow(ChainBypass, 100, match(where.Masked(answer|hop, hopMask)), openflow.SetField(where.Masked(answer|hop-1, hopMask)), openflow.Resubmit(ChainHop)))
	}
	keep := []openflow.Action{openflow.SetField(pinned), openflow.MoveBits(where, pathAt, openflow.CTLabel, labelAt, pathBits)}
	for _, f := range []family{ipv4, ipv6} {
		tcp := openflow.TCP
		if !f.is4 {
			tcp = openflow.TCP6
		}
		flows = append(flows,
			b.flow(ChainPin, 100, match(f.proto, where.Masked(1, hopMask)), openflow.CT{Commit: true, ZoneFrom: senderZone, Exec: keep}, openflow.GotoTable(ChainHop)),
			b.flow(ChainPin, 100, match(f.proto, where.Masked(answerBegin, hopMask)), openflow.CT{Commit: true, ZoneFrom: receiveZone, Exec: keep}, openflow.GotoTable(ChainHop)),
			// It opens a connection to somebody whose own are led: the answers are not to be taken for that. In
			// the middle of one nobody knows who opened it (the switch was restarted), and the opener's next packet tells.
			b.flow(AnswerTracked, 120, match(tcp, tracked(openflow.CTNew, 0), openflow.TCPFlagsAre(openflow.TCPSyn, openflow.TCPAck)),
				openflow.CT{Commit: true, ZoneFrom: receiveZone}, openflow.GotoTable(Deliver)),
			b.flow(AnswerTracked, 110, match(tcp, tracked(openflow.CTNew, 0)), openflow.GotoTable(Deliver)),
			b.flow(AnswerTracked, 100, match(f.proto, tracked(openflow.CTNew, 0)),
				openflow.CT{Commit: true, ZoneFrom: receiveZone}, openflow.GotoTable(Deliver)))
	}
	for _, nd := range []uint64{135, 136} {
		flows = append(flows, b.flow(Answer, 65533, match(openflow.ICMPv6, openflow.ICMPv6Type.Is(nd)), openflow.GotoTable(Deliver)))
	}
	return flows
}

// TenantFlows are what a network of a tenant with chains has for their sake: its gateway is led to by none, and what
// leaves a chain is found to come from it by its source.
func TenantFlows(n Network) []openflow.Flow {
	if n.IsProvider() {
		return nil
	}
	o := LedOwner(n.Ref())
	var flows []openflow.Flow
	for _, s := range n.Subnets {
		f := familyOf(s.Prefix.Addr())
		flows = append(flows, o.flow(ChainEnd, 100, match(f.proto, n.inTenant(), f.src.Prefix(s.Prefix)), n.place()[0], openflow.GotoTable(Route)))
		for _, d := range n.Subnets { // who stays in the network needs no router, which would not send on what has a TTL of 1
			if d.Prefix.Addr().Is4() == f.is4 {
				flows = append(flows, o.flow(ChainEnd, 110, match(f.proto, n.inTenant(), openflow.IPTTL.Is(1), f.src.Prefix(s.Prefix), f.dst.Prefix(d.Prefix)),
					n.place()[0], openflow.GotoTable(NextHop)))
			}
		}
		for _, host := range slices.Compact([]netip.Addr{s.Gateway, n.HostAddr(s)}) {
			if host.IsValid() {
				// A zone has to see both directions of a connection, or none.
				flows = append(flows,
					o.flow(ChainClassify, own+1, match(f.proto, n.asks(host), f.dst.Addr(host)), openflow.GotoTable(Route)),
					o.flow(Answer, own+1, match(f.proto, n.asks(host), f.src.Addr(host)), openflow.GotoTable(Deliver)))
			}
		}
	}
	return flows
}
