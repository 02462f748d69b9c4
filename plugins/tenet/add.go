package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// undoTimeout is what a failed ADD may take, beyond its own time, to undo what it did.
const undoTimeout = 30 * time.Second

// add attaches the container: configuration, record, cable, port, flows, result. Whatever
// fails is undone by the code that DEL runs.
func add(ctx context.Context, n *node.Node, r *cni.Request) (types.Result, error) {
	want, err := wanted(r)
	if err != nil {
		return nil, err
	}
	unlock, err := n.LockAttachment(ctx, want.ID())
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := n.EnsureBridge(ctx); err != nil {
		return nil, err
	}
	node.Cut("bridged")

	recorded, err := n.Record(ctx, want)
	if err != nil {
		return nil, err
	}
	node.Cut("recorded")
	if recorded.Stands {
		result, err := standing(ctx, n, r, recorded)
		if err != nil {
			return nil, err
		}
		return result, n.Chained(ctx, recorded.Endpoint)
	}
	result, err := attach(ctx, n, r, recorded)
	if err != nil {
		// The caller's time may be up; undoing has its own.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if undo := n.Remove(last, recorded.ID); undo != nil {
			err = errors.Join(err, fmt.Errorf("undo: %w", undo))
		}
		return nil, err
	}
	return result, nil
}

// attach does what is to be done for a recorded endpoint. Its flows come before its port: see Connect.
func attach(ctx context.Context, n *node.Node, r *cni.Request, recorded node.Recorded) (types.Result, error) {
	e, network := recorded.Endpoint, recorded.Network
	if e.Delegate != nil {
		if err := delegate(ctx, n, &e, network.Network); err != nil {
			return nil, err
		}
	}
	if err := n.EmptyZone(ctx, recorded); err != nil {
		return nil, err
	}
	if err := n.Connect(ctx, e, uint32(e.OFPort)); err != nil {
		return nil, err
	}
	node.Cut("connected")
	if err := n.Lay(ctx, &e); err != nil {
		return nil, err
	}
	node.Cut("laid")
	ofport, err := n.Plug(ctx, e)
	if err != nil {
		return nil, err
	}
	node.Cut("plugged")
	if ofport != uint32(e.OFPort) { // somebody else's port has the number
		if err := n.Connect(ctx, e, ofport); err != nil {
			return nil, err
		}
	}
	if err := n.Expose(ctx, recorded); err != nil {
		return nil, err
	}
	node.Cut("exposed")
	if err := n.Announce(ctx, network, e); err != nil {
		return nil, err
	}
	result, err := r.Result(network.Network, e)
	if err != nil {
		return nil, err
	}
	if err := n.Confirm(ctx, e); err != nil {
		return nil, err
	}
	node.Cut("confirmed")
	if err := n.Chained(ctx, e); err != nil {
		return nil, err
	}
	return result, tell(ctx, n, e.ID, "tenant", e.Tenant, "network", e.Network)
}

// tell has the cluster told of the endpoint. What cannot be told now is told later, and is no reason to fail: it is logged,
// with what else is known of the endpoint. vnet.ErrNotFound if its network is no more, vnet.ErrExists if an address is another node's.
func tell(ctx context.Context, n *node.Node, id vnet.EndpointID, known ...any) error {
	err := n.Publish(ctx, id)
	if err == nil || errors.Is(err, vnet.ErrNotFound) || errors.Is(err, vnet.ErrExists) {
		return err
	}
	slog.With(known...).Warn("not yet published to the other nodes", "endpoint", id, "error", err)
	return nil
}

// delegate has a foreign IPAM plugin choose the addresses, and records them.
func delegate(ctx context.Context, n *node.Node, e *vnet.Endpoint, network vnet.Network) error {
	given, err := cni.DelegateAdd(ctx, *e)
	if err != nil {
		return err
	}
	node.Cut("delegated")
	addrs, err := cni.AddressesOf(given, network)
	if err != nil {
		return err
	}
	routes, err := cni.RoutesOf(given, network, addrs)
	if err != nil {
		return err
	}
	if err := n.Adopt(ctx, e, addrs, routes); err != nil {
		return err
	}
	node.Cut("adopted")
	return nil
}

// wanted turns the request into what is asked of the node; nothing is changed yet.
func wanted(r *cni.Request) (node.Want, error) {
	w := node.Want{Attachment: attachment(r), CNINetwork: r.Name, Conf: r.Fingerprint(), NetNS: r.NetNS, Delegate: r.Delegate()}
	var err error
	if w.Network, w.Declare, err = r.Declaration(); err != nil {
		return w, err
	}
	if w.Addrs, err = r.Addresses(); err != nil {
		return w, err
	}
	if w.MAC, err = r.MAC(); err != nil {
		return w, err
	}
	if w.Ports, err = r.PortMappings(); err != nil {
		return w, err
	}
	if w.Bandwidth, err = r.Bandwidth(); err != nil {
		return w, err
	}
	if w.Labels, err = r.EndpointLabels(); err != nil {
		return w, err
	}
	if w.Function, err = r.FunctionPort(); err != nil {
		return w, err
	}
	if w.Delegate != nil { // what cannot be found could not give back either
		if _, err := invoke.FindInPath(w.Delegate.Type, filepath.SplitList(w.Delegate.Path)); err != nil {
			return w, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("ipam plugin %s: %w", w.Delegate.Type, err))
		}
	}
	if err := w.CheckPlace(); err != nil {
		return w, cni.NetNSError(err)
	}
	return w, nil
}

// standing answers an ADD for an endpoint that is there: with its first result, if everything
// still stands. It is never torn down for that.
func standing(ctx context.Context, n *node.Node, r *cni.Request, recorded node.Recorded) (types.Result, error) {
	differs, err := n.Check(ctx, recorded.Endpoint)
	if err != nil {
		return nil, err
	}
	if len(differs) > 0 {
		return nil, vnet.WithHint(vnet.Existsf("%s is attached already, but not everything stands: %s", recorded.Attachment, strings.Join(differs, "; ")),
			"DEL it first, or repair it: tenetctl sync")
	}
	return r.Result(recorded.Network.Network, recorded.Endpoint)
}
