package lab

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Load is how many bits a second a container sends to another, in UDP datagrams of the MTU's size, IP headers
// included. 0 is TCP, which sends what it can: with cubic, the usual one and the one that losses hurt most.
type Load float64

// TCP is a Load.
const TCP Load = 0

// Tick is the time that each number of Carry stands for.
const Tick = 100 * time.Millisecond

// Carried are the bytes of payload that arrived in each Tick since the first.
type Carried []float64

// Rate is the payload's in bits per second, from one moment to another.
func (c Carried) Rate(from, to time.Duration) float64 {
	sum := 0.
	for _, n := range c[from/Tick : to/Tick] {
		sum += n
	}
	return sum * 8 / (to - from).Seconds()
}

// Carry sends from c to another container for d and returns what arrived there. It may be called from any goroutine.
func (c *Container) Carry(to *Container, l Load, d time.Duration) (Carried, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.tb.Context()))
	defer cancel()
	if l != TCP {
		return c.carryUDP(ctx, to, l, d)
	}
	in, out, err := c.connect(ctx, to)
	if err != nil {
		return nil, err
	}
	defer in.Close()  //nolint:errcheck // nothing to lose
	defer out.Close() //nolint:errcheck // it ends the sender
	go func() {
		for b := make([]byte, 256<<10); ; {
			if _, err := out.Write(b); err != nil {
				return
			}
		}
	}()
	return arrivals(in, d)
}

// connect opens a TCP connection and returns its two ends.
func (c *Container) connect(ctx context.Context, to *Container) (net.Conn, net.Conn, error) {
	var server net.Listener
	if err := Inside(to.Path, func() error {
		var err error
		server, err = (&net.ListenConfig{}).Listen(ctx, "tcp4", ":0")
		return err
	}); err != nil {
		return nil, nil, err
	}
	defer server.Close() //nolint:errcheck // the connection stays
	port := server.Addr().(*net.TCPAddr).AddrPort().Port()
	var out net.Conn
	if err := Inside(c.Path, func() error {
		d := net.Dialer{Timeout: Patience(), Control: func(_, _ string, raw syscall.RawConn) error {
			var refused error
			err := raw.Control(func(fd uintptr) {
				refused = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
			})
			return errors.Join(err, refused)
		}}
		var err error
		out, err = d.DialContext(ctx, "tcp4", netip.AddrPortFrom(to.IP4, port).String())
		return err
	}); err != nil {
		return nil, nil, err
	}
	in, err := server.Accept()
	if err != nil {
		return nil, nil, errors.Join(err, out.Close())
	}
	return in, out, nil
}

func (c *Container) carryUDP(ctx context.Context, to *Container, l Load, d time.Duration) (Carried, error) {
	var in net.PacketConn
	if err := Inside(to.Path, func() error {
		var err error
		in, err = (&net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
			return raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
		}}).ListenPacket(ctx, "udp4", ":0")
		return err
	}); err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // nothing to lose
	port := in.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	var out net.Conn
	if err := Inside(c.Path, func() error {
		var err error
		out, err = (&net.Dialer{}).DialContext(ctx, "udp4", netip.AddrPortFrom(to.IP4, port).String())
		return err
	}); err != nil {
		return nil, err
	}
	defer out.Close() //nolint:errcheck // it ends the sender
	var link *net.Interface
	if err := Inside(c.Path, func() error {
		var err error
		link, err = net.InterfaceByName(c.IfName)
		return err
	}); err != nil {
		return nil, err
	}
	go func() {
		b := make([]byte, link.MTU-28) // IPv4 and UDP headers
		start, sent := time.Now(), 0.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			for due := time.Since(start).Seconds() * float64(l); sent < due; sent += float64(link.MTU * 8) {
				if _, err := out.Write(b); errors.Is(err, net.ErrClosed) {
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return arrivals(in.(net.Conn), d)
}

// arrivals reads for d from the first bytes on.
func arrivals(in net.Conn, d time.Duration) (Carried, error) {
	got := make(Carried, d/Tick)
	b := make([]byte, 256<<10)
	if err := in.SetReadDeadline(time.Now().Add(Patience())); err != nil {
		return nil, err
	}
	n, err := in.Read(b)
	if err != nil {
		return nil, err
	}
	start := time.Now()
	got[0] = float64(n)
	if err := in.SetReadDeadline(start.Add(d)); err != nil {
		return nil, err
	}
	for {
		n, err := in.Read(b)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return got, nil
		}
		if err != nil {
			return nil, err
		}
		if at := int(time.Since(start) / Tick); at < len(got) {
			got[at] += float64(n)
		}
	}
}
