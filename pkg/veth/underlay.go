package veth

import (
	"context"
	"fmt"

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
