package main

import (
	"context"
	"errors"
	"fmt"
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

	endpoint, stands, err := n.Record(ctx, want)
	if err != nil {
		return nil, err
	}
	node.Cut("recorded")
	if stands {
		return standing(ctx, n, r, endpoint)
	}
	result, err := attach(ctx, n, r, endpoint)
	if err != nil {
		// The caller's time may be up; undoing has its own.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if undo := n.Remove(last, endpoint.ID); undo != nil {
			err = errors.Join(err, fmt.Errorf("undo: %w", undo))
		}
		return nil, err
	}
	return result, nil
}

// attach does what is to be done for a recorded endpoint.
func attach(ctx context.Context, n *node.Node, r *cni.Request, e vnet.Endpoint) (types.Result, error) {
	network, err := n.Network(ctx, e.Ref())
	if err != nil {
		return nil, err
	}
	if e.Delegate != nil {
		given, err := cni.DelegateAdd(ctx, e)
		if err != nil {
			return nil, err
		}
		node.Cut("delegated")
		addrs, err := cni.AddressesOf(given, network)
		if err != nil {
			return nil, err
		}
		routes, err := cni.RoutesOf(given, network, addrs)
		if err != nil {
			return nil, err
		}
		if err := n.Adopt(ctx, &e, addrs, routes); err != nil {
			return nil, err
		}
		node.Cut("adopted")
	}
	if err := n.Lay(ctx, &e); err != nil {
		return nil, err
	}
	node.Cut("laid")
	ofport, err := n.Plug(ctx, e)
	if err != nil {
		return nil, err
	}
	node.Cut("plugged")
	if err := n.Connect(ctx, e, ofport); err != nil {
		return nil, err
	}
	node.Cut("connected")
	result, err := r.Result(network, e)
	if err != nil {
		return nil, err
	}
	return result, n.Confirm(ctx, e)
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
func standing(ctx context.Context, n *node.Node, r *cni.Request, e vnet.Endpoint) (types.Result, error) {
	differs, err := n.Check(ctx, e)
	if err != nil {
		return nil, err
	}
	if len(differs) > 0 {
		return nil, vnet.WithHint(vnet.Existsf("%s is attached already, but not everything stands: %s", e.Attachment, strings.Join(differs, "; ")),
			"DEL it first, or repair it: tenetctl sync")
	}
	network, err := n.Network(ctx, e.Ref())
	if err != nil {
		return nil, err
	}
	return r.Result(network, e)
}
