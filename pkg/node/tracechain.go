package node

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A packet that a chain leads is traced from function to function. The switch cannot say which path it would choose
// (a hash that the datapath makes decides), nor what conntrack keeps of a connection. So the path is looked up, or,
// for a connection that there is not, the one that most are given is shown; and each part of the way is a trace of its own.

// fromNowhere is the port by which a trace comes to ChainHop, see pipeline.ChainBase.
const fromNowhere = "CONTROLLER"

// chainOf returns the visit in which a chain took the packet, -1 if none did.
func chainOf(visits []tableVisit) int {
	return slices.IndexFunc(visits, func(v tableVisit) bool {
		return v.table == pipeline.ChainClassify && v.matched && pipeline.OwnerOf(v.cookie) != pipeline.Base &&
			!pipeline.KindOf(v.cookie).Drops() && slices.ContainsFunc(v.actions, func(a string) bool { return strings.HasPrefix(a, "ct(") })
	})
}

// nameChains reads the names of chains and functions.
func (k names) nameChains(tx store.Tx, seen standing) error {
	chains, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return err
	}
	for _, c := range chains {
		k.owners[pipeline.ChainOwner(c.Ref())] = "chain " + c.Ref().String()
		k.chains[pipeline.ChainOwner(c.Ref())] = c.Ref()
	}
	instances, err := store.Instances(tx, "")
	if err != nil {
		return err
	}
	groups := map[vnet.GroupRef]vnet.Group{}
	for _, i := range instances {
		k.owners[pipeline.FunctionOwner(i)] = "function " + i.String()
		f, _, err := seen.function(tx, i, groups)
		if err != nil {
			return err
		}
		if i.Whole() {
			k.functions[f.In.Port], k.functions[f.Out.Port] = f, f
		}
	}
	return nil
}

// traceChain follows the packet through the chain that the last of the visits begins.
func (n *Node) traceChain(ctx context.Context, known names, out packet, t Trace, visits []tableVisit) (Trace, error) {
	var through []string
	for range vnet.MaxHops * 3 { // legs and hops: it ends before
		ref, ok := known.chains[pipeline.OwnerOf(visits[len(visits)-1].cookie)]
		if !ok {
			return t, vnet.Invalidf("trace: no chain has the flow %s", visits[len(visits)-1])
		}
		steps, _ := known.explain(visits, out.From)
		t.Steps = append(t.Steps, steps...)
		way, err := n.choosePath(ctx, ref, visits[len(visits)-1], out)
		if err != nil {
			return t, err
		}
		last := &t.Steps[len(t.Steps)-1]
		last.Changes = append(last.Changes, way.why)
		if way.path.ID == 0 {
			t.Verdict = Verdict{
				Delivered: []string{}, Table: pipeline.TableName(pipeline.ChainSelect), Reason: pipeline.ChainBlocked.String(),
				Sentence: fmt.Sprintf("dropped in %s: %s: %s: group %s", pipeline.TableName(pipeline.ChainSelect), pipeline.ChainBlocked, pipeline.ChainBlocked.Text(), way.blocked),
			}
			return t, nil
		}
		// At the beginning of the path.
		text := fmt.Sprintf("%s,metadata=0x%x,reg0=0x5,reg7=0x%x", out.textFrom(fromNowhere, out.SourceMAC, out.dstMAC), uint64(way.tenant)<<32, uint64(way.path.ID)<<8|1)
		for {
			visits, err = n.traceOnce(ctx, out.From.Bridge, text)
			if err != nil {
				return t, err
			}
			if strings.HasPrefix(text, "in_port="+fromNowhere) {
				visits = visits[1:] // how the trace gets there is no part of the way
			}
			steps, verdict := known.explain(visits, out.From)
			t.Steps = append(t.Steps, steps...)
			f, at, enters := known.entered(visits)
			if !enters {
				if len(through) > 0 {
					verdict.Sentence += ", by way of " + strings.Join(through, ", ")
				}
				t.Verdict = verdict
				return t, nil
			}
			through = append(through, f.Container)
			t.Steps = append(t.Steps, TraceStep{Function: f.String(), Changes: []string{howItPasses(f)}, Actions: []string{}})
			if f.Mode == vnet.Rewriting {
				break
			}
			text = behind(f, at, way, out)
		}
		// What a rewriting function lets out is traffic of its egress port.
		if out, visits, err = n.traceBehind(ctx, known, out, visits); err != nil {
			return t, err
		}
		if led := chainOf(visits); led >= 0 {
			visits = visits[:led+1]
			continue
		}
		steps, t.Verdict = known.explain(visits, out.From)
		t.Steps = append(t.Steps, steps...)
		t.Verdict.Sentence += ", by way of " + strings.Join(through, ", ")
		return t, nil
	}
	return t, vnet.Invalidf("trace: the packet goes round in circles")
}

// chosen is the path that a packet takes, and why that one.
type chosen struct {
	path    vnet.Path
	tenant  uint32
	blocked vnet.GroupName // there is no path: this group lets nothing through
	why     string
}

// choosePath finds the path of the packet's connection.
func (n *Node) choosePath(ctx context.Context, ref vnet.ChainRef, v tableVisit, out packet) (chosen, error) {
	var legs []vnet.Leg
	var way chosen
	var zone vnet.Zone
	var here overlay
	err := n.Store.View(ctx, func(tx store.Tx) error {
		tenant, err := store.Tenant(tx, ref.Tenant)
		if err != nil {
			return err
		}
		way.tenant = tenant.Number
		e, err := store.Endpoint(tx, out.From.ID)
		if err != nil {
			return err
		}
		zone = e.Zone
		if here, err = viewPeers(tx, out.From.Bridge); err != nil {
			return err
		}
		legs, err = store.Legs(tx, ref)
		return err
	})
	if err != nil {
		return way, err
	}
	number := legOf(v)
	i := slices.IndexFunc(legs, func(l vnet.Leg) bool { return l.Number == number })
	if i < 0 {
		return way, vnet.WithHint(vnet.Invalidf("trace: chain %s has no leg %d: the switch is not up to date", ref, number), "tenetctl sync")
	}
	leg := legs[i]
	if id, ok := n.pinnedPath(ctx, zone, out); ok {
		for _, p := range leg.Paths {
			if p.ID == id {
				way.path, way.why = p, fmt.Sprintf("chain %s, path %d: this connection has it", ref, id)
				return way, nil
			}
		}
	}
	total, active := 0, 0
	for _, p := range leg.Chosen(here.here) {
		total += p.Weight
		active++
		if p.Weight > way.path.Weight {
			way.path = p
		}
	}
	switch {
	case leg.Blocked != "" || active == 0:
		way.path, way.blocked = vnet.Path{}, leg.Blocked
		way.why = fmt.Sprintf("chain %s", ref)
	case active == 1:
		way.why = fmt.Sprintf("chain %s, path %d", ref, way.path.ID)
	default:
		way.why = fmt.Sprintf("chain %s, path %d, which %d %% of new connections get (the others: tenetctl chain show %s)", ref, way.path.ID, 100*way.path.Weight/total, ref)
	}
	return way, nil
}

// legOf reads which leg a flow of ChainClassify chose.
func legOf(v tableVisit) uint32 {
	for _, a := range v.actions {
		value, to, _ := strings.Cut(strings.TrimPrefix(a, "set_field:"), "->")
		if n, err := strconv.ParseUint(value, 0, 32); to == "reg4" && err == nil {
			return uint32(n)
		}
	}
	return 0
}

// pinnedPath looks the packet's connection up among those that the switch tracks in the sender's zone.
func (n *Node) pinnedPath(ctx context.Context, zone vnet.Zone, out packet) (vnet.PathID, bool) {
	if zone == 0 || out.Protocol == ICMP || out.SourcePort == 0 {
		return 0, false
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return 0, false
	}
	b, err := sw.Bridge(ctx, out.From.Bridge)
	if err != nil {
		return 0, false
	}
	tracked, err := ovs.Control(ctx, n.OVSRunDir, "dpctl/dump-conntrack", datapath(b), fmt.Sprintf("zone=%d", zone))
	if err != nil {
		return 0, false
	}
	connection := fmt.Sprintf("%s,orig=(src=%s,dst=%s,sport=%d,dport=%d)", out.Protocol, out.Source, out.To, out.SourcePort, out.Port)
	for line := range strings.Lines(tracked) {
		if !strings.HasPrefix(line, connection) {
			continue
		}
		if label, ok := labelIn(line); ok {
			return vnet.PathID(label.Rsh(label, 64).Uint64() & 0xffffff), true
		}
	}
	return 0, false
}

// entered returns the function that the last of the visits sent the packet to, and its hop.
func (k names) entered(visits []tableVisit) (pipeline.Function, int, bool) {
	hop := 0
	for _, v := range visits {
		if at, ok := hopIn(v); ok {
			hop = at
		}
		for _, o := range v.outputs {
			if f, ok := k.functions[o.port]; ok && v.table == pipeline.Output && reached(visits, pipeline.FunctionEnter) {
				return f, hop, true
			}
		}
	}
	return pipeline.Function{}, 0, false
}

func reached(visits []tableVisit, table uint8) bool {
	return slices.ContainsFunc(visits, func(v tableVisit) bool { return v.table == table })
}

// hopIn reads the hop that a visit of ChainHop was for.
func hopIn(v tableVisit) (int, bool) {
	if v.table != pipeline.ChainHop {
		return 0, false
	}
	for word := range strings.SplitSeq(v.flow, ",") {
		if value, is := strings.CutPrefix(word, "reg7="); is {
			n, err := strconv.ParseUint(value, 0, 32)
			return int(n & 0x7f), err == nil
		}
	}
	return 0, false
}

// hopText says in words what reg7 becomes.
func hopText(value string) string {
	value, mask, masked := strings.Cut(value, "/")
	n, err := strconv.ParseUint(value, 0, 32)
	switch {
	case err != nil:
		return ""
	case masked && mask == "0xff":
		return fmt.Sprintf("on to hop %d", n&0x7f)
	case n&0x7f == 0:
		return ""
	}
	return fmt.Sprintf("path %d, on to hop %d", n>>8, n&0x7f)
}

func howItPasses(f pipeline.Function) string {
	switch f.Mode {
	case vnet.Routed:
		return "its kernel routes the packet on"
	case vnet.Rewriting:
		return "it sends the packet on as its own, with another address or port"
	}
	return "lets the packet through as it is"
}

// behind is the packet as it comes out of the function.
func behind(f pipeline.Function, hop int, way chosen, out packet) string {
	if f.Mode == vnet.Transparent {
		src, dst := pipeline.Tags(way.path.ID, hop)
		return out.textFrom(strconv.Itoa(int(f.Out.Port)), src, dst)
	}
	// What is tracked of it cannot be told to the switch: on from where it is found to belong.
	return fmt.Sprintf("%s,metadata=0x%x,reg0=0x5,reg7=0x%x", out.textFrom(fromNowhere, f.Out.MAC, vnet.RouterMAC), uint64(way.tenant)<<32, uint64(way.path.ID)<<8|uint64(hop+1))
}

// traceBehind is the packet that the function's egress port sends to the same destination, on its own account.
func (n *Node) traceBehind(ctx context.Context, known names, out packet, visits []tableVisit) (packet, []tableVisit, error) {
	f, _, _ := known.entered(visits)
	var e vnet.Endpoint
	var net vnet.Network
	var neighbours []vnet.Endpoint
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		if e, err = store.Endpoint(tx, f.Egress); err != nil {
			return err
		}
		if net, err = store.Network(tx, e.Ref()); err != nil {
			return err
		}
		neighbours, err = store.All[vnet.Endpoint](tx, store.EndpointsOf(e.Ref()))
		return err
	})
	if err != nil {
		return out, nil, err
	}
	probe := out.Probe
	probe.From, probe.Source, probe.SourceMAC, probe.SourcePort = e, netip.Addr{}, vnet.MAC{}, 0
	on, err := probe.address(net, neighbours)
	if err != nil {
		return out, nil, err
	}
	visits, err = n.traceOnce(ctx, e.Bridge, on.text(cmp.Or(f.Out.Port, known.ofports[e.ID])))
	return on, visits, err
}
