package node

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// How often Run looks for what nothing tells it of.
const (
	lookPause    = time.Second      // whether the store has changed: groups with probes, new instances
	collectPause = 30 * time.Second // for paths that no connection has any more
	retryPause   = 500 * time.Millisecond
	callTimeout  = 30 * time.Second // of one pass
)

const agentLock = "tenetd"

// Run keeps the node's switch in step with what happens, until ctx ends: it notices at once when a function's port
// goes down or comes back, probes functions whose groups ask for it, and restores the flows when ovs-vswitchd has
// been restarted. All it knows is in the store, so that it can be killed at any moment. vnet.ErrExists if
// another process runs it already.
//
// It is not needed for traffic: what stands on the switch goes on without it.
func (n *Node) Run(ctx context.Context, log *slog.Logger) error {
	unlock, err := n.lockAgent(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	a := agent{Node: n, log: log, verdicts: make(chan verdict), probes: map[uint32]*probing{}}
	defer a.stopProbes()
	return a.run(ctx)
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
	log *slog.Logger

	links    <-chan veth.Change
	works    map[vnet.EndpointID]bool // of all links, as far as was told
	verdicts chan verdict
	probes   map[uint32]*probing // by the instance's number
	ports    map[vnet.EndpointID]bool
	modified time.Time // of the store, when it was last looked at
	stale    bool      // the last pass failed
}

func (a *agent) run(ctx context.Context) error {
	a.works = map[vnet.EndpointID]bool{}
	conn := a.greet(ctx) // and brings the flows up to date
	look, collect := time.NewTicker(lookPause), time.NewTicker(collectPause)
	defer look.Stop()
	defer collect.Stop()
	for {
		if a.links == nil {
			links, err := veth.Watch(ctx, linkAlias(a.Bridge))
			if err != nil {
				a.log.Error("cannot watch links; looking for changes each second", "error", err)
			}
			a.links = links
		}
		var gone <-chan struct{}
		if conn != nil {
			gone = conn.Done()
		}
		select {
		case <-ctx.Done():
			if conn != nil {
				conn.Close()
			}
			return nil
		case c, ok := <-a.links:
			if !ok { // events were lost: what matters is looked at as a whole
				a.links = nil
				a.chains(ctx)
				continue
			}
			a.linkChanged(ctx, c)
		case v := <-a.verdicts:
			a.judge(ctx, v)
		case <-gone:
			a.log.Warn("ovs-vswitchd has gone", "bridge", a.Bridge)
			conn = nil
		case <-look.C:
			if conn == nil {
				conn = a.greet(ctx)
			}
			a.look(ctx)
		case <-collect.C:
			a.collect(ctx)
		}
		for conn == nil && gone != nil && ctx.Err() == nil { // it is restarted as a rule: then no second may be lost
			if conn = a.greet(ctx); conn == nil {
				pause(ctx, retryPause/10)
			}
		}
	}
}

// fresh runs one pass on a node of its own: connections of one before may have died.
func (a *agent) fresh(ctx context.Context, what string, fn func(context.Context, *Node) error) bool {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	n := Open(a.Config, a.Release)
	defer n.Close()
	err := fn(ctx, n)
	if err != nil && ctx.Err() == nil {
		a.log.Error(what, "error", err, "hint", vnet.Hint(err))
	}
	return err == nil
}

// greet connects to the switch and brings its flows up to date; nil if it is not there.
func (a *agent) greet(ctx context.Context) *openflow.Conn {
	conn, err := a.openflow(ctx, a.Bridge)
	if err != nil {
		return nil // no switch, or no bridge yet: asked again
	}
	restored := a.fresh(ctx, "restore the flows", func(ctx context.Context, n *Node) error {
		d, err := n.AfterSwitch(ctx)
		if err == nil {
			a.log.Info("the switch agrees with the store", "bridge", n.Bridge, "differences", d.Count())
		}
		return err
	})
	if !restored {
		conn.Close()
		return nil
	}
	return conn
}

// linkChanged plans the chains anew if a function's port went down or came back.
func (a *agent) linkChanged(ctx context.Context, c veth.Change) {
	id := vnet.EndpointID(strings.TrimPrefix(c.Alias, linkAlias(a.Bridge)))
	was, known := a.works[id]
	a.works[id] = c.Works
	if !c.Works {
		if _, err := os.Stat("/sys/class/net/" + c.Name); errors.Is(err, os.ErrNotExist) {
			delete(a.works, id)
		}
	}
	if known && was == c.Works || !a.ports[id] {
		return
	}
	a.log.Info("the port of a function changed", "port", c.Name, "works", c.Works)
	a.chains(ctx)
}

// chains plans them and tells the switch.
func (a *agent) chains(ctx context.Context) {
	a.stale = !a.fresh(ctx, "change the chains", func(ctx context.Context, n *Node) error { return n.SyncChains(ctx, n.Bridge) })
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

// look reads the store again if somebody has written it, and does again what failed.
func (a *agent) look(ctx context.Context) {
	if a.stale {
		a.chains(ctx)
	}
	info, err := os.Stat(filepath.Join(a.DataDir, filepath.Base(a.Store.Path())))
	if err != nil || info.ModTime().Equal(a.modified) {
		return
	}
	a.fresh(ctx, "read the store", func(ctx context.Context, n *Node) error {
		ports, wanted, err := n.watched(ctx)
		if err != nil {
			return err
		}
		a.modified = info.ModTime()
		for id := range ports {
			if !a.ports[id] { // it came, and may have gone down before it was known for what it is
				a.ports = ports
				if err := n.SyncChains(ctx, n.Bridge); err != nil {
					return err
				}
				break
			}
		}
		a.ports = ports
		a.probe(ctx, wanted)
		return nil
	})
}

// watched returns the ports of functions, and the instances that are to be probed.
func (n *Node) watched(ctx context.Context) (map[vnet.EndpointID]bool, []wantedProbe, error) {
	ports := map[vnet.EndpointID]bool{}
	var wanted []wantedProbe
	err := n.Store.View(ctx, func(tx store.Tx) error {
		instances, err := store.Instances(tx, "")
		if err != nil {
			return err
		}
		for _, i := range instances {
			for _, id := range []vnet.EndpointID{i.Ingress, i.Egress} {
				if id != "" {
					ports[id] = true
				}
			}
			g, err := store.Group(tx, i.Ref())
			if err != nil {
				return err
			}
			if g.Probe.Interval == 0 || !i.Whole() {
				continue
			}
			w, err := wantProbe(tx, g, i)
			if err != nil {
				return err
			}
			wanted = append(wanted, w)
		}
		return nil
	})
	return ports, wanted, err
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

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
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
