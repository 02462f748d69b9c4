package veth

import (
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

func TestCheckNamesEachDifference(t *testing.T) {
	const stack = ": the host's stack may answer the container"
	type damage struct {
		do   func(world)
		want []string
	}
	// out and in are iproute2 in the two namespaces.
	out := func(commands ...string) func(world) {
		return func(w world) { w.run("sh", "-ec", joined(commands)) }
	}
	in := func(commands ...string) func(world) {
		return func(w world) { w.runIn("sh", "-ec", joined(commands)) }
	}
	sysctl := func(set string) func(world) { return func(w world) { w.sysctl(set) } }

	cases := map[string]damage{
		"nothing":         {func(world) {}, nil},
		"additions":       {in("addr add 10.8.0.1/24 dev eth0", "route add 10.9.0.0/16 via 10.8.0.2"), nil},
		"loose rp_filter": {sysctl("ipv4/conf/tcable/rp_filter=2"), nil},

		"host end down":    {out("link set tcable down"), []string{"tcable is down"}},
		"host MTU":         {out("link set tcable mtu 1400"), []string{"tcable has an MTU of 1400, not 1450"}},
		"host MAC":         {out("link set tcable address 02:00:00:00:00:01"), []string{"tcable has the hardware address 02:00:00:00:00:01, not " + HostMAC("tcable").String()}},
		"host alias":       {out("link set tcable alias else"), []string{`tcable has the alias "else", not "tenet:someone"`}},
		"host IPv6":        {sysctl("ipv6/conf/tcable/disable_ipv6=0"), []string{"tcable has disable_ipv6=0, not 1" + stack}},
		"host rp_filter":   {sysctl("ipv4/conf/tcable/rp_filter=0"), []string{"tcable has rp_filter=0, not 1 or 2" + stack}},
		"host arp_ignore":  {sysctl("ipv4/conf/tcable/arp_ignore=0"), []string{"tcable has arp_ignore=0, not 8" + stack}},
		"host not deaf":    {undeafen, []string{"tcable has lost the program that keeps its frames from the host's stack"}},
		"host end renamed": {out("link set tcable down", "link set tcable name tmoved up"), []string{"there is no link tcable"}},

		"down": {in("link set eth0 down"), []string{
			"eth0 is down", "eth0 does not have the address fe80::858:aff:fe00:5/64", "eth0 does not have the address fd00:1::5/64",
			"eth0 does not have the route default via 10.0.0.1", "eth0 does not have the route default via fd00:1::1",
			"eth0 does not have the route 10.7.0.0/16", "eth0 does not have the route fd00:7::/48",
		}},
		"MTU":           {in("link set eth0 mtu 1400"), []string{"eth0 has an MTU of 1400, not 1450"}},
		"MAC":           {in("link set eth0 address 02:00:00:00:00:01"), []string{"eth0 has the hardware address 02:00:00:00:00:01, not 0a:58:0a:00:00:05"}},
		"address":       {in("-6 addr del fd00:1::5/64 dev eth0", "-6 addr add fd00:1::6/64 dev eth0 nodad", "-6 route replace default via fd00:1::1"), []string{"eth0 does not have the address fd00:1::5/64"}},
		"prefix length": {in("-6 addr del fd00:1::5/64 dev eth0", "-6 addr add fd00:1::5/63 dev eth0 nodad", "-6 route replace default via fd00:1::1"), []string{"eth0 does not have the address fd00:1::5/64"}},
		"link-local":    {in("-6 addr del fe80::858:aff:fe00:5/64 dev eth0"), []string{"eth0 does not have the address fe80::858:aff:fe00:5/64"}},
		"default route": {in("route del default"), []string{"eth0 does not have the route default via 10.0.0.1"}},
		"other gateway": {in("-6 route replace default via fd00:1::2"), []string{"eth0 does not have the route default via fd00:1::1"}},
		"on-link route": {in("route del 10.7.0.0/16"), []string{"eth0 does not have the route 10.7.0.0/16"}},
		"blackhole":     {in("route del 10.7.0.0/16", "route add blackhole 10.7.0.0/16"), []string{"eth0 does not have the route 10.7.0.0/16"}},
		"offload":       {offload, []string{"eth0 hands on unfinished frames (tx-checksum-ip-generic, tx-checksum-sctp, tx-sctp-segmentation, tx-udp-segmentation), and a userspace switch does not finish them"}},
		"no cable":      {out("link del tcable"), []string{"there is no link tcable", "there is no link eth0 in the container"}},
		"renamed":       {in("link set eth0 down", "link set eth0 name eth9 up"), []string{"there is no link eth0 in the container"}},
		"another's end": {another, []string{"eth0 is not the other end of tcable"}},
	}
	if _, hook, err := deafCount(1); err == nil && !hook { // Linux before 6.6: there is no program to lose
		delete(cases, "host not deaf")
	}
	for _, name := range slices.Sorted(maps.Keys(cases)) {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c := w.cable()
			w.lay(c)
			w.check(c)
			cases[name].do(w)
			w.check(c, cases[name].want...)
		})
	}
}

// What a kernel datapath wants is not what a userspace one wants.
func TestKernelDatapathKeepsOffloadsAndHearing(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	c.Userspace = false
	if laid := w.lay(c); laid.Deaf {
		t.Error("the host's end of a kernel datapath is deaf: its switch would get nothing")
	}
	w.check(c)
	features := features(w)
	for _, f := range unfinished() {
		if !features[f] {
			t.Errorf("%s is off", f)
		}
	}
}

// Segments and checksums must be in the frames that a userspace switch reads.
func TestUserspaceDatapathGetsFinishedFrames(t *testing.T) {
	w := newWorld(t)
	w.lay(w.cable())
	features := features(w)
	for _, f := range []string{
		"tx-checksum-ip-generic", "tx-checksum-sctp", "tx-tcp-segmentation", "tx-tcp6-segmentation",
		"tx-tcp-ecn-segmentation", "tx-udp-segmentation", "tx-sctp-segmentation",
	} {
		if on, known := features[f]; on || !known {
			t.Errorf("%s is on (known: %v)", f, known)
		}
	}
}

// features are the offloads of eth0, by another's code than ours.
func features(w world) map[string]bool {
	w.tb.Helper()
	var got map[string]bool
	w.in(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		got, err = tool.Features("eth0")
		return err
	})
	return got
}

func TestCheckOfANamespaceThatIsGone(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)
	must(t, unix.Unmount(w.container, unix.MNT_DETACH))
	_, err := Check(ctx(t), c)
	wantError(t, err, ErrNetNS, "regular file")
}

// joined makes a shell script of iproute2 commands.
func joined(commands []string) string {
	return "ip " + strings.Join(commands, "\nip ")
}

// offload switches checksum offload on again.
func offload(w world) {
	w.tb.Helper()
	w.in(func() error {
		tool, err := ethtool.NewEthtool()
		must(w.tb, err)
		defer tool.Close()
		change := map[string]bool{}
		for _, f := range unfinished() {
			change[f] = true
		}
		return tool.Change("eth0", change)
	})
}

// another puts the end of another cable where eth0 should be.
func another(w world) {
	w.tb.Helper()
	c := w.cable()
	w.runIn("sh", "-ec", joined([]string{"link set eth0 down", "link set eth0 name eth9"}))
	c.Host = "tother"
	w.lay(c)
}

// undeafen takes the program off tcable.
func undeafen(w world) {
	w.tb.Helper()
	l, err := net.InterfaceByName("tcable")
	must(w.tb, err)
	detach := struct {
		ifindex, prog, hook, flags uint32
		_                          [112]byte
	}{ifindex: uint32(l.Index), hook: unix.BPF_TCX_INGRESS, flags: unix.BPF_F_AFTER}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&detach)), unsafe.Sizeof(detach))
	if errno != 0 {
		w.tb.Fatalf("detach: %v", errno)
	}
}
