package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// EmptyZone empties the network's conntrack zone if no endpoint of it works yet: what is in it
// is of an earlier life.
func (n *Node) EmptyZone(ctx context.Context, r Recorded) error {
	if err := n.emptyZones(ctx, r.Endpoint.Zone); err != nil {
		return err
	}
	if err := n.emptyFunctionZone(ctx, r.Endpoint); err != nil {
		return err
	}
	if !r.fresh || r.Network.Zone == 0 {
		return nil
	}
	if err := n.emptyZones(ctx, r.Network.Outside); err != nil {
		return err
	}
	_, err := ovs.Control(ctx, n.OVSRunDir, "dpctl/flush-conntrack", fmt.Sprintf("zone=%d", r.Network.Zone))
	if errors.Is(err, ovs.ErrRefused) {
		return nil // a machine with datapaths of both kinds: Open vSwitch 3.1 does not take the one that is meant
	}
	return kind(err)
}

// emptyFunctionZone empties the zone of the function that the endpoint is a port of, unless it has the other port, too.
func (n *Node) emptyFunctionZone(ctx context.Context, e vnet.Endpoint) error {
	if e.Function == nil {
		return nil
	}
	var i vnet.Instance
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		i, err = store.FindInstance(tx, vnet.GroupRef{Tenant: e.Tenant, Group: e.Function.Group}, e.Container)
		return err
	})
	if err != nil || i.Ingress != e.ID && i.Ingress != "" || i.Egress != e.ID && i.Egress != "" {
		return err
	}
	return n.emptyZones(ctx, i.Zone)
}

// datapath names the bridge's as dpctl/dump-conntrack does (ovs-dpctl(8)); a machine may have both kinds.
func datapath(b ovs.Bridge) string { return b.Datapath + "@ovs-" + b.Datapath }

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
	tracked := map[vnet.Zone][]netip.Addr{}
	for _, p := range e.Addrs {
		if net.Zone != 0 {
			tracked[net.Zone] = append(tracked[net.Zone], p.Addr())
		}
	}
	var gone []netip.Addr
	for _, a := range e.Aliases() {
		tracked[vnet.HostZone] = append(tracked[vnet.HostZone], a.Alias)
		gone = append(gone, a.Alias)
		if net.Gateway == vnet.GatewayRouted {
			gone = append(gone, a.Addr)
		}
	}
	switch err := n.untrack(ctx, e.Bridge, tracked); {
	case noAnswer(err), errors.Is(err, ovs.ErrNotFound):
		// No ovs-vswitchd, no bridge, no datapath, or two kinds of it. What is still tracked, the network's next first endpoint ends.
	case err != nil:
		return kind(err)
	}
	_, err = gateway.Forget(gone...)
	return err
}

// untrackTries is how often the zones are looked at. All but the first few times find nothing.
const untrackTries = 20

// untrack ends the connections that an address opened, or that were opened to it, in the address's
// zone of the switch. It looks again until there are none: ovs-vswitchd passes over some of those
// that it is to forget, since the table that it walks through shrinks meanwhile.
func (n *Node) untrack(ctx context.Context, bridge string, gone map[vnet.Zone][]netip.Addr) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	b, err := sw.Bridge(ctx, bridge)
	if err != nil {
		return err
	}
	zones := slices.Sorted(maps.Keys(gone))
	var dump [][]string
	for _, z := range zones {
		dump = append(dump, []string{datapath(b), fmt.Sprintf("zone=%d", z)})
	}
	for range untrackTries {
		tracked, err := ovs.ControlEach(ctx, n.OVSRunDir, "dpctl/dump-conntrack", dump)
		if err != nil {
			return err
		}
		var flush [][]string
		for i, z := range zones {
			for _, a := range gone[z] {
				flush = append(flush, ending(tracked[i], z, a)...)
			}
		}
		if len(flush) == 0 {
			return nil
		}
		if _, err := ovs.ControlEach(ctx, n.OVSRunDir, "dpctl/flush-conntrack", flush); err != nil {
			return err
		}
	}
	return vnet.OfKind(vnet.ErrUnavailable, errors.New("ovs-vswitchd goes on tracking connections that nobody has any more"))
}

// ending are the arguments of dpctl/flush-conntrack that end the connections tracked in a zone that
// have a for a sender, if there are any. Those of ICMPv6 are left, and end by
// themselves, in 30 s: ovs-vswitchd with the userspace datapath dies of being asked to forget one
// (lib/conntrack.c, tuple_to_conn_key).
func ending(tracked string, z vnet.Zone, a netip.Addr) [][]string {
	var tuples []string
	for line := range strings.Lines(tracked) {
		protocol, rest, _ := strings.Cut(line, ",")
		if !strings.Contains(rest, "(src="+a.String()+",") {
			continue
		}
		tuple := "ct_nw_src=" + a.String()
		if a.Is6() {
			number, known := map[string]int{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}[protocol]
			if !known {
				continue
			}
			tuple = fmt.Sprintf("ct_ipv6_src=%s,ct_nw_proto=%d", a, number)
		}
		if !slices.Contains(tuples, tuple) {
			tuples = append(tuples, tuple)
		}
	}
	zone := fmt.Sprintf("zone=%d", z)
	var calls [][]string
	for _, t := range tuples {
		calls = append(calls, []string{zone, t}, []string{zone, "", t})
	}
	return calls
}
