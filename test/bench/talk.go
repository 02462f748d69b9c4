package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// What is said is always the same: the client sends and closes its half, the server answers with how much that was. A
// stream is one long request; connections are many short ones.

// A talk is what a client is to say, one of the three.
type talk struct {
	To          netip.AddrPort
	Stream      time.Duration // one connection, as much as goes through
	Connections int           // short ones, shortAtOnce at a time
	Trips       int           // a byte there and back, on one connection
}

// said is how it went.
type said struct {
	Bytes uint64
	Took  time.Duration // until the last answer
	Trip  time.Duration // of a byte, the median
}

const (
	serverPort  = 7000
	requestSize = 128 // of a short one
	shortAtOnce = 8   // keeps the switch busy while the ends work
	writeSize   = 256 << 10
)

// serve answers in a namespace until the world ends.
func (w *world) serve(n namespace) error {
	return w.listen(n, serverPort, respond)
}

// echo sends back what comes, on the port above serve's.
func (w *world) echo(n namespace) error {
	return w.listen(n, serverPort+1, func(conn net.Conn) {
		defer conn.Close() //nolint:errcheck // the peer sees
		_, _ = io.Copy(conn, conn)
	})
}

// listen gives each connection to a port of a namespace to answer, until the world ends.
func (w *world) listen(n namespace, port int, answer func(net.Conn)) error {
	var l net.Listener
	err := n.do(func() (err error) { //nolint:nonamedreturns // shorter
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port)) //nolint:noctx // listens at once
		return err
	})
	if err != nil {
		return err
	}
	w.servers = append(w.servers, l)
	lab.Accept(l, answer)
	return nil
}

// respond leaves it to the client to notice what goes wrong. Who calls it closes the connection.
func respond(conn net.Conn) {
	buf := make([]byte, writeSize)
	var got uint64
	for {
		n, err := conn.Read(buf)
		got += uint64(n)
		if errors.Is(err, io.EOF) {
			_, _ = conn.Write(binary.BigEndian.AppendUint64(nil, got))
		}
		if err != nil {
			return
		}
	}
}

// client says it, in the namespace that the process is in.
func (t talk) client(ctx context.Context) (said, error) {
	start := time.Now()
	if t.Stream > 0 {
		buf := make([]byte, writeSize)
		n, err := t.say(ctx, func(w io.Writer) error {
			for time.Since(start) < t.Stream {
				if _, err := w.Write(buf); err != nil {
					return err
				}
			}
			return nil
		})
		return said{Bytes: n, Took: time.Since(start)}, err
	}
	if t.Trips > 0 {
		return t.trips(ctx)
	}
	var left atomic.Int64
	left.Store(int64(t.Connections))
	var all sync.WaitGroup
	failed := make([]error, shortAtOnce)
	for i := range failed {
		all.Go(func() {
			for failed[i] == nil && left.Add(-1) >= 0 {
				failed[i] = t.short(ctx)
			}
		})
	}
	all.Wait()
	return said{Bytes: uint64(t.Connections) * requestSize, Took: time.Since(start)}, errors.Join(failed...)
}

// trips sends a byte and waits for it, time and again.
func (t talk) trips(ctx context.Context) (said, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", netip.AddrPortFrom(t.To.Addr(), t.To.Port()+1).String())
	if err != nil {
		return said{}, err
	}
	defer conn.Close() //nolint:errcheck // nothing to lose
	took := make([]time.Duration, t.Trips)
	for i, b := 0, make([]byte, 1); i < len(took); i++ {
		start := time.Now()
		if _, err := conn.Write(b); err != nil {
			return said{}, err
		}
		if _, err := io.ReadFull(conn, b); err != nil {
			return said{}, err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return said{Trip: took[len(took)/2]}, nil
}

func (t talk) short(ctx context.Context) error {
	n, err := t.say(ctx, func(w io.Writer) error {
		_, err := w.Write(make([]byte, requestSize))
		return err
	})
	if err == nil && n != requestSize {
		err = fmt.Errorf("of %d bytes %d arrived", requestSize, n)
	}
	return err
}

// say opens a connection, sends what send writes, and returns how much of it the server had.
func (t talk) say(ctx context.Context, send func(io.Writer) error) (uint64, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp4", t.To.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // both have said everything, or another error tells
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return 0, err
		}
	}
	if err := send(conn); err != nil {
		return 0, err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // of a TCP dial
		return 0, err
	}
	had, err := io.ReadAll(conn)
	if err == nil && len(had) != 8 {
		err = fmt.Errorf("%s answered with %d bytes", t.To, len(had))
	}
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint64(had), nil
}
