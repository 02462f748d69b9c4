package cluster

import (
	"context"
	"slices"

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
	done   bool // it was taken over, or err says why not
	err    error
}

// applyEndpoints takes over what has become of a tenant's endpoints on other nodes, and with it what came of others while
// this waited for its turn: together it is one write to the node's store and one bundle for the switch, which is most of
// what it takes.
func (a *Agent) applyEndpoints(ctx context.Context, t *tenant, whole bool, events []etcd.Event) error {
	own := &news{tenant: t, whole: whole, events: events}
	a.mu.Lock()
	a.waiting = append(a.waiting, own)
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
	return own.err
}

// takeOver takes over all of them or, as far as the node's store and the switch go, none.
func (a *Agent) takeOver(ctx context.Context, all ...*news) error {
	all = slices.DeleteFunc(slices.Clone(all), func(n *news) bool { return a.gone(n.tenant) })
	var c node.OverlayChange
	a.mu.Lock()
	for _, n := range all {
		a.hear(n, &c)
	}
	a.mu.Unlock()
	err := a.fresh(ctx, func(ctx context.Context, on *node.Node) error {
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
func (a *Agent) hear(n *news, c *node.OverlayChange) {
	if n.whole {
		clear(n.remote)
	}
	for key, value := range latest(n.events) {
		named, ok := parseEndpoint(key)
		if !ok || named.Node == a.Name {
			continue
		}
		if value == nil {
			delete(n.remote, key)
			c.GoneRemotes = append(c.GoneRemotes, named)
			continue
		}
		var r vnet.Remote
		if err := store.DecodeShared(key, value, &r); err != nil || endpointKey(r) != key {
			a.log.Error("an endpoint's record makes no sense", "tenant", named.Tenant, "network", named.Network, "endpoint", named.ID, "node", named.Node, "error", err)
			continue
		}
		n.remote[key] = r
		if !a.off[r.Node] {
			c.Remotes = append(c.Remotes, r)
		}
	}
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
