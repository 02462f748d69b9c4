package veth

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpTries is how often an interrupted dump is started again. A dump is
// interrupted when the list changes while it is read; hundreds of containers
// starting at once do that a few times in a row, not this often.
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

// links lists all links of h's namespace.
func links(ctx context.Context, h *netlink.Handle) ([]netlink.Link, error) {
	return dump(ctx, "links", h.LinkList) //nolint:forbidigo // this is the retrying wrapper
}

// addresses lists the addresses of both families on the link.
func addresses(ctx context.Context, h *netlink.Handle, l netlink.Link) ([]netlink.Addr, error) {
	return dump(ctx, "addresses of "+l.Attrs().Name, func() ([]netlink.Addr, error) {
		return h.AddrList(l, netlink.FAMILY_ALL) //nolint:forbidigo // this is the retrying wrapper
	})
}

// routes lists the main table's routes of a family; of one link, or of all if
// l is nil.
func routes(ctx context.Context, h *netlink.Handle, l netlink.Link, family int) ([]netlink.Route, error) {
	what := "routes"
	if l != nil {
		what += " of " + l.Attrs().Name
	}
	return dump(ctx, what, func() ([]netlink.Route, error) {
		got, err := h.RouteList(l, family) //nolint:forbidigo // this is the retrying wrapper
		if errors.Is(err, unix.EAFNOSUPPORT) {
			return nil, nil // a kernel without IPv6 has no IPv6 routes
		}
		return got, err
	})
}

// link finds a link by its name; nil if there is none. It is one question, not
// a dump, but netlink falls back to a dump on kernels that cannot ask by name.
func link(ctx context.Context, h *netlink.Handle, name string) (netlink.Link, error) {
	return dump(ctx, "link "+name, func() (netlink.Link, error) {
		l, err := h.LinkByName(name) //nolint:forbidigo // this is the retrying wrapper
		if isGone(err) {
			return nil, nil
		}
		if err == nil && l.Attrs().Name != name {
			return nil, nil // found by an alternative name: not the link asked for
		}
		return l, err
	})
}

// linkAt finds a link by its index; nil if there is none.
func linkAt(h *netlink.Handle, index int) (netlink.Link, error) {
	l, err := h.LinkByIndex(index)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at link %d: %w", index, err)
	}
	return l, nil
}

// isGone tells whether err says that there is no such link.
func isGone(err error) bool {
	_, gone := errors.AsType[netlink.LinkNotFoundError](err)
	return gone
}

// up tells whether the link is set up (which says nothing about its carrier).
func up(l netlink.Link) bool { return l.Attrs().Flags&net.FlagUp != 0 }

// works tells whether the link carries frames: a veth does while both its ends are up.
func works(l netlink.Link) bool { return up(l) && l.Attrs().RawFlags&unix.IFF_RUNNING != 0 }
