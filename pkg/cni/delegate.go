package cni

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/invoke"
	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Delegate returns what it takes to call the configuration's foreign IPAM plugin, nil if the
// configuration uses ours.
func (r *Request) Delegate() *vnet.Delegate {
	if r.IPAM.Type == OurIPAM {
		return nil
	}
	return &vnet.Delegate{Type: r.IPAM.Type, Conf: r.Raw, Path: r.Path, Args: r.ArgsText}
}

// DelegateAdd asks a foreign IPAM plugin for addresses.
func DelegateAdd(ctx context.Context, e vnet.Endpoint) (*current.Result, error) {
	plugin, args, err := delegated("ADD", *e.Delegate, e)
	if err != nil {
		return nil, err
	}
	r, err := invoke.ExecPluginWithResult(ctx, plugin, e.Delegate.Conf, args, nil)
	if err != nil {
		return nil, fmt.Errorf("ipam plugin %s: %w", e.Delegate.Type, err)
	}
	result, err := current.NewResultFromResult(r)
	if err != nil {
		return nil, fmt.Errorf("ipam plugin %s: %w", e.Delegate.Type, err)
	}
	if len(result.IPs) == 0 {
		return nil, vnet.Invalidf("ipam plugin %s gave no address", e.Delegate.Type)
	}
	return result, nil
}

// DelegateDel gives back what a foreign IPAM plugin gave the endpoint.
func DelegateDel(ctx context.Context, e vnet.Endpoint) error { return delegate(ctx, "DEL", e) }

// DelegateCheck asks a foreign IPAM plugin whether the endpoint's addresses are still its own.
func DelegateCheck(ctx context.Context, e vnet.Endpoint) error { return delegate(ctx, "CHECK", e) }

// DelegateVerb calls the configuration's foreign IPAM plugin with GC or STATUS; nothing if it uses ours.
func (r *Request) DelegateVerb(ctx context.Context, verb string) error {
	d := r.Delegate()
	if d == nil {
		return nil
	}
	return delegate(ctx, verb, vnet.Endpoint{Delegate: d})
}

func delegate(ctx context.Context, verb string, e vnet.Endpoint) error {
	plugin, args, err := delegated(verb, *e.Delegate, e)
	if err != nil {
		return err
	}
	if err := invoke.ExecPluginWithoutResult(ctx, plugin, e.Delegate.Conf, args, nil); err != nil {
		return fmt.Errorf("ipam plugin %s: %w", e.Delegate.Type, err)
	}
	return nil
}

func delegated(verb string, d vnet.Delegate, e vnet.Endpoint) (string, *invoke.Args, error) {
	plugin, err := invoke.FindInPath(d.Type, filepath.SplitList(d.Path))
	if err != nil {
		return "", nil, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("ipam plugin %s: %w", d.Type, err))
	}
	return plugin, &invoke.Args{
		Command: verb, ContainerID: e.Container, NetNS: e.NetNS, IfName: e.IfName, PluginArgsStr: d.Args, Path: d.Path,
	}, nil
}

// AddressesOf returns the addresses in a foreign IPAM plugin's result. vnet.ErrInvalid for a
// gateway that is not the network's own: nothing would answer for it.
func AddressesOf(result *current.Result, net vnet.Network) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if !ok {
			return nil, vnet.Invalidf("ipam plugin gave the address %v", ip.Address)
		}
		a = a.Unmap()
		subnet, ok := net.SubnetOf(a)
		if !ok {
			return nil, vnet.WithHint(vnet.Invalidf("ipam plugin gave %s, which is in no subnet of network %s", a, net.Ref()), "declare the prefix that it hands out in the network's subnets")
		}
		if gw, ok := netip.AddrFromSlice(ip.Gateway); ok && gw.Unmap() != subnet.Gateway {
			return nil, vnet.Invalidf("ipam plugin names the gateway %s, network %s has %s", gw.Unmap(), net.Ref(), subnet.Gateway)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// RoutesOf returns the routes in a foreign IPAM plugin's result beside the default routes, which
// every endpoint has by its network's gateways. A route without a gateway goes by ours.
func RoutesOf(result *current.Result, net vnet.Network, addrs []netip.Addr) ([]vnet.Route, error) {
	var routes []vnet.Route
	for _, r := range result.Routes {
		dst, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if !ok || dst.Zone() != "" {
			return nil, vnet.Invalidf("ipam plugin gave the route %v", r)
		}
		if bits == 0 {
			continue
		}
		route := vnet.Route{Dst: netip.PrefixFrom(dst.Unmap(), bits)}
		if via, ok := netip.AddrFromSlice(r.GW); ok {
			route.Via = via.Unmap()
		} else {
			for _, a := range addrs {
				if s, ok := net.SubnetOf(a); ok && a.Is4() == route.Dst.Addr().Is4() {
					route.Via = s.Gateway
				}
			}
		}
		routes = append(routes, route)
	}
	return routes, nil
}
