package pipeline

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Function is an instance of a service function that is whole, with the ports that the switch gave it.
type Function struct {
	vnet.Instance
	TenantNumber uint32
	Mode         vnet.Mode
	OnFailure    vnet.OnFailure
	In, Out      FunctionPort // the same one if it serves for both
}

// FunctionPort is a port of a function.
type FunctionPort struct {
	Port  uint32
	MAC   vnet.MAC       // of functions whose ports have addresses
	Addrs []netip.Prefix // as above
}

// tagFirst begins the MACs that stand for a path and a hop in what goes through transparent functions.
const tagFirst = 0x0e

// tag is the MAC that says which path and hop a frame is on. Both addresses have one, which differ in their last
// byte: a bridge in the function learns each on one side, and never floods; and whoever answers in the function, a
// reset for one, answers on the same path. Answers have them the other way round.
func tag(p vnet.PathID, hop uint64, end byte) openflow.Term {
	return openflow.EthSrc.MAC(tagMAC(p, hop, end).HardwareAddr())
}

func tagMAC(p vnet.PathID, hop uint64, end byte) vnet.MAC {
	return vnet.MAC{tagFirst, byte(p >> 16), byte(p >> 8), byte(p), byte(hop), end}
}

// tags are both terms, source and destination.
func tags(p vnet.PathID, hop uint64, back bool) (openflow.Term, openflow.Term) {
	src, dst := byte(1), byte(2)
	if back {
		src, dst = dst, src
	}
	return tag(p, hop, src), openflow.EthDst.MAC(tagMAC(p, hop, dst).HardwareAddr())
}

// Tags are the source and the destination of what is sent through a transparent function, as that hop of the path.
func Tags(p vnet.PathID, hop int) (vnet.MAC, vnet.MAC) {
	return tagMAC(p, uint64(hop), 1), tagMAC(p, uint64(hop), 2)
}

// ProbeType is the EtherType of probes of transparent functions: local experimental, IEEE 802, 9.2.4.
const ProbeType = 0x88b5

// ProbeMAC is the source, or the destination, of probes. No path has the number that would make it a tag.
func ProbeMAC(dst bool) vnet.MAC {
	end := byte(1)
	if dst {
		end = 2
	}
	return tagMAC(0, 0, end)
}

// ProbeAddr4 and ProbeAddr6 are where probes of routed functions go, which leads out by any default route: the last
// addresses of the benchmarking prefixes (RFC 2544, RFC 5180), which nobody routes.
var (
	ProbeAddr4 = netip.MustParseAddr("198.19.255.254")
	ProbeAddr6 = netip.MustParseAddr("2001:2:0:ffff:ffff:ffff:ffff:fffe")
)

// alwaysLives is a group of the switch that counts as alive: what a fast-failover bucket watches that is the last resort.
const alwaysLives = 0x200_0000

// Groups of the switch that lead into an instance, if it lives: two in a row, since both its ports must be up, and a
// bucket that watches two things is content with one.
func (f Function) group(back bool, second uint32) uint32 {
	id := 0x100_0000 | f.Number<<2 | second
	if back {
		id |= 2
	}
	return id
}

// ends returns the port that a packet goes in by, and the one that it comes out of.
func (f Function) ends(back bool) (FunctionPort, FunctionPort) {
	if back {
		return f.Out, f.In
	}
	return f.In, f.Out
}

// FunctionGroups are the switch's groups that all functions share.
func FunctionGroups() []openflow.GroupConfig {
	return []openflow.GroupConfig{{ID: alwaysLives, Type: openflow.GroupAll, Buckets: []openflow.Bucket{{}}}}
}

// FunctionFlows lead into an instance, and out of one whose ports have addresses, whatever the path.
func FunctionFlows(f Function) ([]openflow.GroupConfig, []openflow.Flow) {
	dead := openflow.Resubmit(ChainClosed)
	if f.OnFailure == vnet.Open && f.Mode != vnet.Rewriting { // nobody else could translate its connections
		dead = openflow.Resubmit(ChainBypass)
	}
	var groups []openflow.GroupConfig
	var flows []openflow.Flow
	for _, back := range []bool{false, true} {
		in, out := f.ends(back)
		lives := func(id, port uint32, then openflow.Action) {
			buckets := []openflow.Bucket{{WatchPort: port, Actions: []openflow.Action{then}}, {WatchGroup: alwaysLives, Actions: []openflow.Action{dead}}}
			if f.Hung { // its ports do not tell
				buckets = buckets[1:]
			}
			groups = append(groups, openflow.GroupConfig{ID: id, Type: openflow.GroupFastFailover, Buckets: buckets})
		}
		lives(f.group(back, 1), out.Port, openflow.Resubmit(FunctionEnter)) // before the one that names it
		lives(f.group(back, 0), in.Port, openflow.Group(f.group(back, 1)))
		flows = append(flows, f.deliver(back)...)
	}
	if f.Mode.Addressed() {
		flows = append(flows, f.find()...)
	}
	if f.Mode == vnet.Routed {
		flows = append(flows, f.asItself()...)
	}
	return groups, flows
}

// asItself: what is for the function's own addresses is led by no chain, nor what it says as itself, which is no answer on a
// path: that a packet cannot go on, for one.
func (f Function) asItself() []openflow.Flow {
	o := FunctionOwner(f.Instance)
	inTenant := Network{TenantNumber: f.TenantNumber}.inTenant()
	var flows []openflow.Flow
	addrs := f.In.Addrs
	if f.Out.Port != f.In.Port {
		addrs = slices.Concat(addrs, f.Out.Addrs)
	}
	for _, p := range addrs {
		fam := familyOf(p.Addr())
		flows = append(flows,
			o.flow(ChainClassify, own+1, match(fam.proto, inTenant, fam.dst.Addr(p.Addr())), openflow.GotoTable(Route)),
			o.flow(Answer, own+1, match(fam.proto, inTenant, fam.src.Addr(p.Addr())), openflow.GotoTable(Deliver)))
	}
	return flows
}

// deliver addresses packets to the function's port. What is sent in forward is tracked, so that what comes out is known again.
func (f Function) deliver(back bool) []openflow.Flow {
	if !f.Mode.Addressed() || back && f.Mode == vnet.Rewriting {
		return nil
	}
	o := FunctionOwner(f.Instance)
	in, _ := f.ends(back)
	direction := where.Masked(0, answer)
	if back {
		direction = where.Masked(answer, answer)
	}
	var flows []openflow.Flow
	for _, fam := range []family{ipv4, ipv6} {
		actions := []openflow.Action{
			openflow.SetField(routerSource),
			openflow.SetField(openflow.EthDst.MAC(in.MAC.HardwareAddr())),
		}
		if !back {
			actions = append(actions, openflow.CT{Commit: true, Zone: uint16(f.Zone), Exec: []openflow.Action{
				openflow.SetField(pinned), openflow.MoveBits(where, 0, openflow.CTLabel, labelAt, pathAt+pathBits),
			}})
		}
		flows = append(flows, o.flow(FunctionEnter, 100, match(fam.proto, inFunction.Is(uint64(f.Number)), direction), append(actions, openflow.GotoTable(Output))...))
	}
	return flows
}

// find looks up what comes out of a function whose ports have addresses, in the zone of what was sent in. By which of
// its ports does not matter: its kernel's routes decide that.
func (f Function) find() []openflow.Flow {
	o := FunctionOwner(f.Instance)
	ports := []FunctionPort{f.In}
	if f.Mode == vnet.Routed && f.Out.Port != f.In.Port {
		ports = append(ports, f.Out)
	}
	var flows []openflow.Flow
	for _, p := range ports {
		for _, fam := range []family{ipv4, ipv6} {
			flows = append(flows, o.flow(FunctionReturn, 100,
				match(fam.proto, openflow.InPort.Is(uint64(p.Port)), openflow.EthSrc.MAC(p.MAC.HardwareAddr())),
				openflow.SetField(inFunction.Is(uint64(f.Number))), openflow.CT{Zone: uint16(f.Zone), Table: FunctionFound}))
		}
	}
	return flows
}

// pass sends a packet into the function, as a hop of the path.
func (f Function) pass(p vnet.PathID, hop uint64, back bool) []openflow.Action {
	in, _ := f.ends(back)
	var actions []openflow.Action
	if f.Mode == vnet.Transparent {
		src, dst := tags(p, hop, back)
		actions = append(actions, openflow.SetField(src), openflow.SetField(dst), openflow.SetField(inFunction.Is(0)))
	} else {
		actions = append(actions, openflow.SetField(inFunction.Is(uint64(f.Number))))
	}
	return append(actions, openflow.SetField(outPort.Is(uint64(in.Port))), openflow.Group(f.group(back, 0)))
}

// comesBack leads on what comes out of the function: forward to the next hop, back to the one before.
func (f Function) comesBack(o Owner, p vnet.PathID, hop uint64) []openflow.Flow {
	var flows []openflow.Flow
	for _, back := range []bool{false, true} {
		next := at(p, hop+1)
		if back {
			next = at(p, answer|hop-1)
		}
		actions := []openflow.Action{openflow.SetField(where.Is(next)), openflow.Resubmit(ChainHop)}
		_, out := f.ends(back)
		if f.Mode == vnet.Transparent {
			src, dst := tags(p, hop, back)
			flows = append(flows, o.flow(FunctionReturn, 100, match(openflow.InPort.Is(uint64(out.Port)), src, dst), actions...))
			continue
		}
		if f.Mode == vnet.Rewriting && !back {
			continue
		}
		state := openflow.CTStateIs(openflow.CTTracked, openflow.CTInvalid|openflow.CTReply)
		if back {
			state = openflow.CTStateIs(openflow.CTTracked|openflow.CTReply, openflow.CTInvalid)
		}
		flows = append(flows, o.flow(FunctionFound, 100, match(state, pinned, inFunction.Is(uint64(f.Number)),
			openflow.CTLabel.Bits(at(p, hop), labelAt, pathAt+pathBits)), actions...))
	}
	return flows
}

// comesOut: what a port of a function sends is what comes out of it.
func (r endpoint) comesOut(sent vnet.Limit) openflow.Flow {
	return r.flow(Classify, 100, openflow.Match{r.in}, append(metered(sent),
		openflow.SetField(openflow.Metadata.Is(uint64(r.n.TenantNumber)<<32)),
		openflow.SetField(from(classFunction)),
		openflow.GotoTable(FunctionReturn))...)
}

// classifyOwn: but what it sends as itself, its kernel's questions for neighbours for one, is an endpoint's.
func (r endpoint) classifyOwn(e vnet.Endpoint) []openflow.Flow {
	as := []openflow.Match{{openflow.ARP}}
	for _, nd := range []uint64{135, 136} {
		as = append(as, match(openflow.ICMPv6, openflow.ICMPv6Type.Is(nd)))
	}
	sources := []netip.Addr{e.MAC.LinkLocal()}
	for _, p := range e.Addrs {
		sources = append(sources, p.Addr())
	}
	for _, a := range sources {
		f := familyOf(a)
		as = append(as, match(f.proto, f.src.Addr(a)))
	}
	var flows []openflow.Flow
	for _, m := range as {
		flows = append(flows, r.flow(Classify, 110, with(m, r.in), r.sends()...))
	}
	return flows
}

// restore gives packets that have left a chain the source MAC that they had: behind it they are
// as if they had not been led at all, also to somebody in the same network.
func (r endpoint) restore(addrs []netip.Prefix) []openflow.Flow {
	var flows []openflow.Flow
	for _, p := range addrs {
		f := familyOf(p.Addr())
		flows = append(flows, r.flow(RouterSource, 115, match(f.proto, openflow.Reg0.Masked(chainDone, chainDone), r.n.inNetwork(), f.src.Addr(p.Addr())),
			openflow.SetField(r.src()), openflow.GotoTable(Destination)))
	}
	return flows
}
