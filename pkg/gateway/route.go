package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the routes that are ours, so that old ones are found. It
// is none of those in the kernel's linux/rtnetlink.h (RTPROT_*).
const routeProtocol = 116

// single is the host's address alone.
func (n Net) single() netip.Prefix { return netip.PrefixFrom(n.Host.Addr(), n.Host.Addr().BitLen()) }

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// wantedRoutes are the ways into the link: all that is led there, and the
// ranges, of which the first comes last (see Standing).
func wantedRoutes(s State, index int) []netlink.Route {
	var want []netlink.Route
	lead := func(p netip.Prefix, mtu int) {
		n := s.net(p.Addr())
		if mtu >= s.MTU {
			mtu = 0 // the link's
		}
		want = append(want, netlink.Route{
			LinkIndex: index, Family: family(n.Via), Dst: ipNet(p), Gw: n.Via.AsSlice(), Src: n.Host.Addr().AsSlice(), MTU: mtu,
			Table: unix.RT_TABLE_MAIN, Type: unix.RTN_UNICAST, Protocol: routeProtocol, Flags: int(netlink.FLAG_ONLINK),
		})
	}
	for _, r := range s.Routes {
		lead(r.Prefix, r.MTU)
	}
	if slices.ContainsFunc(s.Published, func(p Published) bool { return p.To.Addr().Is6() }) {
		// What a port published to loopback answers comes in by the link and is,
		// translated back, for ::1. IPv6 has no route_localnet, and asks for a
		// route to ::1 on the very link. A packet that is for ::1 as it comes is
		// dropped before anybody looks for a route (ip6_input.c), and the host's
		// own packets to ::1 take lo's route, whose metric is less.
		want = append(want, netlink.Route{
			LinkIndex: index, Family: netlink.FAMILY_V6, Dst: ipNet(netip.PrefixFrom(netip.IPv6Loopback(), 128)), Priority: 1024,
			Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Protocol: routeProtocol,
		})
	}
	for _, n := range slices.Backward(s.Nets) {
		lead(n.rng(), 0)
	}
	return want
}

// planRoutes compares the routes of the link with those that should be. Those
// that are not ours are left alone, and stand in the way only where they lead
// the very same prefix elsewhere: that is for others to settle, and comes last,
// so that all else is done.
func planRoutes(ctx context.Context, h *netlink.Handle, s State, l netlink.Link) ([]change, error) {
	all, err := routes(ctx, h, nil)
	if err != nil {
		return nil, err
	}
	local, err := localRoutes(ctx, h, l)
	if err != nil {
		return nil, err
	}
	all = append(all, local...)
	want := wantedRoutes(s, l.Attrs().Index)
	var changes, taken []change
	for _, r := range all {
		if !ours(r, l) || slices.ContainsFunc(want, func(w netlink.Route) bool { return sameRoute(r, w) }) {
			continue
		}
		changes = append(changes, change{
			what:    "remove the route " + words(r),
			differs: []string{fmt.Sprintf("%s has a route to %s that nobody needs", s.Link, words(r))},
			prefix:  s.led(r),
			do:      func() error { return unless(unix.ESRCH, h.RouteDel(&r)) },
		})
	}
	for _, w := range want {
		if slices.ContainsFunc(all, func(r netlink.Route) bool { return ours(r, l) && sameRoute(r, w) }) {
			continue
		}
		if i := slices.IndexFunc(all, func(r netlink.Route) bool { return !ours(r, l) && prefix(r.Dst) == prefix(w.Dst) }); i >= 0 {
			other := describe(h, all[i])
			taken = append(taken, change{
				what:    "add the route " + words(w),
				differs: []string{fmt.Sprintf("%s does not have the route %s, the host has %s", s.Link, words(w), other)},
				prefix:  s.led(w),
				do:      func() error { return fmt.Errorf("a route to %s %w and is not ours", other, ErrExists) },
			})
			continue
		}
		changes = append(changes, change{
			what:    "add the route " + words(w),
			differs: []string{fmt.Sprintf("%s does not have the route %s", s.Link, words(w))},
			prefix:  s.led(w),
			do:      func() error { return unless(unix.EEXIST, h.RouteAdd(&w)) },
		})
	}
	return append(changes, taken...), nil
}

// led is the prefix that r leads to the link as it is; zero if r is a way that
// all share: one to a range, or to ::1.
func (s State) led(r netlink.Route) netip.Prefix {
	p := prefix(r.Dst)
	if r.Table == unix.RT_TABLE_LOCAL || slices.ContainsFunc(s.Nets, func(n Net) bool { return n.rng() == p }) {
		return netip.Prefix{}
	}
	return p
}

// unless is err, or nil where somebody else was faster: the next look tells
// what they did.
func unless(done syscall.Errno, err error) error {
	if errors.Is(err, done) {
		return nil
	}
	return err
}

// ours tells whether r is a route that we laid on l.
func ours(r netlink.Route, l netlink.Link) bool {
	return r.Protocol == routeProtocol && r.LinkIndex == l.Attrs().Index
}

// sameRoute tells whether r, which stands, is the route w.
func sameRoute(r, w netlink.Route) bool {
	return prefix(r.Dst) == prefix(w.Dst) && addr(r.Gw) == addr(w.Gw) && addr(r.Src) == addr(w.Src) && r.MTU == w.MTU
}

// words is r without its link.
func words(r netlink.Route) string {
	w := prefix(r.Dst).String()
	if r.Table == unix.RT_TABLE_LOCAL {
		w = "local " + w
	}
	if gw := addr(r.Gw); gw.IsValid() {
		w += " via " + gw.String()
	}
	if r.MTU != 0 {
		w += fmt.Sprintf(" mtu %d", r.MTU)
	}
	return w
}

// describe is r with its link.
func describe(h *netlink.Handle, r netlink.Route) string {
	if l, err := h.LinkByIndex(r.LinkIndex); err == nil {
		return words(r) + " dev " + l.Attrs().Name
	}
	return words(r)
}

// removeRoutes takes our routes off the link.
func removeRoutes(ctx context.Context, name string) error {
	h, err := openHere()
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := link(ctx, h, name)
	if err != nil || l == nil {
		return err
	}
	standing, err := routes(ctx, h, l)
	if err != nil {
		return err
	}
	local, err := localRoutes(ctx, h, l)
	if err != nil {
		return err
	}
	for _, r := range append(standing, local...) {
		if !ours(r, l) {
			continue
		}
		if err := unless(unix.ESRCH, h.RouteDel(&r)); err != nil {
			return fmt.Errorf("remove the route %s: %w", words(r), err)
		}
	}
	return nil
}

// Overlapping names a route of the host that has an address in common with p,
// other than the default route and those of link; "" if there is none.
func Overlapping(ctx context.Context, p netip.Prefix, link string) (string, error) {
	h, err := openHere()
	if err != nil {
		return "", fmt.Errorf("look for routes to %v: %w", p, err)
	}
	defer h.Close()
	all, err := routes(ctx, h, nil)
	if err != nil {
		return "", fmt.Errorf("look for routes to %v: %w", p, err)
	}
	for _, r := range all {
		dst := prefix(r.Dst)
		if !dst.IsValid() || dst.Bits() == 0 || !dst.Overlaps(p) {
			continue
		}
		if l, err := h.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().Name == link {
			continue
		}
		return describe(h, r), nil
	}
	return "", nil
}

// IsLocal tells whether a is an address of one of the host's links.
func IsLocal(ctx context.Context, a netip.Addr) (bool, error) {
	h, err := openHere()
	if err != nil {
		return false, fmt.Errorf("look for the address %v: %w", a, err)
	}
	defer h.Close()
	all, err := addresses(ctx, h, nil)
	if err != nil {
		return false, fmt.Errorf("look for the address %v: %w", a, err)
	}
	return slices.ContainsFunc(all, func(has netlink.Addr) bool { return addr(has.IP) == a.Unmap() }), nil
}
