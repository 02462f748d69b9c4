package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// endGrace takes a node out of the cluster that is off and has no grace any more. Etcd says so in the transaction: what this
// node has been told of may be one and not the other yet.
func (a *Agent) endGrace(ctx context.Context, name vnet.NodeName) error {
	prefix := a.etcd.Prefix()
	removed, err := remove(ctx, a.etcd, name,
		clientv3.Compare(clientv3.CreateRevision(prefix+offKey(name)), ">", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+graceKey(name)), "=", 0))
	if removed {
		a.log.Warn("a node that was off has used up its grace: its addresses are free", "node", string(name))
	}
	return err
}

// declareOff writes down that the node is off, unless it has a lease again, somebody reaches it, or another was faster. With
// that its grace begins: a lease that nobody keeps, so that it is etcd's clock that counts.
func (a *Agent) declareOff(ctx context.Context, name vnet.NodeName) error {
	lease, err := a.etcd.Client().Grant(ctx, int64(max(a.Grace, minGrace)/time.Second))
	if err != nil {
		return a.told(ctx, err)
	}
	prefix := a.etcd.Prefix()
	put, err := a.etcd.Client().Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(prefix+aliveKey(name)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+reachedKey(name)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+offKey(name)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+nodeKey(name)), ">", 0),
	).Then(
		clientv3.OpPut(prefix+graceKey(name), string(a.Name), clientv3.WithLease(lease.ID)),
		clientv3.OpPut(prefix+offKey(name), string(a.Name)),
	).Commit()
	if err != nil {
		return a.told(ctx, err)
	}
	if !put.Succeeded {
		_, err := a.etcd.Client().Revoke(ctx, lease.ID)
		return a.told(ctx, err)
	}
	a.log.Warn("a node is off: neither its tenetd nor its address answers", "node", name)
	return a.etcd.Update(ctx, func(tx store.Tx) error { return planFor(tx, name) })
}

const minGrace = time.Second

// planFor decides anew on the chains that the node's instances serve in.
func planFor(tx store.Tx, name vnet.NodeName) error {
	tenants := map[vnet.TenantName]bool{}
	prefix := holdings + string(name) + "/" + store.Functions
	err := tx.Range(prefix, func(key string, _ []byte) error {
		tenant, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		tenants[vnet.TenantName(tenant)] = true
		return nil
	})
	if err != nil {
		return err
	}
	for tenant := range tenants {
		if err := plan(tx, tenant); err != nil {
			return err
		}
	}
	return nil
}

// applyOff takes over which nodes are off: their endpoints are not reached while they are.
func (a *Agent) applyOff(ctx context.Context, whole bool, changes map[string][]byte) error {
	a.mu.Lock()
	turned := map[vnet.NodeName]bool{} // to off, or back
	if whole {
		for name := range a.off {
			if changes[offKey(name)] == nil {
				delete(a.off, name)
				turned[name] = false
			}
		}
		clear(a.graced)
		clear(a.silences)
	}
	if value, ok := changes[drainKey(a.Name)]; ok || whole {
		a.leaving = value != nil
	}
	for key, value := range changes {
		if name, ok := strings.CutPrefix(key, grace); ok {
			a.graced[vnet.NodeName(name)] = value != nil
		}
		a.hears(key, value)
		text, ok := strings.CutPrefix(key, off)
		if !ok {
			continue
		}
		name := vnet.NodeName(text)
		if a.off[name] != (value != nil) {
			a.off[name] = value != nil
			turned[name] = value != nil
		}
	}
	var c node.OverlayChange
	for name, is := range turned {
		if r, ok := a.nodes[name]; ok && name != a.Name {
			r.Off = is
			c.Peers = append(c.Peers, r.Peer)
		}
	}
	for _, t := range a.tenants {
		for _, r := range t.remote {
			switch is, ok := turned[r.Node]; {
			case !ok:
			case is:
				c.GoneRemotes = append(c.GoneRemotes, r)
			default:
				c.Remotes = append(c.Remotes, r)
			}
		}
	}
	a.mu.Unlock()
	if c.Empty() {
		return nil
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error { return n.ChangeOverlay(ctx, c) })
}

// Authority is the cluster's store.
type Authority interface {
	store.Store
	Client() *clientv3.Client
	Prefix() string
	Error(err error) error
}

// Remove takes a node that does not run out of the cluster: its endpoints, its blocks, its functions and its name are free.
// vnet.ErrExists if it runs. Cut short, it can be done again.
func Remove(ctx context.Context, s Authority, name vnet.NodeName) error {
	removed, err := remove(ctx, s, name)
	if err == nil && !removed {
		return vnet.WithHint(vnet.Existsf("node %s runs", name), "have it leave: tenetctl node del %s --drain; or stop its tenetd first", name)
	}
	return err
}

// remove removes it step by step, as long as it does not run and the conditions hold; false: they do not.
func remove(ctx context.Context, s Authority, name vnet.NodeName, conditions ...clientv3.Cmp) (bool, error) {
	c, prefix := s.Client(), s.Prefix()
	conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(prefix+aliveKey(name)), "=", 0))
	own := prefix + holdings + string(name) + "/"
	for {
		const some = 40
		// Downwards: no block is free while an endpoint is told of that has an address of it.
		got, err := c.Get(ctx, own, clientv3.WithPrefix(), clientv3.WithKeysOnly(), clientv3.WithLimit(some), clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend))
		if err != nil {
			return false, s.Error(err)
		}
		// What another has removed meanwhile may be a third node's by now.
		same := slices.Clone(conditions)
		var ops []clientv3.Op
		for _, kv := range got.Kvs {
			same = append(same, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
			ops = append(ops, clientv3.OpDelete(string(kv.Key)), clientv3.OpDelete(prefix+heldKey(name, strings.TrimPrefix(string(kv.Key), own))))
		}
		if len(ops) == 0 {
			ops = []clientv3.Op{clientv3.OpDelete(prefix + nodeKey(name)), clientv3.OpDelete(prefix + offKey(name)), clientv3.OpDelete(prefix + graceKey(name)), clientv3.OpDelete(prefix + drainKey(name)), clientv3.OpDelete(prefix + useKey(name)), clientv3.OpDelete(prefix + doubtKey(name)), clientv3.OpDelete(prefix + reachedKey(name))}
		}
		done, err := c.Txn(ctx).If(same...).Then(ops...).Else(clientv3.OpTxn(conditions, nil, nil)).Commit()
		if err != nil {
			return false, s.Error(err)
		}
		switch {
		case !done.Succeeded && !done.Responses[0].GetResponseTxn().Succeeded:
			return false, nil
		case done.Succeeded && len(got.Kvs) == 0:
			return true, s.Update(ctx, planAll)
		}
	}
}

// heldKey is the key of what a node's list names: of endpoints and functions it has the node's name in it.
func heldKey(n vnet.NodeName, entry string) string {
	p := strings.Split(entry, "/")
	if last := len(p) - 1; p[0]+"/" != store.Blocks && last > 0 {
		p = slices.Insert(p, last, string(n))
	}
	return strings.Join(p, "/")
}

// planAll decides anew on the chains of all tenants.
func planAll(tx store.Tx) error {
	chains, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return err
	}
	planned := map[vnet.TenantName]bool{}
	for _, c := range chains {
		if planned[c.Tenant] {
			continue
		}
		planned[c.Tenant] = true
		if err := plan(tx, c.Tenant); err != nil {
			return fmt.Errorf("tenant %s: %w", c.Tenant, err)
		}
	}
	return nil
}
