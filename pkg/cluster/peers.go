package cluster

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// applyNodes takes over which nodes there are.
func (a *Agent) applyNodes(ctx context.Context, whole bool, changes map[string][]byte) error {
	var c node.OverlayChange
	encapsulations := false
	a.mu.Lock()
	if whole {
		maps.DeleteFunc(a.nodes, func(n vnet.NodeName, _ Record) bool { return changes[nodeKey(n)] == nil })
	}
	for key, value := range changes {
		text, ok := strings.CutPrefix(key, Nodes)
		if !ok {
			continue
		}
		name := vnet.NodeName(text)
		if value == nil {
			delete(a.nodes, name)
			if name != a.Name {
				c.GonePeers = append(c.GonePeers, name)
			}
			continue
		}
		r, err := recordOf(key, value)
		if err != nil || r.Name != name {
			a.log.Error("a node's record makes no sense", "node", name, "error", err)
			continue
		}
		a.nodes[name] = r
		if name != a.Name {
			r.Off = a.off[name]
			c.Peers = append(c.Peers, r.Peer)
			encapsulations = encapsulations || r.Encapsulation != a.me.record.Encapsulation
		}
	}
	a.mu.Unlock()
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		if whole {
			err := n.Store.View(ctx, func(tx store.Tx) error {
				peers, err := store.Peers(tx)
				for _, p := range peers {
					if !slices.ContainsFunc(c.Peers, func(o vnet.Peer) bool { return o.Name == p.Name }) {
						c.GonePeers = append(c.GonePeers, p.Name)
					}
				}
				return err
			})
			if err != nil {
				return err
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
