package veth

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// A container writes to the host's own addresses and through it, in every way
// there is. The host forwards, and has services on every address. With a
// userspace switch nothing of this may reach the host's stack: the switch alone
// decides where frames go.
func TestHostStackIgnoresTheContainer(t *testing.T) {
	all := []string{
		"arp answered", "arp probe answered", "echo answered or taken", "forwarded", "udp taken",
		"broadcast taken", "all-hosts taken", "nd answered", "echo6 answered or taken", "forwarded6", "udp6 taken",
	}
	hole := []string{"broadcast taken", "all-hosts taken"}
	for name, tt := range map[string]struct {
		userspace bool
		prepare   func(world)
		want      []string
		unset     bool // prepare undoes the settings
	}{
		// What the test can see at all: the same frames with no guard.
		"unguarded": {false, func(w world) {
			w.sysctl("ipv4/conf/tcable/rp_filter=0", "ipv4/conf/tcable/arp_ignore=0", "ipv4/conf/tcable/forwarding=1", "ipv6/conf/tcable/accept_dad=0", "ipv6/conf/tcable/disable_ipv6=0")
			for end := time.Now().Add(10 * time.Second); w.run("ip", "-6", "addr", "show", "dev", "tcable", "scope", "link", "-tentative") == "" && time.Now().Before(end); {
				time.Sleep(5 * time.Millisecond) // a worker of the kernel's makes it
			}
		}, all, false},
		// The settings alone (Linux before 6.6, or before the kernel datapath has
		// plugged the link in) leave a hole for packets without a source.
		"settings alone":               {false, func(world) {}, hole, false},
		"settings after systemd's":     {false, func(w world) { w.sysctl("ipv4/conf/all/rp_filter=2", "ipv4/conf/tcable/rp_filter=2") }, hole, false},
		"settings, ip_forward toggled": {false, func(w world) { w.sysctl("ipv4/ip_forward=0", "ipv4/ip_forward=1") }, hole, false},
		"userspace":                    {true, func(world) {}, nil, false},
		"userspace without settings": {true, func(w world) {
			w.sysctl("ipv4/conf/tcable/rp_filter=0", "ipv4/conf/tcable/arp_ignore=0", "ipv4/conf/tcable/forwarding=1", "ipv6/conf/tcable/disable_ipv6=0")
		}, nil, true},
		// ovs-vswitchd does this when it configures policing.
		"userspace, ingress qdisc removed": {true, func(w world) {
			w.run("tc", "qdisc", "add", "dev", "tcable", "ingress")
			w.run("tc", "qdisc", "del", "dev", "tcable", "ingress")
		}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			buildHost(w)
			c := w.cable()
			c.Userspace = tt.userspace
			laid := w.lay(c)
			if c.Userspace && !laid.Deaf { // no tcx hook: the settings are all there is
				if tt.unset {
					return
				}
				tt.want = hole
			}
			if laid.Deaf && !c.Userspace {
				t.Error("deaf, for a switch in the kernel")
			}
			tt.prepare(w)
			if diff := cmp.Diff(tt.want, assault(w, c)); diff != "" {
				t.Errorf("what got through (-want +got):\n%s", diff)
			}
		})
	}
}

// The switch must get all that the host's stack does not.
func TestPacketSocketOfADeafHostHearsEverything(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)
	tap := openTap(t, "tcable")
	defer unix.Close(tap)
	frames := map[string][]byte{}
	for _, p := range probes(c) {
		frames[string(p)] = p
	}
	w.in(func() error { return transmit(c.Container, probes(c)) })
	for _, f := range receive(tap) {
		delete(frames, string(f))
	}
	if len(frames) > 0 {
		t.Errorf("%d of %d frames did not arrive", len(frames), len(probes(c)))
	}
}

// The host may not speak to the container unasked.
func TestHostSendsNothingIntoTheCable(t *testing.T) {
	w := newWorld(t)
	buildHost(w)
	c := w.cable4()
	tap := -1
	w.lay(c)
	w.in(func() error { tap = openTap(t, "eth0"); return nil })
	defer unix.Close(tap)
	w.run("ip", "link", "set", "tcable", "down")
	w.run("ip", "link", "set", "tcable", "up")
	time.Sleep(1500 * time.Millisecond) // router solicitations and listener reports come within a second
	for _, f := range receive(tap) {
		t.Errorf("the host sent %v", gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default))
	}
}

var ( // fixed stations of the test's world; not state
	stranger4, stranger6 = net.IPv4(198, 51, 100, 9), net.ParseIP("2001:db8:9::9")
	host4, host6         = net.IPv4(192, 0, 2, 1), net.ParseIP("2001:db8::1")
	beyond4, beyond6     = net.IPv4(203, 0, 113, 5), net.ParseIP("2001:db8:5::5")
)

// buildHost makes a host that routes: an address on lo, a link to the world with
// a default route, and forwarding on, for the links to come as well.
func buildHost(w world) {
	w.sysctl("ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1", "ipv6/conf/default/forwarding=1")
	w.runBatch(`
addr add 192.0.2.1/32 dev lo
-6 addr add 2001:db8::1/128 dev lo
link add up0 type veth peer name up1
link set up0 up
link set up1 up
addr add 192.0.2.129/25 dev up0
-6 addr add 2001:db8:1::2/64 dev up0 nodad
route add default via 192.0.2.130
-6 route add default via 2001:db8:1::1
neigh add 192.0.2.130 dev up0 lladdr 02:00:00:00:00:99
-6 neigh add 2001:db8:1::1 dev up0 lladdr 02:00:00:00:00:99
`)
}

// assault sends all probes from the container and says what the host did with
// them.
func assault(w world, c Cable) []string {
	w.tb.Helper()
	server, err := net.ListenPacket("udp4", "0.0.0.0:67")
	must(w.tb, err)
	defer server.Close()
	server6, err := net.ListenPacket("udp6", "[::]:67")
	must(w.tb, err)
	defer server6.Close()
	tap := -1
	w.in(func() error { tap = openTap(w.tb, c.Container); return nil })
	defer unix.Close(tap)

	before := counters(w.tb)
	w.in(func() error { return transmit(c.Container, probes(c)) })
	answers := answerKinds(receive(tap))
	after := counters(w.tb)
	taken, taken6 := datagrams(server), datagrams(server6)

	var got []string
	for _, result := range []struct {
		says string
		so   bool
	}{
		{"arp answered", answers["arp to 198.51.100.9"]},
		{"arp probe answered", answers["arp to 0.0.0.0"]},
		{"echo answered or taken", answers["echo"] || after["Icmp InEchos"] != before["Icmp InEchos"]},
		{"forwarded", after["Ip ForwDatagrams"] != before["Ip ForwDatagrams"]},
		{"udp taken", taken["unicast"]},
		{"broadcast taken", taken["broadcast"]},
		{"all-hosts taken", taken["all-hosts"]},
		{"nd answered", answers["nd"]},
		{"echo6 answered or taken", answers["echo6"] || after["Icmp6InEchos"] != before["Icmp6InEchos"]},
		{"forwarded6", after["Ip6OutForwDatagrams"] != before["Ip6OutForwDatagrams"]},
		{"udp6 taken", taken6["unicast"]},
	} {
		if result.so {
			got = append(got, result.says)
		}
	}
	return got
}

// probes are the frames that a container may write to get at its host.
func probes(c Cable) [][]byte {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allHosts := net.HardwareAddr{0x01, 0, 0x5e, 0, 0, 1}
	host := HostMAC(c.Host)
	arp := func(sender net.IP) []byte {
		return frame(&layers.Ethernet{SrcMAC: c.MAC, DstMAC: everybody, EthernetType: layers.EthernetTypeARP}, &layers.ARP{
			AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: layers.ARPRequest,
			SourceHwAddress: c.MAC, SourceProtAddress: sender.To4(), DstHwAddress: make([]byte, 6), DstProtAddress: host4.To4(),
		})
	}
	ip := func(dst net.HardwareAddr, from, to net.IP, p layers.IPProtocol, rest ...gopacket.SerializableLayer) []byte {
		l := &layers.IPv4{Version: 4, TTL: 9, Protocol: p, SrcIP: from, DstIP: to}
		if u, ok := rest[0].(*layers.UDP); ok {
			must2(u.SetNetworkLayerForChecksum(l))
		}
		return frame(append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: c.MAC, DstMAC: dst, EthernetType: layers.EthernetTypeIPv4}, l}, rest...)...)
	}
	ip6 := func(dst net.HardwareAddr, from, to net.IP, p layers.IPProtocol, rest ...gopacket.SerializableLayer) []byte {
		l := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: p, SrcIP: from, DstIP: to}
		switch u := rest[0].(type) {
		case *layers.UDP:
			must2(u.SetNetworkLayerForChecksum(l))
		case *layers.ICMPv6:
			must2(u.SetNetworkLayerForChecksum(l))
		}
		return frame(append([]gopacket.SerializableLayer{&layers.Ethernet{SrcMAC: c.MAC, DstMAC: dst, EthernetType: layers.EthernetTypeIPv6}, l}, rest...)...)
	}
	udp := func() *layers.UDP { return &layers.UDP{SrcPort: 68, DstPort: 67} }
	echo := &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: 7}
	echo6 := func() []gopacket.SerializableLayer {
		return []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}, &layers.ICMPv6Echo{Identifier: 7}}
	}
	linkLocal6, hostLocal6 := net.IP(linkLocal(c.MAC).Addr().AsSlice()), net.IP(linkLocal(host).Addr().AsSlice())
	solicitedNode := func(a net.IP) net.HardwareAddr { return net.HardwareAddr{0x33, 0x33, 0xff, a[13], a[14], a[15]} }
	nd := func(dst net.HardwareAddr, from, target net.IP) []byte {
		to := target
		if dst[0] == 0x33 {
			to = net.IP{0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: target[13], 14: target[14], 15: target[15]}
		}
		return ip6(
			dst, from, to, layers.IPProtocolICMPv6,
			&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)},
			&layers.ICMPv6NeighborSolicitation{TargetAddress: target, Options: layers.ICMPv6Options{{Type: layers.ICMPv6OptSourceAddress, Data: c.MAC}}},
		)
	}
	return [][]byte{
		arp(stranger4), arp(net.IPv4zero),
		ip(host, stranger4, host4, layers.IPProtocolICMPv4, echo, gopacket.Payload("echo")),
		ip(host, stranger4, beyond4, layers.IPProtocolUDP, udp(), gopacket.Payload("forward")),
		ip(host, stranger4, host4, layers.IPProtocolUDP, udp(), gopacket.Payload("unicast")),
		ip(everybody, stranger4, host4, layers.IPProtocolUDP, udp(), gopacket.Payload("unicast")),
		ip(everybody, net.IPv4zero, net.IPv4bcast, layers.IPProtocolUDP, udp(), gopacket.Payload("broadcast")),
		ip(allHosts, net.IPv4zero, net.IPv4allsys, layers.IPProtocolUDP, udp(), gopacket.Payload("all-hosts")),
		nd(solicitedNode(host6), stranger6, host6), nd(host, linkLocal6, host6), nd(solicitedNode(hostLocal6), linkLocal6, hostLocal6),
		ip6(host, stranger6, host6, layers.IPProtocolICMPv6, echo6()...),
		ip6(host, linkLocal6, host6, layers.IPProtocolICMPv6, echo6()...),
		ip6(host, stranger6, beyond6, layers.IPProtocolUDP, udp(), gopacket.Payload("forward")),
		ip6(host, stranger6, host6, layers.IPProtocolUDP, udp(), gopacket.Payload("unicast")),
	}
}

func frame(l ...gopacket.SerializableLayer) []byte {
	b := gopacket.NewSerializeBuffer()
	must2(gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return append([]byte(nil), b.Bytes()...)
}

// must2 is for what only a mistake in this file can cause.
func must2(err error) {
	if err != nil {
		panic(err)
	}
}

// answerKinds says what the frames from the host answer.
func answerKinds(frames [][]byte) map[string]bool {
	kinds := map[string]bool{}
	for _, f := range frames {
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok && a.Operation == layers.ARPReply {
			kinds["arp to "+net.IP(a.DstProtAddress).String()] = true
		}
		if i, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok && i.TypeCode.Type() == layers.ICMPv4TypeEchoReply {
			kinds["echo"] = true
		}
		if p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement) != nil {
			kinds["nd"] = true
		}
		if i, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok && i.TypeCode.Type() == layers.ICMPv6TypeEchoReply {
			kinds["echo6"] = true
		}
	}
	return kinds
}

// openTap opens a packet socket on a link of the calling thread's namespace.
func openTap(tb testing.TB, name string) int {
	tb.Helper()
	l, err := net.InterfaceByName(name)
	must(tb, err)
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	must(tb, err)
	must(tb, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
	must(tb, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: l.Index}))
	must(tb, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000}))
	return fd
}

// receive reads frames until none has come for 200 ms.
func receive(tap int) [][]byte {
	var got [][]byte
	for buf := make([]byte, 65536); ; {
		n, _, err := unix.Recvfrom(tap, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return got
		}
		got = append(got, append([]byte(nil), buf[:n]...))
	}
}

// transmit writes frames on a link of the calling thread's namespace.
func transmit(name string, frames [][]byte) error {
	l, err := net.InterfaceByName(name)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, f := range frames {
		if err := unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: l.Index}); err != nil {
			return fmt.Errorf("send %x: %w", f, err)
		}
	}
	return nil
}

// datagrams reads what there is on s.
func datagrams(s net.PacketConn) map[string]bool {
	got := map[string]bool{}
	s.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	for buf := make([]byte, 100); ; {
		n, _, err := s.ReadFrom(buf)
		if err != nil {
			return got
		}
		got[string(buf[:n])] = true
	}
}

// counters are those of /proc/net/snmp and snmp6 in the host's namespace.
func counters(tb testing.TB) map[string]string {
	tb.Helper()
	got := map[string]string{}
	b, err := os.ReadFile("/proc/thread-self/net/snmp")
	must(tb, err)
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for i := 0; i+1 < len(lines); i += 2 {
		names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
		for j := 1; j < len(names); j++ {
			got[strings.TrimSuffix(names[0], ":")+" "+names[j]] = values[j]
		}
	}
	b, err = os.ReadFile("/proc/thread-self/net/snmp6")
	must(tb, err)
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 2 {
			got[f[0]] = f[1]
		}
	}
	return got
}
