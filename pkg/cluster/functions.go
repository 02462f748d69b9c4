package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Which ways lead through a chain is decided once for all nodes: in the transaction that changes what it depends on, by
// whoever makes it. Nobody has to be there for it but who changes something.

// Planned makes write decide anew on the paths of the tenants whose groups, chains or instances it writes.
func Planned(write func(store.Tx) error) func(store.Tx) error {
	return func(tx store.Tx) error {
		t := touching{Tx: tx, tenants: map[vnet.TenantName]bool{}}
		if err := write(t); err != nil {
			return err
		}
		for tenant := range t.tenants {
			if err := plan(tx, tenant); err != nil {
				return err
			}
		}
		return nil
	}
}

// touching notes whose chains are touched, and has no node hold a block that goes with its network.
type touching struct {
	store.Tx
	tenants map[vnet.TenantName]bool
}

func (t touching) note(key string) {
	for _, prefix := range []string{store.Groups, store.Chains, store.Functions} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			tenant, _, _ := strings.Cut(rest, "/")
			t.tenants[vnet.TenantName(tenant)] = true
		}
	}
}

// Shared says that the records are a whole cluster's.
func (touching) Shared() bool { return true }

func (t touching) Put(key string, value []byte) error {
	t.note(key)
	return t.Tx.Put(key, value)
}

func (t touching) Delete(key string) error {
	t.note(key)
	if block, ok := strings.CutPrefix(key, store.Blocks); ok {
		var h holder // of a record that makes no sense, nobody
		if store.DecodeShared(key, t.Get(key), &h) == nil {
			if err := t.Tx.Delete(holdings + string(h.Node) + "/" + store.Blocks + block); err != nil {
				return err
			}
		}
	}
	return t.Tx.Delete(key)
}

// plan decides on the paths of a tenant's chains, by what nodes say of their instances.
func plan(tx store.Tx, tenant vnet.TenantName) error {
	return paths.Plan(tx, tenant, stateIn(tx), time.Now().UTC())
}

// planEach is plan in as many transactions as it takes, of which each may see the records otherwise.
func planEach(tenant vnet.TenantName, update func(func(store.Tx) error) error, sees func(store.Tx) store.Tx) error {
	const some = 32 // chains: of each several records may change, and etcd takes 128 if it was not told otherwise
	for more := true; more; {
		more = false
		err := update(func(tx store.Tx) error {
			var err error
			more, err = paths.PlanSome(sees(tx), tenant, stateIn(sees(tx)), time.Now().UTC(), some)
			return err
		})
		if err != nil {
			return fmt.Errorf("tenant %s: %w", tenant, err)
		}
	}
	return nil
}

// asIs has planEach see what there is.
func asIs(tx store.Tx) store.Tx { return tx }

// stateIn is what becomes of instances, by what nodes say of them and who is off.
func stateIn(tx store.Tx) func(vnet.Instance) paths.State {
	return func(i vnet.Instance) paths.State {
		switch {
		case !i.Whole():
			return paths.Gone
		case i.Down, i.Hung, tx.Get(offKey(i.Node)) != nil:
			return paths.Dead
		}
		return paths.Serves
	}
}

// tellFunctions tells the cluster of this node's instances, and decides on the paths through them in the same transaction.
func (a *Agent) tellFunctions(ctx context.Context) error {
	a.serves.Lock() // or who has read less could write last
	defer a.serves.Unlock()
	var serving []vnet.Instance
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		var err error
		serving, err = n.Serving(ctx)
		return err
	})
	if err != nil {
		return err
	}
	want := a.instances(serving, false)
	a.mu.Lock()
	changed := a.functions == nil || a.unplanned || len(want) != len(a.functions)
	for key, i := range want {
		changed = changed || a.functions[key] != i
	}
	a.mu.Unlock()
	if !changed {
		return nil
	}
	impossible, err := a.tellServing(ctx, want, func(store.Tx) error { return nil })
	if err != nil {
		if (impossible || !errors.Is(err, vnet.ErrUnavailable)) && !errors.Is(err, errLeaseLost) {
			err = errors.Join(err, a.etcd.Update(ctx, a.comeBack))
		}
		return err
	}
	a.mu.Lock()
	a.functions, a.unplanned = want, false
	a.mu.Unlock()
	return nil
}

// comeBack has the node be off no more, though a chain of which functions are here cannot be decided on now.
func (a *Agent) comeBack(tx store.Tx) error {
	if err := a.inSession(tx); err != nil {
		return err
	}
	a.mu.Lock()
	a.unplanned = true
	a.mu.Unlock()
	return a.isBack(tx)
}

// isBack writes that the node is not off. It deletes only what there is: every deletion is one more for others to wait for.
func (a *Agent) isBack(tx store.Tx) error {
	return errors.Join(deleteFound(tx, offKey(a.Name)), deleteFound(tx, graceKey(a.Name)))
}

func deleteFound(tx store.Tx, key string) error {
	if tx.Get(key) == nil {
		return nil
	}
	return tx.Delete(key)
}

// instances are this node's by their keys in the cluster. Which are drained a node says as long as it is on its own.
func (a *Agent) instances(serving []vnet.Instance, alone bool) map[string]vnet.Instance {
	all := map[string]vnet.Instance{}
	for _, i := range serving {
		i.Node, i.Drained = a.Name, i.Drained && alone
		all[store.FunctionAt(i)] = i
	}
	return all
}

// putFunctions writes this node's instances as they should be. That one is drained is the cluster's word.
func (a *Agent) putFunctions(tx store.Tx, want map[string]vnet.Instance) error {
	if err := a.inSession(tx); err != nil {
		return err
	}
	a.mu.Lock()
	back := a.unplanned || a.functions == nil // of what was told before it is not known what followed from it
	a.mu.Unlock()
	back = back || tx.Get(offKey(a.Name)) != nil // it was off, and its functions serve again
	if err := a.isBack(tx); err != nil {
		return err
	}
	have, err := a.functionsThere(tx)
	if err != nil {
		return err
	}
	var errs []error
	for key := range have {
		if _, ok := want[key]; !ok {
			errs = append(errs, dropFunction(tx, a.Name, key))
		}
	}
	for key, i := range want {
		errs = append(errs, putFunction(tx, key, i, back))
	}
	return errors.Join(errs...)
}

// functionsThere are the keys of this node's instances in the cluster, as its index has them.
func (a *Agent) functionsThere(tx store.Tx) (map[string]bool, error) {
	have := map[string]bool{}
	err := tx.Range(functionEntry(a.Name, store.Functions), func(entry string, _ []byte) error {
		have[strings.TrimPrefix(entry, functionEntry(a.Name, ""))] = true
		return nil
	})
	return have, err
}

// functionEntry leads from a node to its instance with that key.
func functionEntry(n vnet.NodeName, key string) string { return holdings + string(n) + "/" + key }

func dropFunction(tx store.Tx, n vnet.NodeName, key string) error {
	return errors.Join(tx.Delete(key), tx.Delete(functionEntry(n, key)))
}

// putFunction writes an instance of this node as it should be; back: also if it is that already, for what follows from it. That one
// is drained is the cluster's word.
func putFunction(tx store.Tx, key string, i vnet.Instance, back bool) error {
	var stands vnet.Instance
	if value := tx.Get(key); value != nil {
		if err := store.DecodeShared(key, value, &stands); err != nil { // nobody but this node puts it right
			stands = vnet.Instance{}
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		i.Drained = stands.Drained
	}
	if stands != i || back {
		if err := saveOwn(tx, key, i); err != nil {
			return err
		}
	}
	entry := functionEntry(i.Node, key)
	if tx.Get(entry) != nil {
		return nil
	}
	return tx.Put(entry, nil)
}

// saveOwn saves a record that nobody else writes: a field kept because this tenet does not know it must not change what it says.
func saveOwn(tx store.Tx, key string, i vnet.Instance) error {
	if err := store.Save(tx, key, i); err != nil {
		return err
	}
	var is vnet.Instance
	if err := store.DecodeShared(key, tx.Get(key), &is); err == nil && is == i {
		return nil
	}
	return errors.Join(tx.Delete(key), store.Save(tx, key, i))
}

// inSession fails unless this run of tenetd is the one that the cluster takes the node's word from.
func (a *Agent) inSession(tx store.Tx) error {
	var p presence
	value := tx.Get(aliveKey(a.Name))
	if value == nil || json.Unmarshal(value, &p) != nil || p.Place != a.me.place {
		return errLeaseLost
	}
	return nil
}

// Drain says whether new connections may come to an instance in the container, on whatever node, or on that one if it is
// named. Those that have it keep it.
func Drain(tx store.Tx, ref vnet.GroupRef, container string, on vnet.NodeName, drained bool) error {
	all, err := store.Instances(tx, ref.Tenant)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(i vnet.Instance) bool {
		return i.Group != ref.Group || i.Container != container || on != "" && i.Node != on
	})
	if len(all) == 0 {
		return vnet.WithHint(vnet.NotFoundf("group %s has no instance in container %s", ref, container), "see tenetctl function list")
	}
	for _, i := range all {
		i.Drained = drained
		if err := store.Save(tx, store.FunctionAt(i), i); err != nil {
			return err
		}
	}
	return nil
}
