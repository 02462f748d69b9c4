package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// tenant is one of which an endpoint is here: all of its endpoints on other nodes have to be reached.
type tenant struct {
	name    vnet.TenantName
	stop    context.CancelFunc
	ready   chan struct{}          // closed when the switch knows of all that there were
	since   time.Time              // when the last endpoint of it went; zero: one is here
	remote  map[string]vnet.Remote // that are taken over, by their keys in etcd
	claims  claims[string, vnet.Remote]
	pending time.Time // since when something of theirs is being taken over; zero: nothing is
	own     echoes    // of this node's endpoints
}

// linger is how long a tenant stays known after its last endpoint here has gone.
const linger = 10 * time.Second

// present sees to it that the tenant's endpoints elsewhere are followed. It returns when the switch knows of them.
func (a *Agent) present(ctx context.Context, name vnet.TenantName) error {
	select {
	case <-a.follows(name).ready: //nolint:contextcheck // it outlives who asks
		return nil
	case <-ctx.Done():
		return vnet.OfKind(vnet.ErrUnavailable, context.Cause(ctx))
	}
}

// follows begins to follow the tenant, unless that has begun.
func (a *Agent) follows(name vnet.TenantName) *tenant {
	a.mu.Lock()
	defer a.mu.Unlock()
	if t := a.tenants[name]; t != nil {
		t.since = time.Time{}
		return t
	}
	life, stop := context.WithCancel(a.life)
	t := newTenant(name, stop)
	a.tenants[name] = t
	a.background.Go(func() {
		for life.Err() == nil {
			err := a.mirrored(life, a.settled, []string{endpointsIn(name)}, nil, func(ctx context.Context, whole bool, events []etcd.Event, _ int64) error {
				return a.applyEndpoints(ctx, t, whole, events)
			})
			if life.Err() == nil {
				a.log.Error("follow a tenant's endpoints", "tenant", name, "error", err)
				pause(life)
			}
		}
	})
	return t
}

func newTenant(name vnet.TenantName, stop context.CancelFunc) *tenant {
	t := &tenant{name: name, stop: stop, ready: make(chan struct{}), remote: map[string]vnet.Remote{}}
	t.claims = claims[string, vnet.Remote]{takes: t.remote, of: only, name: placeOf}
	return t
}

// gone reports whether the tenant is followed no more.
func (a *Agent) gone(t *tenant) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tenants[t.name] != t
}

// vanishedFrom are the tenant's endpoints that the node's store has and that are not to be reached.
func (a *Agent) vanishedFrom(ctx context.Context, n *node.Node, t *tenant) ([]vnet.Remote, error) {
	var gone []vnet.Remote
	err := n.Store.View(ctx, func(tx store.Tx) error {
		have, err := store.All[vnet.Remote](tx, store.RemotesIn(t.name))
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, r := range have {
			_, ok := t.remote[endpointKey(r)]
			if !ok && a.kept[networkKey(r.Ref())] { // nobody can tell of it, nor that it has gone
				ok = true
			}
			if !ok || a.off[r.Node] {
				gone = append(gone, r)
			}
		}
		return err
	})
	return gone, err
}

// leave ends following tenants that have had nobody here for some time, and takes from the switch what led to theirs.
func (a *Agent) leave(ctx context.Context, here map[vnet.TenantName]bool) error {
	a.order.Lock()
	defer a.order.Unlock()
	a.mu.Lock()
	var left []*tenant
	for name, t := range a.tenants {
		switch {
		case here[name]:
			t.since = time.Time{}
		case t.since.IsZero():
			t.since = time.Now()
		case time.Since(t.since) > linger:
			left = append(left, t)
			delete(a.tenants, name)
		}
	}
	known := map[vnet.TenantName]bool{}
	var regained []*tenant
	for name, t := range a.tenants {
		known[name] = true
		if t.isKnown() {
			regained = append(regained, t)
		}
	}
	a.mu.Unlock()
	if a.regained.IsZero() || time.Since(a.regained) < settleTime {
		regained = nil
	} else {
		a.regained = time.Time{}
	}
	for _, t := range left {
		t.stop()
	}
	if err := a.reconsider(ctx); err != nil {
		return err
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		var c node.OverlayChange
		err := n.Store.View(ctx, func(tx store.Tx) error {
			all, err := store.All[vnet.Remote](tx, store.Remotes)
			for _, r := range all {
				if !known[r.Tenant] && !here[r.Tenant] {
					c.GoneRemotes = append(c.GoneRemotes, r)
				}
			}
			return err
		})
		for _, t := range regained { // who was in a network that stands again, and has not said so
			gone, failed := a.vanishedFrom(ctx, n, t)
			err = errors.Join(err, failed)
			c.GoneRemotes = append(c.GoneRemotes, gone...)
		}
		if err != nil || c.Empty() {
			return err
		}
		return n.ChangeOverlay(ctx, c)
	})
}

var errAway = errors.New("etcd does not answer")
