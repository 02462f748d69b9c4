// Package node makes this machine's switch agree with its store.
//
// The steps of an endpoint's life are methods of Node: Record (record.go); Connect, Lay and Plug
// (attach.go); Expose and Announce, for the host's sake and the wire's (gateway.go, announce.go);
// Confirm. Remove undoes them all, from any point. Sync makes one pass over everything: it
// finishes what was cut short, and sends the switch what differs.
package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Node is this machine: its store and its switch. Close it when done; it serves one call at a time.
type Node struct {
	Config
	Store *store.Bolt
	// Release gives back what a foreign IPAM plugin gave an endpoint (pkg/cni knows how).
	Release func(ctx context.Context, e vnet.Endpoint) error
	// Tally counts the work of a process that runs on. It may be nil.
	Tally *Tally
	// Untold is noted what of Declared and ChangeOverlay the switch was not told. It may be nil.
	Untold *Untold
	// Changed is called by Run when what becomes of a service function may have changed. It may be nil.
	Changed func()

	sw     *ovs.Switch
	bridge ovs.Bridge
}

// Open returns the node of that configuration. Nothing is touched or dialled yet.
func Open(c Config, release func(ctx context.Context, e vnet.Endpoint) error) *Node {
	return &Node{Config: c, Store: store.OpenBolt(c.DataDir), Release: release}
}

// Close ends the connection to the switch's database, if there is one.
func (n *Node) Close() {
	if n.sw != nil {
		n.sw.Close()
	}
}

// Writable returns nil if the store can be written; it changes nothing.
func (n *Node) Writable(ctx context.Context) error { return n.Store.Writable(ctx) }

// dial connects to the switch's database, once.
func (n *Node) dial(ctx context.Context) (*ovs.Switch, error) {
	if n.sw != nil {
		return n.sw, nil
	}
	sw, err := ovs.Dial(ctx, n.OVSRunDir)
	if err != nil {
		return nil, vnet.WithHint(kind(err), "is Open vSwitch running, and is its run directory %s?", n.OVSRunDir)
	}
	n.sw = sw
	return sw, nil
}

// EnsureBridge makes the bridge if it is missing. vnet.ErrExists if it is somebody else's.
func (n *Node) EnsureBridge(ctx context.Context) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	n.bridge, err = sw.EnsureBridge(ctx, ovs.BridgeSpec{Name: n.Bridge, Owner: n.DataDir, Datapath: n.Datapath})
	if errors.Is(err, ovs.ErrNotOurs) {
		return vnet.WithHint(kind(err), "name another bridge in the configuration (\"bridge\"), or remove this one if nobody needs it")
	}
	return kind(err)
}

// owns returns nil if the bridge belongs to this node's store, which external_ids:tenet names: two
// stores give the same numbers to different tenants. Else it is a vnet.ErrExists.
func (n *Node) owns(b ovs.Bridge) error {
	switch b.Owner {
	case n.DataDir:
		return nil
	case "":
		return vnet.Existsf("bridge %s is not tenet's", b.Name)
	}
	return vnet.Existsf("bridge %s belongs to the store in %s", b.Name, b.Owner)
}

// openflow connects to the bridge's management socket.
func (n *Node) openflow(ctx context.Context, bridge string) (*openflow.Conn, error) {
	c, err := openflow.Dial(ctx, filepath.Join(n.OVSRunDir, bridge+".mgmt"))
	return c, kind(err)
}

// noSwitch reports whether nobody is at the socket that was called: ovs-vswitchd does not run, or has no such bridge.
func noSwitch(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// noAnswer reports whether ovs-vswitchd does not run, or will not say: on a machine with datapaths of both kinds Open
// vSwitch 3.1 does not take the one that is meant.
func noAnswer(err error) bool { return noSwitch(err) || errors.Is(err, ovs.ErrRefused) }

// kind gives an error of the switch or the cable its kind.
func kind(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ovs.ErrUnavailable), errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist) && !errors.Is(err, veth.ErrNetNS), errors.Is(err, ovs.ErrDevice),
		errors.Is(err, gateway.ErrNoLink), errors.Is(err, gateway.ErrUnsupported):
		return vnet.OfKind(vnet.ErrUnavailable, err)
	case errors.Is(err, ovs.ErrNotFound):
		return vnet.OfKind(vnet.ErrNotFound, err)
	case errors.Is(err, ovs.ErrNotOurs), errors.Is(err, veth.ErrExists), errors.Is(err, gateway.ErrExists):
		return vnet.OfKind(vnet.ErrExists, err)
	case errors.Is(err, veth.ErrInvalid), errors.Is(err, veth.ErrNetNS), errors.Is(err, veth.ErrNoIPv6), errors.Is(err, gateway.ErrInvalid):
		return vnet.OfKind(vnet.ErrInvalid, err)
	}
	return err
}

// network reads a network with its tenant's number and what it has on the bridge.
func network(tx store.Tx, r vnet.Ref, bridge string) (pipeline.Network, error) {
	net, err := store.Network(tx, r)
	if err != nil {
		return pipeline.Network{}, err
	}
	p := pipeline.Network{Network: net}
	tenant, err := store.Tenant(tx, r.Tenant)
	if err != nil {
		return p, err
	}
	p.TenantNumber = tenant.Number
	if store.GatewayBridge(tx) == bridge {
		g, err := store.NetworkGateway(tx, r)
		if err != nil {
			return p, err
		}
		p.Zone, p.Transit, p.Outside = g.Zone, g.Transit, g.Outside
	}
	if net.IsProvider() {
		u, err := store.Uplink(tx, net.Provider.Uplink)
		if err != nil {
			return p, err
		}
		if u.Bridge != bridge {
			return p, vnet.Existsf("network %s is on uplink %s of bridge %s, not on bridge %s", r, u.Name, u.Bridge, bridge)
		}
		p.UplinkPort = uint32(u.OFPort)
	}
	return p, nil
}

// mtuOf returns the most that an MTU in the network may be: a provider network's is the wire's.
func (n *Node) mtuOf(ctx context.Context, net vnet.Network) (int, error) {
	if !net.IsProvider() {
		return n.MTU(ctx)
	}
	return n.uplinkMTU(ctx, net.Provider.Uplink)
}

// MTU returns the most that an endpoint's MTU may be: the underlay's less the tunnel's header. In a cluster it is the
// smallest of all nodes'.
func (n *Node) MTU(ctx context.Context) (int, error) {
	vtep, mtu, err := veth.Underlay(ctx, n.VTEP)
	if errors.Is(err, veth.ErrInvalid) { // it matters to a node of a cluster alone, and tenetd tells
		vtep = n.VTEP
		mtu, _, err = veth.UnderlayMTU(ctx)
	}
	if err != nil {
		return 0, err
	}
	err = n.Store.View(ctx, func(tx store.Tx) error {
		own, err := store.FindOverlay(tx)
		if errors.Is(err, vnet.ErrNotFound) {
			return nil
		}
		if own.LeastMTU > 0 {
			mtu = min(mtu, own.LeastMTU)
		}
		return err
	})
	return mtu - vnet.TunnelHeader(vtep), err
}

// sameBoot reports whether an endpoint was made in this boot.
func sameBoot(e vnet.Endpoint, here string) bool {
	then, _, _ := strings.Cut(e.Boot, " ")
	now, _, _ := strings.Cut(here, " ")
	return then == now
}

func describe(e vnet.Endpoint) string { return fmt.Sprintf("%s (%s, %s)", e.ID, e.Attachment, e.Ref()) }
