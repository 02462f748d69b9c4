package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Told is what a service of Tell says: who answers, and whom it sees asking.
type Told struct {
	Who  string
	Seen netip.AddrPort
}

// Tell answers on port, by TCP and by UDP, in both families, until the test ends. An answer is as long as its question.
func (c *Container) Tell(port uint16) {
	c.tb.Helper()
	tcp := c.Listen(port)
	var udp net.PacketConn
	c.In(func() error {
		var err error
		udp, err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", port))
		return err
	})
	c.tb.Cleanup(func() { _ = udp.Close() })
	answer := func(question []byte, from net.Addr) []byte {
		text := fmt.Appendf(nil, "%s %s\n", c.ID, from)
		return append(text, bytes.Repeat([]byte{'.'}, max(0, len(question)-len(text)))...)
	}
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(answer(b[:n], from), from)
		}
	}()
	Accept(tcp, func(conn net.Conn) {
		question := make([]byte, 16)
		n, _ := conn.Read(question)
		_, _ = conn.Write(answer(question[:n], conn.RemoteAddr()))
	})
}

// Ask asks a service of Tell with n bytes, from a source port, 0 for any.
func (c *Container) Ask(network string, to netip.AddrPort, from uint16, n int) (Told, error) {
	var conn net.Conn
	err := Inside(c.Path, func() error {
		d := net.Dialer{Timeout: Stretch(5 * time.Second), LocalAddr: &net.TCPAddr{Port: int(from)}}
		if network == "udp" {
			d.LocalAddr = &net.UDPAddr{Port: int(from)}
		}
		var err error
		conn, err = d.Dial(network+map[bool]string{true: "4", false: "6"}[to.Addr().Is4()], to.String())
		return err
	})
	if err != nil {
		return Told{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	if err := conn.SetDeadline(time.Now().Add(Stretch(5 * time.Second))); err != nil {
		return Told{}, err
	}
	if _, err := conn.Write(make([]byte, n)); err != nil {
		return Told{}, err
	}
	b := make([]byte, 1<<16)
	got, err := conn.Read(b)
	if err != nil {
		return Told{}, err
	}
	if network == "udp" && got < n {
		return Told{}, fmt.Errorf("the answer has %d bytes instead of %d: %w", got, n, io.ErrUnexpectedEOF)
	}
	line, _, _ := strings.Cut(string(b[:got]), "\n")
	who, seen, _ := strings.Cut(line, " ")
	at, err := netip.ParseAddrPort(seen)
	return Told{Who: who, Seen: netip.AddrPortFrom(at.Addr().Unmap(), at.Port())}, err
}

// PathMTU sends datagrams of n bytes, IP headers included, that nobody may fragment, until the kernel has been told that
// the path is narrower, and returns how wide it takes it to be then: n if nobody tells.
func (c *Container) PathMTU(to netip.Addr, n int) int {
	c.tb.Helper()
	var conn net.Conn
	c.In(func() error {
		var err error
		conn, err = net.Dial("udp", netip.AddrPortFrom(to, 9).String()) //nolint:noctx // connects at once
		return err
	})
	defer conn.Close() //nolint:errcheck // nothing to lose
	raw, err := conn.(*net.UDPConn).SyscallConn()
	Must(c.tb, err)
	level, option, headers := unix.IPPROTO_IP, unix.IP_MTU, 28
	if to.Is6() {
		level, option, headers = unix.IPPROTO_IPV6, unix.IPV6_MTU, 48
	}
	known := 0
	Within(Patience(), func() bool {
		_, _ = conn.Write(make([]byte, n-headers)) // EMSGSIZE is what is waited for
		Must(c.tb, raw.Control(func(fd uintptr) { known, err = unix.GetsockoptInt(int(fd), level, option) }))
		Must(c.tb, err)
		return known < n
	})
	return min(known, n)
}
