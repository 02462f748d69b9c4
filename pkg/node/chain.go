package node

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Rechain makes a change to groups, instances or chains, with the paths that follow from it, in one transaction, and
// then tells the switch: nothing is changed if the change is refused. Who comes by a conntrack zone finds it empty.
// A switch that does not run is told when it is synced, and till then its functions count as those that live.
func (n *Node) Rechain(ctx context.Context, write func(store.Tx) error) error {
	s, err := n.standIfAny(ctx)
	if err != nil {
		return err
	}
	var given []vnet.Zone
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		before, err := zones(tx)
		if err != nil {
			return err
		}
		if err := write(tx); err != nil {
			return err
		}
		if err := s.plan(tx); err != nil {
			return err
		}
		after, err := zones(tx)
		given = slices.DeleteFunc(after, func(z vnet.Zone) bool { return slices.Contains(before, z) })
		return err
	})
	if err != nil {
		return err
	}
	if err := n.emptyZones(ctx, given...); err != nil {
		return err
	}
	err = n.EachBridge(ctx, func(n *Node) error {
		if _, err := n.connectAll(ctx, true); !absent(err) {
			return err
		}
		return nil // no bridge: the first ADD writes all
	})
	if absent(err) { // no switch: nobody was asked
		return nil
	}
	if err == nil {
		err = n.awaitDatapath(ctx)
	}
	return vnet.WithHint(err, "it is recorded; once the switch answers: tenetctl sync")
}

// absent reports whether the switch does not run, or has no such bridge: there is nobody who could be told. That a record is
// missing is something else.
func absent(err error) bool {
	return noSwitch(err) || errors.Is(err, ovs.ErrNotFound)
}

// Chained tells the chains that the endpoint has come, if any has to know: it is a port of a function, a classifier
// names it by its labels or itself, or it is the first of its network.
func (n *Node) Chained(ctx context.Context, e vnet.Endpoint) error {
	concerned := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		concerned, err = concerns(tx, e)
		return err
	})
	if err != nil || !concerned {
		return err
	}
	return n.SyncChains(ctx, e.Bridge)
}

func concerns(tx store.Tx, e vnet.Endpoint) (bool, error) {
	if e.Function != nil {
		return true, nil
	}
	chains, err := store.All[vnet.Chain](tx, store.ChainsOf(e.Tenant))
	if err != nil || len(chains) == 0 {
		return false, err
	}
	neighbours, err := living(tx, e.Ref(), e.Bridge)
	if err != nil || !slices.ContainsFunc(neighbours, func(o vnet.Endpoint) bool { return o.ID != e.ID }) {
		return true, err
	}
	return slices.ContainsFunc(chains, func(c vnet.Chain) bool { return c.Names(e.Attachment, e.Labels) }), nil
}

// SyncChains plans the chains as their functions are now, and makes the chains' tables of the bridge agree.
func (n *Node) SyncChains(ctx context.Context, bridge string) error {
	unlock, err := n.lockFlows(ctx, bridge)
	if err != nil {
		return err
	}
	defer unlock()
	begun := time.Now()
	s, err := n.stand(ctx, bridge)
	if err != nil {
		return err
	}
	if err := n.replan(ctx, s); err != nil {
		return err
	}
	c, err := n.openflow(ctx, bridge)
	if err != nil {
		return err
	}
	defer c.Close()
	want := rendered{}
	err = n.Store.View(ctx, func(tx store.Tx) error {
		want, err = s.chains(tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, f := range pipeline.BaseFlows() {
		if slices.Contains(pipeline.ChainTables, f.Table) {
			want.flows = append(want.flows, f)
		}
	}
	var have []openflow.FlowStats
	for _, table := range pipeline.ChainTables {
		flows, err := c.Flows(ctx, openflow.FlowFilter{Table: &table})
		if err != nil {
			return kind(err)
		}
		have = append(have, flows...)
	}
	groups, err := c.Groups(ctx)
	if err != nil {
		return kind(err)
	}
	ch, _ := difference(want, have, groups)
	err = kind(n.commit(ctx, c, bridge, ch))
	n.Tally.synced(begun, err)
	return err
}

// awaitDatapath waits until the datapath goes by the flows as they are now, for half a second at most. It does so by
// itself, some milliseconds after they have changed; but who is told that a chain stands may send at once, and is not to
// be led the old way.
func (n *Node) awaitDatapath(ctx context.Context) error {
	_, err := ovs.Control(ctx, n.OVSRunDir, "revalidator/wait")
	if noAnswer(err) {
		return nil // datapaths of both kinds: it cannot be said which; or no ovs-vswitchd, which comes back with none
	}
	return kind(err)
}

// disconnectChains takes out of the chains what an endpoint that is leaving was to them.
func (n *Node) disconnectChains(ctx context.Context, e vnet.Endpoint) error {
	err := n.Chained(ctx, e)
	if absent(err) {
		return nil // flows outlive neither the bridge nor ovs-vswitchd
	}
	return err
}
