package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"
)

// Listen opens a TCP port of the container. It closes with the test.
func (c *Container) Listen(port uint16) net.Listener {
	c.tb.Helper()
	var l net.Listener
	c.In(func() error {
		var err error
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", fmt.Sprintf(":%d", port))
		return err
	})
	c.tb.Cleanup(func() { _ = l.Close() })
	return l
}

// Accept serves each connection that comes in beside the others, and closes it, until the listener is closed. It returns at
// once.
func Accept(l net.Listener, serve func(net.Conn)) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close() //nolint:errcheck // the peer sees
				serve(conn)
			}()
		}
	}()
}

// Serve answers TCP connections to port, of both families, with the container's id and then what comes in, until the
// test ends.
func (c *Container) Serve(port uint16) {
	c.tb.Helper()
	Accept(c.Listen(port), func(conn net.Conn) {
		_, _ = conn.Write([]byte(c.ID + "\n"))
		_, _ = io.Copy(conn, conn)
	})
}

// Dial opens a TCP connection from a source port, 0 for any, and returns it with the id of who answered.
func (c *Container) Dial(to netip.AddrPort, from uint16) (net.Conn, string, error) {
	var conn net.Conn
	err := Inside(c.Path, func() error {
		d := net.Dialer{Timeout: Stretch(5 * time.Second), LocalAddr: &net.TCPAddr{Port: int(from)}}
		var err error
		conn, err = d.Dial("tcp", to.String())
		return err
	})
	if err != nil {
		return nil, "", err
	}
	if err := conn.SetDeadline(time.Now().Add(Patience())); err != nil {
		return nil, "", err
	}
	var id []byte
	for b := make([]byte, 1); b[0] != '\n'; id = append(id, b[0]) {
		if _, err := conn.Read(b); err != nil {
			return nil, "", errors.Join(err, conn.Close())
		}
	}
	return conn, string(bytes.TrimSpace(id)), nil
}

// Echoes sends n bytes over a connection and compares what comes back.
func Echoes(conn net.Conn, n int) error {
	sent := bytes.Repeat([]byte("tenet carries bytes\n"), n/20+1)[:n]
	failed := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		failed <- err
	}()
	got := make([]byte, n)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("other bytes came back")
	}
	return <-failed
}

// SendUDP sends one datagram by the container's own kernel: it looks up routes and neighbours.
func (c *Container) SendUDP(to netip.AddrPort, payload string) {
	c.tb.Helper()
	c.In(func() error {
		conn, err := net.Dial("udp", to.String()) //nolint:noctx // a datagram socket connects at once
		if err != nil {
			return err
		}
		defer conn.Close() //nolint:errcheck // nothing to lose
		_, err = conn.Write([]byte(payload))
		return err
	})
}
