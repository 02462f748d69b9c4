package node

import (
	"cmp"
	"errors"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// rendered is what should be on a bridge.
type rendered struct {
	groups []openflow.GroupConfig // each before those that name it
	flows  []openflow.Flow
}

func (r *rendered) add(groups []openflow.GroupConfig, flows []openflow.Flow) {
	r.groups, r.flows = append(r.groups, groups...), append(r.flows, flows...)
}

// chains renders what is in the chains' tables, but for the base's. Chains of tenants of whom nobody is here lead nothing: in
// a cluster these may be most.
func (s standing) chains(tx store.Tx) (rendered, error) {
	r := rendered{groups: pipeline.FunctionGroups()}
	all, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return r, err
	}
	instances, err := store.Instances(tx, "")
	if err != nil {
		return r, err
	}
	own, err := viewPeers(tx, s.bridge)
	if err != nil {
		return r, err
	}
	functions := map[vnet.TenantName]map[uint32]pipeline.Function{}
	groups := map[vnet.GroupRef]vnet.Group{}
	tenants := map[vnet.TenantName]*tenantView{}
	view := func(name vnet.TenantName) (*tenantView, error) {
		t, ok := tenants[name]
		if !ok {
			t, err = viewTenant(tx, name, s.bridge)
			if err != nil && !errors.Is(err, vnet.ErrNotFound) {
				return nil, err
			}
			tenants[name] = t
		}
		return t, nil
	}
	for _, i := range instances {
		t, err := view(i.Tenant)
		if err != nil {
			return r, err
		}
		if t == nil || !t.here {
			continue
		}
		f, state, err := s.function(tx, i, groups)
		if errors.Is(err, vnet.ErrNotFound) { // the record of its group has gone: nobody else is to suffer
			continue
		}
		if err != nil {
			return r, err
		}
		if state == paths.Gone {
			continue
		}
		r.add(pipeline.FunctionFlows(f))
		if functions[i.Tenant] == nil {
			functions[i.Tenant] = map[uint32]pipeline.Function{}
		}
		functions[i.Tenant][i.Number] = f
	}
	led := map[vnet.TenantName]bool{}
	ofTenant := map[vnet.TenantName][]pipeline.Chain{}
	for _, c := range all {
		t, err := view(c.Tenant)
		if err != nil {
			return r, err
		}
		if t == nil || !t.here {
			continue
		}
		if !led[c.Tenant] {
			led[c.Tenant] = true
			for _, net := range t.networks {
				r.flows = append(r.flows, pipeline.TenantFlows(net)...)
			}
		}
		p := pipeline.Chain{Chain: c, TenantNumber: t.number, Functions: functions[c.Tenant], Networks: t.networks, Here: own.here, Peers: own.peers, Modes: map[vnet.GroupName]vnet.Mode{}}
		var lacks vnet.GroupName
		for _, name := range c.Groups {
			g, err := store.Group(tx, vnet.GroupRef{Tenant: c.Tenant, Group: name})
			if errors.Is(err, vnet.ErrNotFound) { // likewise; but nobody goes round it
				lacks = name
				continue
			}
			if err != nil {
				return r, err
			}
			p.Modes[name] = g.Mode
		}
		if p.Legs, err = store.Legs(tx, c.Ref()); err != nil {
			return r, err
		}
		if len(p.Legs) == 0 { // it is being made: whoever makes it plans it, too
			continue
		}
		for i := range p.Legs {
			p.Legs[i].Blocked = cmp.Or(p.Legs[i].Blocked, lacks)
		}
		for _, k := range c.Classifiers {
			p.Classifiers = append(p.Classifiers, pipeline.Classifier{
				Classifier: k, From: t.resolve(k.From), To: t.resolve(k.To), FromLocal: t.linkLocal(k.From), ToLocal: t.linkLocal(k.To),
			})
		}
		r.add(pipeline.ChainFlows(p))
		ofTenant[c.Tenant] = append(ofTenant[c.Tenant], p)
	}
	for _, chains := range ofTenant {
		r.flows = append(r.flows, pipeline.FragmentFlows(chains)...)
	}
	r.flows = distinct(r.flows)
	return r, nil
}

// distinct keeps the first of flows that are the same but for what they do: two chains of one priority may want the
// same packets by different classifiers, and then the first by name has them.
func distinct(flows []openflow.Flow) []openflow.Flow {
	seen := make(map[string]bool, len(flows))
	return slices.DeleteFunc(flows, func(f openflow.Flow) bool {
		key := f.Key()
		again := seen[key]
		seen[key] = true
		return again
	})
}
