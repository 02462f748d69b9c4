package veth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dressContainer brings the container's end up with all that belongs on it.
// There is no carrier yet, so nothing leaves it until the host's end is up. It
// returns the routes that stand.
func dressContainer(ctx context.Context, e *ends, c Cable) ([]Route, error) {
	if err := inside(e.ns, func() error { return prepareContainer(c) }); err != nil {
		return nil, err
	}
	if _, err := setUp(ctx, e.there, "lo"); err != nil {
		return nil, err
	}
	l, err := setUp(ctx, e.there, c.Container)
	if err != nil {
		return nil, err
	}
	return address(ctx, e.there, l, c)
}

func setUp(ctx context.Context, h *netlink.Handle, name string) (netlink.Link, error) {
	l, err := link(ctx, h, name)
	if err == nil && l == nil {
		err = errors.New("there is no such link")
	}
	if err == nil {
		err = h.LinkSetUp(l)
	}
	if err != nil {
		return nil, fmt.Errorf("set %s up: %w", name, err)
	}
	return l, nil
}

// prepareContainer does, in the container's namespace, what must be done before
// the link comes up and has no netlink message.
func prepareContainer(c Cable) error {
	if err := prepareIPv6(c); err != nil {
		return err
	}
	if c.Userspace {
		return withoutOffload(c.Container)
	}
	return nil
}

// prepareIPv6 keeps the kernel from making addresses of its own on the link and
// from believing router advertisements, and turns IPv6 on where it is needed:
// container runtimes hand over namespaces with disable_ipv6=1.
func prepareIPv6(c Cable) error {
	if _, err := os.Stat(sysctlPath("ipv6", c.Container, "")); errors.Is(err, fs.ErrNotExist) {
		if c.ipv6() {
			return fmt.Errorf("%w, and %s has IPv6 addresses", ErrNoIPv6, c.Container)
		}
		return nil
	}
	// 1 is IN6_ADDR_GEN_MODE_NONE.
	set := []sysctl{{c.Container, "addr_gen_mode", "1"}, {c.Container, "accept_ra", "0"}}
	if c.ipv6() {
		set = append(set, sysctl{"lo", "disable_ipv6", "0"}, sysctl{c.Container, "disable_ipv6", "0"})
	}
	return setSysctls("ipv6", set)
}

// address gives the link, which is up, its addresses and then its routes, of
// which it returns those that stand.
func address(ctx context.Context, h *netlink.Handle, l netlink.Link, c Cable) ([]Route, error) {
	for _, p := range c.addrs() {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a := &netlink.Addr{IPNet: ipNet(p)}
		if p.Addr().Is6() {
			// No duplicate address detection: who hands out the addresses
			// answers for them being unique, and they are usable at once.
			a.Flags = unix.IFA_F_NODAD
		}
		if err := h.AddrAdd(l, a); err != nil {
			return nil, fmt.Errorf("add address %v to %s: %w", p, c.Container, err)
		}
	}
	var laid []Route
	for _, r := range c.Routes {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		err := h.RouteAdd(kernelRoute(l, c, r))
		if errors.Is(err, unix.EEXIST) {
			err = routeTaken(ctx, h, l, r)
		}
		if r.IfFree && errors.Is(err, ErrExists) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("add route %v through %s: %w", r, c.Container, err)
		}
		laid = append(laid, r)
	}
	return laid, nil
}

// kernelRoute is r as the kernel takes it.
func kernelRoute(l netlink.Link, c Cable, r Route) *netlink.Route {
	route := &netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.Dst.Masked())}
	switch {
	case r.Via.IsValid():
		route.Gw = r.Via.AsSlice()
		if !c.onLink(r.Via) {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
	case r.Dst.Addr().Is4():
		route.Scope = netlink.SCOPE_LINK
	}
	return route
}

// routeTaken is nil if the route that stands is the one wanted, as with the
// route that came with an address.
func routeTaken(ctx context.Context, h *netlink.Handle, l netlink.Link, r Route) error {
	standing, err := routes(ctx, h, l, family(r.Dst.Addr()))
	if err != nil {
		return err
	}
	if hasRoute(standing, r) {
		return nil
	}
	return fmt.Errorf("another route to %v %w", r.Dst, ErrExists)
}

// hasRoute tells whether r is among the standing routes of its link.
func hasRoute(standing []netlink.Route, r Route) bool {
	for _, s := range standing {
		dst, via := netip.PrefixFrom(unspecified(r.Dst.Addr()), 0), netip.Addr{}
		if s.Dst != nil {
			dst = prefix(s.Dst)
		}
		if len(s.Gw) > 0 {
			via, _ = netip.AddrFromSlice(s.Gw)
			via = via.Unmap()
		}
		if dst == r.Dst.Masked() && via == r.Via && s.Type == unix.RTN_UNICAST {
			return true
		}
	}
	return false
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func unspecified(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n *net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}
