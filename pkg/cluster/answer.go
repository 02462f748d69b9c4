package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Answer does what another program of this node asks of the cluster. It serves while the agent runs.
func (a *Agent) Answer(ctx context.Context, r socket.Request) (any, error) {
	a.mu.Lock()
	if a.life == nil || a.ended {
		a.mu.Unlock()
		return nil, errJoins
	}
	a.background.Add(1)
	a.mu.Unlock()
	defer a.background.Done()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.life, func() { cancel(errJoins) })() //nolint:contextcheck // it ends with the agent
	if r.Do == socket.Await {
		return nil, a.await(ctx, at(r.Revision, r.Prefixes))
	}
	err := a.away()
	if r.Do == socket.Need || r.Do == socket.Declare { // without which there is no ADD
		err = a.soonBack(ctx)
	}
	if err != nil {
		return nil, err
	}
	switch r.Do {
	case socket.CatchUp:
		latest, err := a.latest(ctx, declared...)
		if err != nil {
			return nil, err
		}
		return nil, a.await(ctx, latest)
	case socket.Publish:
		return nil, a.tell(ctx, r.Endpoint)
	case socket.Need:
		if r.Ref == nil {
			return nil, vnet.Invalidf("request %s without a network", r.Do)
		}
		net, err := a.network(ctx, *r.Ref)
		if err != nil {
			return nil, err
		}
		return nil, a.need(ctx, net, r.Addrs, r.Subnets)
	case socket.Declare:
		if r.Network == nil {
			return nil, vnet.Invalidf("request %s without a network", r.Do)
		}
		if err := a.etcd.Update(ctx, func(tx store.Tx) error {
			_, err := store.DeclareNetwork(tx, *r.Network)
			return err
		}); err != nil {
			return nil, err
		}
		latest, err := a.latest(ctx, declared...) // another may have declared it, a moment ago
		if err != nil {
			return nil, err
		}
		return nil, a.await(ctx, latest)
	}
	return nil, vnet.Invalidf("request %q: this tenetd does not know it", r.Do)
}

var errJoins = vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, errors.New("the node has not joined its cluster yet")), "does etcd answer? see the log of tenetd")

// soonBack is away, but waits a moment for an etcd that does not answer: mostly another of its members is about to.
func (a *Agent) soonBack(ctx context.Context) error {
	const moment, pause = 2 * time.Second, 20 * time.Millisecond
	ctx, cancel := context.WithTimeout(ctx, moment)
	defer cancel()
	for {
		err := a.away()
		if !errors.Is(err, errAway) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// away returns why nothing can be asked of etcd now, nil if it can.
func (a *Agent) away() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.joined:
		return errJoins
	case a.denied != nil:
		return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, errors.New(a.denied.String())), "%s", a.denied.Hint)
	case !a.connected:
		return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, errAway), "the node goes on with the networks and addresses that it has")
	case a.refused != nil:
		return fmt.Errorf("the cluster does not want this node: %w", a.refused)
	}
	return nil
}

// tell publishes the endpoint, or withdraws one that has gone, and sees to it that the node knows its tenant's others.
func (a *Agent) tell(ctx context.Context, id vnet.EndpointID) error {
	var e vnet.Endpoint
	var net vnet.Network
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			if e, err = store.Endpoint(tx, id); err != nil {
				return err
			}
			net, err = store.Network(tx, e.Ref())
			return err
		})
	})
	switch {
	case errors.Is(err, vnet.ErrNotFound):
		a.mu.Lock()
		p, ok := a.published[id]
		a.mu.Unlock()
		if !ok {
			return nil
		}
		err := a.withdraw(ctx, p)
		if err == nil && p.remote.Function != nil {
			err = a.tellFunctions(ctx)
		}
		return err
	case err != nil:
		return err
	case e.Bridge != a.Bridge || e.State != vnet.Ready:
		return nil
	}
	a.mu.Lock()
	was, moved := a.published[id]
	a.mu.Unlock()
	if moved && was.remote.Ref() != e.Ref() {
		if err := a.withdraw(ctx, was); err != nil {
			return err
		}
	}
	if err := a.publishHeld(ctx, e.Publish(a.Name), net); err != nil {
		return err
	}
	if e.Function != nil {
		if err := a.tellFunctions(ctx); err != nil {
			return err
		}
	}
	return a.present(ctx, e.Tenant)
}

func (a *Agent) network(ctx context.Context, r vnet.Ref) (vnet.Network, error) {
	var net vnet.Network
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		var err error
		net, err = n.Network(ctx, r)
		return err
	})
	return net, err
}
