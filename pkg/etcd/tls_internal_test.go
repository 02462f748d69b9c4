package etcd

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// refused is a connection whose other side has sent an alert and closed it.
type refused struct{ net.Conn }

var errAlert = errors.New("remote error: tls: certificate required")

func (refused) Write([]byte) (int, error) { return 0, syscall.EPIPE }
func (refused) Read([]byte) (int, error)  { return 0, errAlert }

func TestWriteSaysWhyACertificateIsRefused(t *testing.T) {
	c := &tlsConn{Conn: refused{}, over: make(chan struct{})}
	go c.Read(make([]byte, 1))
	if _, err := c.Write([]byte{1}); !errors.Is(err, errAlert) {
		t.Errorf("got %v", err)
	}
}
