package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

const (
	mtu    = 1450 // what tenet gives where the underlay has 1500
	ifName = "eth0"
)

// declaration is the network of every container; the first ADD makes it.
func declaration() vnet.Network {
	return vnet.Network{Tenant: "bench", Name: "net", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix(subnet)}}}
}

const subnet = "10.64.0.0/16"

// populate raises the number of ports on both bridges to size. Those on ours are endpoints like any other, recorded and
// laid as ADD does; their rows are written in one transaction and their flows by one sync.
func (w *world) populate(ctx context.Context, size int) error {
	var ports []port
	err := w.crowd.quiet(func() error {
		return w.linuxNode.quiet(func() error { return w.layLinux(ctx, size) })
	})
	if err == nil {
		ports, err = w.layEndpoints(ctx, size)
	}
	if err == nil && len(ports) > 0 {
		err = w.db.insert(ports...)
	}
	if err == nil {
		err = w.db.settle()
	}
	if err != nil {
		return err
	}
	w.populated = size
	synced, err := w.sync(ctx, 0)
	if err == nil && synced.Endpoints != size {
		err = fmt.Errorf("of %d endpoints, %d stand", size, synced.Endpoints)
	}
	return err
}

// layEndpoints records and lays the endpoints that are missing to size, on the node itself.
func (w *world) layEndpoints(ctx context.Context, size int) ([]port, error) {
	if size == w.populated {
		return nil, nil
	}
	outcomes, err := w.inside(ctx, w.ovsNode, order{LayFrom: w.populated, LayTo: size, NetNS: w.crowd.path})
	if err != nil {
		return nil, err
	}
	var ports []port
	err = json.Unmarshal(outcomes[0].Stdout, &ports)
	return ports, err
}

func (w *world) layLinux(ctx context.Context, size int) error {
	node, err := w.linuxNode.netlink()
	if err != nil {
		return err
	}
	defer node.Close()
	crowd, err := w.crowd.netlink()
	if err != nil {
		return err
	}
	defer crowd.Close()
	master, err := node.LinkByName(linuxBridge)
	if err != nil {
		return err
	}
	for i := w.populated; i < size; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.MasterIndex = fmt.Sprintf("veth%d", i), mtu, master.Attrs().Index
		pair := netlink.NewVeth(attrs)
		pair.PeerName, pair.PeerNamespace = fmt.Sprintf("b%d", i), netlink.NsFd(int(w.crowd.file.Fd()))
		if err := node.LinkAdd(pair); err != nil {
			return fmt.Errorf("lay %s: %w", attrs.Name, err)
		}
		if err := errors.Join(setUp(crowd, pair.PeerName), node.LinkSetUp(pair)); err != nil {
			return err
		}
	}
	return nil
}

func handleOf(n namespace) netns.NsHandle { return netns.NsHandle(n.file.Fd()) }
