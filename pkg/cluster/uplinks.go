package cluster

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// tellUplinks tells the cluster which uplinks this node has a NIC on, if it was told otherwise or may have lost it. Tenetctl does
// that too, when one comes or goes: this makes up for what was cut short, for an etcd that was emptied, and for a node that was
// removed while it was away. One that stands in the cluster with other VLANs is said.
func (a *Agent) tellUplinks(ctx context.Context, own []vnet.Uplink) error {
	a.mu.Lock()
	told := a.uplinks != nil && maps.Equal(a.uplinks, vlansOf(own))
	a.mu.Unlock()
	if told {
		return nil
	}
	var odd []error
	sound := map[vnet.UplinkName]string{}
	_, err := a.update(ctx, func(tx store.Tx) error {
		odd = nil
		if err := a.inSession(tx); err != nil {
			return err
		}
		var err error
		if own, err = a.ownUplinks(ctx); err != nil { // once more: etcd may have let this wait
			return err
		}
		sound = vlansOf(own)
		for _, u := range own {
			_, err := store.DeclareUplink(tx, u, a.Name)
			switch {
			case errors.Is(err, vnet.ErrExists), errors.Is(err, vnet.ErrInvalid), errors.Is(err, vnet.ErrCorrupt):
				odd = append(odd, err)
				delete(sound, u.Name)
			case err != nil:
				return err
			}
		}
		return store.KeepUplinks(tx, a.Name, slices.Collect(maps.Keys(vlansOf(own)))...)
	})
	if err != nil {
		return err
	}
	a.mu.Lock()
	a.uplinks, a.uplinksAt = sound, time.Now() // the others are told once more with whatever changes
	a.mu.Unlock()
	a.failed(ctx, "tell the cluster of uplinks", errors.Join(odd...)) // what is here goes on
	return nil
}

// uplinksPause is how long what etcd was told of uplinks is relied on.
const uplinksPause = time.Minute

// retellUplinks has etcd told of uplinks once more, now and then: somebody may have changed what it has.
func (a *Agent) retellUplinks() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.uplinks == nil || time.Since(a.uplinksAt) < uplinksPause {
		return
	}
	a.uplinks = nil
	a.Kick()
}

func (a *Agent) ownUplinks(ctx context.Context) ([]vnet.Uplink, error) {
	var own []vnet.Uplink
	err := a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			own, err = store.All[vnet.Uplink](tx, store.Uplinks)
			return err
		})
	})
	return own, err
}

func vlansOf(uplinks []vnet.Uplink) map[vnet.UplinkName]string {
	of := map[vnet.UplinkName]string{}
	for _, u := range uplinks {
		of[u.Name] = u.VLANs.String()
	}
	return of
}
