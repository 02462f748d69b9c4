package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Remove undoes everything that was done for the endpoint, from wherever it stopped, and is no
// error if that is nothing. The attachment must be locked.
func (n *Node) Remove(ctx context.Context, id vnet.EndpointID) error {
	e, err := n.Endpoint(ctx, id)
	if errors.Is(err, vnet.ErrNotFound) {
		// The record is the first thing made and the last removed. Only if the store was lost
		// can something be left without one; the link tells.
		exists, err := veth.Exists(ctx, id.Port())
		if err != nil || !exists {
			return err
		}
		e = vnet.Endpoint{ID: id, Bridge: n.Bridge}
		return errors.Join(n.disconnect(ctx, e), n.unplug(ctx, e), kind(veth.Remove(ctx, id.Port())))
	}
	if err != nil {
		return err
	}
	return n.remove(ctx, e)
}

// remove takes the steps of an ADD back in reverse. It goes on past failures; the record goes
// only when nothing failed, so that whoever comes next knows there is something to remove.
func (n *Node) remove(ctx context.Context, e vnet.Endpoint) error {
	zones := []vnet.Zone{e.Zone}
	if e.State != vnet.Leaving {
		err := n.Store.Update(ctx, func(tx store.Tx) error {
			now, err := store.Endpoint(tx, e.ID) // a tenant's first chain may have given it a zone
			if err != nil {
				return err
			}
			i, err := store.LeaveGroup(tx, now)
			if err != nil {
				return err
			}
			now.State = vnet.Leaving
			e, zones = now, []vnet.Zone{now.Zone, i.Zone}
			return store.PutEndpoint(tx, &now)
		})
		if err != nil {
			return err
		}
	}
	Cut("left")
	var errs []error
	try := func(step, what string, undo func(context.Context, vnet.Endpoint) error) {
		ctx, cancel := half(ctx)
		defer cancel()
		if err := undo(ctx, e); err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", what, describe(e), err))
		}
		Cut(step)
	}
	try("concealed", "published ports", n.conceal)
	try("unchained", "chains", n.disconnectChains)
	try("disconnected", "flows", n.disconnect)            // before the port: its number must not outlive it in flows
	try("forgotten-connections", "connections", n.forget) // with no flow left, none comes anew
	try("emptied-zones", "connections", func(ctx context.Context, _ vnet.Endpoint) error { return n.emptyZones(ctx, zones...) })
	try("unplugged", "port", n.unplug)
	try("cableless", "link", func(ctx context.Context, e vnet.Endpoint) error { return kind(veth.Remove(ctx, e.ID.Port())) })
	if e.Delegate != nil && n.Release != nil {
		try("released", "addresses", n.Release)
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	err := n.Store.Update(ctx, func(tx store.Tx) error {
		if err := ipam.Release(tx, e.ID); err != nil {
			return err
		}
		return store.DeleteEndpoint(tx, e)
	})
	Cut("forgotten")
	return err
}

// half gives a step half of the time that is left: one that hangs must not keep the next from its work.
func half(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}

// disconnect deletes the endpoint's flows, and its network's with the last endpoint of it here.
func (n *Node) disconnect(ctx context.Context, e vnet.Endpoint) error {
	unlock, err := n.lockFlows(ctx, e.Bridge)
	if err != nil {
		return err
	}
	defer unlock()
	c, err := n.openflow(ctx, e.Bridge)
	if noSwitch(err) {
		return nil // no bridge, or no ovs-vswitchd: flows do not outlive either
	}
	if err != nil {
		return err
	}
	defer c.Close()
	changes := []openflow.Change{deleteOwner(pipeline.EndpointOwner(e.ID))}
	if e.Network != "" {
		more, err := n.leaveNetwork(ctx, e)
		if err != nil {
			return err
		}
		changes = append(changes, more...)
	}
	if err := n.Tally.commit(ctx, c, changes); err != nil {
		return kind(err)
	}
	return kind(c.DeleteMeters(ctx, meterIDs(e)...))
}

// leaveNetwork returns what changes for the network when e goes.
func (n *Node) leaveNetwork(ctx context.Context, e vnet.Endpoint) ([]openflow.Change, error) {
	used := false
	var net pipeline.Network
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		if net, err = network(tx, e.Ref(), e.Bridge); err != nil {
			return err
		}
		used, err = usedHere(tx, e.Ref(), e.Bridge)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !used:
		return []openflow.Change{deleteOwner(pipeline.NetworkOwner(e.Ref())), deleteOwner(pipeline.FloodOwner(e.Ref()))}, nil
	case !net.Floods():
		return nil, nil
	}
	return n.flood(ctx, net, e.Bridge)
}

// unplug removes the endpoint's port.
func (n *Node) unplug(ctx context.Context, e vnet.Endpoint) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	err = sw.Unplug(ctx, e.Bridge, e.ID.Port())
	if errors.Is(err, ovs.ErrNotFound) {
		return nil
	}
	return kind(err)
}

// deleteOwner deletes every flow of an owner, whatever wrote it.
func deleteOwner(o pipeline.Owner) openflow.Change {
	return openflow.DeleteCookie(uint64(o), pipeline.OwnerMask)
}
