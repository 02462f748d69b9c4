package veth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

func TestLaidCableStandsAsDescribed(t *testing.T) {
	w := newWorld(t)
	for _, mtu := range []int{0, 1280, 1450, 9000} {
		c := w.cable()
		c.MTU = mtu
		laid := w.lay(c)
		w.check(c)

		host, err := netlink.LinkByName(c.Host)
		must(t, err)
		if !slices.Equal(laid.HostMAC, host.Attrs().HardwareAddr) || laid.HostIndex != host.Attrs().Index {
			t.Errorf("Laid is %+v, the host's end has %v and index %d", laid, host.Attrs().HardwareAddr, host.Attrs().Index)
		}
		want := max(mtu, 1280)
		if mtu == 0 {
			want = DefaultMTU
		}
		if got := w.containerLink("eth0").Attrs().MTU; got != want || host.Attrs().MTU != want {
			t.Errorf("MTU %d in the container and %d outside, want %d", got, host.Attrs().MTU, want)
		}
		if out := w.runIn("ip", "-br", "link", "show", "lo"); !strings.Contains(out, "UP") {
			t.Errorf("lo in the container is not up: %s", out)
		}
		must(t, Remove(ctx(t), c.Host))
	}
}

// The addresses are compared with the kernel's own list, not through Check.
func TestAddressesAreUsableAtOnce(t *testing.T) {
	w := newWorld(t)
	w.lay(w.cable())
	var got []string
	w.in(func() error {
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		all, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		for _, a := range all {
			got = append(got, prefix(a.IPNet).String())
			if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
				t.Errorf("%v is tentative", a)
			}
			if a.IP.To4() == nil && a.Flags&unix.IFA_F_NODAD == 0 {
				t.Errorf("%v goes through duplicate address detection", a)
			}
		}
		return err
	})
	slices.Sort(got)
	want := []string{"10.0.0.5/24", "fd00:1::5/64", "fe80::858:aff:fe00:5/64"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("addresses (-want +got):\n%s", diff)
	}
	w.in(func() error { // bind refuses a tentative address
		for _, a := range []string{"10.0.0.5", "fd00:1::5", "fe80::858:aff:fe00:5%eth0"} {
			s, err := net.ListenPacket("udp", net.JoinHostPort(a, "5000"))
			if err != nil {
				return err
			}
			s.Close()
		}
		return nil
	})
}

func TestIPv4OnlyCableHasNoIPv6(t *testing.T) {
	w := newWorld(t)
	w.lay(w.cable4())
	time.Sleep(200 * time.Millisecond) // for the kernel's own address, were there one
	if out := w.runIn("ip", "-6", "addr", "show", "dev", "eth0"); strings.Contains(out, "inet6") {
		t.Errorf("an IPv4-only cable has %s", out)
	}
}

// The kernel has no IPv6 on a link with an MTU below 1280, just as if it had
// none at all.
func TestCableWhereThereIsNoIPv6(t *testing.T) {
	w := newWorld(t)
	c := w.cable4()
	c.MTU = 1000
	w.lay(c)
	w.check(c)
	w.in(func() error {
		c.Addrs = w.cable().Addrs
		wantError(t, prepareIPv6(c), ErrNoIPv6, "eth0 has IPv6 addresses")
		return nil
	})
}

func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	host, err := netns.Get()
	must(t, err)
	defer host.Close()
	const many = 20
	errs := make(chan error, many)
	for i := range many {
		c := w.cable()
		c.NetNS = netnstest.New(w.tb, fmt.Sprint("container", i))
		c.Host = fmt.Sprint("tcable", i)
		go func() {
			errs <- inside(host, func() error {
				_, err := Lay(ctx(t), c)
				diffs, checked := Check(ctx(t), c)
				if len(diffs) > 0 {
					checked = fmt.Errorf("%s: %q", c.Host, diffs)
				}
				return errors.Join(err, checked)
			})
		}()
	}
	for range many {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got, err := List(ctx(t), w.cable().Alias); len(got) != many || err != nil {
		t.Errorf("%d cables stand, %v", len(got), err)
	}
}

func TestRouterAdvertisementsAreNotBelieved(t *testing.T) {
	w := newWorld(t)
	w.lay(w.cable())
	w.in(func() error {
		got, err := readSysctl("ipv6", "eth0", "accept_ra")
		if got != "0" {
			t.Errorf("accept_ra is %s", got)
		}
		return err
	})
}

// Container runtimes hand over namespaces in which IPv6 is off.
func TestIPv6IsTurnedOnWhereTheRuntimeTurnedItOff(t *testing.T) {
	w := newWorld(t)
	w.in(func() error { return writeSysctls("ipv6/conf/all/disable_ipv6=1", "ipv6/conf/default/disable_ipv6=1") })
	c := w.cable()
	w.lay(c)
	w.check(c)
	w.in(func() error {
		s, err := net.ListenPacket("udp", "[::1]:5000")
		if err != nil {
			return err
		}
		return s.Close()
	})
	must(t, Remove(ctx(t), c.Host))

	// Without an IPv6 address it stays off.
	c = w.cable4()
	w.lay(c)
	w.in(func() error {
		got, err := readSysctl("ipv6", "eth0", "disable_ipv6")
		if got != "1" {
			t.Errorf("an IPv4-only cable turned IPv6 on")
		}
		return err
	})
}

func TestGatewayOutsideThePrefix(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	c.Addrs = []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32"), netip.MustParsePrefix("fd00:1::5/128")}
	c.Routes = []Route{route("0.0.0.0/0", "169.254.1.1"), route("::/0", "fd00:2::1"), route("fd00:9::/48", "fe80::1")}
	w.lay(c)
	w.check(c)
	if out := w.runIn("ip", "route", "get", "8.8.8.8"); !strings.Contains(out, "via 169.254.1.1 dev eth0 src 10.0.0.5") {
		t.Errorf("the way to 8.8.8.8 is %s", out)
	}
	if out := w.runIn("ip", "-6", "route", "get", "2001:db8::8"); !strings.Contains(out, "via fd00:2::1 dev eth0") {
		t.Errorf("the way to 2001:db8::8 is %s", out)
	}
}

func TestRouteThatAnAddressBroughtMayBeAskedFor(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	c.Routes = append(c.Routes, route("10.0.0.0/24", ""), route("fd00:1::/64", ""), route("10.0.0.9/24", ""))
	w.lay(c)
	w.check(c)
}

// A container's second interface does not take the default route of its first.
func TestRouteThatAnotherInterfaceHas(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)
	second := w.cable()
	second.Host, second.Container, second.MAC = "tcable2", "eth1", net.HardwareAddr{0x0a, 0x58, 10, 9, 0, 5}
	second.Addrs = []netip.Prefix{netip.MustParsePrefix("10.9.0.5/24")}
	second.Routes = []Route{route("0.0.0.0/0", "10.9.0.1")}
	_, err := Lay(ctx(t), second)
	wantError(t, err, ErrExists, "default via 10.9.0.1", "eth1")
	w.check(c)

	// What is half laid, Remove takes away.
	must(t, Remove(ctx(t), second.Host))
	if ok, err := Exists(ctx(t), second.Host); ok || err != nil {
		t.Errorf("Exists says %v, %v", ok, err)
	}
	w.check(c)
}

// A container's second interface leaves the default route to the first.
func TestRouteThatIsLeftOutIfTaken(t *testing.T) {
	w := newWorld(t)
	first := w.cable()
	for i := range first.Routes {
		first.Routes[i].IfFree = true
	}
	laid, err := Lay(ctx(t), first)
	must(t, err)
	if len(laid.Routes) != len(first.Routes) {
		t.Errorf("the first cable has the routes %v, want all of %v", laid.Routes, first.Routes)
	}
	second := w.cable()
	second.Host, second.Container = second.Host+"2", "eth1"
	second.Routes = []Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("10.9.0.1"), IfFree: true}}
	second.Addrs = []netip.Prefix{netip.MustParsePrefix("10.9.0.2/24")}
	laid, err = Lay(ctx(t), second)
	must(t, err)
	if len(laid.Routes) != 0 {
		t.Errorf("the second cable has the routes %v, want none", laid.Routes)
	}
	w.check(first)
}

func TestTakenNames(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)

	sameHost := w.cable()
	sameHost.Container = "eth1"
	_, err := Lay(ctx(t), sameHost)
	wantError(t, err, ErrExists, "link tcable already exists")

	sameContainer := w.cable()
	sameContainer.Host = "tother"
	_, err = Lay(ctx(t), sameContainer)
	wantError(t, err, ErrExists, "link eth0 in "+w.container)
	if ok, err := Exists(ctx(t), "tother"); ok || err != nil {
		t.Errorf("a refused cable left its host end: %v, %v", ok, err)
	}
	w.check(c)
}

func TestNetNSThatIsNone(t *testing.T) {
	w := newWorld(t)
	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	must(t, os.WriteFile(file, nil, 0o600))
	must(t, unix.Mkfifo(fifo, 0o600))
	for path, want := range map[string]string{
		filepath.Join(dir, "gone"): "no such file",
		file:                       "is a regular file",
		fifo:                       "is a special file",
		dir:                        "is a directory",
		"":                         "no such file",
		"/proc/self/ns/mnt":        "a namespace of another kind",
		"/proc/thread-self/ns/net": "is the caller's own",
	} {
		c := w.cable()
		c.NetNS = path
		_, err := Lay(ctx(t), c)
		wantError(t, err, ErrNetNS, want)
		_, checked := Check(ctx(t), c)
		wantError(t, checked, ErrNetNS, want)
		if gone := errors.Is(err, fs.ErrNotExist); gone != (want == "no such file") {
			t.Errorf("%s: fs.ErrNotExist is %v for %v", path, gone, err)
		}
	}
	wantError(t, CheckNetNS(file), ErrNetNS, file)
	must(t, CheckNetNS(w.container))
	if ends, err := List(ctx(t), ""); err != nil || len(ends) > 0 {
		t.Errorf("left behind: %v, %v", ends, err)
	}
}

func TestCablesThatCannotStand(t *testing.T) {
	w := newWorld(t)
	pfx := netip.MustParsePrefix
	for name, damage := range map[string]func(*Cable){
		"no name":            func(c *Cable) { c.Host = "" },
		"long name":          func(c *Cable) { c.Host = "sixteen-bytes-ab" },
		"slash":              func(c *Cable) { c.Container = "../all" },
		"all":                func(c *Cable) { c.Container = "all" },
		"pattern":            func(c *Cable) { c.Host = "t%d" },
		"no MAC":             func(c *Cable) { c.MAC = nil },
		"group MAC":          func(c *Cable) { c.MAC = net.HardwareAddr{1, 0, 0, 0, 0, 1} },
		"IPv6 on a thin MTU": func(c *Cable) { c.MTU = 1279 },
		"tiny MTU":           func(c *Cable) { *c = w.cable4(); c.MTU = 67 },
		"giant MTU":          func(c *Cable) { c.MTU = 65536 },
		"long alias":         func(c *Cable) { c.Alias = strings.Repeat("a", 256) },
		"no address":         func(c *Cable) { c.Addrs = append(c.Addrs, netip.Prefix{}) },
		"twice":              func(c *Cable) { c.Addrs = append(c.Addrs, pfx("10.0.0.5/16")) },
		"multicast":          func(c *Cable) { c.Addrs = append(c.Addrs, pfx("224.0.0.5/24")) },
		"mapped":             func(c *Cable) { c.Addrs = append(c.Addrs, pfx("::ffff:1.2.3.4/120")) },
		"no destination":     func(c *Cable) { c.Routes = append(c.Routes, Route{}) },
		"mixed":              func(c *Cable) { c.Routes = append(c.Routes, route("10.0.0.0/8", "fd00:1::1")) },
		"through itself":     func(c *Cable) { c.Routes = append(c.Routes, route("10.0.0.0/8", "10.0.0.5")) },
		"no family":          func(c *Cable) { c.Addrs = c.Addrs[:1] },
	} {
		t.Run(name, func(t *testing.T) {
			c := w.cable()
			damage(&c)
			if err := c.validate(); !errors.Is(err, ErrInvalid) {
				t.Errorf("validate says %v", err)
			}
		})
	}
	must(t, w.cable().validate())
}

func TestLayStopsWithItsContext(t *testing.T) {
	w := newWorld(t)
	stopped, cancel := context.WithCancel(ctx(t))
	cancel()
	_, err := Lay(stopped, w.cable())
	wantError(t, err, context.Canceled)
	if ok, err := Exists(ctx(t), "tcable"); ok || err != nil {
		t.Errorf("Exists says %v, %v", ok, err)
	}
}

// wantError fails the test unless err is of the kind and its text has all of says.
func wantError(t *testing.T, err, kind error, says ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v, want one that is %q", err, kind)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error %q does not say %q", err, s)
		}
	}
}
