package node

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// flushZone empties a conntrack zone of the switch.
func (n *Node) flushZone(ctx context.Context, z vnet.Zone) error {
	_, err := ovs.Control(ctx, n.OVSRunDir, "dpctl/flush-conntrack", fmt.Sprintf("zone=%d", z))
	return kind(err)
}

// forget ends what is tracked of the endpoint's connections, in the switch and in the host. Its
// flows must be gone, or new ones would come.
func (n *Node) forget(ctx context.Context, e vnet.Endpoint) error {
	if e.Transit == 0 || len(e.Addrs) == 0 {
		return nil
	}
	net, err := n.network(ctx, e.Ref(), e.Bridge)
	if err != nil {
		return err
	}
	gone := []netip.Addr{}
	for _, a := range e.Aliases() {
		gone = append(gone, a.Alias)
		if net.Gateway == vnet.GatewayRouted {
			gone = append(gone, a.Addr)
		}
	}
	if net.Zone != 0 {
		for _, p := range e.Addrs {
			tuple := "ct_nw_src="
			if p.Addr().Is6() {
				tuple = "ct_ipv6_src="
			}
			tuple += p.Addr().String()
			zone := fmt.Sprintf("zone=%d", net.Zone)
			for _, args := range [][]string{{zone, tuple}, {zone, "", tuple}} { // opened by it, opened to it
				if _, err := ovs.Control(ctx, n.OVSRunDir, "dpctl/flush-conntrack", args...); err != nil {
					return kind(err)
				}
			}
		}
	}
	_, err = gateway.Forget(gone...)
	return err
}
