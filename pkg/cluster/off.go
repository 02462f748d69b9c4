package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// endGraces takes those nodes out of the cluster whose grace has ended.
func (a *Agent) endGraces(ctx context.Context) error {
	var ended []vnet.NodeName
	a.mu.Lock()
	for name := range a.nodes {
		if name != a.Name && !a.alive[name] && a.off[name] && !a.graced[name] {
			ended = append(ended, name)
		}
	}
	a.mu.Unlock()
	var errs []error
	for _, name := range ended {
		errs = append(errs, a.endGrace(ctx, name))
	}
	return errors.Join(errs...)
}

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
	c, prefix := a.etcd.Client(), a.etcd.Prefix()
	lease, err := c.Grant(ctx, int64(max(a.Grace, minGrace)/time.Second))
	if err != nil {
		return a.told(ctx, err)
	}
	// First the grace, as off without it is at its end. Of several who find the node off one has the last word about it, and
	// only that one says off.
	mine := fmt.Sprintf("%s %x", a.Name, lease.ID)
	_, err = c.Txn(ctx).If(
		clientv3.Compare(clientv3.CreateRevision(prefix+offKey(name)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+aliveKey(name)), "=", 0),
		clientv3.Compare(clientv3.CreateRevision(prefix+nodeKey(name)), ">", 0),
	).Then(clientv3.OpPut(prefix+graceKey(name), mine, clientv3.WithLease(lease.ID))).Commit()
	if err != nil {
		return a.told(ctx, err)
	}
	off, err := a.turnOff(ctx, name, func(tx store.Tx) bool {
		return tx.Get(aliveKey(name)) == nil && tx.Get(reachedKey(name)) == nil && tx.Get(offKey(name)) == nil && tx.Get(nodeKey(name)) != nil &&
			string(tx.Get(graceKey(name))) == mine
	})
	if err != nil {
		return err
	}
	if off {
		a.log.Warn("a node is off: neither its tenetd nor its address answers", "node", name)
		return nil
	}
	_, err = c.Revoke(ctx, lease.ID) // with the grace, unless that is another's by now
	return a.told(ctx, err)
}

// turnOff writes that the node is off if, as etcd has it, it is, and decides in the same transaction on the chains that it serves
// in. That one of these cannot be decided on, or that they are too many for a transaction, keeps no node from being off: then they
// are led past it before, as many as can be. Cut short, it is not off, and whoever finds that out does it again. It reports whether
// it is off by this.
func (a *Agent) turnOff(ctx context.Context, name vnet.NodeName, is func(store.Tx) bool) (bool, error) {
	off := false
	turn := func(follows func(store.Tx) error) func(store.Tx) error {
		return func(tx store.Tx) error {
			if off = is(tx); !off {
				return nil
			}
			return errors.Join(tx.Put(offKey(name), []byte(a.Name)), follows(tx))
		}
	}
	var served []vnet.TenantName
	impossible, err := a.update(ctx, turn(func(tx store.Tx) error {
		var err error
		if served, err = servedBy(tx, name); err != nil {
			return err
		}
		for _, tenant := range served {
			if err := plan(tx, tenant); err != nil {
				return err
			}
		}
		return nil
	}))
	if err == nil || errors.Is(err, vnet.ErrUnavailable) && !impossible || ctx.Err() != nil {
		return off, err
	}
	for _, tenant := range served {
		err := planEach(tenant, func(plan func(store.Tx) error) error {
			_, err := a.update(ctx, func(tx store.Tx) error {
				if !is(tx) {
					return nil
				}
				return plan(tx)
			})
			return err
		}, func(tx store.Tx) store.Tx { return without{tx, name} })
		if err != nil {
			a.log.Error("a chain cannot be led past a node that is off", "error", err, "hint", vnet.Hint(err))
		}
	}
	_, err = a.update(ctx, turn(func(store.Tx) error { return nil }))
	return off, err
}

// without is a cluster's records as they will be when the node is off.
type without struct {
	store.Tx

	node vnet.NodeName
}

func (without) Shared() bool { return true }

func (w without) Get(key string) []byte {
	if key == offKey(w.node) {
		return []byte(w.node)
	}
	return w.Tx.Get(key)
}

const minGrace = time.Second

// servedBy are the tenants in whose chains the node's instances may serve.
func servedBy(tx store.Tx, name vnet.NodeName) ([]vnet.TenantName, error) {
	tenants := map[vnet.TenantName]bool{}
	prefix := functionEntry(name, store.Functions)
	err := tx.Range(prefix, func(key string, _ []byte) error {
		tenant, _, _ := strings.Cut(strings.TrimPrefix(key, prefix), "/")
		tenants[vnet.TenantName(tenant)] = true
		return nil
	})
	return slices.Sorted(maps.Keys(tenants)), err
}

// applyOff takes over which nodes are off: their endpoints are not reached while they are.
func (a *Agent) applyOff(ctx context.Context, whole bool, changes map[string][]byte) error {
	a.mu.Lock()
	turned := whole // what was heard before may not have been recorded
	if whole {
		maps.DeleteFunc(a.off, func(name vnet.NodeName, _ bool) bool { return changes[offKey(name)] == nil })
		clear(a.graced)
	}
	if value, ok := changes[drainKey(a.Name)]; ok || whole {
		a.leaving = value != nil
	}
	for key, value := range changes {
		if name, ok := strings.CutPrefix(key, grace); ok {
			a.graced[vnet.NodeName(name)] = value != nil
		}
		text, ok := strings.CutPrefix(key, off)
		if !ok {
			continue
		}
		name := vnet.NodeName(text)
		turned = turned || a.off[name] != (value != nil)
		a.off[name] = value != nil
	}
	a.mu.Unlock()
	if !turned {
		return nil
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		c, err := a.turned(ctx, n)
		if err != nil || c.Empty() {
			return err
		}
		return n.ChangeOverlay(ctx, c)
	})
}

// turned is what has to become of nodes in the node's store that have turned off, or are back, and of their endpoints.
func (a *Agent) turned(ctx context.Context, n *node.Node) (node.OverlayChange, error) {
	var c node.OverlayChange
	err := n.Store.View(ctx, func(tx store.Tx) error {
		peers, err := store.Peers(tx)
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, p := range peers {
			if p.Off != a.off[p.Name] {
				p.Off = !p.Off
				c.Peers = append(c.Peers, p)
			}
		}
		for _, t := range a.tenants {
			for _, r := range t.remote {
				switch has := tx.Get(store.RemoteKey(r.Ref(), r.Node, r.ID)) != nil; {
				case has && a.off[r.Node]:
					c.GoneRemotes = append(c.GoneRemotes, r)
				case !has && !a.off[r.Node]:
					c.Remotes = append(c.Remotes, r)
				}
			}
		}
		return err
	})
	return c, err
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
		return vnet.WithHint(vnet.Existsf("node %s runs", name), "have it leave: tenetctl node del %s --drain; or stop its tenetd first, and say --force", name)
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
		stands, err := readHeld(ctx, s, name, got.Kvs)
		if err != nil {
			return false, err
		}
		for i, kv := range got.Kvs {
			same = append(same, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
			ops = append(ops, clientv3.OpDelete(string(kv.Key)))
			entry := strings.TrimPrefix(string(kv.Key), own)
			if key := prefix + heldKey(name, entry); ownedBy(name, entry, stands[i]) {
				same = append(same, clientv3.Compare(clientv3.ModRevision(key), "=", stands[i].ModRevision))
				ops = append(ops, clientv3.OpDelete(key))
			}
		}
		if len(ops) == 0 {
			// Before the record: cut short here, it is done again.
			if err := s.Update(ctx, func(tx store.Tx) error {
				if tx.Get(aliveKey(name)) != nil {
					return nil
				}
				return store.KeepUplinks(tx, name)
			}); err != nil {
				return false, err
			}
			if err := planAll(ctx, s); err != nil {
				return false, err
			}
			ops = []clientv3.Op{clientv3.OpDelete(prefix + nodeKey(name)), clientv3.OpDelete(prefix + offKey(name)), clientv3.OpDelete(prefix + graceKey(name)), clientv3.OpDelete(prefix + drainKey(name)), clientv3.OpDelete(prefix + useKey(name)), clientv3.OpDelete(prefix + refillKey(name)), clientv3.OpDelete(prefix + doubtKey(name)), clientv3.OpDelete(prefix + reachedKey(name))}
		}
		done, err := c.Txn(ctx).If(same...).Then(ops...).Else(clientv3.OpTxn(conditions, nil, nil)).Commit()
		if err != nil {
			return false, s.Error(err)
		}
		switch {
		case !done.Succeeded && !done.Responses[0].GetResponseTxn().Succeeded:
			return false, nil
		case done.Succeeded && len(got.Kvs) == 0:
			return true, nil
		}
	}
}

// readHeld reads what the entries of a node's list name, in their order: nil where there is no such record.
func readHeld(ctx context.Context, s Authority, name vnet.NodeName, entries []*mvccpb.KeyValue) ([]*mvccpb.KeyValue, error) {
	stands := make([]*mvccpb.KeyValue, len(entries))
	var ops []clientv3.Op
	for _, kv := range entries {
		ops = append(ops, clientv3.OpGet(s.Prefix()+heldKey(name, strings.TrimPrefix(string(kv.Key), s.Prefix()+holdings+string(name)+"/"))))
	}
	if len(ops) == 0 {
		return stands, nil
	}
	got, err := s.Client().Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, s.Error(err)
	}
	for i, r := range got.Responses {
		if kvs := r.GetResponseRange().Kvs; len(kvs) > 0 {
			stands[i] = kvs[0]
		}
	}
	return stands, nil
}

// ownedBy reports whether the record of an entry is the node's: a block says whose it is, of other things the key does.
func ownedBy(name vnet.NodeName, entry string, record *mvccpb.KeyValue) bool {
	if record == nil {
		return false
	}
	var h holder
	return !strings.HasPrefix(entry, store.Blocks) || store.DecodeShared(entry, record.Value, &h) == nil && h.Node == name
}

// heldKey is the key of what a node's list names. An endpoint's has the node's name in it, where the list does not repeat it.
func heldKey(n vnet.NodeName, entry string) string {
	p := strings.Split(entry, "/")
	if last := len(p) - 1; p[0]+"/" == store.Endpoints && last > 0 {
		p = slices.Insert(p, last, string(n))
	}
	return strings.Join(p, "/")
}

// planAll decides anew on the chains of all tenants: of each by itself, as all of them may be too many for a transaction.
func planAll(ctx context.Context, s store.Store) error {
	tenants := map[vnet.TenantName]bool{}
	err := s.View(ctx, func(tx store.Tx) error {
		chains, err := store.All[vnet.Chain](tx, store.Chains)
		for _, c := range chains {
			tenants[c.Tenant] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, tenant := range slices.Sorted(maps.Keys(tenants)) {
		errs = append(errs, planEach(tenant, func(plan func(store.Tx) error) error { return s.Update(ctx, plan) }, asIs))
	}
	return errors.Join(errs...)
}
