package cluster

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Record is what the cluster knows of a node. It stays while the node is off.
type Record struct {
	vnet.Peer
	// Identity tells the node from another that was given its name. It is made when the node joins first.
	Identity string `json:"identity"`
	Version  string `json:"version"`
	// Joined is when it joined first, by its own clock: for people to read.
	Joined time.Time `json:"joined"`
}

// session is this run of the node's tenetd.
type session struct {
	record  Record
	refills bool   // etcd was emptied, and this node has not declared yet all that it knows
	place   string // this boot, network namespace and data directory: two machines with one identity differ in it
}

// presence is the leased record that a tenetd of the node runs.
type presence struct {
	Place string    `json:"place"`
	Since time.Time `json:"since"`
}

// tryJoin makes the node a member, or sees that it is. vnet.ErrUnavailable if that cannot be said now.
func (a *Agent) tryJoin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := a.describe(ctx); err != nil {
		return err
	}
	members, err := a.members(ctx)
	if err != nil {
		return err
	}
	if err := a.enterWithAll(ctx); err != nil {
		return err
	}
	defer a.keepMeanwhile(ctx)()
	err = a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			was, err := store.FindOverlay(tx)
			if err != nil && !errors.Is(err, vnet.ErrNotFound) {
				return err
			}
			is := store.Overlay{Peer: a.me.record.Peer, Bridge: a.Bridge, Etcd: members, LeastMTU: was.LeastMTU}
			return errors.Join(store.JoinCluster(tx, a.Name), store.PutOverlay(tx, is))
		})
	})
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{
		a.settle, // before others claim what is here
		func(ctx context.Context) error {
			return a.fresh(ctx, func(ctx context.Context, n *node.Node) error { return n.Tunnel(ctx) })
		},
		a.catchUp, a.recoverBlocks, a.readPublished,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// members are where etcd's members listen: those that the configuration names, and those that etcd tells of.
func (a *Agent) members(ctx context.Context) ([]netip.AddrPort, error) {
	var all []netip.AddrPort
	for _, endpoint := range a.Etcd.Endpoints {
		addrs, err := listens(ctx, endpoint)
		if err != nil {
			return nil, err
		}
		all = append(all, addrs...)
	}
	told, err := a.etcd.Client().MemberList(ctx)
	if err != nil {
		err = a.etcd.Error(err)
		if errors.Is(err, vnet.ErrUnavailable) {
			return nil, err
		}
		a.log.Warn("containers are kept only from those members of etcd that the configuration names", "error", err)
		return all, nil
	}
	for _, m := range told.Members {
		for _, u := range slices.Concat(m.ClientURLs, m.PeerURLs) {
			if addrs, err := listens(ctx, u); err == nil { // else nobody here reaches it by that name
				all = append(all, addrs...)
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all), nil
}

// listens are the addresses of an endpoint of etcd's, with and without a scheme and a port. vnet.ErrUnavailable if its name
// cannot be resolved, vnet.ErrInvalid if it makes no sense.
func listens(ctx context.Context, endpoint string) ([]netip.AddrPort, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		u = &url.URL{Host: endpoint}
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", u.Hostname())
	if err != nil {
		return nil, vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("etcd.endpoints %s: %w", endpoint, err))
	}
	port, err := strconv.ParseUint(cmp.Or(u.Port(), "2379"), 10, 16)
	if err != nil {
		return nil, vnet.Invalidf("etcd.endpoints %s: %v", endpoint, err)
	}
	all := make([]netip.AddrPort, 0, len(addrs))
	for _, addr := range addrs {
		all = append(all, netip.AddrPortFrom(addr.Unmap(), uint16(port)))
	}
	return all, nil
}

// joinTimeout is how long one try may take: all that is declared is read, and the switch told of it.
const joinTimeout = time.Minute

// describe finds out what this node is.
func (a *Agent) describe(ctx context.Context) error {
	here, err := uplink.Here()
	if err != nil {
		return err
	}
	a.me.place = here + " " + a.DataDir
	p := vnet.Peer{Name: a.Name, VTEP: a.VTEP, Encapsulation: a.Encapsulation}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		if p.VTEP, p.MTU, err = n.Underlay(ctx); err != nil {
			return err
		}
		if p, err = p.Normal(); err != nil {
			return err
		}
		a.me.record.Peer, a.me.record.Version = p, a.Version
		return n.Store.Update(ctx, func(tx store.Tx) error {
			a.me.record.Identity, err = store.Identity(tx, newIdentity)
			return err
		})
	})
}

func newIdentity() (string, error) {
	b := make([]byte, 16)
	_, err := rand.Read(b)
	return hex.EncodeToString(b), err
}

// enter takes a lease and writes the node's record, unless somebody else has the name, or runs in its name.
func (a *Agent) enter(ctx context.Context) error {
	c, prefix := a.etcd.Client(), a.etcd.Prefix()
	got, err := c.Txn(ctx).Then(clientv3.OpGet(prefix+nodeKey(a.Name)), clientv3.OpGet(prefix+aliveKey(a.Name)),
		clientv3.OpGet(prefix+Nodes, clientv3.WithPrefix()), clientv3.OpGet(prefix+offKey(a.Name))).Commit()
	if err != nil {
		return a.etcd.Error(err)
	}
	var stands Record
	var standsRevision, aliveRevision int64
	if kvs := got.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		standsRevision = kvs[0].ModRevision
		if err := store.DecodeShared(nodeKey(a.Name), kvs[0].Value, &stands); err != nil {
			return err
		}
		if stands.Identity != a.me.record.Identity {
			return vnet.WithHint(vnet.Existsf("node %s is another machine, at %s", a.Name, stands.VTEP),
				`name this one otherwise ("node" in its configuration); if that one is no more: tenetctl node del %s`, a.Name)
		}
	}
	if kvs := got.Responses[1].GetResponseRange().Kvs; len(kvs) > 0 {
		aliveRevision = kvs[0].ModRevision
		var p presence
		if err := json.Unmarshal(kvs[0].Value, &p); err == nil && p.Place != a.me.place {
			return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("node %s runs on another machine, or did so a moment ago", a.Name)),
				"a copy of this node's data may run elsewhere; when that one ends, this one goes on after %s", a.Lease)
		}
	}
	for _, kv := range got.Responses[2].GetResponseRange().Kvs {
		var other Record
		if err := json.Unmarshal(kv.Value, &other); err != nil || other.Name == a.Name {
			continue
		}
		switch {
		case other.VTEP == a.me.record.VTEP:
			return vnet.WithHint(vnet.Existsf("vtep %s is node %s's", other.VTEP, other.Name), `set "vtep" in the configuration of one of them; if %s is no more: tenetctl node del %s`, other.Name, other.Name)
		case other.VTEP.Is4() != a.me.record.VTEP.Is4():
			return vnet.WithHint(vnet.Existsf("vtep %s: the cluster's are of the other family, as %s of node %s", a.me.record.VTEP, other.VTEP, other.Name), `set "vtep" in the configuration`)
		}
	}
	a.me.record.Joined = stands.Joined
	if stands.Joined.IsZero() {
		a.me.record.Joined = time.Now().UTC().Truncate(time.Second)
	}
	offRevision := int64(0)
	if kvs := got.Responses[3].GetResponseRange().Kvs; len(kvs) > 0 {
		offRevision = kvs[0].ModRevision
	}
	return a.write(ctx, standsRevision, aliveRevision, offRevision)
}

// write writes the node's record and its presence, if they are as they were seen. If the node is off, its grace begins anew: it
// is not back before it has told what is on it.
func (a *Agent) write(ctx context.Context, record, present, off int64) error {
	c, prefix := a.etcd.Client(), a.etcd.Prefix()
	lease, err := c.Grant(ctx, int64(a.Lease/time.Second))
	if err != nil {
		return a.etcd.Error(err)
	}
	what, err := store.EncodeShared(a.me.record)
	if err != nil {
		return err
	}
	that, err := store.EncodeShared(presence{Place: a.me.place, Since: time.Now().UTC()})
	if err != nil {
		return err
	}
	grace := clientv3.OpDelete(prefix + graceKey(a.Name))
	if off != 0 {
		again, err := c.Grant(ctx, int64(max(a.Grace, minGrace)/time.Second))
		if err != nil {
			return a.etcd.Error(err)
		}
		grace = clientv3.OpPut(prefix+graceKey(a.Name), string(a.Name), clientv3.WithLease(again.ID))
	}
	ops := []clientv3.Op{
		clientv3.OpPut(prefix+nodeKey(a.Name), string(what)),
		clientv3.OpPut(prefix+aliveKey(a.Name), string(that), clientv3.WithLease(lease.ID)),
		grace, clientv3.OpDelete(prefix + doubtKey(a.Name)), clientv3.OpDelete(prefix + reachedKey(a.Name)),
	}
	if a.me.refills { // with the record, by which the node counts as one that etcd knows
		ops = append(ops, clientv3.OpPut(prefix+refillKey(a.Name), ""))
	}
	put, err := c.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(prefix+nodeKey(a.Name)), "=", record),
		clientv3.Compare(clientv3.ModRevision(prefix+aliveKey(a.Name)), "=", present),
		clientv3.Compare(clientv3.ModRevision(prefix+offKey(a.Name)), "=", off),
	).Then(ops...).Commit()
	if err != nil {
		return a.etcd.Error(err)
	}
	if !put.Succeeded {
		return vnet.OfKind(vnet.ErrUnavailable, errors.New("the node's record changed meanwhile"))
	}
	a.mu.Lock()
	a.lease = lease.ID
	a.mu.Unlock()
	return nil
}

// keep keeps the lease, and takes another when it is lost.
func (a *Agent) keep(ctx context.Context) {
	for ctx.Err() == nil {
		a.mu.Lock()
		lease := a.lease
		a.mu.Unlock()
		if lease != 0 {
			a.keepOne(ctx, lease)
		}
		a.mu.Lock()
		lost := lease != 0 && a.lease == lease
		a.lease = 0
		parted := a.parted
		a.mu.Unlock()
		if ctx.Err() != nil {
			return
		}
		if parted { // unless an operator has it stay after all
			pause(ctx)
			continue
		}
		if lost {
			a.log.Warn("the node's lease was lost")
		}
		if err := a.again(ctx); err != nil && ctx.Err() == nil {
			a.log.Debug("cannot take a lease", "error", err)
			pause(ctx)
		}
	}
}

// keepOne keeps a lease until it is lost or given up.
func (a *Agent) keepOne(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answers, err := a.etcd.Client().KeepAlive(ctx, lease)
	for err == nil {
		select {
		case _, ok := <-answers:
			if !ok {
				return
			}
			a.heard()
		case <-a.unsure:
			a.mu.Lock()
			kept := a.lease == lease // else that was about one before
			a.mu.Unlock()
			if !kept {
				return
			}
		}
	}
}

// keepMeanwhile keeps the node's lease until what it returns is called: to join may take longer than the lease.
func (a *Agent) keepMeanwhile(ctx context.Context) func() {
	a.mu.Lock()
	lease := a.lease
	a.mu.Unlock()
	ctx, stop := context.WithCancel(ctx)
	answers, err := a.etcd.Client().KeepAlive(ctx, lease)
	if err != nil { // whoever needs the lease finds it lost
		return stop
	}
	var all sync.WaitGroup
	all.Go(func() {
		for range answers {
		}
	})
	return func() {
		stop()
		all.Wait()
	}
}

// again enters once more after the lease was lost or given up.
func (a *Agent) again(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.etcd.Same(ctx); err != nil { // whoever asks sees to it
		return a.etcd.Error(err)
	}
	if err := a.enter(ctx); err != nil {
		if !errors.Is(err, vnet.ErrUnavailable) { // else it is etcd that does not answer
			a.mu.Lock()
			a.refused = err
			a.mu.Unlock()
		}
		return err
	}
	a.mu.Lock()
	a.refused = nil
	lease := a.lease
	a.mu.Unlock()
	a.log.Info("the node has a lease again")
	err := errors.Join(a.recoverBlocks(ctx), a.readPublished(ctx))
	if err != nil {
		a.giveUp(lease) // so that it is done once more
	}
	a.Kick()
	return err
}

// change changes in etcd what is this node's own, if the conditions hold; else it does what or says. Under another lease than
// the node's present one nothing is changed: errLeaseLost.
//
// When an answer is lost the change may have been made, or may yet be. So the lease is given up then: under the next one none
// of those before is made any more, and what etcd has then is what has become of them.
func (a *Agent) change(ctx context.Context, conditions []clientv3.Cmp, then []clientv3.Op, or ...clientv3.Op) (*clientv3.TxnResponse, error) {
	a.mu.Lock()
	lease := a.lease
	a.mu.Unlock()
	if lease == 0 {
		return nil, vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, errors.New("the node has no lease from etcd now")), "see tenetctl status")
	}
	// The answer is waited for, also if who has asked for the change has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	defer context.AfterFunc(a.life, cancel)() //nolint:contextcheck // it ends with tenetd
	present := a.etcd.Prefix() + aliveKey(a.Name)
	conditions = append(conditions, clientv3.Compare(clientv3.LeaseValue(present), "=", lease))
	done, err := a.etcd.Client().Txn(ctx).If(conditions...).Then(then...).Else(append(or, clientv3.OpGet(present))...).Commit()
	if err != nil {
		if etcd.Unsure(err) {
			a.giveUp(lease)
		}
		return nil, a.told(ctx, err)
	}
	if !done.Succeeded {
		kvs := done.Responses[len(or)].GetResponseRange().Kvs
		if len(kvs) == 0 || kvs[0].Lease != int64(lease) {
			return nil, errLeaseLost
		}
	}
	return done, nil
}

var errLeaseLost = vnet.OfKind(vnet.ErrUnavailable, errors.New("the node's lease was lost meanwhile"))

// giveUp has keep take another lease, if the node's still is this one.
func (a *Agent) giveUp(lease clientv3.LeaseID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.lease != lease {
		return
	}
	a.lease = 0
	select {
	case a.unsure <- struct{}{}:
	default:
	}
}

// recordOf reads another node's record, of whatever version.
func recordOf(key string, value []byte) (Record, error) {
	var r Record
	err := store.DecodeShared(key, value, &r)
	if err == nil {
		r.Peer, err = r.Peer.Normal()
	}
	return r, err
}
