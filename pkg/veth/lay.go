package veth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How long to wait for carrier at most: 50 ms.
const (
	carrierTries = 50
	carrierPause = time.Millisecond
)

// Laid is what a cable turned out to be.
type Laid struct {
	// HostMAC is the hardware address of the host's end.
	HostMAC net.HardwareAddr
	// HostIndex is the link index of the host's end, in the caller's namespace.
	HostIndex int
	// Routes are those of the Cable that stand: all but the ones that were to
	// be left out if taken.
	Routes []Route
	// Deaf: the host's network stack gets none of the container's frames
	// (only if Cable.Userspace, on Linux 6.6 or later). Without it the stack
	// answers and forwards nothing, but a limited broadcast or a frame to
	// 224.0.0.1 from the source 0.0.0.0 still reaches the host's sockets.
	Deaf bool
}

// Lay makes the cable c. When it returns, the host's end is up, with carrier,
// and the container can use all its addresses; the host's end is the last thing
// to come up, so that the switch sees as few link events as can be: one when
// the link is made and one or two when it comes up.
//
// A name that is taken at either end is ErrExists, and then nothing was made.
// After any other error the link may be there, half laid: Remove takes it away.
// ctx is looked at between steps.
func Lay(ctx context.Context, c Cable) (Laid, error) {
	if err := c.validate(); err != nil {
		return Laid{}, err
	}
	e, err := openEnds(c.NetNS)
	if err != nil {
		return Laid{}, fmt.Errorf("lay %s to %s: %w", c.Host, c.Container, err)
	}
	defer e.close()

	host, err := makePair(ctx, e, c)
	if err != nil {
		return Laid{}, fmt.Errorf("lay %s to %s: %w", c.Host, c.Container, err)
	}
	laid := Laid{HostMAC: HostMAC(c.Host), HostIndex: host.Attrs().Index}
	if laid.Routes, err = dressContainer(ctx, e, c); err != nil {
		return Laid{}, fmt.Errorf("lay %s to %s: in %s: %w", c.Host, c.Container, c.NetNS, err)
	}
	if laid.Deaf, err = dressHost(ctx, e.here, host, c); err != nil {
		return Laid{}, fmt.Errorf("lay %s to %s: %w", c.Host, c.Container, err)
	}
	if err := awaitCarrier(ctx, e, c); err != nil {
		return Laid{}, fmt.Errorf("lay %s to %s: %w", c.Host, c.Container, err)
	}
	return laid, nil
}

// awaitCarrier waits until both ends work. That they have carrier is worked off
// in the kernel's background, at once or, where both ends happen to have the same
// index, up to a second later; until then a first frame is lost, and a switch
// takes the port for dead. Newer kernels catch up when they are asked for the
// link, so this is one question for each end; others are given a moment, after
// which the cable counts as laid all the same.
func awaitCarrier(ctx context.Context, e *ends, c Cable) error {
	for try := range carrierTries {
		if try > 0 {
			time.Sleep(carrierPause)
		}
		there, err := link(ctx, e.there, c.Container)
		if err != nil {
			return err
		}
		here, err := link(ctx, e.here, c.Host)
		if err != nil {
			return err
		}
		if there == nil || here == nil {
			return errors.New("the link went away again")
		}
		if there.Attrs().OperState == netlink.OperUp && here.Attrs().OperState == netlink.OperUp {
			break
		}
	}
	return nil
}

// makePair makes both ends where they belong, in one request: neither is ever
// moved or renamed. Both are down.
func makePair(ctx context.Context, e *ends, c Cable) (netlink.Link, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = c.Host, c.mtu(), HostMAC(c.Host)
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerHardwareAddr = c.Container, c.MAC
	pair.PeerNamespace = netlink.NsFd(int(e.ns))
	err := e.here.LinkAdd(pair)
	if errors.Is(err, unix.EEXIST) {
		return nil, takenBy(ctx, e, c)
	}
	if err != nil {
		return nil, fmt.Errorf("make the veth pair: %w", err)
	}
	return pair, nil
}

// takenBy says which of the two names was taken; the kernel does not.
func takenBy(ctx context.Context, e *ends, c Cable) error {
	l, err := link(ctx, e.there, c.Container)
	if err != nil {
		return err
	}
	if l != nil {
		return fmt.Errorf("link %s in %s %w", c.Container, c.NetNS, ErrExists)
	}
	return fmt.Errorf("link %s %w", c.Host, ErrExists)
}
