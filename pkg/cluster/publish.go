package cluster

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// published is an endpoint of this node as etcd was told of it.
type published struct {
	remote vnet.Remote
	text   string
	again  bool // it is to be told of once more
}

// readPublished finds out which endpoints of this node etcd has.
func (a *Agent) readPublished(ctx context.Context) error {
	a.tells.Lock()
	defer a.tells.Unlock()
	a.mu.Lock()
	lease := a.lease
	a.mu.Unlock()
	prefix := a.etcd.Prefix() + heldEndpoints(a.Name)
	got, err := a.etcd.Client().Get(ctx, prefix, clientv3.WithPrefix())
	if err != nil {
		return a.told(ctx, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.published)
	a.functions, a.uplinks = nil, nil // they are told once more
	for _, kv := range got.Kvs {
		var r vnet.Remote
		if err := store.DecodeShared(string(kv.Key), kv.Value, &r); err != nil || a.etcd.Prefix()+heldEndpointKey(r) != string(kv.Key) {
			a.log.Error("a record of what this node has makes no sense", "key", string(kv.Key), "error", err)
			continue
		}
		a.published[r.ID] = published{remote: r, text: string(kv.Value)}
	}
	a.toldUnder = lease
	return nil
}

// changed reports whether the node's store was written since.
func (a *Agent) changed(since time.Time) (bool, time.Time) {
	info, err := os.Stat(store.OpenBolt(a.DataDir).Path())
	if err != nil {
		return false, since
	}
	at := info.ModTime()
	if age := time.Since(at); age >= 0 && age < lookPause { // it may be written once more in the same tick of the file system's clock
		at = at.Add(-1)
	}
	return !info.ModTime().Equal(since), at
}

// local is what of this node's endpoints the cluster is told of.
type local struct {
	endpoints map[vnet.EndpointID]vnet.Remote
	tenants   map[vnet.TenantName]bool
	networks  map[vnet.Ref]vnet.Network // that somebody is in
	uplinks   []vnet.Uplink
}

func (a *Agent) local(ctx context.Context) (local, error) {
	l := local{endpoints: map[vnet.EndpointID]vnet.Remote{}, tenants: map[vnet.TenantName]bool{}, networks: map[vnet.Ref]vnet.Network{}}
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
			if err != nil {
				return err
			}
			if l.uplinks, err = store.All[vnet.Uplink](tx, store.Uplinks); err != nil {
				return err
			}
			for _, e := range endpoints {
				if e.Bridge != a.Bridge || e.State == vnet.Leaving {
					continue
				}
				net, ok := l.networks[e.Ref()]
				if !ok {
					if net, err = store.Network(tx, e.Ref()); err != nil {
						return err
					}
				}
				l.networks[e.Ref()] = net
				l.tenants[e.Tenant] = true
				if e.State == vnet.Ready {
					l.endpoints[e.ID] = e.Publish(a.Name)
				}
			}
			return nil
		})
	})
	return l, err
}

// follow brings what etcd has of this node's endpoints up to date, and this node to know of their tenants' others. It
// reports whether all is done.
func (a *Agent) follow(ctx context.Context) bool {
	a.mu.Lock()
	before := maps.Clone(a.published) // first: what is published after it was not seen below
	connected := a.connected
	a.mu.Unlock()
	l, err := a.local(ctx)
	if a.failed(ctx, "read the node's store", err) {
		return false
	}
	for name := range l.tenants {
		a.follows(name) //nolint:contextcheck // it outlives this pass
	}
	if !connected {
		return false
	}
	a.mu.Lock()
	maps.DeleteFunc(a.conflicts, func(id vnet.EndpointID, _ string) bool { _, ok := l.endpoints[id]; return !ok })
	a.mu.Unlock()
	if a.unclaimed.Swap(false) {
		if a.failed(ctx, "claim blocks again", a.recoverBlocks(ctx)) {
			a.unclaimed.Store(true)
			return false
		}
	}
	var errs []error
	stays := map[vnet.EndpointID]bool{} // in a network that it is no longer in
	for id, p := range before {
		if r, ok := l.endpoints[id]; !ok || r.Ref() != p.remote.Ref() {
			err := a.withdraw(ctx, p)
			errs = append(errs, err)
			stays[id] = err != nil
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.endpoints)) { // in one order: errors are told once
		r := l.endpoints[id]
		if p, ok := before[id]; !stays[id] && (!ok || p.again || p.text != text(r)) {
			errs = append(errs, notRefused(a.publish(ctx, r, l.networks[r.Ref()])))
		}
	}
	errs = append(errs, a.tellFunctions(ctx), a.tellUplinks(ctx, l.uplinks))
	for _, net := range l.networks {
		errs = append(errs, a.ahead(ctx, net))
	}
	return !a.failed(ctx, "tell the cluster of endpoints", errors.Join(errs...))
}

func text(r vnet.Remote) string {
	text, err := store.EncodeShared(r)
	if err != nil {
		return err.Error() // it has no such types
	}
	return string(text)
}

// lockPublished lets one at a time tell of an endpoint, until its result is called: what is noted of it is to be in the order
// in which etcd was told.
func (a *Agent) lockPublished(id vnet.EndpointID) func() {
	a.tells.RLock()
	h := fnv.New32a()
	h.Write([]byte(id))
	one := &a.telling[h.Sum32()%uint32(len(a.telling))]
	one.Lock()
	return func() {
		one.Unlock()
		a.tells.RUnlock()
	}
}

// publish tells the other nodes of an endpoint: if its network stands, and the blocks of its addresses are this node's.
func (a *Agent) publish(ctx context.Context, r vnet.Remote, net vnet.Network) error {
	if err := a.makeRoom(ctx, r); err != nil {
		return err
	}
	defer a.lockPublished(r.ID)()
	prefix := a.etcd.Prefix()
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(prefix+networkKey(r.Ref())), ">", 0)}
	for _, p := range r.Addrs {
		s, ok := net.SubnetOf(p.Addr())
		if !ok {
			return fmt.Errorf("endpoint %s: %s is in no subnet of %s: %w", r.ID, p, net.Ref(), vnet.ErrCorrupt)
		}
		if s.Assignable(p.Addr()) != nil {
			continue // a foreign IPAM plugin's, out of a reserved range, which no node hands out by itself
		}
		key := prefix + heldBlockKey(a.Name, r.Ref(), s.BlockOf(p.Addr())) // it stands and goes with the block's own
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(key), ">", 0))
	}
	what := text(r)
	put, err := a.change(ctx, conditions, []clientv3.Op{
		clientv3.OpPut(prefix+endpointKey(r), what), clientv3.OpPut(prefix+heldEndpointKey(r), what),
	}, clientv3.OpGet(prefix+networkKey(r.Ref()), clientv3.WithCountOnly()))
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !put.Succeeded {
		if a.conflicts[r.ID] == "" {
			a.log.Warn("an endpoint cannot be published: its network or its addresses are not this node's, as etcd has it", "tenant", r.Tenant, "network", r.Network, "endpoint", r.ID)
		}
		a.conflicts[r.ID] = fmt.Sprintf("endpoint %s (%s, %s) cannot be published", r.ID, r.Attachment, r.Ref())
		if put.Responses[0].GetResponseRange().Count == 0 {
			return fmt.Errorf("%w: %w", errRefused, vnet.NotFoundf("network %s was deleted in the cluster", r.Ref()))
		}
		return vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("%s: %w", a.conflicts[r.ID], errRefused))
	}
	delete(a.conflicts, r.ID)
	a.published[r.ID] = published{remote: r, text: what}
	return nil
}

// publishHeld is publish for a new endpoint, of whose addresses' blocks etcd may have lost that they are this node's: their network
// was deleted, and declared again before this node has heard of it. vnet.ErrExists if one is another's by now.
func (a *Agent) publishHeld(ctx context.Context, r vnet.Remote, net vnet.Network) error {
	err := a.publish(ctx, r, net)
	if !errors.Is(err, errRefused) || errors.Is(err, vnet.ErrNotFound) || a.settling() {
		return err
	}
	for _, p := range r.Addrs {
		s, ok := net.SubnetOf(p.Addr())
		if !ok || s.Assignable(p.Addr()) != nil {
			continue
		}
		h := held{r.Ref(), s.BlockOf(p.Addr())}
		who, failed := a.claim(ctx, h)
		switch {
		case failed != nil:
			return failed
		case who != a.Name:
			a.unclaimed.Store(true) // and so are others in it
			a.Kick()
			return vnet.Existsf("%s of network %s is of a block that is node %s's by now", p.Addr(), r.Ref(), who)
		}
	}
	return a.publish(ctx, r, net)
}

// makeRoom withdraws endpoints that have gone and that had what another has now: as long as they are told of, that one is left
// out of account by other nodes.
func (a *Agent) makeRoom(ctx context.Context, r vnet.Remote) error {
	var had []published
	wants := only(r)
	a.mu.Lock()
	for _, p := range a.published {
		if p.remote.ID != r.ID && p.remote.Ref() == r.Ref() && overlap(only(p.remote), wants) {
			had = append(had, p)
		}
	}
	a.mu.Unlock()
	if len(had) == 0 {
		return nil
	}
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var failed error
			had = slices.DeleteFunc(had, func(p published) bool { // it may have come while this waited
				e, err := store.Endpoint(tx, p.remote.ID)
				if err != nil && !errors.Is(err, vnet.ErrNotFound) {
					failed = err
				}
				return err == nil && e.State != vnet.Leaving && overlap(only(e.Publish(a.Name)), wants)
			})
			return failed
		})
	})
	for _, p := range had {
		if err == nil {
			err = a.withdraw(ctx, p)
		}
	}
	return err
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(what string) bool { return slices.Contains(b, what) })
}

// errRefused is that the cluster does not want an endpoint. It may do later, as when a block comes back: house sees to that.
var errRefused = errors.New("its network or its addresses are not this node's, as etcd has it")

func notRefused(err error) error {
	if errors.Is(err, errRefused) {
		return nil
	}
	return err
}

// withdraw tells the other nodes that the endpoint has gone, unless they have been told of another in its place.
func (a *Agent) withdraw(ctx context.Context, p published) error {
	r := p.remote
	defer a.lockPublished(r.ID)()
	a.mu.Lock()
	stands := a.published[r.ID].text == p.text
	a.mu.Unlock()
	if !stands {
		return nil
	}
	prefix := a.etcd.Prefix()
	_, err := a.change(ctx, nil, []clientv3.Op{clientv3.OpDelete(prefix + endpointKey(r)), clientv3.OpDelete(prefix + heldEndpointKey(r))})
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.published, r.ID)
	delete(a.conflicts, r.ID)
	return nil
}

func networkKey(r vnet.Ref) string { return store.NetworksOf(r.Tenant) + string(r.Network) }

// failed reports whether there is an error. It is logged once, until it is another one or the same thing has worked.
func (a *Agent) failed(ctx context.Context, what string, err error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		delete(a.failures, what)
	case ctx.Err() == nil && a.failures[what] != err.Error():
		a.failures[what] = err.Error()
		a.log.Error(what, "error", strings.ReplaceAll(err.Error(), "\n", "; "), "hint", vnet.Hint(err))
	}
	return err != nil
}
