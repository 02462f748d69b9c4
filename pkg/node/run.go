package node

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// How often Run looks for what nothing tells it of, and how long things may take.
const (
	lookPause    = time.Second      // whether the store has changed: groups with probes, new instances
	collectPause = 30 * time.Second // for paths that no connection has any more
	callTimeout  = 30 * time.Second // of one pass
	helloTimeout = 5 * time.Second  // of who answers at once: the switch a new connection, the store
	endTimeout   = time.Second / 2  // of what goes on in the background, when Run ends
)

// A switch that does not answer is asked again after a part of the time that it has been away, which costs little; one that
// answers and could not be told all, after a larger part.
const (
	awayPart, tellPart = 16, 4
	minRetry, maxRetry = 50 * time.Millisecond, 2 * time.Second
)

const agentLock = "tenetd"

// Run keeps the node's switch in step with what happens, until ctx ends: it notices at once when a function's port
// goes down or comes back, probes functions whose groups ask for it, restores the flows when ovs-vswitchd has
// been restarted, and finishes a change of chains that was cut short. All it knows is in the store, so that it can be
// killed at any moment. vnet.ErrExists if another process runs it already.
//
// It is not needed for traffic: what stands on the switch goes on without it.
func (n *Node) Run(ctx context.Context, log *slog.Logger) error { return n.RunWith(ctx, log, nil) }

// RunWith is Run with company: something else that only one process of a node may do. It begins when this one is the
// node's, and Run ends with it; its context ends with Run's.
func (n *Node) RunWith(ctx context.Context, log *slog.Logger, company func(context.Context)) error {
	unlock, err := n.lockAgent(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	var both sync.WaitGroup
	defer both.Wait()
	if company != nil {
		both.Go(func() { company(ctx) })
	}
	a := agent{
		Node: n, log: log, retry: time.NewTimer(0), since: time.Now(), bridges: []string{n.Bridge}, failures: map[string]string{},
		verdicts: make(chan verdict), unrecorded: map[uint32]verdict{}, probes: map[uint32]*probing{},
	}
	defer a.end(ctx)
	a.run(ctx)
	return nil
}

// noteMetrics has whoever looks after the host's side know where tenetd tells how it is doing.
func (n *Node) noteMetrics(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	noted := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		noted = slices.Equal(ownPorts(ctx, store.MetricsAt(tx)), ownPorts(ctx, n.Metrics))
		return nil
	})
	if err != nil || noted {
		return err
	}
	return n.Store.Update(ctx, func(tx store.Tx) error { return store.PutMetricsAt(tx, n.Metrics) })
}

// lockAgent makes this process the node's only agent. A sync has the lock for a moment: that is waited for.
func (n *Node) lockAgent(ctx context.Context) (func(), error) {
	const tries, pause = 20, 50 * time.Millisecond
	for range tries {
		unlock, err := store.TryLock(n.DataDir, agentLock)
		if err != nil || unlock != nil {
			return unlock, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil, vnet.WithHint(vnet.Existsf("another tenetd runs for %s", n.DataDir), "a node has one; see systemctl status tenetd")
}

// agent is a running Run.
type agent struct {
	*Node
	log      *slog.Logger
	failures map[string]string // what has failed and not worked since, with the error that was logged

	conn  *openflow.Conn // to one of the bridges: it ends with ovs-vswitchd. nil: nobody answers
	retry *time.Timer    // when to greet the switch again
	since time.Time      // when the switch went away
	rest  sync.WaitGroup // what goes on in the background

	links <-chan veth.Change
	works map[vnet.EndpointID]bool // of all links, as far as was told

	verdicts   chan verdict
	unrecorded map[uint32]verdict  // those that could not be recorded, by the instance's number
	probes     map[uint32]*probing // by the instance's number

	// What the store said when it was last read, and when it had been written then.
	modified time.Time
	bridges  []string
	ports    map[vnet.EndpointID]servingPort
	declared digest

	told  digest // what was declared when all bridges were last told all
	stale bool   // the chains are to be planned and told once more: that failed, or links were not watched
}

func (a *agent) run(ctx context.Context) {
	a.failed(ctx, "record where metrics are told", a.noteMetrics(ctx))
	a.watch(ctx)
	a.read(ctx)
	look, collect := time.NewTicker(lookPause), time.NewTicker(collectPause)
	defer look.Stop()
	defer collect.Stop()
	for {
		var gone <-chan struct{}
		if a.conn != nil {
			gone = a.conn.Done()
		}
		select {
		case <-ctx.Done():
			return
		case <-gone:
			a.log.Warn("ovs-vswitchd has gone")
			a.conn, a.since = nil, time.Now()
			a.retry.Reset(0) // it is restarted as a rule: then no moment may be lost
		case <-a.retry.C:
			a.greet(ctx)
		case c, ok := <-a.links:
			if ok {
				a.linkChanged(ctx, c)
				continue
			}
			a.watch(ctx) // events were lost: what matters is looked at as a whole
			a.chains(ctx)
		case v := <-a.verdicts:
			a.judge(ctx, v)
		case <-look.C:
			a.look(ctx)
		case <-collect.C:
			a.collect(ctx)
		}
	}
}

// end ends what goes on in the background. What does not end soon is left to end with the process, as if it were killed.
func (a *agent) end(ctx context.Context) {
	if a.conn != nil {
		a.conn.Close()
	}
	a.probe(ctx, nil)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		a.rest.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(endTimeout):
	}
}

// fresh runs one pass on a node of its own, as connections of one before may have died, and reports whether it worked.
func (a *agent) fresh(ctx context.Context, what string, fn func(context.Context, *Node) error) bool {
	pass, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n := a.another()
	defer n.Close()
	return !a.failed(ctx, what, fn(pass, n))
}

// another is the same node, with connections of its own.
func (a *agent) another() *Node {
	n := Open(a.Config, a.Release)
	n.Tally = a.Tally
	return n
}

// failed reports whether there is an error. It is logged once, until it is another one or the same thing has worked.
func (a *agent) failed(ctx context.Context, what string, err error) bool {
	switch {
	case err == nil:
		delete(a.failures, what)
	case ctx.Err() == nil && a.failures[what] != err.Error():
		a.failures[what] = err.Error()
		a.log.Error(what, "error", err, "hint", vnet.Hint(err))
	}
	return err != nil
}

// greet connects to the switch and brings its flows up to date. If that fails it is done again before long.
func (a *agent) greet(ctx context.Context) {
	if a.conn == nil {
		a.conn = a.answering(ctx)
	}
	part := time.Duration(awayPart)
	if a.conn != nil {
		if a.restore(ctx) {
			return
		}
		part = tellPart
	}
	a.retry.Reset(min(max(time.Since(a.since)/part, minRetry), maxRetry))
}

// answering connects to the first bridge that answers; nil: there is no switch, or no bridge yet.
func (a *agent) answering(ctx context.Context) *openflow.Conn {
	ctx, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	for _, bridge := range a.bridges {
		if conn, err := a.openflow(ctx, bridge); err == nil {
			return conn
		}
	}
	return nil
}

// restore writes the flows of every bridge. The rest of a sync, for which traffic does not wait, goes on in the background:
// a foreign IPAM plugin may take its time.
func (a *agent) restore(ctx context.Context) bool {
	var restored map[string]Drift
	declared := a.declared
	if !a.fresh(ctx, "restore the flows", func(ctx context.Context, n *Node) error {
		var err error
		restored, err = n.restoreAll(ctx)
		return err
	}) {
		return false
	}
	a.told, a.stale = declared, false
	a.Tally.restored()
	var all Drift
	for _, d := range restored {
		all.add(d)
	}
	a.log.Info("the switch agrees with the store", "bridges", len(restored), "differences", all.Count())
	a.rest.Go(func() {
		pass, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		n := a.another()
		defer n.Close()
		d, err := n.tidyAll(pass, restored)
		if err != nil && ctx.Err() == nil {
			a.log.Error("tidy up", "error", err, "hint", vnet.Hint(err))
		}
		for _, o := range d.Endpoints {
			a.log.Info("an endpoint is nobody's, and goes", "tenant", o.seen.Tenant, "network", o.seen.Network, "endpoint", o.ID, "container", o.seen.Container, "why", o.Why)
		}
		a.log.Debug("tidied up", "differences", d.Count())
	})
	return true
}

// watch asks to be told of links, and looks at those that stand: what is told of them to begin with is no change. The chains
// are to be planned anew after it, and, if it fails, with each look.
func (a *agent) watch(ctx context.Context) {
	a.stale, a.works = true, map[vnet.EndpointID]bool{}
	changes, err := veth.Watch(ctx, "tenet ")
	a.failed(ctx, "watch links", err)
	a.links = changes // nil if that failed
	links, err := veth.List(ctx, "tenet ")
	a.failed(ctx, "list links", err)
	for _, l := range links {
		a.works[endpointOf(l.Alias)] = l.Works
	}
}

// endpointOf is the endpoint that a link's alias names: linkAlias and its id.
func endpointOf(alias string) vnet.EndpointID {
	words := strings.Fields(alias)
	return vnet.EndpointID(words[len(words)-1])
}

// linkChanged plans the chains anew if a function's port went down or came back.
func (a *agent) linkChanged(ctx context.Context, c veth.Change) {
	id := endpointOf(c.Alias)
	was, known := a.works[id]
	a.works[id] = c.Works
	if !c.Works {
		if _, err := os.Stat("/sys/class/net/" + c.Name); errors.Is(err, os.ErrNotExist) {
			delete(a.works, id)
		}
	}
	p, serves := a.ports[id]
	if known && was == c.Works || !serves {
		return
	}
	a.log.Info("the port of a function changed", "tenant", p.network.Tenant, "network", p.network.Network, "endpoint", id, "function", p.function, "port", c.Name, "works", c.Works)
	a.chains(ctx)
}

// chains plans them and tells every bridge. What fails is done again with the next look.
func (a *agent) chains(ctx context.Context) {
	if a.Changed != nil {
		a.Changed()
	}
	a.stale = !a.fresh(ctx, "change the chains", func(ctx context.Context, n *Node) error {
		return n.eachOurs(ctx, func(n *Node) error { return n.SyncChains(ctx, n.Bridge) })
	})
}

// flows plans the chains and makes all flows of every bridge agree with the store. What fails is done again with the next look.
func (a *agent) flows(ctx context.Context) {
	declared := a.declared
	if a.fresh(ctx, "change the flows", func(ctx context.Context, n *Node) error {
		return n.eachOurs(ctx, func(n *Node) error {
			_, err := n.connectAll(ctx, true)
			return err
		})
	}) {
		a.told, a.stale = declared, false
	}
}

// eachOurs is EachBridge for those that are on the switch and belong to this node's store.
func (n *Node) eachOurs(ctx context.Context, do func(*Node) error) error {
	return n.EachBridge(ctx, func(n *Node) error {
		b, err := n.sw.Bridge(ctx, n.Bridge)
		switch {
		case errors.Is(err, ovs.ErrNotFound):
			return nil // the first ADD makes it and writes all
		case err != nil:
			return kind(err)
		case b.Owner != n.DataDir:
			return nil
		}
		return do(n)
	})
}

// look reads the store again if somebody has written it, and does what was not done, by this agent or by whoever wrote it.
func (a *agent) look(ctx context.Context) {
	a.read(ctx)
	for _, v := range maps.Clone(a.unrecorded) {
		a.judge(ctx, v)
	}
	if a.links == nil {
		a.watch(ctx)
	}
	switch {
	case a.told != a.declared:
		a.flows(ctx)
	case a.stale:
		a.chains(ctx)
	}
}

// read takes from the store what matters here, if somebody has written it.
func (a *agent) read(ctx context.Context) {
	info, err := os.Stat(a.Store.Path())
	if err != nil || info.ModTime().Equal(a.modified) {
		return
	}
	var w watched
	if !a.fresh(ctx, "read the store", func(ctx context.Context, n *Node) error {
		w, err = n.watched(ctx)
		return err
	}) {
		return
	}
	a.bridges, a.ports, a.declared = w.bridges, w.ports, w.declared
	a.probe(ctx, w.probes)
	for _, p := range w.unprobed {
		a.judge(ctx, verdict{p, false})
	}
	if time.Since(info.ModTime()) > lookPause/10 { // else it may be written once more in the same tick of the file system's clock
		a.modified = info.ModTime()
	}
}

// watched is what an agent takes from the store.
type watched struct {
	bridges  []string
	ports    map[vnet.EndpointID]servingPort
	probes   []wantedProbe // of instances that are to be probed
	unprobed []wantedProbe // instances that were found hung, and are not probed any more
	declared digest
}

// servingPort is the port of a function.
type servingPort struct {
	function string
	network  vnet.Ref
}

// digest is of what others write of chains: groups, instances, chains and the numbers of their legs, which tell a chain from
// one of the same name before it. Paths and verdicts follow from these, or are the agent's own, and are told as they change;
// endpoints that come and go tell the switch themselves.
type digest [sha256.Size]byte

func (n *Node) watched(ctx context.Context) (watched, error) {
	w := watched{ports: map[vnet.EndpointID]servingPort{}}
	var err error
	if w.bridges, err = n.bridges(ctx); err != nil {
		return w, err
	}
	err = n.Store.View(ctx, func(tx store.Tx) error {
		var declared []any
		instances, err := store.Instances(tx, "")
		if err != nil {
			return err
		}
		for _, i := range instances {
			for _, id := range []vnet.EndpointID{i.Ingress, i.Egress} {
				if id == "" {
					continue
				}
				e, err := store.Endpoint(tx, id)
				if err != nil && !errors.Is(err, vnet.ErrNotFound) {
					return err
				}
				w.ports[id] = servingPort{i.String(), e.Ref()}
			}
			if err := w.wants(tx, i); err != nil {
				return err
			}
			i.Hung = false
			declared = append(declared, i)
		}
		groups, err := store.All[vnet.Group](tx, store.Groups)
		if err != nil {
			return err
		}
		declared = append(declared, groups)
		chains, err := store.All[vnet.Chain](tx, store.Chains)
		if err != nil {
			return err
		}
		for _, c := range chains {
			legs, err := store.Legs(tx, c.Ref())
			if err != nil {
				return err
			}
			declared = append(declared, c)
			for _, l := range legs {
				declared = append(declared, l.Number)
			}
		}
		text, err := json.Marshal(declared)
		w.declared = sha256.Sum256(text)
		return err
	})
	return w, err
}

// wants adds the instance to those that are probed, or not any more.
func (w *watched) wants(tx store.Tx, i vnet.Instance) error {
	g, err := store.Group(tx, i.Ref())
	if errors.Is(err, vnet.ErrNotFound) { // its record has gone: then it is not probed
		return nil
	}
	if err != nil {
		return err
	}
	if g.Probe.Interval == 0 {
		if i.Hung {
			w.unprobed = append(w.unprobed, wantedProbe{number: i.Number, name: i.String(), ingress: i.Ingress, ref: i.Ref(), container: i.Container})
		}
		return nil
	}
	if !i.Whole() {
		return nil
	}
	p, err := wantProbe(tx, g, i)
	w.probes = append(w.probes, p)
	return err
}

// collect takes away the paths that no connection has any more.
func (a *agent) collect(ctx context.Context) {
	a.fresh(ctx, "collect paths", func(ctx context.Context, n *Node) error {
		removed, err := n.CollectPaths(ctx)
		if removed > 0 {
			a.log.Info("paths that nobody has any more have gone", "paths", removed)
		}
		return err
	})
}

// unwatched clears what a tenetd said of functions, if none runs that could take it back.
func (n *Node) unwatched(ctx context.Context) error {
	hung := func(tx store.Tx) ([]vnet.Instance, error) {
		all, err := store.Instances(tx, "")
		return slices.DeleteFunc(all, func(i vnet.Instance) bool { return !i.Hung }), err
	}
	found := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		list, err := hung(tx)
		found = len(list) > 0
		return err
	})
	if err != nil || !found {
		return err
	}
	unlock, err := store.TryLock(n.DataDir, agentLock)
	if err != nil || unlock == nil {
		return err
	}
	defer unlock()
	return n.Store.Update(ctx, func(tx store.Tx) error {
		list, err := hung(tx)
		if err != nil {
			return err
		}
		for _, i := range list {
			i.Hung = false
			if err := store.PutInstance(tx, i); err != nil {
				return err
			}
		}
		return nil
	})
}
