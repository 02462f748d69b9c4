package cluster

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// live is traffic between two containers: a datagram each millisecond both ways, and a connection on which something is
// said and answered all the time.
type live struct {
	t       *testing.T
	streams [2]*lab.Stream
	conn    net.Conn
	said    atomic.Uint64 // how often something was said and answered
	stop    chan struct{}
	ended   chan error // of the connection; nil if it lived
}

// begin has two containers talk, of which the second one has an Echo on port 80.
func begin(t *testing.T, a, b *lab.Container) *live {
	t.Helper()
	conn, err := a.Connect("tcp", netip.AddrPortFrom(b.IP4, 80))
	lab.Must(t, err)
	l := &live{t: t, streams: [2]*lab.Stream{a.Stream(b), b.Stream(a)}, conn: conn, stop: make(chan struct{}), ended: make(chan error, 1)}
	t.Cleanup(func() { _ = conn.Close() })
	go l.talk()
	l.flows()
	return l
}

func (l *live) talk() {
	const pause, patience = 10 * time.Millisecond, 40 * time.Second // TCP tries again after 12 s, and after 25 s
	for {
		if err := lab.SayWithin(l.conn, "still there?", patience); err != nil {
			l.ended <- err
			return
		}
		l.said.Add(1)
		select {
		case <-l.stop:
			l.ended <- nil
			return
		case <-time.After(pause):
		}
	}
}

// flows waits until what is sent from now on arrives, both ways, and the connection is answered.
func (l *live) flows() {
	l.t.Helper()
	for _, s := range l.streams {
		s.Flows()
	}
	said := l.said.Load()
	lab.Eventually(l.t, "the connection to be answered", func() bool { return l.said.Load() > said || len(l.ended) > 0 })
}

// stalls waits until nothing arrives any more, either way.
func (l *live) stalls() {
	l.t.Helper()
	for _, s := range l.streams {
		s.Stalls()
	}
}

// lost is how many datagrams were lost until now, and the longest time in which none came.
func (l *live) lost() (int, time.Duration) {
	l.t.Helper()
	lost, silence := 0, time.Duration(0)
	for _, s := range l.streams {
		n, d := s.Missing()
		lost, silence = lost+n, max(silence, d)
	}
	return lost, silence
}

// end ends the traffic and returns what lost does. The connection must have lived.
func (l *live) end() (int, time.Duration) {
	l.t.Helper()
	lost, silence := l.lost()
	close(l.stop)
	if err := <-l.ended; err != nil {
		l.t.Errorf("the connection did not live: %v", err)
	}
	for _, s := range l.streams {
		s.Lost()
	}
	return lost, silence
}

// unhurt does something while two containers talk, and fails the test if a datagram is lost by it, as lab.Holds says, or the
// connection dies.
func unhurt(t *testing.T, a, b *lab.Container, what string, do func(*live)) {
	t.Helper()
	holds := lab.Holds(func() bool {
		l := begin(t, a, b)
		do(l)
		l.flows()
		lost, silence := l.end()
		t.Logf("%s: %d datagrams lost, nothing for %s (datapath %s)", what, lost, silence, a.Datapath)
		return lost == 0 || t.Failed()
	})
	if !holds {
		t.Errorf("%s: datagrams are lost", what)
	}
}
