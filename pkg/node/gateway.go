package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// gatewayOwner is the owner of the host's port on the bridge.
const gatewayOwner = "gateway"

// Expose links the host to the bridge as the store asks: the port and link tenet-gw, the routes
// and rules of networks with a way out, the published ports of all endpoints. Whoever is the first of its
// network to finish sees to all of it; others, unless they publish ports, find it in place.
func (n *Node) Expose(ctx context.Context, r Recorded) error {
	e := r.Endpoint
	if e.Transit == 0 {
		return nil
	}
	if len(e.Ports) == 0 && !r.fresh && gateway.Standing(vnet.GatewayLink, vnet.PeerTransit.Addr4()) {
		return nil // nothing of it is this endpoint's; Check and Sync look closer
	}
	err := n.linkHost(ctx, e.Bridge)
	if errors.Is(err, gateway.ErrExists) { // a prefix is routed elsewhere, and all else has been done: is it one of ours?
		differs, lookErr := n.hostDiffers(ctx, &r.Network.Network)
		if lookErr == nil && len(differs) == 0 {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	for _, m := range e.Ports { // what the host tracked before belongs to whoever had the port then
		if err := gateway.ForgetPort(m.Protocol, m.HostIP, m.HostPort); err != nil {
			return err
		}
	}
	return nil
}

// conceal takes back what Expose did for the endpoint, which is Leaving; the link stays. What
// others lack does not concern it: without a link, or rules, there is nothing to take back.
func (n *Node) conceal(ctx context.Context, e vnet.Endpoint) error {
	if e.Transit == 0 {
		return nil
	}
	last := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		net, err := store.Network(tx, e.Ref())
		if err != nil || !net.Gateway.Leads() {
			return err
		}
		living, err := store.HasLiving(tx, e.Ref(), e.Bridge)
		last = !living
		return err
	})
	if err != nil || !last && len(e.Ports) == 0 {
		return err
	}
	unlock, err := n.lockHost(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	err = n.ensureHost(ctx)
	if errors.Is(err, gateway.ErrNoLink) || errors.Is(err, gateway.ErrExists) || errors.Is(err, gateway.ErrUnsupported) {
		return nil
	}
	return err
}

// linkHost makes the port and the host's side of it.
func (n *Node) linkHost(ctx context.Context, bridge string) error {
	unlock, err := n.lockHost(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.plugHost(ctx, bridge); err != nil {
		return err
	}
	return n.ensureHost(ctx)
}

// plugHost makes the host's port on the bridge. On another bridge of ours it is left over: nobody
// is there any more (store.ClaimGateway).
func (n *Node) plugHost(ctx context.Context, bridge string) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	mtu, err := n.MTU(ctx)
	if err != nil {
		return err
	}
	port := ovs.Port{Name: vnet.GatewayLink, Owner: gatewayOwner, Type: "internal", OFPortRequest: vnet.GatewayPort, MTURequest: mtu}
	plug := sw.EnsurePort
	if _, err := net.InterfaceByName(port.Name); err != nil {
		plug = sw.Plug // a port whose link somebody deleted looks as if it worked
	}
	_, err = plug(ctx, bridge, port)
	if !errors.Is(err, ovs.ErrNotOurs) {
		return kind(err)
	}
	elsewhere, findErr := sw.BridgeWith(ctx, port.Name)
	if findErr != nil || elsewhere == "" || elsewhere == bridge {
		return kind(err)
	}
	if b, bridgeErr := sw.Bridge(ctx, elsewhere); bridgeErr != nil || b.Owner != n.DataDir {
		return kind(err)
	}
	if err := sw.Unplug(ctx, elsewhere, port.Name); err != nil {
		return kind(err)
	}
	_, err = sw.Plug(ctx, bridge, port)
	return kind(err)
}

// ensureHost makes the host's side of the link. The host must be locked.
func (n *Node) ensureHost(ctx context.Context) error {
	mtu, err := n.MTU(ctx)
	if err != nil {
		return err
	}
	state, err := n.hostState(ctx, mtu)
	if err != nil {
		return err
	}
	return kind(gateway.Ensure(ctx, state))
}

// syncHost makes the host's side agree with the store, and says what differed. Without the link
// there is nothing to agree with, unless somebody needs it.
func (n *Node) syncHost(ctx context.Context, bridge string, apply bool) ([]string, error) {
	linked, used := false, false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		linked = store.GatewayBridge(tx) == bridge
		var err error
		used, err = store.HasAliases(tx)
		return err
	})
	if err != nil || !linked || !used && !gateway.Standing(vnet.GatewayLink, vnet.PeerTransit.Addr4()) {
		return nil, err
	}
	differs, err := n.hostDiffers(ctx, nil)
	if err == nil && apply && len(differs) > 0 {
		err = n.linkHost(ctx, bridge)
	}
	return differs, err
}

// hostDiffers says what differs on the host: for one network what it shares with others or has for itself, for nil everything.
func (n *Node) hostDiffers(ctx context.Context, one *vnet.Network) ([]string, error) {
	mtu, err := n.MTU(ctx)
	if err != nil {
		return nil, err
	}
	state, err := n.hostState(ctx, mtu)
	if err != nil {
		return nil, err
	}
	differs, err := gateway.DiffFor(ctx, state, func(p netip.Prefix) bool {
		return one == nil || slices.ContainsFunc(one.Subnets, func(s vnet.Subnet) bool { return s.Prefix == p })
	})
	if errors.Is(err, gateway.ErrNoLink) {
		return []string{"link " + vnet.GatewayLink + " is not there"}, nil
	}
	for _, egress := range state.Egress {
		if one != nil && one.EgressAddress != egress.Address {
			continue
		}
		if own, localErr := gateway.IsLocal(ctx, egress.Address); localErr == nil && !own {
			differs = append(differs, fmt.Sprintf("egressAddress %s is not an address of this node any more: only you can give it back", egress.Address))
		}
	}
	return differs, kind(err)
}

// tunnelPorts are the UDP ports of the tunnels between nodes.
func tunnelPorts() []uint16 {
	var ports []uint16
	for _, e := range vnet.Encapsulations {
		ports = append(ports, uint16(e.UDPPort()))
	}
	return ports
}

// ownPorts is the port at which tenetd tells how it is doing, if containers could reach it there.
func ownPorts(ctx context.Context, at string) []uint16 {
	host, service, err := net.SplitHostPort(at)
	if err != nil || host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && a.Unmap().IsLoopback() {
		return nil
	}
	port, err := net.DefaultResolver.LookupPort(ctx, "tcp", service)
	if err != nil {
		return nil
	}
	return []uint16{uint16(port)}
}

// hostState renders what the host should have, from the store.
func (n *Node) hostState(ctx context.Context, mtu int) (gateway.State, error) {
	s := gateway.State{
		Link: vnet.GatewayLink, MAC: vnet.GatewayMAC.HardwareAddr(), Peer: vnet.PeerMAC.HardwareAddr(), MTU: mtu,
		Nets: []gateway.Net{
			{Host: netip.PrefixFrom(vnet.HostTransit.Addr4(), vnet.TransitRange4.Bits()), Via: vnet.PeerTransit.Addr4()},
			{Host: netip.PrefixFrom(vnet.HostTransit.Addr6(), vnet.TransitRange6.Bits()), Via: vnet.PeerTransit.Addr6()},
		},
	}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		if own, err := store.FindOverlay(tx); err == nil {
			s.Tunnels, s.Kept = tunnelPorts(), pipeline.EtcdServices(own.Etcd)
		} else if !errors.Is(err, vnet.ErrNotFound) {
			return err
		}
		s.Own = ownPorts(ctx, store.MetricsAt(tx))
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		if err != nil {
			return err
		}
		bridge := store.GatewayBridge(tx)
		seen := map[vnet.Ref]vnet.Network{}
		for _, e := range endpoints {
			if e.Bridge != bridge || e.State == vnet.Leaving || e.Transit == 0 {
				continue
			}
			net, ok := seen[e.Ref()]
			if !ok {
				if net, err = store.Network(tx, e.Ref()); err != nil {
					return err
				}
				seen[e.Ref()] = net
				g, err := store.NetworkGateway(tx, e.Ref())
				if err != nil {
					return err
				}
				leadHost(&s, net, g)
			}
			publish(&s, net, e)
		}
		return nil
	})
	return s, err
}

// leadHost adds what the host needs for a network's way out.
func leadHost(s *gateway.State, net vnet.Network, g store.Gateway) {
	if !net.Gateway.Leads() {
		return
	}
	for _, sub := range net.Subnets {
		s.Forward4 = s.Forward4 || sub.Prefix.Addr().Is4()
		s.Forward6 = s.Forward6 || sub.Prefix.Addr().Is6()
		if net.Gateway == vnet.GatewayRouted {
			mtu := net.MTU
			if mtu == 0 {
				mtu = s.MTU
			}
			s.Routes = append(s.Routes, gateway.Route{Prefix: sub.Prefix, MTU: mtu})
		}
	}
	if a := net.EgressAddress; a.IsValid() {
		s.Egress = append(s.Egress, gateway.Egress{Transit: g.Transit.Like(a), Address: a})
	}
}

// publish adds an endpoint's published ports: to its aliases, or to itself where the host routes its network.
func publish(s *gateway.State, net vnet.Network, e vnet.Endpoint) {
	if len(e.Ports) == 0 {
		return
	}
	for _, a := range e.Aliases() {
		s.Forward4 = s.Forward4 || a.Addr.Is4()
		s.Forward6 = s.Forward6 || a.Addr.Is6()
		to := a.Alias
		if net.Gateway == vnet.GatewayRouted {
			to = a.Addr
		}
		for _, m := range e.Ports {
			if !m.Serves(a.Addr) {
				continue
			}
			host := m.HostIP
			if host.IsUnspecified() {
				host = netip.Addr{}
			}
			s.Published = append(s.Published, gateway.Published{Protocol: m.Protocol, HostIP: host, HostPort: m.HostPort, To: netip.AddrPortFrom(to, m.ContainerPort)})
		}
		if net.Gateway == vnet.GatewayNone {
			s.Masked = append(s.Masked, a.Alias)
		}
	}
}

// CheckNetwork asks the node whether the network can be here: that the host has no route to a
// routed prefix already, and that an egress address is its own.
func (n *Node) CheckNetwork(ctx context.Context, net vnet.Network) error {
	if net.Gateway == vnet.GatewayRouted {
		for _, s := range net.Subnets {
			route, err := gateway.Overlapping(ctx, s.Prefix, vnet.GatewayLink)
			if err != nil {
				return err
			}
			if route != "" {
				return vnet.WithHint(vnet.Existsf("subnet %s of network %s overlaps a route of the host: %s", s.Prefix, net.Ref(), route),
					"choose another prefix, or gateway nat, which may overlap anything")
			}
		}
	}
	return n.checkEgress(ctx, net)
}

// checkEgress asks the node whether the network's egress address is its own.
func (n *Node) checkEgress(ctx context.Context, net vnet.Network) error {
	if a := net.EgressAddress; a.IsValid() {
		own, err := gateway.IsLocal(ctx, a)
		if err != nil {
			return err
		}
		if !own {
			return vnet.WithHint(vnet.Invalidf("egressAddress %s of network %s is not an address of this node", a, net.Ref()), "add it to a link of the host first: ip address add %s dev LINK", a)
		}
	}
	return nil
}

// checkPorts looks whether the host has the addresses, and nobody on it the ports.
func (n *Node) checkPorts(ctx context.Context, ports []vnet.PortMapping) error {
	for _, m := range ports {
		if m.Protocol == "udp" && n.Clustered() && slices.Contains(tunnelPorts(), m.HostPort) {
			return vnet.WithHint(vnet.Existsf("portMappings: udp port %d of the host is its tunnels'", m.HostPort), "choose another hostPort")
		}
		if a := m.HostIP; a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() {
			own, err := gateway.IsLocal(ctx, a)
			if err != nil {
				return err
			}
			if !own {
				return vnet.WithHint(vnet.Invalidf("portMappings: hostIP %s is not an address of this node", a), "leave hostIP out for all of its addresses")
			}
		}
		holder, err := gateway.Holder(m.Protocol, m.HostIP, m.HostPort)
		if err != nil {
			return err
		}
		if holder != "" {
			return vnet.WithHint(vnet.Existsf("portMappings: %s port %d of the host is in use by %s", m.Protocol, m.HostPort, holder), "choose another hostPort, or another hostIP")
		}
	}
	return nil
}

// lockHost waits until nobody else changes the host's side.
func (n *Node) lockHost(ctx context.Context) (func(), error) {
	return store.Lock(ctx, n.DataDir, "host")
}
