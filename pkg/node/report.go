package node

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Report is what tenetd tells of its node: over its socket, and to Prometheus.
type Report struct {
	At      time.Time `json:"at"`
	Bridge  string    `json:"bridge"`
	DataDir string    `json:"dataDir"`
	// Problems are why the next ADD would fail, or what could not be found out; what depends on it is left out below.
	Problems  []Problem       `json:"problems"`
	Endpoints []EndpointCount `json:"endpoints"` // of networks that have any here
	Blocks    []BlockCount    `json:"blocks"`    // none on a node of its own
	Functions []InstanceCount `json:"functions"` // this node's
	Drops     []Dropped       `json:"drops"`     // by each reason that a flow of ours drops for, the largest first
	Work      Work            `json:"work"`
}

// Problem is one, with what can be done about it.
type Problem struct {
	What  string `json:"what"`
	Error string `json:"error"`
	Hint  string `json:"hint"`
}

// EndpointCount is how many endpoints of a network the node has.
type EndpointCount struct {
	Tenant    vnet.TenantName  `json:"tenant"`
	Network   vnet.NetworkName `json:"network"`
	Endpoints int              `json:"endpoints"`
}

// BlockCount is how many blocks of a network's addresses the node has in that state.
type BlockCount struct {
	Tenant  vnet.TenantName  `json:"tenant"`
	Network vnet.NetworkName `json:"network"`
	State   store.BlockState `json:"state"`
	Blocks  int              `json:"blocks"`
}

// InstanceCount is how many instances of a group are in that state: see InstanceState.
type InstanceCount struct {
	Tenant    vnet.TenantName `json:"tenant"`
	Group     vnet.GroupName  `json:"group"`
	State     string          `json:"state"`
	Instances int             `json:"instances"`
}

// partTimeout is how long one part of a report may take: there are four.
const partTimeout = 2 * time.Second

// Report finds out how the node is doing. What does not answer soon is a problem, which costs the report what depends on it
// and nothing else. Reports are made one at a time: n.Tally takes over the counters of drops.
func (n *Node) Report(ctx context.Context) Report {
	r := Report{
		At: time.Now(), Bridge: n.Bridge, DataDir: n.DataDir, Problems: []Problem{},
		Endpoints: []EndpointCount{}, Blocks: []BlockCount{}, Functions: []InstanceCount{}, Work: n.Tally.Work(),
	}
	within := func(look func(context.Context) []Missing) bool {
		ctx, cancel := context.WithTimeout(ctx, partTimeout)
		defer cancel()
		missing := look(ctx)
		for _, m := range missing {
			r.Problems = append(r.Problems, Problem{m.What, strings.ReplaceAll(m.Err.Error(), "\n", "; "), vnet.Hint(m.Err)})
		}
		return len(missing) == 0
	}
	part := func(what string, look func(context.Context, *Node) error) bool {
		return within(func(ctx context.Context) []Missing {
			if err := look(ctx, n); err != nil {
				return []Missing{{What: what, Err: err}}
			}
			return nil
		})
	}
	readable := within(n.storeMissing) && part("store", r.countStored)
	answers := within(n.switchMissing)
	if readable && answers {
		part("functions", r.countFunctions)
		part("counters", func(ctx context.Context, n *Node) error { return n.countDrops(ctx) })
	}
	r.Drops = n.Tally.dropped()
	return r
}

// countStored counts what the store has of endpoints and blocks.
func (r *Report) countStored(ctx context.Context, n *Node) error {
	type held struct {
		vnet.Ref
		state store.BlockState
	}
	endpoints, blocks := map[vnet.Ref]int{}, map[held]int{}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		all, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		if err != nil {
			return err
		}
		for _, e := range all {
			endpoints[e.Ref()]++
		}
		return store.EachBlock(tx, func(of vnet.Ref, b store.Block) error {
			blocks[held{of, b.State}]++
			return nil
		})
	})
	if err != nil {
		return err
	}
	for of, count := range endpoints {
		r.Endpoints = append(r.Endpoints, EndpointCount{of.Tenant, of.Network, count})
	}
	for of, count := range blocks {
		r.Blocks = append(r.Blocks, BlockCount{of.Tenant, of.Network, of.state, count})
	}
	slices.SortFunc(r.Endpoints, func(a, b EndpointCount) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Network, b.Network))
	})
	slices.SortFunc(r.Blocks, func(a, b BlockCount) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Network, b.Network), cmp.Compare(a.State, b.State))
	})
	return nil
}

// countFunctions counts this node's instances by what becomes of them. Without a bridge nobody can say.
func (r *Report) countFunctions(ctx context.Context, n *Node) error {
	seen, err := n.standIfAny(ctx)
	if err != nil || seen.ports == nil {
		return err
	}
	var all []InstanceState
	err = n.Store.View(ctx, func(tx store.Tx) error {
		all, err = seen.instances(tx, "")
		return err
	})
	if err != nil {
		return err
	}
	counts := map[InstanceCount]int{}
	for _, i := range all {
		if i.Here {
			counts[InstanceCount{Tenant: i.Tenant, Group: i.Group, State: i.State}]++
		}
	}
	for c, count := range counts {
		c.Instances = count
		r.Functions = append(r.Functions, c)
	}
	slices.SortFunc(r.Functions, func(a, b InstanceCount) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Group, b.Group), cmp.Compare(a.State, b.State))
	})
	return nil
}

// countDrops reads the counters of drops of all bridges.
func (n *Node) countDrops(ctx context.Context) error {
	read := map[string][]openflow.FlowStats{}
	err := n.eachOurs(ctx, func(n *Node) error {
		flows, err := n.dropping(ctx)
		if absent(err) {
			return nil
		}
		read[n.Bridge] = flows
		return err
	})
	if err == nil {
		n.Tally.count(func() { n.Tally.drops.read(read) })
	}
	return err
}
