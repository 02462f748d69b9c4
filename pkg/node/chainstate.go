package node

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// ChainState is a chain with what becomes of it on this node.
type ChainState struct {
	vnet.Chain

	// Blocked is a group that lets nothing through: it is closed, and nobody in it lives.
	Blocked vnet.GroupName `json:"blocked,omitempty"`
	Hops    []HopState     `json:"hops"`
	Paths   []PathState    `json:"paths"`
	Drops   []Drop         `json:"drops"`
}

// HopState is one group of a chain: its instances, and what went in and came out of them on the chain's paths.
type HopState struct {
	vnet.Group

	Instances []InstanceState `json:"instances"`
	Traffic   HopTraffic      `json:"traffic"`
}

// Count is packets and bytes.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

func (c *Count) add(f openflow.FlowStats) {
	c.Packets += f.Packets
	c.Bytes += f.Bytes
}

// HopTraffic counts both directions of a hop.
type HopTraffic struct {
	In         Count `json:"in"` // of what clients send
	Out        Count `json:"out"`
	AnswersIn  Count `json:"answersIn"`
	AnswersOut Count `json:"answersOut"`
}

// of returns what such a flow counts.
func (t *HopTraffic) of(h pipeline.HopFlow) *Count {
	switch {
	case h.Answer && h.Out:
		return &t.AnswersOut
	case h.Answer:
		return &t.AnswersIn
	case h.Out:
		return &t.Out
	}
	return &t.In
}

// InstanceState is an instance with what becomes of it.
type InstanceState struct {
	vnet.Instance

	Mode vnet.Mode `json:"mode"`
	Here bool      `json:"here"` // it is on this node
	// State is "serves", "drained", "down" (a port's link or its place in the switch), "hung" (probes), "waits" for its other port, or
	// "off" with its node.
	State string `json:"state"`
	// Traffic is that of the paths through it: of one chain, or, asked for alone, of all.
	Traffic HopTraffic `json:"traffic"`
}

// PathState is a path with its instances' names.
type PathState struct {
	vnet.Path

	Leg        int      `json:"leg"`        // which part of the chain, from 1
	Containers []string `json:"containers"` // where its functions run; empty: of one that has gone
	// Share is the part of new connections of clients on this node that take it; 0: none, it stands for those that have it, or
	// is another node's.
	Share   float64 `json:"share"`
	Packets uint64  `json:"packets"` // that began it
}

// state says in a word what becomes of an instance, of which its ports alone say that.
func state(i vnet.Instance, ports paths.State) string {
	switch {
	case ports == paths.Gone:
		return "waits"
	case ports == paths.Dead:
		return "down"
	case i.Hung:
		return "hung"
	case i.Drained:
		return "drained"
	}
	return "serves"
}

// Instances returns the instances of a tenant, or with an empty name of all tenants, with what becomes of them and what
// went through them.
func (n *Node) Instances(ctx context.Context, tenant vnet.TenantName) ([]InstanceState, error) {
	seen, err := n.standIfAny(ctx)
	if err != nil {
		return nil, err
	}
	var all []InstanceState
	var known map[vnet.PathID]vnet.Path
	err = n.Store.View(ctx, func(tx store.Tx) error {
		if all, err = seen.instances(tx, tenant); err != nil {
			return err
		}
		known, err = pathsOf(tx)
		return err
	})
	if err != nil || len(all) == 0 {
		return all, err
	}
	flows, err := n.chainFlows(ctx, seen)
	for _, f := range flows {
		h, ok := pipeline.HopOf(f.Flow)
		if !ok || len(known[h.Path].Hops) < h.Hop {
			continue
		}
		number := known[h.Path].Hops[h.Hop-1].Instance
		if i := slices.IndexFunc(all, func(i InstanceState) bool { return i.Number == number && i.Here }); i >= 0 {
			all[i].Traffic.of(h).add(f)
		}
	}
	return all, err
}

// standIfAny is stand for the configured bridge, whether or not there is one; where no switch runs nothing stands.
func (n *Node) standIfAny(ctx context.Context) (standing, error) {
	s, err := n.stand(ctx, n.Bridge)
	if absent(err) {
		err = nil
	}
	return s, err
}

// chainFlows are the flows that count what goes through functions, up to this moment; none where there is no bridge.
// Without its database ovs-vswitchd answers nobody, and is not asked.
func (n *Node) chainFlows(ctx context.Context, s standing) ([]openflow.FlowStats, error) {
	if s.ports == nil {
		return nil, nil
	}
	if err := n.awaitDatapath(ctx); err != nil {
		return nil, err
	}
	var all []openflow.FlowStats
	err := n.EachBridge(ctx, func(n *Node) error {
		c, err := n.openflow(ctx, n.Bridge)
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer c.Close()
		for _, table := range pipeline.ChainTables {
			flows, err := c.Flows(ctx, openflow.FlowFilter{Table: &table})
			if err != nil {
				return kind(err)
			}
			all = append(all, flows...)
		}
		return nil
	})
	return all, err
}

func (s standing) instances(tx store.Tx, tenant vnet.TenantName) ([]InstanceState, error) {
	s.bridge = ""
	here, _ := store.Member(tx)
	list, err := store.Instances(tx, tenant)
	if err != nil {
		return nil, err
	}
	all := []InstanceState{}
	groups := map[vnet.GroupRef]vnet.Group{}
	for _, i := range list {
		ports := i
		ports.Hung = false
		f, st, err := s.function(tx, ports, groups)
		if err != nil && !errors.Is(err, vnet.ErrNotFound) { // the record of its group has gone: it waits
			return nil, err
		}
		i.Node = here
		all = append(all, InstanceState{Instance: i, Mode: f.Mode, State: state(i, st), Here: true})
	}
	others, err := store.InstancesElsewhere(tx, tenant)
	for _, i := range others {
		g, err := store.Group(tx, i.Ref())
		if err != nil {
			continue // the group has gone, and they are about to
		}
		st := paths.Serves
		if i.Down {
			st = paths.Dead
		}
		shown := InstanceState{Instance: i, Mode: g.Mode, State: state(i, st)}
		if p, err := store.FindPeer(tx, i.Node); err == nil && p.Off {
			shown.State = "off"
		}
		all = append(all, shown)
	}
	return all, err
}

// ChainState returns a chain with the states of its instances and what went through each hop. vnet.ErrNotFound if there is none.
func (n *Node) ChainState(ctx context.Context, ref vnet.ChainRef) (ChainState, error) {
	st := ChainState{Hops: []HopState{}, Paths: []PathState{}, Drops: []Drop{}}
	seen, err := n.standIfAny(ctx)
	if err != nil {
		return st, err
	}
	err = n.Store.View(ctx, func(tx store.Tx) error {
		if st.Chain, err = store.Chain(tx, ref); err != nil {
			return err
		}
		all, err := seen.instances(tx, ref.Tenant)
		if err != nil {
			return err
		}
		for _, name := range st.Groups {
			h := HopState{Instances: []InstanceState{}}
			if h.Group, err = store.Group(tx, vnet.GroupRef{Tenant: ref.Tenant, Group: name}); err != nil {
				return err
			}
			for _, i := range all {
				if i.Group == name {
					h.Instances = append(h.Instances, i)
				}
			}
			st.Hops = append(st.Hops, h)
		}
		own, err := viewPeers(tx, n.Bridge)
		if err != nil {
			return err
		}
		legs, err := store.Legs(tx, ref)
		for i, l := range legs {
			st.Blocked = cmp.Or(st.Blocked, l.Blocked)
			st.addPaths(i+1, l, own.here)
		}
		return err
	})
	if err != nil {
		return st, err
	}
	flows, err := n.chainFlows(ctx, seen)
	owner := pipeline.ChainOwner(ref)
	flows = slices.DeleteFunc(flows, func(f openflow.FlowStats) bool { return pipeline.OwnerOf(f.Cookie) != owner })
	for _, f := range flows {
		st.count(f)
	}
	st.Drops = drops(flows)
	return st, err
}

func (st *ChainState) addPaths(leg int, l vnet.Leg, here vnet.NodeName) {
	names := map[vnet.Hop]string{}
	for _, h := range st.Hops {
		for _, i := range h.Instances {
			names[i.Hop()] = i.Container
		}
	}
	total := 0
	weight := func(p vnet.Path) int { return p.Weight }
	if slices.ContainsFunc(l.Paths, func(p vnet.Path) bool { return p.At[here] > 0 }) {
		weight = func(p vnet.Path) int { return p.At[here] }
	}
	for _, p := range l.Paths {
		total += weight(p)
	}
	for _, p := range l.Paths {
		view := PathState{Path: p, Leg: leg, Containers: []string{}}
		if total > 0 {
			view.Share = float64(weight(p)) / float64(total)
		}
		for _, h := range p.Hops {
			view.Containers = append(view.Containers, names[h])
		}
		st.Paths = append(st.Paths, view)
	}
}

// count adds what one flow counts to its hop and its path.
func (st *ChainState) count(f openflow.FlowStats) {
	flow, ok := pipeline.HopOf(f.Flow)
	if !ok {
		return
	}
	p := slices.IndexFunc(st.Paths, func(p PathState) bool { return p.ID == flow.Path })
	if p < 0 || len(st.Paths[p].Hops) < flow.Hop {
		return
	}
	if flow.Hop == 1 && !flow.Answer && !flow.Out {
		st.Paths[p].Packets += f.Packets
	}
	hop := st.Paths[p].Hops[flow.Hop-1]
	for h := range st.Hops {
		if st.Hops[h].Name != hop.Group {
			continue
		}
		st.Hops[h].Traffic.of(flow).add(f)
		for i := range st.Hops[h].Instances {
			if st.Hops[h].Instances[i].Number == hop.Instance && st.Hops[h].Instances[i].Here {
				st.Hops[h].Instances[i].Traffic.of(flow).add(f)
			}
		}
	}
}

// Drain says whether new connections may come to an instance. Those that have it keep it.
func (n *Node) Drain(ctx context.Context, ref vnet.GroupRef, container string, drained bool) error {
	return n.Rechain(ctx, func(tx store.Tx) error {
		i, err := store.FindInstance(tx, ref, container)
		if err != nil {
			return err
		}
		i.Drained = drained
		return store.PutInstance(tx, i)
	})
}

// pathsOf returns the paths of all chains by number.
func pathsOf(tx store.Tx) (map[vnet.PathID]vnet.Path, error) {
	all := map[vnet.PathID]vnet.Path{}
	chains, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		legs, err := store.Legs(tx, c.Ref())
		if err != nil {
			return nil, err
		}
		for _, l := range legs {
			for _, p := range l.Paths {
				all[p.ID] = p
			}
		}
	}
	return all, nil
}
