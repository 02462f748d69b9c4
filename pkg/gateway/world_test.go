package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

// world is a private host namespace, in which the test's own goroutine runs,
// and two more:
//
//	inside     on the other end of the link tenet-gw, in the switch's place: it
//	           has the peer's hardware address and any address of the range
//	outside    192.0.2.9, a neighbour of the host (192.0.2.1 and 192.0.2.7)
type world struct {
	tb              testing.TB
	inside, outside string
}

// newWorld makes the namespaces and puts the calling goroutine, which must be
// the test's own, into the host's.
func newWorld(tb testing.TB) world {
	tb.Helper()
	netnstest.Enter(tb)
	w := world{tb: tb}
	w.inside, w.outside = netnstest.New(w.tb, "inside"), netnstest.New(w.tb, "outside")
	w.run(`
		ip link set lo up
		ip link add tenet-gw type veth peer name gw netns ` + w.inside + ` address 0a:58:00:00:00:02
		ip link add eth0 type veth peer name eth0 netns ` + w.outside + `
		ip link set eth0 up
		ip addr add 192.0.2.1/24 dev eth0
		ip addr add 192.0.2.7/24 dev eth0
		ip addr add 2001:db8::1/64 dev eth0 nodad
		ip addr add 2001:db8::7/64 dev eth0 nodad preferred_lft 0`)
	w.in(w.outside, func() {
		w.run(`
			ip link set lo up
			ip link set eth0 up
			ip addr add 192.0.2.9/24 dev eth0
			ip addr add 2001:db8::9/64 dev eth0 nodad
			ip route add default via 192.0.2.1
			ip route add default via 2001:db8::1`)
	})
	w.in(w.inside, func() {
		w.run(`
			ip link set lo up
			ip link set gw up
			ip addr add 169.254.64.10/32 dev gw
			ip addr add 169.254.64.11/32 dev gw
			ip addr add 10.7.0.5/32 dev gw
			ip addr add fd74:656e:6574::10/128 dev gw nodad
			ip addr add fd74:656e:6574::11/128 dev gw nodad
			ip route add default via 169.254.64.1 dev gw onlink src 169.254.64.10
			ip route add default via fd74:656e:6574::1 dev gw onlink src fd74:656e:6574::10
			ip neigh add 169.254.64.1 dev gw lladdr 0a:58:00:00:00:03 nud permanent
			ip neigh add fd74:656e:6574::1 dev gw lladdr 0a:58:00:00:00:03 nud permanent`)
	})
	return w
}

// in runs f on the test's own thread in another namespace. Sockets that f opens stay there.
func (w world) in(path string, f func()) {
	w.tb.Helper()
	here, err := netns.Get()
	must(w.tb, err)
	defer here.Close()
	ns, err := netns.GetFromPath(path)
	must(w.tb, err)
	defer ns.Close()
	must(w.tb, netns.Set(ns))
	defer func() { must(w.tb, netns.Set(here)) }()
	f()
}

// run runs commands, one a line, in the namespace that the thread is in.
func (w world) run(lines string) string {
	w.tb.Helper()
	out, err := exec.Command("sh", "-ec", lines).CombinedOutput()
	if err != nil {
		w.tb.Fatalf("%s: %v: %s", lines, err, out)
	}
	return string(out)
}

// ensure calls Ensure, and fails the test unless Diff then has nothing to say.
func (w world) ensure(s State) {
	w.tb.Helper()
	must(w.tb, Ensure(w.tb.Context(), s))
	w.differs(s)
}

// differs fails the test unless Diff says exactly want.
func (w world) differs(s State, want ...string) {
	w.tb.Helper()
	got, err := Diff(w.tb.Context(), s)
	must(w.tb, err)
	if !slices.Equal(got, want) {
		w.tb.Errorf("Diff says %q, want %q", got, want)
	}
}

// state is an ordinary state of both families with nothing published.
func state() State {
	return State{
		Link: "tenet-gw", MAC: net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 3}, Peer: net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 2}, MTU: 1450,
		Nets: []Net{
			{Host: netip.MustParsePrefix("169.254.64.1/18"), Via: netip.MustParseAddr("169.254.64.2")},
			{Host: netip.MustParsePrefix("fd74:656e:6574::1/64"), Via: netip.MustParseAddr("fd74:656e:6574::2")},
		},
		Forward4: true, Forward6: true,
	}
}

// publishes is state with one port published.
func publishes(protocol, host string, port uint16, to string) State {
	s := state()
	s.Published = []Published{published(protocol, host, port, to)}
	return s
}

func published(protocol, host string, port uint16, to string) Published {
	p := Published{Protocol: protocol, HostPort: port, To: netip.MustParseAddrPort(to)}
	if host != "" {
		p.HostIP = netip.MustParseAddr(host)
	}
	return p
}

// serve answers everybody who comes to addr in the namespace that the thread is
// in, with name and what it saw of the asker: "name 192.0.2.1".
func (w world) serve(network, at, name string) {
	w.tb.Helper()
	if strings.HasPrefix(network, "udp") {
		c, err := net.ListenPacket(network, at)
		must(w.tb, err)
		w.tb.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo([]byte(name+" "+host(from)), from)
			}
		}()
		return
	}
	l, err := net.Listen(network, at)
	must(w.tb, err)
	w.tb.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Write([]byte(name + " " + host(c.RemoteAddr())))
			c.Close()
		}
	}()
}

func host(a net.Addr) string {
	return netip.MustParseAddrPort(a.String()).Addr().Unmap().WithZone("").String()
}

// ask asks the server at addr from the namespace that the thread is in, and
// gives its answer, or "nobody" if there is none for a while.
func (w world) ask(network, from, at string) string {
	w.tb.Helper()
	return w.say(network, from, at, 1)
}

// tell is ask with a datagram of n bytes.
func (w world) tell(network, at string, n int) string {
	w.tb.Helper()
	return w.say(network, "", at, n)
}

func (w world) say(network, from, at string, n int) string {
	w.tb.Helper()
	d := net.Dialer{Timeout: patience}
	if from != "" {
		ip := net.ParseIP(from)
		if d.LocalAddr = (&net.TCPAddr{IP: ip}); strings.HasPrefix(network, "udp") {
			d.LocalAddr = &net.UDPAddr{IP: ip}
		}
	}
	d.FallbackDelay = -1 // no goroutine: the socket must be of this thread's namespace
	c, err := d.Dial(network, at)
	if err != nil {
		return nobody(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	if strings.HasPrefix(network, "udp") {
		c.Write(make([]byte, n))
	}
	b := make([]byte, 100)
	n, err = c.Read(b)
	if err != nil {
		return nobody(err)
	}
	return string(b[:n])
}

// patience is how long an answer may take: the first packet on a link that has just come up may be lost, and TCP sends
// another after a second. It is what a packet that is dropped costs the test.
const patience = 1800 * time.Millisecond

func nobody(err error) string {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return "nobody"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	}
	return fmt.Sprint(err)
}

// answer fails the test unless the server's answer is want.
func (w world) answer(what, got, want string) {
	w.tb.Helper()
	if got != want {
		w.tb.Errorf("%s: the answer is %q, want %q", what, got, want)
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// enter moves the calling goroutine to a thread of its own in ns, which ends
// with it.
func enter(ns netns.NsHandle) error {
	runtime.LockOSThread()
	return netns.Set(ns)
}
