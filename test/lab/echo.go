package lab

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Echo answers TCP and UDP on port, in both families, with what it is sent, until the test ends.
func (c *Container) Echo(port uint16) {
	c.tb.Helper()
	tcp := c.Listen(port)
	var udp net.PacketConn
	c.In(func() error {
		var err error
		udp, err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", port))
		return err
	})
	c.tb.Cleanup(func() { _ = udp.Close() })
	go func() {
		for b := make([]byte, 1<<16); ; {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	}()
	Accept(tcp, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

// Connect opens a connection ("tcp", "udp") to a service of Echo.
func (c *Container) Connect(network string, to netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := Inside(c.Path, func() error {
		d := net.Dialer{Timeout: Stretch(3 * time.Second)}
		var err error
		conn, err = d.Dial(network, to.String())
		return err
	})
	return conn, err
}

// Say sends a text on a connection to Echo and waits until it has come back. What comes before it answers what was said before.
func Say(conn net.Conn, text string) error { return SayWithin(conn, text, 5*time.Second) }

// SayWithin is Say with another patience.
func SayWithin(conn net.Conn, text string, d time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(Stretch(d))); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	var got []byte
	for b := make([]byte, len(text)+maxDatagram); !bytes.HasSuffix(got, []byte(text)); {
		n, err := conn.Read(b)
		if err != nil && len(got) > 0 {
			return fmt.Errorf("%w; something else came back: %s", err, got)
		}
		if err != nil {
			return err
		}
		got = append(got, b[:n]...)
	}
	return nil
}

const maxDatagram = 1 << 16

// Exchange sends a token to a service of Echo, or with "icmp" in an echo request, and waits for it.
func (c *Container) Exchange(network string, to netip.AddrPort, token string) error {
	if network == "icmp" {
		wait := fmt.Sprintf("-W%d", int(Stretch(3*time.Second).Seconds()))
		out, err := RunIn(c.tb, c.Path, "ping", "-n", "-c1", wait, "-s64", "-p", hex.EncodeToString([]byte(token)), to.Addr().String())
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	conn, err := c.Connect(network, to)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	return SayWithin(conn, token, 3*time.Second)
}

// ConnectFrom is Connect from one of the container's addresses.
func (c *Container) ConnectFrom(network string, from netip.Addr, to netip.AddrPort) (net.Conn, error) {
	var conn net.Conn
	err := Inside(c.Path, func() error {
		d := net.Dialer{Timeout: Stretch(3 * time.Second), LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
		var err error
		conn, err = d.Dial(network, to.String())
		return err
	})
	return conn, err
}
