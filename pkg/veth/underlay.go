package veth

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// UnderlayMTU is the MTU and the name of the link that carries the default
// route of the caller's namespace: IPv4's, or IPv6's if there is no other. Of
// several default routes the one with the least metric counts, of several next
// hops the one with the least MTU. An MTU on the route itself lowers it.
// Without a default route: DefaultMTU and no name.
func UnderlayMTU(ctx context.Context) (int, string, error) {
	h, err := openHere()
	if err != nil {
		return 0, "", fmt.Errorf("find the underlay: %w", err)
	}
	defer h.Close()
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		all, err := routes(ctx, h, nil, family)
		if err != nil {
			return 0, "", fmt.Errorf("find the underlay: %w", err)
		}
		if best := defaultRoute(all); best != nil {
			return routeMTU(h, best)
		}
	}
	return DefaultMTU, "", nil
}

// defaultRoute is the default route with the least metric; nil if none leads
// through a link (an unreachable default does not).
func defaultRoute(all []netlink.Route) *netlink.Route {
	var best *netlink.Route
	for i, r := range all {
		if r.Dst != nil && prefix(r.Dst).Bits() != 0 {
			continue
		}
		if r.Type == unix.RTN_UNICAST && (best == nil || r.Priority < best.Priority) {
			best = &all[i]
		}
	}
	return best
}

// routeMTU is the least MTU on the way of r.
func routeMTU(h *netlink.Handle, r *netlink.Route) (int, string, error) {
	var hops []int
	if len(r.MultiPath) == 0 {
		hops = append(hops, r.LinkIndex)
	}
	for _, hop := range r.MultiPath {
		hops = append(hops, hop.LinkIndex)
	}
	mtu, name := 0, ""
	for _, index := range hops {
		l, err := linkAt(h, index)
		if err != nil {
			return 0, "", fmt.Errorf("find the underlay: %w", err)
		}
		if l != nil && (name == "" || l.Attrs().MTU < mtu) {
			mtu, name = l.Attrs().MTU, l.Attrs().Name
		}
	}
	if name == "" {
		return DefaultMTU, "", nil // the link went while we looked
	}
	if r.MTU > 0 && r.MTU < mtu {
		mtu = r.MTU
	}
	return mtu, name, nil
}

// Underlay returns the address at which other nodes reach this one, and the
// MTU of its link: vtep, if a link of the caller's namespace has it, or, if it
// is not valid, the first address of the link that UnderlayMTU finds: IPv4's,
// or IPv6's if there is no other. ErrInvalid if there is no such address.
func Underlay(ctx context.Context, vtep netip.Addr) (netip.Addr, int, error) {
	h, err := openHere()
	if err != nil {
		return vtep, 0, fmt.Errorf("find the underlay: %w", err)
	}
	defer h.Close()
	all, err := links(ctx, h)
	if err != nil {
		return vtep, 0, fmt.Errorf("find the underlay: %w", err)
	}
	mtu, name := 0, ""
	if !vtep.IsValid() {
		if mtu, name, err = UnderlayMTU(ctx); err != nil {
			return vtep, 0, err
		}
	}
	for _, l := range all {
		if name != "" && l.Attrs().Name != name {
			continue
		}
		addrs, err := addresses(ctx, h, l)
		if err != nil {
			return vtep, 0, fmt.Errorf("find the underlay: %w", err)
		}
		var six netip.Addr
		for _, a := range addrs {
			got, _ := netip.AddrFromSlice(a.IP)
			switch got = got.Unmap(); {
			case vtep.IsValid() && got == vtep:
				return vtep, l.Attrs().MTU, nil
			case vtep.IsValid() || name == "" || a.Scope != int(netlink.SCOPE_UNIVERSE):
			case got.Is4():
				return got, mtu, nil
			case !six.IsValid():
				six = got
			}
		}
		if six.IsValid() {
			return six, mtu, nil
		}
	}
	if vtep.IsValid() {
		return vtep, 0, fmt.Errorf("no link of this node has the address %s: %w", vtep, ErrInvalid)
	}
	return vtep, 0, fmt.Errorf("no default route leads by a link with an address, and no vtep is configured: %w", ErrInvalid)
}
