package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// How long a member is given to answer before another is asked: not long at first, because one that hangs or is cut
// off says nothing; then longer, because all may be slow.
const (
	firstPatience = time.Second
	lastPatience  = 4 * time.Second
	pauseBetween  = 50 * time.Millisecond
)

const (
	// leastPatience is what a call must have waited for its end to say that the member does not answer.
	leastPatience = firstPatience / 2
	// leastStay is how long a member is used at least: if none is there they are tried in turn, and not in a rush.
	leastStay = 200 * time.Millisecond
	// silence is how long nothing may come from a member that has been left.
	silence = 4 * time.Second
)

// The client would ask all members in turn, and one that hangs every time, until after 13 seconds gRPC's keepalive
// ends the connection. So it is told of one member, and of the next when that has not answered.
//
// gRPC lets what runs on a connection that is left come to its end: watches, the keeping of a lease, changes. From a
// member that hangs no end would come. So when nothing at all has come from it for some time the connection is cut off,
// and the client begins watches and the keeping of leases anew, with the next member, from where they were.
type members struct {
	mu    sync.Mutex
	all   []string
	at    int
	since time.Time // when it was taken
	use   func(endpoint string)
	lines map[string]*net.TCPConn // the latest to each, by address and port
}

func newMembers(endpoints []string) *members {
	m := &members{all: slices.Clone(endpoints), use: func(string) {}, lines: map[string]*net.TCPConn{}}
	rand.Shuffle(len(m.all), func(i, j int) { m.all[i], m.all[j] = m.all[j], m.all[i] }) // as nodes share the load
	return m
}

// first is what a new client is told of.
func (m *members) first() []string { return m.all[:1] }

// of makes the members those of a client.
func (m *members) of(client *clientv3.Client) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.use = func(e string) { client.SetEndpoints(e) }
}

// dial connects to a member.
func (m *members) dial(ctx context.Context, addr string) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if line, ok := conn.(*net.TCPConn); ok {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.lines[addr] = line
	}
	return conn, nil
}

// asked is a call on its way.
type asked struct {
	of    *members
	at    int // the number of the one
	since time.Time
}

func (m *members) ask() asked {
	m.mu.Lock()
	defer m.mu.Unlock()
	return asked{of: m, at: m.at, since: time.Now()}
}

// brought takes note of how the call ended: without an answer the member is left.
func (a asked) brought(err error) {
	switch status.Code(err) {
	case codes.Unavailable, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.DataLoss:
	case codes.DeadlineExceeded:
		if time.Since(a.since) < leastPatience {
			return
		}
	default:
		return
	}
	if !answered(rpctypes.Error(err)) {
		a.of.leave(a.at)
	}
}

// leave goes on to the next member, if nobody has left this one meanwhile.
func (m *members) leave(at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at != at || len(m.all) == 1 || time.Since(m.since) < leastStay {
		return
	}
	m.at, m.since = (at+1)%len(m.all), time.Now()
	m.use(m.all[m.at])
	if u, err := url.Parse(m.all[at]); err == nil && m.lines[u.Host] != nil {
		go cutOff(m.lines[u.Host])
		delete(m.lines, u.Host)
	}
}

// cutOff closes a connection as soon as nothing has come for long enough.
func cutOff(line *net.TCPConn) {
	for {
		quiet, err := quietFor(line)
		if err != nil { // it has come to its end
			return
		}
		if quiet >= silence {
			_ = line.Close()
			return
		}
		time.Sleep(silence - quiet)
	}
}

// quietFor is for how long nothing has been received (tcp(7), TCP_INFO).
func quietFor(line *net.TCPConn) (time.Duration, error) {
	raw, err := line.SyscallConn()
	if err != nil {
		return 0, err
	}
	var has *unix.TCPInfo
	failed := raw.Control(func(fd uintptr) { has, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) })
	if err := errors.Join(failed, err); err != nil {
		return 0, err
	}
	return time.Duration(has.Last_data_recv) * time.Millisecond, nil
}

// try calls do once, with so much patience.
func try(ctx context.Context, patience time.Duration, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), patience)
	defer cancel()
	return do(ctx)
}

// answered tells an answer, of which a refusal is one, from none.
func answered(err error) bool { return err == nil || passing(err) || asRefusal(err) != nil }

// insist calls do, which may be done any number of times, until there is an answer or ctx ends.
func insist(ctx context.Context, do func(context.Context) error) error {
	var why error
	for patience := firstPatience; ; {
		err := try(ctx, patience, do)
		if answered(err) {
			return err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			patience = min(2*patience, lastPatience)
		} else if !errors.Is(err, context.Canceled) {
			why = err
		}
		if ended := pause(ctx, pauseBetween); ended != nil {
			return because(ended, why)
		}
	}
}

// because says why nothing had come of it when ctx ended.
func because(ended, why error) error {
	if why == nil {
		return fmt.Errorf("no answer: %w", ended)
	}
	return fmt.Errorf("%w: %w", plain(why), ended)
}

// pause waits for about as long as told, or for the end of ctx, whose error it returns.
func pause(ctx context.Context, about time.Duration) error {
	t := time.NewTimer(about/2 + rand.N(about))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
