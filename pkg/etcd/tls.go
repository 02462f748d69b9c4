package etcd

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// With TLS 1.3 a client learns that its certificate is refused after it has begun to write. As often as not that fails
// first, and gRPC has no more to tell than a broken pipe. So a write that fails says what reading has to say of it.

// tlsCredentials is credentials.NewTLS with such connections.
type tlsCredentials struct {
	credentials.TransportCredentials
}

func newTLSCredentials(c *tls.Config) credentials.TransportCredentials {
	return tlsCredentials{credentials.NewTLS(c)}
}

func (t tlsCredentials) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := t.TransportCredentials.ClientHandshake(ctx, authority, raw)
	if err != nil {
		return nil, nil, err
	}
	return &tlsConn{Conn: conn, over: make(chan struct{})}, info, nil
}

func (t tlsCredentials) Clone() credentials.TransportCredentials {
	return tlsCredentials{t.TransportCredentials.Clone()}
}

// A tlsConn is read by one goroutine all the time, as gRPC does.
type tlsConn struct {
	net.Conn
	once sync.Once
	over chan struct{} // closed when reading has failed
	why  error
}

func (c *tlsConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.once.Do(func() { c.why = err; close(c.over) })
	}
	return n, err
}

func (c *tlsConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err == nil {
		return n, nil
	}
	select {
	case <-c.over:
		if tlsRefused(c.why.Error()) {
			return n, c.why
		}
	case <-time.After(firstPatience): // it need not be the connection's end
	}
	return n, err
}
