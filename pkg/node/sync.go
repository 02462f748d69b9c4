package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Drift is how the switch and the links of this node differ from its store.
type Drift struct {
	// Endpoints whose record outlived them: cut short, of an earlier boot, or with their link gone.
	Endpoints []Orphan `json:"endpoints"`
	// Ports and links of ours that no record names.
	Ports []string `json:"ports"`
	Links []string `json:"links"`
	// Unplugged are endpoints that have their link but no working port.
	Unplugged []vnet.EndpointID `json:"unplugged"`
	// Flows that are missing or different, and flows that nobody wants.
	MissingFlows int `json:"missingFlows"`
	StrayFlows   int `json:"strayFlows"`
	// Groups of the switch, which choose and watch functions, that are missing, different, or nobody's.
	Groups []uint32 `json:"groups"`
	// Meters are limits of endpoints that are missing, different, or nobody's.
	Meters []uint32 `json:"meters"`
	// Host is what differs on the host's side: its link to the bridge, routes, rules, uplinks.
	Host []string `json:"host"`
}

// Orphan is a record to remove, and why.
type Orphan struct {
	ID  vnet.EndpointID `json:"id"`
	Why string          `json:"why"`

	seen vnet.Endpoint
}

// still reports whether e is what was judged: another ADD may have made it anew meanwhile, with
// another port number.
func (o Orphan) still(e vnet.Endpoint) bool {
	return e.State == o.seen.State && e.OFPort == o.seen.OFPort
}

// Count returns how many differences there are.
func (d Drift) Count() int {
	return len(d.Endpoints) + len(d.Ports) + len(d.Links) + len(d.Unplugged) + d.MissingFlows + d.StrayFlows + len(d.Groups) + len(d.Meters) + len(d.Host)
}

// Sync makes the switch and the links agree with the store, and returns what differed. It goes
// on past failures and returns them joined. Endpoints that somebody works on are left alone.
func (n *Node) Sync(ctx context.Context) (Drift, error) {
	if err := n.EnsureBridge(ctx); err != nil {
		return Drift{}, err
	}
	return n.pass(ctx, true)
}

// Diff looks for what Sync would do, and changes nothing. vnet.ErrNotFound if there is no bridge yet.
func (n *Node) Diff(ctx context.Context) (Drift, error) { return n.pass(ctx, false) }

func (n *Node) pass(ctx context.Context, apply bool) (Drift, error) {
	seen, err := n.look(ctx)
	if err != nil {
		return Drift{}, err
	}
	d := seen.drift()
	var errs []error
	if apply {
		errs = append(errs, n.repair(ctx, d), n.unwatched(ctx))
	}
	if apply {
		_, err := n.CollectPaths(ctx)
		errs = append(errs, err)
	}
	flows, err := n.connectAll(ctx, apply)
	d.MissingFlows, d.StrayFlows, d.Groups, d.Meters = flows.MissingFlows, flows.StrayFlows, flows.Groups, flows.Meters
	errs = append(errs, err)
	for _, side := range []func(context.Context, string, bool) ([]string, error){n.syncUplinks, n.syncHost} {
		differs, err := side(ctx, n.Bridge, apply)
		d.Host = append(d.Host, differs...)
		errs = append(errs, err)
	}
	return d, errors.Join(errs...)
}

// connectAll is the part of a pass that is about flows.
func (n *Node) connectAll(ctx context.Context, apply bool) (Drift, error) {
	unlock, err := n.lockFlows(ctx, n.Bridge)
	if err != nil {
		return Drift{}, err
	}
	defer unlock()
	c, err := n.openflow(ctx, n.Bridge)
	if err != nil {
		return Drift{}, err
	}
	defer c.Close()
	begun := time.Now()
	d, err := n.syncFlows(ctx, c, apply)
	if apply {
		n.Tally.synced(begun, err)
	}
	return d, err
}

// sight is what stands on this node, as seen at one moment.
type sight struct {
	here      string
	endpoints []vnet.Endpoint // on the bridge
	busy      map[vnet.EndpointID]bool
	rows      map[string]ovs.Port
	links     map[string]bool
}

// look reads rows and links before the records: a row or link is made after its record and
// removed before it, so one without a record is nobody's.
func (n *Node) look(ctx context.Context) (sight, error) {
	s := sight{rows: map[string]ovs.Port{}, links: map[string]bool{}, busy: map[vnet.EndpointID]bool{}}
	var err error
	if s.here, err = uplink.Here(); err != nil {
		return s, err
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return s, err
	}
	rows, err := sw.Ports(ctx, n.Bridge)
	if err != nil {
		return s, kind(err)
	}
	for _, row := range rows {
		s.rows[row.Name] = row
	}
	links, err := veth.List(ctx, linkAlias(n.Bridge))
	if err != nil {
		return s, kind(err)
	}
	for _, link := range links {
		s.links[link.Name] = true
	}
	all, err := n.endpoints(ctx)
	if err != nil {
		return s, err
	}
	s.endpoints = slices.DeleteFunc(all, func(e vnet.Endpoint) bool { return e.Bridge != n.Bridge })
	for _, e := range s.endpoints {
		unlock, err := n.tryAttachment(e.ID)
		if err != nil {
			return s, err
		}
		if unlock == nil {
			s.busy[e.ID] = true
		} else {
			unlock()
		}
	}
	return s, nil
}

// endpoints returns all endpoints, on whatever bridge.
func (n *Node) endpoints(ctx context.Context) ([]vnet.Endpoint, error) {
	var endpoints []vnet.Endpoint
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		endpoints, err = store.All[vnet.Endpoint](tx, store.Endpoints)
		return err
	})
	return endpoints, err
}

// drift compares what was seen.
func (s sight) drift() Drift {
	var d Drift
	known := map[string]bool{}
	for _, e := range s.endpoints {
		port := e.ID.Port()
		known[port] = true
		if s.busy[e.ID] {
			continue
		}
		if why := s.orphaned(e); why != "" {
			d.Endpoints = append(d.Endpoints, Orphan{ID: e.ID, Why: why, seen: e})
		} else if row, ok := s.rows[port]; e.Boot == s.here && (!ok || row.OFPort <= 0) {
			d.Unplugged = append(d.Unplugged, e.ID)
		}
	}
	for port, row := range s.rows {
		if row.Type == "" && !known[port] { // the host's and the uplinks' are ovs-vswitchd's own making
			d.Ports = append(d.Ports, port)
		}
	}
	for link := range s.links {
		if !known[link] {
			d.Links = append(d.Links, link)
		}
	}
	slices.Sort(d.Ports)
	slices.Sort(d.Links)
	return d
}

// orphaned says why nobody will miss the endpoint, "" if it lives.
func (s sight) orphaned(e vnet.Endpoint) string {
	switch {
	case !sameBoot(e, s.here):
		return "it is of an earlier boot"
	case e.Boot != s.here:
		return "" // its links cannot be seen from this namespace: leave it to who can
	case e.State == vnet.Pending:
		return "its ADD was cut short"
	case e.State == vnet.Leaving:
		return "its DEL was cut short"
	case !s.links[e.ID.Port()]:
		return "its link is gone"
	}
	return ""
}

// repair removes what nobody wants and plugs what is missing; flows come after it.
func (n *Node) repair(ctx context.Context, d Drift) error {
	var errs []error
	for _, o := range d.Endpoints {
		errs = append(errs, n.whenFree(ctx, o.ID, func(e vnet.Endpoint) error {
			if !o.still(e) {
				return nil
			}
			return n.remove(ctx, e)
		}))
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	errs = append(errs, kind(sw.UnplugEach(ctx, n.Bridge, d.Ports)))
	for _, link := range d.Links {
		errs = append(errs, kind(veth.Remove(ctx, link)))
	}
	for _, id := range d.Unplugged {
		errs = append(errs, n.whenFree(ctx, id, func(e vnet.Endpoint) error {
			if e.State != vnet.Ready {
				return nil
			}
			_, err := n.Plug(ctx, e)
			return err
		}))
	}
	return errors.Join(errs...)
}

// whenFree runs fn for the endpoint as it is now, unless somebody works on it or it has gone.
func (n *Node) whenFree(ctx context.Context, id vnet.EndpointID, fn func(vnet.Endpoint) error) error {
	unlock, err := n.tryAttachment(id)
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	e, err := n.Endpoint(ctx, id)
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	return fn(e)
}

// syncFlows compares the flows and meters that should be with those that are, and sends the
// difference: meters before the flows that name them, the flows as one bundle, the marker last,
// and what nobody names any more goes after them. The flows must be locked.
func (n *Node) syncFlows(ctx context.Context, c *openflow.Conn, apply bool) (Drift, error) {
	seen, err := n.stand(ctx, n.Bridge)
	if err != nil {
		return Drift{}, err
	}
	if apply {
		if err := n.replan(ctx, seen); err != nil {
			return Drift{}, err
		}
	}
	want, err := n.render(ctx, seen)
	if err != nil {
		return Drift{}, err
	}
	have, err := c.Flows(ctx, openflow.FlowFilter{})
	if err != nil {
		return Drift{}, kind(err)
	}
	groups, err := c.Groups(ctx)
	if err != nil {
		return Drift{}, kind(err)
	}
	changes, d := difference(want, have, groups)
	put, drop, err := n.diffMeters(ctx, c)
	if err != nil {
		return d, err
	}
	for _, m := range put {
		d.Meters = append(d.Meters, m.ID)
	}
	d.Meters = append(d.Meters, drop...)
	if !apply {
		return d, nil
	}
	if err := c.PutMeters(ctx, put...); err != nil {
		return d, kind(err)
	}
	if err := n.commit(ctx, c, n.Bridge, changes); err != nil {
		return d, kind(fmt.Errorf("flows of %s: %w", n.Bridge, err))
	}
	if err := c.DeleteMeters(ctx, drop...); err != nil {
		return d, kind(err)
	}
	if !slices.ContainsFunc(have, func(f openflow.FlowStats) bool { return pipeline.IsMarker(f.Flow) }) {
		return d, n.greetAll(ctx, c)
	}
	return d, nil
}

// changes are what turns what stands into what should.
type changes struct {
	groups []openflow.Change // before the flows that name them
	strays []openflow.Change // deletions of flows
	adds   []openflow.Flow   // with the marker, what stands is of another pipeline, or nothing
	last   []openflow.Change // deletions of groups that no flow names any more
}

// commit sends the changes in one bundle, unless they are very many: ovs-vswitchd takes 50
// messages from a connection in each turn of its main loop, and with 1,000 ports on the userspace
// datapath a turn lasts 5 to 20 ms. So thousands go in a bundle each over several connections, and in steps, so that at no
// moment a packet gets round what is to be: flows that say who sends come when all others are there, and the marker, which
// comes last of all, after them. Strays go at the end, so that what leads around a function never stands alone; but what
// another pipeline has left goes first.
func (n *Node) commit(ctx context.Context, c *openflow.Conn, bridge string, ch changes) error {
	const many = 1000
	if len(ch.groups)+len(ch.strays)+len(ch.adds)+len(ch.last) <= many {
		return n.Tally.commit(ctx, c, slices.Concat(ch.groups, ch.strays, adds(ch.adds), ch.last))
	}
	var before, senders, marker []openflow.Flow
	for _, f := range ch.adds {
		switch f.Table {
		case pipeline.Classify:
			senders = append(senders, f)
		case pipeline.Marker:
			marker = append(marker, f)
		default:
			before = append(before, f)
		}
	}
	first, end := ch.groups, slices.Concat(ch.strays, adds(marker), ch.last)
	if len(marker) > 0 {
		first, end = slices.Concat(ch.groups, ch.strays), slices.Concat(adds(marker), ch.last)
	}
	if err := n.Tally.commit(ctx, c, first); err != nil {
		return err
	}
	for _, step := range [][]openflow.Flow{before, senders} {
		if err := n.commitAtOnce(ctx, bridge, step); err != nil {
			return err
		}
	}
	return n.Tally.commit(ctx, c, end)
}

// commitAtOnce adds flows that do not depend on one another, over several connections.
func (n *Node) commitAtOnce(ctx context.Context, bridge string, flows []openflow.Flow) error {
	const connections = 16
	var wg sync.WaitGroup
	errs := make(chan error, connections+1)
	for part := range slices.Chunk(flows, len(flows)/connections+1) {
		wg.Go(func() {
			c, err := n.openflow(ctx, bridge)
			if err == nil {
				defer c.Close()
				err = n.Tally.commit(ctx, c, adds(part))
			}
			errs <- err
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// difference returns the changes that turn what the switch has into want. The order of want is kept.
func difference(want rendered, have []openflow.FlowStats, groups []openflow.GroupConfig) (changes, Drift) {
	stands := make(map[string]string, len(have))
	for _, f := range have {
		stands[f.Key()] = f.Body()
	}
	var ch changes
	var d Drift
	wanted := make(map[string]bool, len(want.flows))
	for _, f := range want.flows {
		key := f.Key()
		wanted[key] = true
		if body, ok := stands[key]; !ok || body != f.Body() {
			ch.adds = append(ch.adds, f)
			d.MissingFlows++
		}
	}
	for _, f := range have {
		if !wanted[f.Key()] {
			ch.strays = append(ch.strays, openflow.DeleteFlow(f.Flow))
			d.StrayFlows++
		}
	}
	standing := make(map[uint32]string, len(groups))
	for _, g := range groups {
		standing[g.ID] = g.Body()
	}
	keep := make(map[uint32]bool, len(want.groups))
	for _, g := range want.groups {
		keep[g.ID] = true
		if body, ok := standing[g.ID]; !ok || body != g.Body() {
			ch.groups = append(ch.groups, openflow.PutGroup(g))
			d.Groups = append(d.Groups, g.ID)
		}
	}
	for _, g := range groups {
		if !keep[g.ID] {
			ch.last = append(ch.last, openflow.DeleteGroup(g.ID))
			d.Groups = append(d.Groups, g.ID)
		}
	}
	return ch, d
}

// render returns every flow and group that the bridge should have, from the store and the switch's port
// numbers: those of endpoints that are here to stay or are just being added.
func (n *Node) render(ctx context.Context, seen standing) (rendered, error) {
	base := pipeline.BaseFlows()
	marker := len(base) - 1
	r := rendered{flows: slices.Clone(base[:marker])}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		if err != nil {
			return err
		}
		members := map[vnet.Ref][]uint32{}
		networks := map[vnet.Ref]pipeline.Network{}
		for _, e := range endpoints {
			if e.Bridge != n.Bridge || e.State == vnet.Leaving || len(e.Addrs) == 0 && e.Function == nil {
				continue
			}
			net, ok := networks[e.Ref()]
			if !ok {
				net, err = network(tx, e.Ref(), e.Bridge)
				if errors.Is(err, vnet.ErrNotFound) { // the record of what it is in has gone: nobody else is to suffer
					continue
				}
				if err != nil {
					return err
				}
				networks[e.Ref()] = net
				r.flows = append(r.flows, pipeline.NetworkFlows(net)...)
			}
			p, err := plugged(tx, e, portOf(e, seen.ports))
			if errors.Is(err, vnet.ErrNotFound) { // likewise
				continue
			}
			if err != nil {
				return err
			}
			if p.Hears() {
				members[e.Ref()] = append(members[e.Ref()], p.Port)
			}
			r.flows = append(r.flows, pipeline.EndpointFlows(net, p)...)
		}
		others, err := viewOverlay(tx, n.Bridge)
		if err != nil {
			return err
		}
		r.flows = append(r.flows, pipeline.EtcdFlows(others.etcd)...)
		for _, p := range others.peers {
			r.flows = append(r.flows, pipeline.PeerFlows(p)...)
		}
		away, err := others.endpoints(tx, n.Bridge, networks)
		if err != nil {
			return err
		}
		r.flows = append(r.flows, away...)
		for ref, net := range networks {
			slices.Sort(members[ref])
			nodes, err := others.nodes(ref)
			if err != nil {
				return err
			}
			r.flows = append(r.flows, pipeline.FloodFlows(net, members[ref], nodes)...)
		}
		chains, err := seen.chains(tx)
		r.add(chains.groups, chains.flows)
		return err
	})
	r.flows = append(r.flows, base[marker])
	return r, err
}

// Render returns every flow that the bridge should have.
func (n *Node) Render(ctx context.Context) ([]openflow.Flow, error) {
	seen, err := n.stand(ctx, n.Bridge)
	if err != nil {
		return nil, err
	}
	r, err := n.render(ctx, seen)
	return r.flows, err
}

// plugged is the endpoint at a port, with the mode of the function that it serves.
func plugged(tx store.Tx, e vnet.Endpoint, port uint32) (pipeline.Endpoint, error) {
	p := pipeline.Endpoint{Endpoint: e, Port: port}
	if e.Function == nil {
		return p, nil
	}
	g, err := store.Group(tx, vnet.GroupRef{Tenant: e.Tenant, Group: e.Function.Group})
	p.Mode = g.Mode
	return p, err
}
