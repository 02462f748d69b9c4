// Package cluster makes a node one of many. It carries records between etcd, which is the
// authority, and the node's own store, which is all that its programs and its switch go by: what
// is declared comes from there, what this node has goes there, and blocks of addresses are
// claimed there.
//
// Nothing here is in the way of a packet, and nothing is asked of etcd that the node's store
// could tell: without etcd, or without this package's Agent, the node goes on with what it has.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Options are what an operator may choose, beside the node's configuration.
type Options struct {
	Version string // of tenet
	// Lease is how long after its tenetd was last heard of a node counts as off.
	Lease time.Duration
	// Grace is how long the blocks of a node that is off stay its own.
	Grace time.Duration
	// Rest is how long a block that nobody has an address of stays the node's.
	Rest time.Duration
}

// Agent is this node's part in the cluster.
type Agent struct {
	node.Config
	Options
	Release func(context.Context, vnet.Endpoint) error // see node.Node
	Tally   *node.Tally                                // likewise

	log  *slog.Logger
	etcd *etcd.Store
	me   session

	untold   *node.Untold    // of what the node's store has by this agent, the switch
	regained time.Time       // when a network last came to stand again that was kept; zero: nothing is to be done about it. As order says
	kept     map[string]bool // by their keys: records that etcd has no more and somebody here still needs. As order says

	settled chan struct{} // closed when what etcd does not have counts as gone
	until   time.Time     // others may have not told etcd yet what they have. It is of no account when settled is closed

	life       context.Context //nolint:containedctx // of Run, nil before: what a request begins goes on behind it
	background sync.WaitGroup

	order  sync.Mutex   // of changes to the records of other nodes, which are made one after the other
	needs  sync.Mutex   // who claims blocks sees what others have claimed. Taken before blocks
	blocks sync.Mutex   // whose block one is changes in etcd and in the node's store before that of another does. Taken before mu
	serves sync.Mutex   // who tells of this node's functions. Taken before mu
	tells  sync.RWMutex // locked while etcd is asked what it has of this node's endpoints, which nobody tells it of meanwhile

	telling [64]sync.Mutex // who tells of an endpoint, by its id's hash. Taken after tells, before mu

	mu        sync.Mutex
	joined    bool
	ended     bool             // Run is about to
	lease     clientv3.LeaseID // 0: etcd knows of none
	connected bool             // to etcd, as far as is known
	denied    *Denial          // nil: etcd takes this node's credentials, as far as is known
	heardAt   time.Time        // when etcd was last known to answer; at first, when this began
	pending   time.Time        // since when something from etcd is being taken over; zero: nothing is
	leaving   bool             // the cluster: an operator asked for it
	parted    bool             // it is about to have left, and takes no lease again
	refused   error            // why the cluster does not want this node
	nodes     map[vnet.NodeName]Record
	vteps     *claims[vnet.NodeName, Record] // whose they are; nodes are those that it takes over. nil: none was heard of yet
	alive     map[vnet.NodeName]bool
	off       map[vnet.NodeName]bool // neither its tenetd nor its address answers
	graced    map[vnet.NodeName]bool // off, and not for so long that others may have their blocks
	silences  map[vnet.NodeName]silence
	tenants   map[vnet.TenantName]*tenant
	waiting   []*news // of tenants, for their turn
	published map[vnet.EndpointID]published
	toldUnder clientv3.LeaseID           // the lease under which it was asked what etcd has of this node's
	functions map[string]vnet.Instance   // as etcd has this node's
	unplanned bool                       // and chains do not go by them yet
	echoes    echoes                     // of the functions
	uplinks   map[vnet.UplinkName]string // as etcd was told of this node's: their VLANs
	uplinksAt time.Time                  // when that was
	conflicts map[vnet.EndpointID]string // endpoints that the cluster does not want, and why
	failures  map[string]string          // what has failed and not worked since, with the error that was logged
	idle      map[held]time.Time         // blocks that nobody has an address of, and since when
	revision  int64                      // of etcd: the latest of which something was taken over
	taken     revisions                  // of what is declared: it is in the node's store up to there
	moved     chan struct{}              // closed when taken grows

	kicked    chan struct{} // what the cluster is told of may have changed
	unclaimed atomic.Bool   // blocks of this node's may be, which may be claimed by now

	lost   chan struct{} // etcd does not answer
	unsure chan struct{} // a lease was given up
	dead   chan vnet.NodeName
	doubts chan struct{} // somebody does not reach a node
}

// New returns the agent of a node that is configured to be one of a cluster. Nothing is dialled yet.
func New(c node.Config, o Options, release func(context.Context, vnet.Endpoint) error, log *slog.Logger) (*Agent, error) {
	s, err := etcd.Open(etcd.Config(c.Etcd))
	if err != nil {
		return nil, err
	}
	settled := make(chan struct{})
	close(settled)
	return &Agent{
		Config: c, Options: o, Release: release, log: log, etcd: s,
		nodes: map[vnet.NodeName]Record{}, alive: map[vnet.NodeName]bool{}, off: map[vnet.NodeName]bool{}, graced: map[vnet.NodeName]bool{}, silences: map[vnet.NodeName]silence{},
		untold: &node.Untold{}, settled: settled, kept: map[string]bool{}, tenants: map[vnet.TenantName]*tenant{}, published: map[vnet.EndpointID]published{}, conflicts: map[vnet.EndpointID]string{},
		failures: map[string]string{}, idle: map[held]time.Time{}, heardAt: time.Now(), taken: revisions{}, moved: make(chan struct{}), kicked: make(chan struct{}, 1), lost: make(chan struct{}, 1),
		unsure: make(chan struct{}, 1), doubts: make(chan struct{}, 1), dead: make(chan vnet.NodeName),
	}, nil
}

// How often what nothing tells of is looked for, and how long things may take.
const (
	lookPause   = 250 * time.Millisecond // whether the node's store has changed
	housePause  = 2 * time.Second        // blocks, what failed
	guardPause  = 2 * time.Second        // nodes without a lease
	retryPause  = 500 * time.Millisecond
	callTimeout = 10 * time.Second
)

// Run is the node's part in the cluster until ctx ends. It returns early only if the cluster does not want the node, of which
// vnet.ErrExists says why, or with ErrAnew.
func (a *Agent) Run(ctx context.Context) error {
	defer a.etcd.Close()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	a.mu.Lock()
	a.life = ctx
	a.mu.Unlock()
	all := &a.background
	defer func() {
		a.mu.Lock()
		a.ended = true // no request comes in any more
		a.mu.Unlock()
		all.Wait()
	}()
	if err := a.join(ctx); err != nil {
		stop(err)
	} else {
		all.Go(func() { a.keep(ctx) })
		all.Go(func() { a.mirror(ctx) })
		all.Go(func() { a.listen(ctx) })
		all.Go(func() { a.guard(ctx) })
		all.Go(func() { a.bury(ctx) })
		all.Go(func() { a.collects(ctx) })
		all.Go(func() { a.asks(ctx, stop) })
		all.Go(func() { a.watches(ctx) })
		a.look(ctx, stop)
	}
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, errLeft) {
		return err
	}
	return nil
}

// fresh runs fn on a node of its own, as connections of one before may have died.
func (a *Agent) fresh(ctx context.Context, fn func(context.Context, *node.Node) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n := node.Open(a.Config, a.Release)
	n.Tally, n.Untold = a.Tally, a.untold
	defer n.Close()
	return fn(ctx, n)
}

// join makes the node a member, however long etcd lets it wait. An error says that it is not wanted.
func (a *Agent) join(ctx context.Context) error {
	said := ""
	for {
		err := a.tryJoin(ctx)
		switch {
		case err == nil:
			a.mu.Lock()
			a.joined = true
			a.mu.Unlock()
			a.log.Info("joined the cluster", "node", a.Name, "vtep", a.me.record.VTEP)
			return nil
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it is told to end
		case !errors.Is(err, vnet.ErrUnavailable):
			return err
		}
		if err.Error() != said {
			said = err.Error()
			a.log.Warn("cannot join the cluster yet", "error", err, "hint", vnet.Hint(err))
		}
		pause(ctx)
	}
}

// look does what is to be done when the node's store has changed, and what is to be done now and then.
func (a *Agent) look(ctx context.Context, stop context.CancelCauseFunc) {
	look, house := time.NewTicker(lookPause), time.NewTicker(housePause)
	defer look.Stop()
	defer house.Stop()
	var seen time.Time
	for {
		if changed, at := a.changed(seen); changed {
			if a.follow(ctx) {
				seen = at
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-a.kicked:
			seen = time.Time{}
		case <-look.C:
		case <-house.C:
			a.house(ctx, stop)
		}
	}
}

// Kick has the agent look at once what the cluster is to be told of. It may be called from anywhere.
func (a *Agent) Kick() {
	select {
	case a.kicked <- struct{}{}:
	default:
	}
}

// house does what is to be done now and then.
func (a *Agent) house(ctx context.Context, stop context.CancelCauseFunc) {
	l, err := a.local(ctx)
	if !a.failed(ctx, "read the node's store", err) {
		a.failed(ctx, "leave tenants", a.leave(ctx, l.tenants))
	}
	a.failed(ctx, "forget what was deleted", a.refreshKept(ctx))
	a.failed(ctx, "tell the switch", a.retell(ctx))
	if a.away() != nil {
		return
	}
	a.mu.Lock()
	leaving := a.leaving
	a.parted = a.parted && leaving
	refused := len(a.conflicts) > 0
	a.mu.Unlock()
	if refused || a.settling() {
		a.unclaimed.Store(true)
		a.Kick() // whom the cluster did not want it may by now
	}
	a.failed(ctx, "compare what etcd has in this node's name", a.compareEchoes(ctx))
	a.retellUplinks()
	if !leaving {
		a.failed(ctx, "leave the cluster", nil) // it may stay after all
		a.failed(ctx, "give blocks back", a.returnIdle(ctx))
		return
	}
	out, err := a.stepOut(ctx)
	if a.failed(ctx, "leave the cluster", err) || !out {
		return
	}
	if !a.failed(ctx, "leave the cluster", a.part(ctx)) {
		stop(errLeft)
	}
}

// pause waits a little, but for no longer than ctx.
func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(retryPause):
	}
}

// held is a block of a network.
type held struct {
	ref   vnet.Ref
	block netip.Prefix
}
