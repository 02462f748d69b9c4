// Command tenet-ipam is a CNI IPAM plugin: per-tenant addresses for any main plugin. The tenet
// plugin does not execute it but does the same in its own process.
package main

import (
	"context"
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// version is set by the linker.
var version = "unknown"

func main() {
	cni.Main("tenet-ipam "+version+": addresses per tenant", cni.ParseIPAM, cni.Verbs{Add: add, Del: del, Check: check, GC: gc, Status: status})
}

// open returns the node's store; an IPAM plugin has no use for the switch.
func open(r *cni.Request) (*node.Node, error) {
	config, err := node.LoadConfig(r.Config)
	if err != nil {
		return nil, err
	}
	config, err = config.Override(node.Config{DataDir: r.DataDir})
	return node.Open(config, nil), err
}

func holder(r *cni.Request) vnet.Attachment {
	return vnet.Attachment{Container: r.ContainerID, IfName: r.IfName}
}

// add hands out addresses; the same ones to an attachment that asks again.
func add(ctx context.Context, r *cni.Request) (types.Result, error) {
	n, err := open(r)
	if err != nil {
		return nil, err
	}
	network, declared, err := r.Declaration()
	if err != nil {
		return nil, err
	}
	asked, err := r.Addresses()
	if err != nil {
		return nil, err
	}
	var addrs []netip.Prefix
	err = n.Asking(ctx, func() error {
		return n.Store.Update(ctx, func(tx store.Tx) error {
			stands, err := store.Network(tx, network.Ref())
			if declared {
				stands, err = node.Declare(tx, network)
			}
			if err != nil {
				return err
			}
			addrs, err = ipam.Allocate(tx, ipam.Request{Network: stands, Owner: holder(r).ID(), Holder: holder(r), CNINetwork: r.Name, Addrs: asked})
			network = stands
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	return cni.IPAMResult(network, addrs), nil
}

// del takes them back; nothing to take back is fine.
func del(ctx context.Context, r *cni.Request) error {
	n, err := open(r)
	if err != nil {
		return err
	}
	return n.Store.Update(ctx, func(tx store.Tx) error {
		if store.HasEndpoint(tx, holder(r).ID()) {
			return vnet.Existsf("%s is an endpoint of the tenet plugin: its addresses go with it", holder(r))
		}
		return ipam.Release(tx, holder(r).ID())
	})
}

// check reports whether the attachment still holds its addresses.
func check(ctx context.Context, r *cni.Request) error {
	n, err := open(r)
	if err != nil {
		return err
	}
	return n.Store.View(ctx, func(tx store.Tx) error {
		lease, err := store.Load[store.Lease](tx, store.LeaseKey(holder(r).ID()))
		if errors.Is(err, vnet.ErrNotFound) {
			return vnet.Existsf("%s holds no address", holder(r))
		}
		if err != nil {
			return err
		}
		ref, err := r.Ref()
		if err == nil && lease.Ref() != ref {
			err = vnet.Existsf("%s holds addresses of network %s, not %s", holder(r), lease.Ref(), ref)
		}
		return err
	})
}

// gc takes back what the runtime does not list any more.
func gc(ctx context.Context, r *cni.Request) error {
	n, err := open(r)
	if err != nil {
		return err
	}
	return n.CollectLeases(ctx, r.Name, r.Attachments())
}

// status reports whether the store is usable.
func status(ctx context.Context, r *cni.Request) error {
	n, err := open(r)
	if err != nil {
		return err
	}
	if err := n.Writable(ctx); err != nil {
		return types.NewError(types.ErrPluginNotAvailable, err.Error(), vnet.Hint(err))
	}
	return nil
}
