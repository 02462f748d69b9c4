package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// standing is what the switch and the kernel say of the ports of all bridges, at one moment, with one bridge to render for.
type standing struct {
	here   string                     // this boot and network namespace
	bridge string                     // empty: any
	ports  map[vnet.EndpointID]uint32 // OpenFlow port numbers; nil: there is no bridge, or no switch
	up     map[vnet.EndpointID]bool   // whose link works
}

// stand looks at the ports of all bridges, to render for this one, which must be ours: what is rendered from this store
// would wipe out another's. vnet.ErrNotFound if there is no such bridge; what it says of the others is right even so.
func (n *Node) stand(ctx context.Context, bridge string) (standing, error) {
	s := standing{bridge: bridge, up: map[vnet.EndpointID]bool{}}
	var err error
	if s.here, err = uplink.Here(); err != nil {
		return s, err
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return s, err
	}
	b, missing := sw.Bridge(ctx, bridge)
	switch {
	case errors.Is(missing, ovs.ErrNotFound):
	case missing != nil:
		return s, kind(missing)
	default:
		if err := n.owns(b); err != nil {
			return s, vnet.WithHint(err, "which store, and which bridge? --data-dir, --bridge, or the node's configuration")
		}
	}
	bridges, err := n.bridges(ctx)
	if err != nil {
		return s, err
	}
	if !slices.Contains(bridges, bridge) {
		bridges = append(bridges, bridge)
	}
	for _, each := range bridges {
		ports, err := n.ofports(ctx, each)
		if errors.Is(err, vnet.ErrNotFound) {
			continue
		}
		if err != nil {
			return s, err
		}
		if s.ports == nil {
			s.ports = map[vnet.EndpointID]uint32{}
		}
		maps.Copy(s.ports, ports)
	}
	links, err := veth.List(ctx, "tenet ")
	for _, l := range links {
		words := strings.Fields(l.Alias) // linkAlias and the endpoint
		s.up[vnet.EndpointID(words[len(words)-1])] = l.Works
	}
	return s, cmp.Or(kind(err), kind(missing))
}

// function returns the instance with its ports, and what becomes of it.
func (s standing) function(tx store.Tx, i vnet.Instance, groups map[vnet.GroupRef]vnet.Group) (pipeline.Function, paths.State, error) {
	f := pipeline.Function{Instance: i}
	g, ok := groups[i.Ref()]
	if !ok {
		var err error
		if g, err = store.Group(tx, i.Ref()); err != nil {
			return f, paths.Gone, err
		}
		groups[i.Ref()] = g
	}
	f.Mode, f.OnFailure = g.Mode, g.OnFailure
	tenant, err := store.Tenant(tx, i.Tenant)
	if err != nil {
		return f, paths.Gone, err
	}
	f.TenantNumber = tenant.Number
	if !i.Whole() {
		return f, paths.Gone, nil
	}
	state := paths.Serves
	if i.Hung {
		state = paths.Dead
	}
	for _, end := range []struct {
		id   vnet.EndpointID
		port *pipeline.FunctionPort
	}{{i.Ingress, &f.In}, {i.Egress, &f.Out}} {
		e, err := store.Endpoint(tx, end.id)
		switch {
		case errors.Is(err, vnet.ErrNotFound), err == nil && (e.State != vnet.Ready || s.bridge != "" && e.Bridge != s.bridge):
			return f, paths.Gone, nil
		case err != nil:
			return f, paths.Gone, err
		}
		*end.port = pipeline.FunctionPort{Port: portOf(e, s.ports), MAC: e.MAC, Addrs: e.Addrs}
		// Links of another network namespace cannot be seen from here: the switch itself looks at its ports.
		if _, has := s.ports[e.ID]; !has || e.Boot == s.here && !s.up[e.ID] {
			state = paths.Dead
		}
	}
	return f, state, nil
}

// plan decides anew which paths the chains of all tenants have, on whatever bridge.
func (s standing) plan(tx store.Tx) error {
	s.bridge = ""
	tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
	if err != nil {
		return err
	}
	groups := map[vnet.GroupRef]vnet.Group{}
	for _, t := range tenants {
		var failed error
		err := paths.Plan(tx, t.Name, func(i vnet.Instance) paths.State {
			_, state, err := s.function(tx, i, groups)
			failed = errors.Join(failed, err)
			if state == paths.Dead && s.ports == nil && !i.Hung {
				state = paths.Serves // nobody can say, and what leads may go on
			}
			return state
		}, time.Now().UTC())
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// replan writes what the plan is now, if it differs.
func (n *Node) replan(ctx context.Context, s standing) error {
	err := n.Store.View(ctx, func(tx store.Tx) error { return s.plan(readOnly{tx}) })
	if !errors.Is(err, errWrites) {
		return err
	}
	return n.Store.Update(ctx, s.plan)
}

// readOnly is a transaction that tells whether anything would be written.
type readOnly struct{ store.Tx }

var errWrites = errors.New("it writes")

func (readOnly) Put(string, []byte) error { return errWrites }
func (readOnly) Delete(string) error      { return errWrites }

// rendered is what should be on a bridge.
type rendered struct {
	groups []openflow.GroupConfig // each before those that name it
	flows  []openflow.Flow
}

func (r *rendered) add(groups []openflow.GroupConfig, flows []openflow.Flow) {
	r.groups, r.flows = append(r.groups, groups...), append(r.flows, flows...)
}

// chains renders what is in the chains' tables, but for the base's.
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
	functions := map[vnet.TenantName]map[uint32]pipeline.Function{}
	groups := map[vnet.GroupRef]vnet.Group{}
	for _, i := range instances {
		f, state, err := s.function(tx, i, groups)
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
	tenants := map[vnet.TenantName]*tenantView{}
	ofTenant := map[vnet.TenantName][]pipeline.Chain{}
	for _, c := range all {
		t := tenants[c.Tenant]
		if t == nil {
			if t, err = viewTenant(tx, c.Tenant, s.bridge); err != nil {
				return r, err
			}
			tenants[c.Tenant] = t
			for _, net := range t.networks {
				r.flows = append(r.flows, pipeline.TenantFlows(net)...)
			}
		}
		p := pipeline.Chain{Chain: c, TenantNumber: t.number, Functions: functions[c.Tenant], Networks: t.networks}
		if p.Legs, err = store.Legs(tx, c.Ref()); err != nil {
			return r, err
		}
		if len(p.Legs) == 0 { // it is being made: whoever makes it plans it, too
			continue
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

// tenantView is what classifiers of a tenant's chains may name.
type tenantView struct {
	number    uint32
	declared  []vnet.Network
	networks  []pipeline.Network // those that somebody lives in, on the bridge
	endpoints []vnet.Endpoint
}

func viewTenant(tx store.Tx, name vnet.TenantName, bridge string) (*tenantView, error) {
	tenant, err := store.Tenant(tx, name)
	if err != nil {
		return nil, err
	}
	t := &tenantView{number: tenant.Number}
	networks, err := store.All[vnet.Network](tx, store.NetworksOf(name))
	if err != nil {
		return nil, err
	}
	for _, plain := range networks {
		if plain.IsProvider() {
			continue
		}
		t.declared = append(t.declared, plain)
		endpoints, err := living(tx, plain.Ref(), bridge)
		if err != nil {
			return nil, err
		}
		if len(endpoints) == 0 {
			continue
		}
		net, err := network(tx, plain.Ref(), bridge)
		if err != nil {
			return nil, err
		}
		t.networks = append(t.networks, net)
		for _, e := range endpoints {
			if e.Zone != 0 {
				t.endpoints = append(t.endpoints, e)
			}
		}
	}
	return t, nil
}

// living are the endpoints of a network on a bridge that are not about to leave.
func living(tx store.Tx, r vnet.Ref, bridge string) ([]vnet.Endpoint, error) {
	endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(r))
	return slices.DeleteFunc(endpoints, func(e vnet.Endpoint) bool { return e.State == vnet.Leaving || e.Bridge != bridge }), err
}

// resolve returns the addresses that a selector stands for now; nil: any.
func (t *tenantView) resolve(s vnet.Selector) []netip.Prefix {
	addrs := []netip.Prefix{}
	switch {
	case s.Any:
		return nil
	case s.Prefix.IsValid():
		return append(addrs, s.Prefix)
	case s.Network != "":
		for _, net := range t.declared {
			if net.Name == s.Network {
				for _, subnet := range net.Subnets {
					addrs = append(addrs, subnet.Prefix)
				}
			}
		}
		return addrs
	}
	for _, e := range t.named(s) {
		for _, p := range e.Addrs {
			addrs = append(addrs, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		}
	}
	return addrs
}

// linkLocal returns the link-local addresses of the endpoints that a selector names; nil: it names none.
func (t *tenantView) linkLocal(s vnet.Selector) []netip.Addr {
	if s.Endpoint == "" && len(s.Labels) == 0 {
		return nil
	}
	addrs := []netip.Addr{}
	for _, e := range t.named(s) {
		addrs = append(addrs, e.MAC.LinkLocal())
	}
	return addrs
}

// named are the endpoints that a selector names, itself or by their labels.
func (t *tenantView) named(s vnet.Selector) []vnet.Endpoint {
	return slices.DeleteFunc(slices.Clone(t.endpoints), func(e vnet.Endpoint) bool {
		return s.Endpoint != e.Attachment.String() && (len(s.Labels) == 0 || !e.Labels.Has(s.Labels))
	})
}

// Rechain makes a change to groups, instances or chains, with the paths that follow from it, in one transaction, and
// then tells the switch: nothing is changed if the change is refused. Who comes by a conntrack zone finds it empty.
// A switch that does not run is told when it is synced, and till then its functions count as those that live.
func (n *Node) Rechain(ctx context.Context, write func(store.Tx) error) error {
	s, err := n.standIfAny(ctx)
	if err != nil {
		return err
	}
	var given []vnet.Zone
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		before, err := zones(tx)
		if err != nil {
			return err
		}
		if err := write(tx); err != nil {
			return err
		}
		if err := s.plan(tx); err != nil {
			return err
		}
		after, err := zones(tx)
		given = slices.DeleteFunc(after, func(z vnet.Zone) bool { return slices.Contains(before, z) })
		return err
	})
	if err != nil {
		return err
	}
	if err := n.emptyZones(ctx, given...); err != nil {
		return err
	}
	err = n.EachBridge(ctx, func(n *Node) error {
		if _, err := n.connectAll(ctx, true); !absent(err) {
			return err
		}
		return nil // no bridge: the first ADD writes all
	})
	if absent(err) { // no switch: nobody was asked
		return nil
	}
	if err == nil {
		err = n.awaitDatapath(ctx)
	}
	return vnet.WithHint(err, "it is recorded; once the switch answers: tenetctl sync")
}

// absent reports whether the switch does not run, or has no such bridge: there is nobody who could be told.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, vnet.ErrNotFound)
}

// zones are those that are tracked for chains' sake.
func zones(tx store.Tx) ([]vnet.Zone, error) {
	var all []vnet.Zone
	endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		if e.Zone != 0 {
			all = append(all, e.Zone)
		}
	}
	networks, err := store.All[vnet.Network](tx, store.Networks)
	if err != nil {
		return nil, err
	}
	for _, net := range networks {
		g, err := store.NetworkGateway(tx, net.Ref())
		if err != nil {
			return nil, err
		}
		if g.Outside != 0 {
			all = append(all, g.Outside)
		}
	}
	return all, nil
}

// emptyZones ends what is tracked in zones that nobody used, or nobody will.
func (n *Node) emptyZones(ctx context.Context, zones ...vnet.Zone) error {
	var calls [][]string
	for _, z := range zones {
		if z != 0 {
			calls = append(calls, []string{fmt.Sprintf("zone=%d", z)})
		}
	}
	if len(calls) == 0 {
		return nil
	}
	_, err := ovs.ControlEach(ctx, n.OVSRunDir, "dpctl/flush-conntrack", calls)
	if errors.Is(err, ovs.ErrRefused) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil // datapaths of both kinds, as in EmptyZone; or no ovs-vswitchd
	}
	return kind(err)
}

// Chained tells the chains that the endpoint has come, if any has to know: it is a port of a function, a classifier
// names it by its labels or itself, or it is the first of its network.
func (n *Node) Chained(ctx context.Context, e vnet.Endpoint) error {
	concerned := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		concerned, err = concerns(tx, e)
		return err
	})
	if err != nil || !concerned {
		return err
	}
	return n.SyncChains(ctx, e.Bridge)
}

func concerns(tx store.Tx, e vnet.Endpoint) (bool, error) {
	if e.Function != nil {
		return true, nil
	}
	chains, err := store.All[vnet.Chain](tx, store.ChainsOf(e.Tenant))
	if err != nil || len(chains) == 0 {
		return false, err
	}
	neighbours, err := living(tx, e.Ref(), e.Bridge)
	if err != nil || !slices.ContainsFunc(neighbours, func(o vnet.Endpoint) bool { return o.ID != e.ID }) {
		return true, err
	}
	for _, c := range chains {
		for _, k := range c.Classifiers {
			for _, s := range []vnet.Selector{k.From, k.To} {
				if s.Endpoint == e.Attachment.String() || len(s.Labels) > 0 && e.Labels.Has(s.Labels) {
					return true, nil
				}
			}
		}
	}
	return false, nil
}

// SyncChains plans the chains as their functions are now, and makes the chains' tables of the bridge agree.
func (n *Node) SyncChains(ctx context.Context, bridge string) error {
	unlock, err := n.lockFlows(ctx, bridge)
	if err != nil {
		return err
	}
	defer unlock()
	s, err := n.stand(ctx, bridge)
	if err != nil {
		return err
	}
	if err := n.replan(ctx, s); err != nil {
		return err
	}
	c, err := n.openflow(ctx, bridge)
	if err != nil {
		return err
	}
	defer c.Close()
	want := rendered{}
	err = n.Store.View(ctx, func(tx store.Tx) error {
		want, err = s.chains(tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range pipeline.ChainBase() {
		if slices.Contains(pipeline.ChainTables, f.Table) {
			want.flows = append(want.flows, f)
		}
	}
	var have []openflow.FlowStats
	for _, table := range pipeline.ChainTables {
		flows, err := c.Flows(ctx, openflow.FlowFilter{Table: &table})
		if err != nil {
			return kind(err)
		}
		have = append(have, flows...)
	}
	groups, err := c.Groups(ctx)
	if err != nil {
		return kind(err)
	}
	ch, _ := difference(want, have, groups)
	return kind(n.commit(ctx, c, bridge, ch))
}

// awaitDatapath waits until the datapath goes by the flows as they are now, for half a second at most. It does so by
// itself, some milliseconds after they have changed; but who is told that a chain stands may send at once, and is not to
// be led the old way.
func (n *Node) awaitDatapath(ctx context.Context) error {
	_, err := ovs.Control(ctx, n.OVSRunDir, "revalidator/wait")
	if errors.Is(err, ovs.ErrRefused) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil // datapaths of both kinds: it cannot be said which; or no ovs-vswitchd, which comes back with none
	}
	return kind(err)
}

// disconnectChains takes out of the chains what an endpoint that is leaving was to them.
func (n *Node) disconnectChains(ctx context.Context, e vnet.Endpoint) error {
	err := n.Chained(ctx, e)
	if absent(err) {
		return nil // flows outlive neither the bridge nor ovs-vswitchd
	}
	return err
}
