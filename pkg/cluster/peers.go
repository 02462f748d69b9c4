package cluster

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// applyNodes takes over which nodes there are.
func (a *Agent) applyNodes(ctx context.Context, whole bool, events []etcd.Event) error {
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		var stored []vnet.Peer
		if whole {
			err := n.Store.View(ctx, func(tx store.Tx) error {
				var err error
				stored, err = store.Peers(tx)
				return err
			})
			if err != nil {
				return err
			}
		}
		c, encapsulations := a.hearNodes(whole, events, stored)
		for _, p := range stored {
			if !slices.ContainsFunc(c.Peers, func(o vnet.Peer) bool { return o.Name == p.Name }) {
				c.GonePeers = append(c.GonePeers, p.Name)
			}
		}
		if !c.Empty() {
			if err := n.ChangeOverlay(ctx, c); err != nil {
				return err
			}
		}
		if encapsulations {
			return n.EnsureTunnels(ctx)
		}
		return nil
	})
}

// hearNodes notes which nodes there are, where stored were before, and returns what of it the switch has to follow, and
// whether some want to receive otherwise than this one.
func (a *Agent) hearNodes(whole bool, events []etcd.Event, stored []vnet.Peer) (node.OverlayChange, bool) {
	var c node.OverlayChange
	encapsulations := false
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.vteps == nil {
		a.vteps = a.newVTEPs()
	}
	news := changed[vnet.NodeName, Record]{whole: whole, written: map[vnet.NodeName]written[Record]{}, before: map[vnet.NodeName]Record{}}
	for _, p := range stored {
		news.before[p.Name] = Record{Peer: p}
	}
	for key, e := range lastOf(events) {
		text, ok := strings.CutPrefix(key, Nodes)
		if !ok {
			continue
		}
		name := vnet.NodeName(text)
		if e.Value == nil {
			news.gone = append(news.gone, name)
			continue
		}
		r, err := recordOf(key, e.Value)
		if err == nil && r.Name != name {
			err = fmt.Errorf("it is the record of %s", r.Name)
		}
		if err != nil {
			a.log.Error("a node's record makes no sense", "node", name, "error", err)
			news.unread = append(news.unread, name)
			continue
		}
		news.written[name] = written[Record]{r, e.Revision}
	}
	touched, refused := a.vteps.change(news)
	for _, name := range refused {
		o := a.vteps.out[name]
		a.log.Error("a node's record is left out of account", "node", name, "why", o.why.why, "whose", o.why.whose)
	}
	if whole { // what cannot be read stays
		for _, name := range news.unread {
			touched[name] = true
		}
		for name := range a.vteps.out {
			touched[name] = true
		}
	}
	for name := range touched {
		r, stands := a.nodes[name]
		switch {
		case name == a.Name:
		case stands:
			r.Off = a.off[name]
			c.Peers = append(c.Peers, r.Peer)
			encapsulations = encapsulations || r.Encapsulation != a.me.record.Encapsulation
		case !whole: // else it goes if it was stored
			c.GonePeers = append(c.GonePeers, name)
		}
	}
	return c, encapsulations
}

// newVTEPs sees to it that no two nodes are known by one address. The agent is locked, also when it is used.
func (a *Agent) newVTEPs() *claims[vnet.NodeName, Record] {
	return &claims[vnet.NodeName, Record]{
		takes: a.nodes,
		of:    func(r Record) []string { return []string{"vtep " + r.VTEP.String()} },
		name:  func(n vnet.NodeName) string { return "node " + string(n) },
		fits: func(r Record) objection {
			if r.Name != a.Name && r.VTEP == a.me.record.VTEP {
				return objection{why: "vtep " + r.VTEP.String() + " is this node's own", whose: "node " + string(a.Name)}
			}
			return objection{}
		},
	}
}
