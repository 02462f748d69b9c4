package node

import (
	"context"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

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
	var flush [][]string
	for _, p := range e.Addrs {
		if net.Zone != 0 {
			flush = append(flush, ending(net.Zone, p.Addr())...)
		}
	}
	var gone []netip.Addr
	for _, a := range e.Aliases() {
		flush = append(flush, ending(vnet.HostZone, a.Alias)...)
		gone = append(gone, a.Alias)
		if net.Gateway == vnet.GatewayRouted {
			gone = append(gone, a.Addr)
		}
	}
	if _, err := ovs.ControlEach(ctx, n.OVSRunDir, "dpctl/flush-conntrack", flush); err != nil {
		return kind(err)
	}
	_, err = gateway.Forget(gone...)
	return err
}

// ending are the arguments of dpctl/flush-conntrack that end the connections of a zone that a
// opened, or that were opened to it. Of IPv6 only those of TCP, UDP and SCTP: ovs-vswitchd with the
// userspace datapath dies of being asked to forget one of ICMPv6 (lib/conntrack.c,
// tuple_to_conn_key). Those end by themselves, in 30 s.
func ending(z vnet.Zone, a netip.Addr) [][]string {
	tuples := []string{"ct_nw_src=" + a.String()}
	if a.Is6() {
		tuples = nil
		for _, protocol := range []int{unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_SCTP} {
			tuples = append(tuples, fmt.Sprintf("ct_ipv6_src=%s,ct_nw_proto=%d", a, protocol))
		}
	}
	zone := fmt.Sprintf("zone=%d", z)
	var calls [][]string
	for _, t := range tuples {
		calls = append(calls, []string{zone, t}, []string{zone, "", t})
	}
	return calls
}
