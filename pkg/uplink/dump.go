package uplink

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// dumpTries is how often an interrupted dump is started again. A dump is interrupted when the list changes while it is
// read.
const dumpTries = 50

// retry calls list until the kernel says that the list did not change under it.
func retry[T any](ctx context.Context, list func() (T, error)) (T, error) {
	var none T
	for try := 1; ; try++ {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		got, err := list()
		if err == nil {
			return got, nil
		}
		if !errors.Is(err, nl.ErrDumpInterrupted) || try == dumpTries {
			return none, err
		}
	}
}

// dump asks the kernel for a list of both families, in its order.
func dump(ctx context.Context, ask int, answer uint16) ([]message, error) {
	head := ifaSize
	if ask == unix.RTM_GETROUTE {
		head = rtmSize
	}
	var all []message
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		list, err := retry(ctx, func() ([][]byte, error) {
			req := nl.NewNetlinkRequest(ask, unix.NLM_F_DUMP)
			question := make([]byte, head)
			question[0] = family
			req.AddRawData(question)
			return req.Execute(unix.NETLINK_ROUTE, answer)
		})
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without IPv6
		}
		if err != nil {
			return nil, err
		}
		for _, b := range list {
			m, err := decode(b, head)
			if err != nil {
				return nil, err
			}
			if m.family() == family { // where a family is missing the kernel answers for all
				all = append(all, m)
			}
		}
	}
	return all, nil
}

// allRoutes lists the routes of all links that may be moved, in the kernel's order.
func allRoutes(ctx context.Context) ([]route, error) {
	list, err := dump(ctx, unix.RTM_GETROUTE, unix.RTM_NEWROUTE)
	if err != nil {
		return nil, err
	}
	var routes []route
	for _, m := range list {
		if r := (route{m}); r.moves() {
			routes = append(routes, r)
		}
	}
	return routes, nil
}

// send sends the kernel a message and waits for its answer.
func send(kind, flags int, b []byte) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.AddRawData(b)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// find finds a link by its name. ErrNotFound if there is none.
func find(ctx context.Context, name string) (netlink.Link, error) {
	l, err := retry(ctx, func() (netlink.Link, error) { return netlink.LinkByName(name) }) //nolint:forbidigo // retried
	_, gone := errors.AsType[netlink.LinkNotFoundError](err)
	if gone || err == nil && l.Attrs().Name != name { // found by an alternative name: not the link asked for
		return nil, fmt.Errorf("%s: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("look at link %s: %w", name, err)
	}
	return l, nil
}

func placeOf(l netlink.Link) place { return place{l.Attrs().Name, l.Attrs().Index} }
