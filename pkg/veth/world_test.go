package veth

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

// world is a private 'host' namespace, in which the test's own goroutine runs,
// and the path of a 'container' namespace. The machine's namespace is not used.
type world struct {
	tb        testing.TB
	container string
}

// newWorld makes both namespaces and puts the calling goroutine, which must be
// the test's own, into the host's.
func newWorld(tb testing.TB) world {
	tb.Helper()
	netnstest.Enter(tb)
	w := world{tb: tb}
	w.container = netnstest.New(w.tb, "container")
	w.run("ip", "link", "set", "lo", "up")
	return w
}

// in runs f on a thread in the container's namespace.
func (w world) in(f func() error) {
	w.tb.Helper()
	ns, err := openNetNS(w.container)
	must(w.tb, err)
	defer ns.Close()
	must(w.tb, inside(ns, f))
}

// run runs a command in the host's namespace.
func (w world) run(args ...string) string {
	w.tb.Helper()
	out, err := command(args...)
	must(w.tb, err)
	return out
}

// runIn runs a command in the container's namespace.
func (w world) runIn(args ...string) string {
	w.tb.Helper()
	var out string
	w.in(func() error {
		var err error
		out, err = command(args...)
		return err
	})
	return out
}

// sysctl sets host sysctls, "ipv4/ip_forward=1".
func (w world) sysctl(set ...string) {
	w.tb.Helper()
	must(w.tb, writeSysctls(set...))
}

func writeSysctls(set ...string) error {
	for _, s := range set {
		key, value, _ := strings.Cut(s, "=")
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// lay lays c in w and fails the test if it cannot.
func (w world) lay(c Cable) Laid {
	w.tb.Helper()
	laid, err := Lay(ctx(w.tb), c)
	must(w.tb, err)
	return laid
}

// check fails the test unless Check says exactly want.
func (w world) check(c Cable, want ...string) {
	w.tb.Helper()
	got, err := Check(ctx(w.tb), c)
	must(w.tb, err)
	if !slices.Equal(got, want) {
		w.tb.Errorf("Check says %q, want %q", got, want)
	}
}

// containerLink is the container's end.
func (w world) containerLink(name string) netlink.Link {
	w.tb.Helper()
	var l netlink.Link
	w.in(func() error {
		var err error
		l, err = netlink.LinkByName(name)
		return err
	})
	return l
}

// cable is an ordinary cable with both families.
func (w world) cable() Cable {
	return Cable{
		Host: "tcable", Container: "eth0", NetNS: w.container,
		MAC:   net.HardwareAddr{0x0a, 0x58, 10, 0, 0, 5},
		MTU:   1450,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00:1::5/64")},
		Routes: []Route{
			route("0.0.0.0/0", "10.0.0.1"), route("::/0", "fd00:1::1"),
			route("10.7.0.0/16", ""), route("fd00:7::/48", ""),
		},
		Userspace: true, Alias: "tenet:someone",
	}
}

// cable4 is an ordinary cable with IPv4 alone.
func (w world) cable4() Cable {
	c := w.cable()
	c.Addrs, c.Routes = c.Addrs[:1], []Route{c.Routes[0], c.Routes[2]}
	return c
}

func route(dst, via string) Route {
	r := Route{Dst: netip.MustParsePrefix(dst)}
	if via != "" {
		r.Via = netip.MustParseAddr(via)
	}
	return r
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func ctx(tb testing.TB) context.Context { return tb.Context() }

// command runs a command in the calling thread's namespace: the child has that
// of the thread that forks.
func command(args ...string) (string, error) {
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// runBatch runs iproute2 commands, one a line, in the host's namespace.
func (w world) runBatch(lines string) {
	w.tb.Helper()
	w.run("sh", "-ec", joined(strings.FieldsFunc(lines, func(r rune) bool { return r == '\n' })))
}
