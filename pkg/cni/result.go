package cni

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Result says what stands for the endpoint: the link on the host and the interface in the
// container, addresses and routes. A plugin that ran before keeps its part of the result, in
// front. The name servers are the network's; where it has none, the configuration's; else those
// of the plugin before.
func (r *Request) Result(network vnet.Network, e vnet.Endpoint) (types.Result, error) {
	result := &current.Result{CNIVersion: current.ImplementedSpecVersion, DNS: r.DNS}
	if r.PrevResult != nil {
		earlier, err := current.NewResultFromResult(r.PrevResult)
		if err != nil {
			return nil, vnet.Invalidf("prevResult: %v", err)
		}
		result.Interfaces, result.IPs, result.Routes = earlier.Interfaces, earlier.IPs, earlier.Routes
		if r.DNS.IsEmpty() {
			result.DNS = earlier.DNS
		}
	}
	if !network.DNS.IsZero() {
		result.DNS = types.DNS(network.DNS)
	}
	container := len(result.Interfaces) + 1
	result.Interfaces = append(result.Interfaces,
		&current.Interface{Name: e.ID.Port(), Mac: veth.HostMAC(e.ID.Port()).String(), Mtu: e.MTU},
		&current.Interface{Name: e.IfName, Mac: e.MAC.String(), Mtu: e.MTU, Sandbox: e.NetNS})
	result.IPs = append(result.IPs, ips(network, e, &container)...)
	result.Routes = append(result.Routes, routes(e)...)
	return result, nil
}

// IPAMResult is the result of an IPAM plugin: addresses and routes, no interfaces.
func IPAMResult(network vnet.Network, addrs []netip.Prefix) types.Result {
	e := vnet.Endpoint{Addrs: addrs, Routes: network.DefaultRoutes(addrs)}
	return &current.Result{CNIVersion: current.ImplementedSpecVersion, IPs: ips(network, e, nil), Routes: routes(e)}
}

func routes(e vnet.Endpoint) []*types.Route {
	var list []*types.Route
	for _, r := range e.Routes {
		list = append(list, &types.Route{Dst: ipNet(r.Dst), GW: r.Via.AsSlice()})
	}
	return list
}

func ips(network vnet.Network, e vnet.Endpoint, container *int) []*current.IPConfig {
	var list []*current.IPConfig
	for _, p := range e.Addrs {
		ip := &current.IPConfig{Interface: container, Address: ipNet(p)}
		if s, ok := network.SubnetOf(p.Addr()); ok && s.Gateway.IsValid() {
			ip.Gateway = s.Gateway.AsSlice()
		}
		list = append(list, ip)
	}
	return list
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
