package lab

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Stream is a datagram each millisecond from one container to another.
type Stream struct {
	tb   testing.TB
	sent atomic.Uint64
	stop context.CancelFunc
	done sync.WaitGroup
	in   net.PacketConn

	mu      sync.Mutex
	arrived map[uint64]time.Time
	latest  time.Time // arrival
}

// Stream begins to send. It ends with Lost, or with the test.
func (c *Container) Stream(to *Container) *Stream {
	c.tb.Helper()
	return c.StreamTo(to, to.IP4)
}

// StreamTo is Stream to an address that leads to the other container.
func (c *Container) StreamTo(to *Container, address netip.Addr) *Stream {
	c.tb.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(c.tb.Context()))
	s := &Stream{tb: c.tb, stop: stop, arrived: map[uint64]time.Time{}}
	to.In(func() error {
		var err error
		s.in, err = (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", ":0")
		return err
	})
	raw, err := s.in.(*net.UDPConn).SyscallConn()
	Must(c.tb, err)
	Must(c.tb, raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) }))
	_, port, err := net.SplitHostPort(s.in.LocalAddr().String())
	Must(c.tb, err)
	number, err := strconv.ParseUint(port, 10, 16)
	Must(c.tb, err)
	var out net.Conn
	c.In(func() error {
		var err error
		out, err = net.Dial("udp", netip.AddrPortFrom(address, uint16(number)).String()) //nolint:noctx // connects at once
		return err
	})
	s.done.Go(func() { s.send(ctx, out) })
	s.done.Go(s.receive)
	c.tb.Cleanup(func() { s.end() })
	return s
}

func (s *Stream) end() {
	s.stop()
	_ = s.in.Close()
	s.done.Wait()
}

func (s *Stream) send(ctx context.Context, out net.Conn) {
	defer out.Close() //nolint:errcheck // nothing to lose
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			// What the kernel refuses to send (an ICMP error came in) has not been sent.
			if _, err := out.Write(binary.BigEndian.AppendUint64(nil, s.sent.Load())); err == nil {
				s.sent.Add(1)
			}
		}
	}
}

func (s *Stream) receive() {
	buf := make([]byte, 16)
	for {
		n, _, err := s.in.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if n == 8 {
			s.mu.Lock()
			s.latest = time.Now()
			s.arrived[binary.BigEndian.Uint64(buf)] = s.latest
			s.mu.Unlock()
		}
	}
}

// Flows waits until some of what is sent from now on has arrived.
func (s *Stream) Flows() {
	s.tb.Helper()
	next := s.sent.Load()
	Eventually(s.tb, "the stream to flow", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		n := 0
		for i := next; i < s.sent.Load(); i++ {
			if _, ok := s.arrived[i]; ok {
				n++
			}
		}
		return n >= 100
	})
}

// Stalls waits until nothing has arrived for a while.
func (s *Stream) Stalls() {
	s.tb.Helper()
	Eventually(s.tb, "the stream to stall", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return !s.latest.IsZero() && time.Since(s.latest) > Stretch(200*time.Millisecond)
	})
}

// Lost ends the stream and returns how many datagrams did not arrive, and the longest time in which none did.
func (s *Stream) Lost() (int, time.Duration) {
	s.tb.Helper()
	lost, silence := s.Missing()
	s.stop()
	return lost, silence
}

// Missing is Lost of a stream that goes on.
func (s *Stream) Missing() (int, time.Duration) {
	s.tb.Helper()
	var lost int
	var silence time.Duration
	s.Flows() // whatever was sent before has arrived by then, or never will
	s.mu.Lock()
	defer s.mu.Unlock()
	last := uint64(0)
	for i := range s.arrived {
		last = max(last, i)
	}
	var before time.Time
	for i := range last {
		at, ok := s.arrived[i]
		if !ok {
			lost++
			continue
		}
		if !before.IsZero() {
			silence = max(silence, at.Sub(before))
		}
		before = at
	}
	return lost, silence
}
