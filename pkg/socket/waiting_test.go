package socket_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/tenet-cni/tenet/pkg/socket"
)

// slow is a listener whose connections bring one byte at a time, and tell of each read that is not of the request's line.
type slow struct {
	net.Listener

	waits chan struct{}
}

func (l slow) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return &slowConn{Conn: conn, waits: l.waits}, err
}

type slowConn struct {
	net.Conn

	waits chan struct{}
	mu    sync.Mutex
	line  bool // it has come
}

func (c *slowConn) Read(b []byte) (int, error) {
	c.mu.Lock()
	line := c.line
	c.mu.Unlock()
	if line {
		c.waits <- struct{}{}
	}
	n, err := c.Conn.Read(b[:1])
	c.mu.Lock()
	c.line = c.line || n == 1 && b[0] == '\n'
	c.mu.Unlock()
	return n, err
}

// A request ends with its brace. The line's end that comes after it, alone if the request has just filled what it is read
// into, does not say that who asked has gone.
func TestWhoStillWaitsIsWorkedFor(t *testing.T) {
	waits := make(chan struct{}, 1)
	s := start(t, func(ctx context.Context, _ socket.Request) (any, error) {
		select {
		case <-waits:
			return "done", nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}, func(l net.Listener) net.Listener { return slow{l, waits} })
	var got string
	if err := s.call(socket.Request{Do: socket.Status}, &got); err != nil || got != "done" {
		t.Errorf("got %q, %v", got, err)
	}
}
