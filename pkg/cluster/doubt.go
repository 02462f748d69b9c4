package cluster

import (
	"context"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A node whose lease has ended may be off, or only its tenetd may be, or be cut off from etcd, which must not stop traffic.
// So its address is asked, too. Whoever gets no answer may be the one that is cut off, and doubts it where all see it. Who
// gets one says that the node is reached. Only what is doubted for a while, and reached by nobody, is off.

const (
	missedPings = 3
	pingWait    = time.Second
	// doubtWait is how long others have to say that they reach a node: each asks at once, and again soon.
	doubtWait = 4 * time.Second
)

// silence is what the cluster knows of a node without a lease.
type silence struct {
	doubted bool          // by somebody
	reached vnet.NodeName // by this one; "": nobody says so
}

// suspicion is what this node has found out of one.
type suspicion struct {
	missed int       // answers, one after the other
	since  time.Time // when it was doubted and nobody said that it reaches it; zero: it is not so
}

// guard looks after the other nodes until ctx ends.
func (a *Agent) guard(ctx context.Context) {
	suspects := map[vnet.NodeName]*suspicion{}
	for {
		soon := guardPause
		for _, s := range suspects {
			if s.missed > 0 {
				soon = pingWait
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(soon):
		case <-a.doubts:
		}
		if a.away() == nil {
			a.failed(ctx, "look after nodes without a lease", a.watchNodes(ctx, suspects))
		}
	}
}

// watchNodes asks the nodes that have no lease, once each.
func (a *Agent) watchNodes(ctx context.Context, suspects map[vnet.NodeName]*suspicion) error {
	a.mu.Lock()
	silent := map[vnet.NodeName]Record{}
	known := map[vnet.NodeName]silence{}
	others := 0
	for name, r := range a.nodes {
		switch {
		case name == a.Name:
		case a.alive[name]:
			others++
		case !a.off[name]:
			silent[name], known[name] = r, a.silences[name]
		}
	}
	a.mu.Unlock()
	for name := range suspects {
		if _, ok := silent[name]; !ok {
			delete(suspects, name)
		}
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var failed error
	for name, r := range silent {
		s := suspects[name]
		if s == nil {
			s = &suspicion{}
			suspects[name] = s
		}
		all.Go(func() {
			if err := a.ask(ctx, r, s, known[name], others > 0); err != nil {
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return failed
}

// ask asks a node without a lease whether it is there, and tells the others what comes of it. Only if there are others that
// may reach it, these are waited for.
func (a *Agent) ask(ctx context.Context, r Record, s *suspicion, known silence, others bool) error {
	there, err := ping(ctx, r.VTEP, pingWait)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it is told to end
	}
	if err != nil {
		a.log.Debug("ask a node without a lease whether it is there", "node", r.Name, "error", err)
	}
	if there {
		*s = suspicion{}
		if known.doubted && known.reached == "" {
			return a.vouch(ctx, r.Name)
		}
		return nil
	}
	s.missed++
	if !known.doubted || known.reached != "" {
		s.since = time.Time{}
	} else if s.since.IsZero() {
		s.since = time.Now()
	}
	switch {
	case known.reached == a.Name && s.missed >= missedPings:
		return a.reachesNoMore(ctx, r.Name)
	case !known.doubted:
		return a.doubt(ctx, r.Name)
	case s.missed >= missedPings && !s.since.IsZero() && (!others || time.Since(s.since) >= doubtWait):
		select {
		case a.dead <- r.Name:
		default: // the next time
		}
	}
	return nil
}

// doubt asks who reaches the node.
func (a *Agent) doubt(ctx context.Context, name vnet.NodeName) error {
	return a.leased(ctx, doubtKey(name), clientv3.Compare(clientv3.CreateRevision(a.etcd.Prefix()+aliveKey(name)), "=", 0))
}

// vouch says that this node reaches it.
func (a *Agent) vouch(ctx context.Context, name vnet.NodeName) error {
	return a.leased(ctx, reachedKey(name), clientv3.Compare(clientv3.CreateRevision(a.etcd.Prefix()+doubtKey(name)), ">", 0))
}

// leased writes this node's name for as long as its lease lasts, where no other's stands and the condition holds.
func (a *Agent) leased(ctx context.Context, key string, condition clientv3.Cmp) error {
	a.mu.Lock()
	lease := a.lease
	a.mu.Unlock()
	if lease == 0 {
		return nil
	}
	key = a.etcd.Prefix() + key
	_, err := a.etcd.Client().Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0), condition).
		Then(clientv3.OpPut(key, string(a.Name), clientv3.WithLease(lease))).Commit()
	return a.told(ctx, err)
}

// reachesNoMore takes vouch back: another may reach the node.
func (a *Agent) reachesNoMore(ctx context.Context, name vnet.NodeName) error {
	key := a.etcd.Prefix() + reachedKey(name)
	_, err := a.etcd.Client().Txn(ctx).If(clientv3.Compare(clientv3.Value(key), "=", string(a.Name))).Then(clientv3.OpDelete(key)).Commit()
	return a.told(ctx, err)
}

// listen follows which nodes have a lease, and what others know of those that have none, until ctx ends. By itself, and without
// the node's store: who reaches a node has to say so in time.
func (a *Agent) listen(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.etcd.Mirror(ctx, []string{alive, silences}, nil, func(_ context.Context, whole bool, events []etcd.Event, _ int64) error {
			a.hears(whole, latest(events))
			return nil
		})
		if ctx.Err() == nil {
			a.log.Error("follow which nodes live", "error", err)
			pause(ctx)
		}
	}
}

// hears is what listen is told.
func (a *Agent) hears(whole bool, changes map[string][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if whole {
		clear(a.alive)
		clear(a.silences)
	}
	for key, value := range changes {
		if name, ok := strings.CutPrefix(key, alive); ok {
			a.alive[vnet.NodeName(name)] = value != nil
			continue
		}
		text, ok := strings.CutPrefix(key, silences)
		if !ok {
			continue
		}
		node, what, _ := strings.Cut(text, "/")
		name := vnet.NodeName(node)
		s := a.silences[name]
		switch what {
		case "doubted":
			s.doubted = value != nil
		case "reached":
			s.reached = vnet.NodeName(value)
		}
		a.silences[name] = s
		if s == (silence{}) {
			delete(a.silences, name)
		}
		if s.doubted && s.reached == "" {
			select {
			case a.doubts <- struct{}{}:
			default:
			}
		}
	}
}

// bury takes nodes out of everybody's way that guard has found to be off, and out of the cluster when their grace has ended.
// Beside guard, as it may take long.
func (a *Agent) bury(ctx context.Context) {
	now := time.NewTicker(guardPause)
	defer now.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case name := <-a.dead:
			err = a.declareOff(ctx, name)
		case <-now.C:
			if a.away() == nil {
				err = a.endGraces(ctx)
			}
		}
		a.failed(ctx, "take out nodes that are off", err)
	}
}
