package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// news is what has become of a tenant's endpoints on other nodes.
type news struct {
	*tenant

	whole  bool
	events []etcd.Event
	about  map[string]bool // keys of endpoints of which the switch has to know
	done   bool            // it was taken over, or err says why not
	err    error
}

// applyEndpoints takes over what has become of a tenant's endpoints on other nodes, and with it what came of others while
// this waited for its turn: together it is one write to the node's store and one bundle for the switch, which is most of
// what it takes.
func (a *Agent) applyEndpoints(ctx context.Context, t *tenant, whole bool, events []etcd.Event) error {
	own := &news{tenant: t, whole: whole, events: events}
	a.mu.Lock()
	a.waiting = append(a.waiting, own)
	if t.pending.IsZero() { // else it has failed before
		t.pending = time.Now()
	}
	a.mu.Unlock()
	a.order.Lock()
	defer a.order.Unlock()
	if own.done { // by who had the turn before
		return own.err
	}
	a.mu.Lock()
	all := a.waiting
	a.waiting = nil
	a.mu.Unlock()
	err := a.takeOver(ctx, all...)
	for _, n := range all {
		n.done, n.err = true, err
		if err != nil && len(all) > 1 { // whose fault it is
			n.err = a.takeOver(ctx, n)
		}
	}
	a.mu.Lock()
	for _, n := range all {
		if n.err == nil {
			n.pending = time.Time{}
		}
	}
	a.mu.Unlock()
	return own.err
}

// takeOver takes over all of them or, as far as the node's store and the switch go, none.
func (a *Agent) takeOver(ctx context.Context, all ...*news) error {
	all = slices.DeleteFunc(slices.Clone(all), func(n *news) bool { return a.gone(n.tenant) })
	var c node.OverlayChange
	err := a.fresh(ctx, func(ctx context.Context, on *node.Node) error {
		err := on.Store.View(ctx, func(tx store.Tx) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			c = node.OverlayChange{}
			for _, n := range all {
				if err := a.hear(tx, n, &c); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		for _, n := range all {
			if !n.whole {
				continue
			}
			gone, err := a.vanishedFrom(ctx, on, n.tenant)
			if err != nil {
				return err
			}
			c.GoneRemotes = append(c.GoneRemotes, gone...)
		}
		if c.Empty() {
			return nil
		}
		return on.ChangeOverlay(ctx, c)
	})
	if err == nil {
		err = a.tellUntold(ctx)
	}
	for _, n := range all {
		if err == nil && (n.whole || a.settling()) {
			n.known()
		}
	}
	return err
}

// hear notes what has become of the endpoints, and adds it to the change. The agent is locked.
func (a *Agent) hear(tx store.Tx, n *news, c *node.OverlayChange) error {
	is := changed[string, vnet.Remote]{whole: n.whole, written: map[string]written[vnet.Remote]{}}
	if n.whole {
		clear(n.own.texts)
	}
	for key, e := range lastOf(n.events) {
		named, ok := parseEndpoint(key)
		switch {
		case !ok:
			continue
		case named.Node == a.Name:
			n.own.hear(key, e.Value)
			is.doubted = append(is.doubted, n.claimed(key, e.Value)...)
			continue
		case e.Value == nil:
			is.gone = append(is.gone, key)
			continue
		}
		var r vnet.Remote
		err := store.DecodeShared(key, e.Value, &r)
		if err == nil && endpointKey(r) != key {
			err = fmt.Errorf("it is the record of %s", endpointKey(r))
		}
		if err != nil {
			a.log.Error("an endpoint's record makes no sense", "tenant", named.Tenant, "network", named.Network, "endpoint", named.ID, "node", named.Node, "error", err)
			is.unread = append(is.unread, key)
			continue
		}
		is.written[key] = written[vnet.Remote]{r, e.Revision}
	}
	if n.whole {
		stored, err := store.All[vnet.Remote](tx, store.RemotesIn(n.name))
		if err != nil {
			return err
		}
		is.before = map[string]vnet.Remote{}
		for _, r := range stored {
			is.before[endpointKey(r)] = r
		}
	}
	here := neighbours{tx: tx, bridge: a.Bridge, networks: map[vnet.Ref]neighbourhood{}}
	n.claims.fits = here.fits
	touched, refused := n.claims.change(is)
	if here.err != nil {
		return here.err
	}
	for _, key := range refused {
		o := n.claims.out[key]
		a.log.Error("an endpoint's record is left out of account", "tenant", o.record.Tenant, "network", o.record.Network, "endpoint", o.record.ID, "node", o.record.Node,
			"why", o.why.why, "whose", o.why.whose)
	}
	if n.about == nil {
		n.about = map[string]bool{}
	}
	maps.Copy(n.about, touched) // also of before, if this is done again
	for key := range n.about {
		if r, ok := n.remote[key]; !ok {
			named, _ := parseEndpoint(key)
			c.GoneRemotes = append(c.GoneRemotes, named)
		} else if !a.off[r.Node] {
			c.Remotes = append(c.Remotes, r)
		}
	}
	return nil
}

// claimed are the keys of those that stand and have what an endpoint of this node was published with.
func (t *tenant) claimed(key string, value []byte) []string {
	var r vnet.Remote
	if store.DecodeShared(key, value, &r) != nil {
		return nil // it has gone, or compareEchoes sees to it
	}
	var by []string
	for _, what := range only(r) {
		if k, ok := t.claims.whose[what]; ok {
			by = append(by, k)
		}
	}
	return by
}

// reconsider takes over what was left out of account and need not be any more, as networks are declared differently, or somebody
// here has gone. The order is locked.
func (a *Agent) reconsider(ctx context.Context) error {
	var all []*news
	a.mu.Lock()
	for _, t := range a.tenants {
		if len(t.claims.out) > 0 {
			all = append(all, &news{tenant: t})
		}
	}
	a.mu.Unlock()
	if len(all) == 0 {
		return nil
	}
	return a.takeOver(ctx, all...)
}

// isKnown reports whether known has been said.
func (t *tenant) isKnown() bool {
	select {
	case <-t.ready:
		return true
	default:
		return false
	}
}

// known says that the switch knows of all endpoints of the tenant.
func (t *tenant) known() {
	if !t.isKnown() {
		close(t.ready)
	}
}
