package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// A Capture holds every frame that has come in by a container's interface since it began.
type Capture struct {
	c    *Container
	fd   int
	done chan struct{}

	mu     sync.Mutex
	frames [][]byte
	buf    [1 << 16]byte
}

// Capture begins to capture. It ends with the test. A VLAN tag is not in the frames: the kernel takes it off.
func (c *Container) Capture() *Capture {
	c.tb.Helper()
	k := &Capture{c: c, done: make(chan struct{})}
	c.In(func() error {
		var err error
		k.fd, err = packetSocket(c.IfName, unix.ETH_P_ALL)
		return err
	})
	Must(c.tb, unix.SetsockoptInt(k.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20))
	ctx, end := context.WithCancel(context.WithoutCancel(c.tb.Context()))
	go k.read(ctx)
	c.tb.Cleanup(func() {
		end()
		<-k.done
		k.mu.Lock()
		defer k.mu.Unlock()
		_ = unix.Close(k.fd)
		k.fd = -1 // who looks later finds what had come by now
	})
	return k
}

func (k *Capture) read(ctx context.Context) {
	defer close(k.done)
	for ctx.Err() == nil {
		ready := []unix.PollFd{{Fd: int32(k.fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(ready, 20); err != nil || n == 0 {
			continue
		}
		k.mu.Lock()
		k.drain()
		k.mu.Unlock()
	}
}

// drain takes what has come in by now. It is locked, so that who looks misses nothing that has.
func (k *Capture) drain() {
	for {
		n, from, err := unix.Recvfrom(k.fd, k.buf[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil { // there is no more; a link that went down speaks here too, and may come back
			return
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		k.frames = append(k.frames, bytes.Clone(k.buf[:n]))
	}
}

// Frames returns those that have come in and that match.
func (k *Capture) Frames(match func(frame []byte) bool) [][]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drain()
	var list [][]byte
	for _, f := range k.frames {
		if match(f) {
			list = append(list, f)
		}
	}
	return list
}

// Count is how many frames with the token have come in.
func (k *Capture) Count(token string) int { return len(k.Frames(With(token))) }

// With matches frames with a token in them.
func With(token string) func([]byte) bool {
	return func(frame []byte) bool { return bytes.Contains(frame, []byte(token)) }
}

// Await waits until a frame with the token has come in.
func (k *Capture) Await(token string) {
	k.c.tb.Helper()
	Eventually(k.c.tb, fmt.Sprintf("%q to arrive at %s", token, k.c.ID), func() bool { return k.Count(token) > 0 })
}

// Send puts frames on the wire by the container's interface, as a hostile program with CAP_NET_RAW can.
func (c *Container) Send(frames ...[]byte) {
	c.tb.Helper()
	c.In(func() error {
		fd, err := packetSocket(c.IfName, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd) //nolint:errcheck // nothing to lose
		for _, f := range frames {
			if _, err := unix.Write(fd, f); err != nil {
				return fmt.Errorf("send a frame of %d bytes: %w", len(f), err)
			}
		}
		return nil
	})
}

// Sender opens the container's interface to put frames on the wire by, until the test ends.
func (c *Container) Sender() func(frame []byte) {
	c.tb.Helper()
	fd := -1
	c.In(func() error {
		var err error
		fd, err = packetSocket(c.IfName, 0)
		return err
	})
	c.tb.Cleanup(func() { _ = unix.Close(fd) })
	return func(frame []byte) {
		_, err := unix.Write(fd, frame)
		Must(c.tb, err)
	}
}

// packetSocket opens a packet(7) socket bound to a link of the thread's namespace. Protocol 0 receives nothing.
func packetSocket(link string, protocol uint16) (int, error) {
	i, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	big := protocol<<8 | protocol>>8
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: big, Ifindex: i.Index}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Settled sends an honest datagram from one container to another and waits for it: what was sent before it on the
// same way has arrived by then, or never will.
func Settled(tb testing.TB, from *Container, to *Container, at *Capture) {
	tb.Helper()
	token := Token("settled")
	from.Send(UDP(from, to, token))
	at.Await(token)
}
