package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries is how often an interrupted dump is started again. A dump is
// interrupted when the list changes while it is read.
const dumpTries = 50

// dump calls list until the kernel says that the list did not change under it.
// Everything in this package that reads a list does so through here.
func dump[T any](ctx context.Context, what string, list func() (T, error)) (T, error) {
	var none T
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return none, fmt.Errorf("list %s: %w", what, err)
		}
		got, err := list()
		if err == nil {
			return got, nil
		}
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return none, fmt.Errorf("list %s: %w", what, err)
		}
	}
}

// addresses lists the addresses of both families on the link, or on all if it is nil.
func addresses(ctx context.Context, h *netlink.Handle, l netlink.Link) ([]netlink.Addr, error) {
	return dump(ctx, "addresses", func() ([]netlink.Addr, error) {
		return h.AddrList(l, netlink.FAMILY_ALL) //nolint:forbidigo // this is the retrying wrapper
	})
}

// routes lists the main table's routes of both families, of one link or of all
// if it is nil.
func routes(ctx context.Context, h *netlink.Handle, l netlink.Link) ([]netlink.Route, error) {
	var all []netlink.Route
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		got, err := dump(ctx, "routes", func() ([]netlink.Route, error) {
			got, err := h.RouteList(l, family) //nolint:forbidigo // this is the retrying wrapper
			if errors.Is(err, unix.EAFNOSUPPORT) {
				return nil, nil // a kernel without IPv6 has no IPv6 routes
			}
			return got, err
		})
		if err != nil {
			return nil, err
		}
		all = append(all, got...)
	}
	return all, nil
}

// localRoutes lists what the local table has of IPv6 for the link: the
// addresses that are the host's own there.
func localRoutes(ctx context.Context, h *netlink.Handle, l netlink.Link) ([]netlink.Route, error) {
	filter := &netlink.Route{LinkIndex: l.Attrs().Index, Table: unix.RT_TABLE_LOCAL}
	return dump(ctx, "local routes", func() ([]netlink.Route, error) {
		got, err := h.RouteListFiltered(netlink.FAMILY_V6, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_OIF)
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil
		}
		return got, err
	})
}

// neighbours lists the neighbours on the link that have been entered or found.
func neighbours(ctx context.Context, h *netlink.Handle, l netlink.Link) ([]netlink.Neigh, error) {
	return dump(ctx, "neighbours", func() ([]netlink.Neigh, error) {
		return h.NeighList(l.Attrs().Index, netlink.FAMILY_ALL) //nolint:forbidigo // this is the retrying wrapper
	})
}

// link finds a link by its name; nil if there is none. It is one question, not
// a dump, but netlink falls back to a dump on kernels that cannot ask by name.
func link(ctx context.Context, h *netlink.Handle, name string) (netlink.Link, error) {
	return dump(ctx, "link "+name, func() (netlink.Link, error) {
		l, err := h.LinkByName(name) //nolint:forbidigo // this is the retrying wrapper
		if _, gone := errors.AsType[netlink.LinkNotFoundError](err); gone {
			return nil, nil
		}
		if err == nil && l.Attrs().Name != name {
			return nil, nil // found by an alternative name: not the link asked for
		}
		return l, err
	})
}

// openHere opens a netlink socket in the caller's namespace.
func openHere() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return h, nil
}

// up tells whether the link is set up (which says nothing about its carrier).
func up(l netlink.Link) bool { return l.Attrs().Flags&net.FlagUp != 0 }

// addr is ip as a netip.Addr, IPv4 as such; zero if it is none.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// prefix is n as a netip.Prefix; zero if it is none.
func prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(addr(n.IP), ones)
}

// ipNet is p as netlink wants it.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
