package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// declared are the prefixes that every node has as etcd has them, in the order in which one may name the other. Instances
// of service functions are recorded apart from the node's own.
var declared = []string{store.Tenants, store.Networks, store.Groups, store.Chains, store.Paths, store.Functions}

// Followed returns the prefix, as socket.Await knows it, under which every node has the record of that key, "" if none does.
func Followed(key string) string {
	for _, p := range declared {
		if strings.HasPrefix(key, p) {
			return p
		}
	}
	return ""
}

// concerns is what changes of them mean for the switch.
var concerns = map[string]node.Concern{store.Groups: node.AllFlows, store.Chains: node.AllFlows, store.Paths: node.ItsPaths}

// mirror keeps what the node has of the cluster's records as they are in etcd, until ctx ends.
func (a *Agent) mirror(ctx context.Context) {
	others, cancel := context.WithDeadline(ctx, a.until)
	defer cancel()
	for ctx.Err() == nil {
		err := a.mirrored(ctx, others.Done(), followed(), a.connection, func(ctx context.Context, whole bool, events []etcd.Event, revision int64) error {
			err := a.apply(ctx, whole, events, revision)
			if err == nil && whole {
				a.settles()
			}
			return err
		})
		if ctx.Err() == nil {
			a.log.Error("follow the cluster", "error", err)
			pause(ctx)
		}
	}
}

// followed is all that is followed, whatever tenants are here.
func followed() []string {
	return append([]string{Nodes, off, grace, drains}, declared...)
}

// catchUp takes over all as it is now.
func (a *Agent) catchUp(ctx context.Context) error {
	a.order.Lock() // what is listed must not be older than what is taken over by then
	defer a.order.Unlock()
	events, revision, err := a.etcd.List(ctx, append(followed(), alive, silences))
	if err != nil {
		return a.told(ctx, err)
	}
	a.hears(true, latest(events))
	return a.takes(ctx, !a.settling(), events, revision)
}

// apply takes over what has changed in etcd. What fails is tried again with everything, since Mirror begins anew; and what
// was recorded, but not told the switch, is told with everything, too.
func (a *Agent) apply(ctx context.Context, whole bool, events []etcd.Event, revision int64) error {
	a.order.Lock()
	defer a.order.Unlock()
	return a.takes(ctx, whole, events, revision)
}

// takes is apply where the order is locked.
func (a *Agent) takes(ctx context.Context, whole bool, events []etcd.Event, revision int64) error {
	a.mu.Lock()
	if a.pending.IsZero() { // else it has failed before
		a.pending = time.Now()
	}
	a.mu.Unlock()
	changes := latest(events)
	a.hearFunctions(whole, changes)
	if err := a.declare(ctx, whole, changes); err != nil {
		return err
	}
	if err := a.applyNodes(ctx, whole, events); err != nil {
		return err
	}
	if err := a.applyOff(ctx, whole, changes); err != nil {
		return err
	}
	if err := a.reconsider(ctx); err != nil {
		return err
	}
	if err := a.tellUntold(ctx); err != nil {
		return err
	}
	a.took(whole, events, revision)
	return nil
}

// tellUntold tells the switch what of the node's store it was not told before. The order is locked.
func (a *Agent) tellUntold(ctx context.Context) error {
	if !a.untold.Any() {
		return nil
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error { return n.TellUntold(ctx) })
}

// retell is tellUntold where nothing more comes, or nobody tries again: the tenant has left, or there was no switch.
func (a *Agent) retell(ctx context.Context) error {
	a.order.Lock()
	defer a.order.Unlock()
	return a.tellUntold(ctx)
}

// latest is what each key has come to.
func latest(events []etcd.Event) map[string][]byte {
	last := make(map[string][]byte, len(events))
	for key, e := range lastOf(events) {
		last[key] = e.Value
	}
	return last
}

// lastOf is the last event of each key.
func lastOf(events []etcd.Event) map[string]etcd.Event {
	last := make(map[string]etcd.Event, len(events))
	for _, e := range events {
		last[e.Key] = e
	}
	return last
}

// declare writes what is declared into the node's store: what others name first, and what names others goes first.
func (a *Agent) declare(ctx context.Context, whole bool, changes map[string][]byte) error {
	touches := whole
	for key := range changes {
		touches = touches || Followed(key) != ""
	}
	if !touches {
		return nil
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Declared(ctx, func(tx store.Tx) (node.Concern, error) { return a.record(tx, whole, changes) })
	})
}

// record is declare's transaction. What the node has already as it is changes nothing.
func (a *Agent) record(tx store.Tx, whole bool, changes map[string][]byte) (node.Concern, error) {
	concern := node.NoFlows
	gone := changes
	if whole {
		var err error
		if gone, err = vanished(tx, changes); err != nil {
			return concern, err
		}
	}
	for _, prefix := range slices.Backward(declared) {
		for key, value := range gone {
			if value != nil || !strings.HasPrefix(key, prefix) {
				continue
			}
			concern = max(concern, concerns[prefix])
			if err := a.forget(tx, key); err != nil {
				return concern, err
			}
		}
	}
	for _, prefix := range declared {
		for key, value := range changes {
			if value == nil || !strings.HasPrefix(key, prefix) {
				continue
			}
			changed, err := a.learn(tx, prefix, key, value)
			if errors.Is(err, errRecordOf) { // one that cannot be read keeps no other from being followed
				a.log.Error("a record of the cluster is left out of account", "key", key, "error", err)
				if errors.Is(err, errUnfit) { // until those have gone whom it does not fit
					a.kept[key] = true
				}
				continue
			}
			if err != nil {
				return concern, err
			}
			back := a.kept[key] // it may have another number now, and somebody here is in it
			delete(a.kept, key)
			if !changed {
				continue
			}
			concern = max(concern, concerns[prefix])
			if back {
				a.regained = time.Now()
				a.unclaimed.Store(true) // its blocks have gone with it
				a.Kick()
				concern = node.AllFlows
			}
			if r, ok := networkOf(key); ok { // its endpoints are followed apart from it: some may have come before it
				has, err := store.HasRemote(tx, r)
				if err != nil {
					return concern, err
				}
				if has {
					concern = node.AllFlows
				}
			}
		}
	}
	return concern, nil
}

// vanished are the declared records of the node's store that etcd has no more, by etcd's keys.
func vanished(tx store.Tx, stand map[string][]byte) (map[string][]byte, error) {
	gone := map[string][]byte{}
	for _, prefix := range declared {
		here := prefix
		if prefix == store.Functions {
			here = store.Elsewhere
		}
		err := tx.Range(here, func(key string, _ []byte) error {
			key = prefix + strings.TrimPrefix(key, here)
			if _, ok := stand[key]; !ok {
				gone[key] = nil
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// learn takes over a record, and reports whether it differs from what the node had. Fields that a newer tenet has added
// stay in etcd.
func (a *Agent) learn(tx store.Tx, prefix, key string, value []byte) (bool, error) {
	switch prefix {
	case store.Tenants:
		return learn(tx, key, value, func(t vnet.Tenant) (string, error) {
			return store.Tenants + string(t.Name), t.Validate()
		})
	case store.Networks:
		return learn(tx, key, value, func(n vnet.Network) (string, error) {
			_, err := n.Normal()
			if err == nil {
				err = fits(tx, n)
			}
			return networkKey(n.Ref()), errors.Join(err, n.VNI.Validate())
		})
	case store.Groups:
		return learn(tx, key, value, func(g vnet.Group) (string, error) {
			_, err := g.Normal()
			return groupKey(g.Ref()), err
		})
	case store.Paths:
		return learn(tx, key, value, func(legs []vnet.Leg) (string, error) {
			tenant, chain, _ := strings.Cut(strings.TrimPrefix(key, store.Paths), "/") // they name no chain themselves
			return key, errors.Join(vnet.TenantName(tenant).Validate(), vnet.ChainName(chain).Validate(), vnet.ValidateLegs(legs))
		})
	case store.Functions:
		var i vnet.Instance
		if err := store.DecodeShared(key, value, &i); err != nil || store.FunctionAt(i) != key {
			return false, errors.Join(errRecord(key), err)
		}
		if i.Node == a.Name { // what is of it the cluster's word
			own, err := store.FindInstance(tx, i.Ref(), i.Container)
			if errors.Is(err, vnet.ErrNotFound) || err == nil && own.Drained == i.Drained {
				return false, nil
			}
			own.Drained = i.Drained
			return true, errors.Join(err, store.PutInstance(tx, own))
		}
		return true, store.PutElsewhere(tx, i)
	}
	var tenant vnet.TenantName
	changed, err := learn(tx, key, value, func(c vnet.Chain) (string, error) {
		tenant = c.Tenant
		_, err := c.Normal()
		return store.ChainsOf(c.Tenant) + string(c.Name), err
	})
	if err != nil || !changed {
		return changed, err
	}
	return true, store.GiveZones(tx, tenant)
}

// fits fails if addresses in use here are not of the network as it is declared: it is another in the name of theirs.
func fits(tx store.Tx, n vnet.Network) error {
	stands, err := store.Network(tx, n.Ref())
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	used, usedErr := store.HasAddresses(tx, n.Ref())
	if err := errors.Join(err, usedErr); err != nil || !used {
		return err
	}
	for _, s := range stands.Subnets {
		if !slices.ContainsFunc(n.Subnets, func(o vnet.Subnet) bool { return o.Prefix == s.Prefix }) {
			return fmt.Errorf("network %s is declared without subnet %s, of which there are %w", n.Ref(), s.Prefix, errUnfit)
		}
	}
	return nil
}

var errUnfit = errors.New("addresses in use here")

// learn is that of one kind of record, of which check says what its key is to be and whether it makes sense.
func learn[T any](tx store.Tx, key string, value []byte, check func(T) (string, error)) (bool, error) {
	var record T
	err := store.DecodeShared(key, value, &record)
	if err == nil {
		var own string
		if own, err = check(record); err == nil && own != key {
			err = fmt.Errorf("it is the record of %s", own)
		}
	}
	if err != nil {
		return false, errors.Join(errRecord(key), err)
	}
	before := string(tx.Get(key)) // which may not be kept
	if err := store.Save(tx, key, record); err != nil {
		return false, err
	}
	return string(tx.Get(key)) != before, nil
}

// forget removes a record that etcd has no more. What somebody here still needs stays until nobody does: the network that an
// endpoint is in, the group that a function serves in, and their tenant.
func (a *Agent) forget(tx store.Tx, key string) error {
	names := strings.Split(key, "/")
	tenant := vnet.TenantName(names[1])
	var err error
	switch {
	case strings.HasPrefix(key, store.Functions):
		err = store.DeleteElsewhere(tx, key)
	case strings.HasPrefix(key, store.Tenants) && len(names) == 2:
		err = store.DeleteTenant(tx, tenant)
	case strings.HasPrefix(key, store.Networks) && len(names) == 3:
		err = store.DeleteNetwork(tx, vnet.Ref{Tenant: tenant, Network: vnet.NetworkName(names[2])})
	case strings.HasPrefix(key, store.Groups) && len(names) == 3:
		err = store.DeleteGroup(tx, vnet.GroupRef{Tenant: tenant, Group: vnet.GroupName(names[2])})
	default:
		err = tx.Delete(key)
	}
	switch {
	case errors.Is(err, vnet.ErrExists):
		if !a.kept[key] {
			a.log.Warn("what was deleted in the cluster is still needed here", "key", key, "why", err)
		}
		a.kept[key] = true
		return nil
	case err == nil, errors.Is(err, vnet.ErrNotFound):
		delete(a.kept, key)
		return nil
	}
	return err
}

// refreshKept forgets what was kept for those who have gone by now, and takes over what may have come in its place.
func (a *Agent) refreshKept(ctx context.Context) error {
	forgot, err := a.forgetKept(ctx)
	if err == nil && forgot {
		err = a.catchUp(ctx)
	}
	return err
}

// forgetKept is refreshKept up to where something was forgotten.
func (a *Agent) forgetKept(ctx context.Context) (bool, error) {
	a.order.Lock()
	defer a.order.Unlock()
	gone := map[string][]byte{}
	for key := range a.kept {
		gone[key] = nil
	}
	if len(gone) == 0 {
		return false, nil
	}
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error { // where nothing can be removed
			_, err := a.record(tx, false, gone)
			return err
		})
	})
	if err == nil { // and nothing was to be
		return false, nil
	}
	err = a.declare(ctx, false, gone)
	if err != nil {
		for key := range gone {
			a.kept[key] = true
		}
	}
	return true, err
}

func groupKey(r vnet.GroupRef) string { return store.GroupsOf(r.Tenant) + string(r.Group) }

// networkOf is the network that a key is of; false: it is of something else.
func networkOf(key string) (vnet.Ref, bool) {
	names := strings.Split(key, "/")
	if !strings.HasPrefix(key, store.Networks) || len(names) != 3 {
		return vnet.Ref{}, false
	}
	return vnet.Ref{Tenant: vnet.TenantName(names[1]), Network: vnet.NetworkName(names[2])}, true
}

// errRecordOf is that a record of etcd makes no sense to this tenet.
var errRecordOf = errors.New("of etcd makes no sense")

func errRecord(key string) error {
	return vnet.OfKind(vnet.ErrCorrupt, fmt.Errorf("record %s %w", key, errRecordOf))
}
