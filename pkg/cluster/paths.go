package cluster

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A path that gets no new connection stands for those that have it, on whatever node. So each node tells which of such
// paths its connections have, and who finds that none has one any more takes it away.

// pathUse is what a node tells of its connections.
type pathUse struct {
	Revision int64         `json:"revision"` // of etcd, up to which it knew of the paths when it looked
	Paths    []vnet.PathID `json:"paths"`
}

// collectPause is how often is looked for paths that no connection has. A packet that was given its path before the node
// knew better is tracked long before the next look.
const collectPause = 15 * time.Second

// collects tells of the paths that connections here have, and takes away those that none has, until ctx ends.
func (a *Agent) collects(ctx context.Context) {
	now := time.NewTicker(collectPause)
	defer now.Stop()
	known := int64(0) // of the revision that was known at the last look
	for {
		select {
		case <-ctx.Done():
			return
		case <-now.C:
		}
		if a.away() == nil {
			a.failed(ctx, "collect paths", a.collect(ctx, known))
		}
		a.mu.Lock()
		known = a.taken[store.Paths]
		a.mu.Unlock()
	}
}

func (a *Agent) collect(ctx context.Context, known int64) error {
	var retired []vnet.Path
	serving := map[vnet.PathID]bool{}
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			legs, err := store.All[[]vnet.Leg](tx, store.Paths)
			for _, l := range slices.Concat(legs...) {
				for _, p := range l.Paths {
					if p.Serves() {
						serving[p.ID] = true
					} else {
						retired = append(retired, p)
					}
				}
			}
			return err
		})
	})
	if err != nil || len(retired) == 0 {
		return err
	}
	var used map[vnet.PathID]bool
	can := false
	err = a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		used, can, err = n.UsedPaths(ctx)
		return err
	})
	if err != nil || !can {
		return err
	}
	maps.DeleteFunc(used, func(p vnet.PathID, _ bool) bool { return serving[p] || p == 0 })
	report := pathUse{Revision: known, Paths: slices.Sorted(maps.Keys(used))} // of those that rest, too
	_, err = a.update(ctx, func(tx store.Tx) error {
		if err := a.inSession(tx); err != nil {
			return err
		}
		return store.Save(tx, useKey(a.Name), report)
	})
	if err != nil {
		return err
	}
	return a.removePaths(ctx, retired)
}

// removePaths takes away those of the paths that no node has connections on: as all nodes say who could know of them.
func (a *Agent) removePaths(ctx context.Context, retired []vnet.Path) error {
	since, err := a.latest(ctx, store.Paths)
	if err != nil {
		return err
	}
	used := map[vnet.PathID]bool{}
	err = a.etcd.View(ctx, func(tx store.Tx) error {
		return tx.Range(Nodes, func(key string, _ []byte) error {
			var u pathUse
			name := vnet.NodeName(key[len(Nodes):])
			if value := tx.Get(useKey(name)); value != nil {
				if err := store.DecodeShared(useKey(name), value, &u); err != nil {
					return err
				}
			}
			if u.Revision < since[store.Paths] { // it may have connections on any of them
				for _, p := range retired {
					used[p.ID] = true
				}
			}
			for _, p := range u.Paths {
				used[p] = true
			}
			return nil
		})
	})
	if err != nil || len(used) >= len(retired) && !slices.ContainsFunc(retired, func(p vnet.Path) bool { return !used[p.ID] }) {
		return err
	}
	removed, err := collectAll(ctx, a.etcd, used, time.Now().Add(-collectPause))
	if removed > 0 {
		a.log.Info("paths that no connection has any more have gone", "paths", removed)
	}
	return err
}

// collectAll removes what paths.Collect does, as often as it takes.
func collectAll(ctx context.Context, s store.Store, used map[vnet.PathID]bool, before time.Time) (int, error) {
	removed := 0
	for {
		some := 0
		err := s.Update(ctx, func(tx store.Tx) error {
			var err error
			some, err = paths.Collect(tx, used, before)
			return err
		})
		if err != nil || some == 0 {
			return removed, err
		}
		removed += some
	}
}
