package gateway

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

// everything is a state with one of each.
func everything() State {
	s := state()
	s.Routes = []Route{
		{Prefix: netip.MustParsePrefix("10.7.0.0/24"), MTU: 1400},
		{Prefix: netip.MustParsePrefix("10.7.1.0/24")},
		{Prefix: netip.MustParsePrefix("240.0.0.0/4")},
		{Prefix: netip.MustParsePrefix("2001:db8:7::/64")},
	}
	s.Egress = []Egress{{netip.MustParseAddr("169.254.64.10"), netip.MustParseAddr("192.0.2.7")}, {netip.MustParseAddr("fd74:656e:6574::10"), netip.MustParseAddr("2001:db8::7")}}
	s.Masked = []netip.Addr{netip.MustParseAddr("169.254.64.11"), netip.MustParseAddr("fd74:656e:6574::11")}
	s.Published = []Published{
		published("tcp", "", 8080, "169.254.64.10:80"), published("udp", "192.0.2.7", 8080, "169.254.64.10:80"),
		published("sctp", "", 8080, "[fd74:656e:6574::10]:80"), published("sctp", "2001:db8::7", 8080, "[fd74:656e:6574::11]:80"),
	}
	return s
}

// Whatever is changed behind our back, Diff says it, and Ensure repairs it and
// no more.
func TestRepair(t *testing.T) {
	w := newWorld(t)
	s := everything()
	w.ensure(s)
	for change, want := range map[string]string{
		"nft flush ruleset":                                    "there is no nftables table tenet",
		"nft flush chain inet tenet forward":                   "nftables table tenet: chain forward has 0 rules, not 4",
		"nft delete element inet tenet ports4 { tcp . 8080 }":  "nftables table tenet: set ports4 lacks tcp 8080 to 169.254.64.10:80",
		"nft add element inet tenet masked4 { 169.254.64.20 }": "nftables table tenet: set masked4 has 1 elements that nobody needs",
		"nft chain inet tenet forward '{ policy drop; }'":      "nftables table tenet: chain forward is of another kind",
		"nft replace rule inet tenet input handle $(nft -a list chain inet tenet input | sed -n 's/.*established.*handle //p') accept": "nftables table tenet: chain input has another rule 1",
		"ip link set tenet-gw mtu 1300":                                            "tenet-gw has an MTU of 1300, not 1450",
		"ip addr del 169.254.64.1/32 dev tenet-gw":                                 "tenet-gw does not have the address 169.254.64.1",
		"ip neigh del 169.254.64.2 dev tenet-gw":                                   "tenet-gw does not know that 169.254.64.2 is at 0a:58:00:00:00:02",
		"ip neigh replace fd74:656e:6574::2 lladdr 0a:58:00:00:00:07 dev tenet-gw": "tenet-gw does not know that fd74:656e:6574::2 is at 0a:58:00:00:00:02",
		"ip route del 10.7.1.0/24":                                                 "tenet-gw does not have the route 10.7.1.0/24 via 169.254.64.2",
		"ip route del table local local ::1 dev tenet-gw":                          "tenet-gw does not have the route local ::1/128",
		"ip route add 10.9.0.0/24 dev tenet-gw proto 116":                          "tenet-gw has a route to 10.9.0.0/24 that nobody needs",
		"sysctl -qw net.ipv4.conf.tenet-gw.route_localnet=0":                       "tenet-gw has ipv4's route_localnet=0, not 1",
		"sysctl -qw net.ipv4.ip_forward=0":                                         "all has ipv4's forwarding=0, not 1",
	} {
		w.run(change)
		got, err := Diff(t.Context(), s)
		must(t, err)
		if !slices.Contains(got, want) {
			t.Errorf("after %s: Diff says %q, want %q", change, got, want)
		}
		w.ensure(s)
	}
	w.run("ip link set tenet-gw down; ip link set tenet-gw address 0a:58:00:00:00:09")
	w.ensure(s)
	w.run("ip link set tenet-gw mtu 1200") // which takes IPv6 away
	w.ensure(s)
	w.run("sysctl -qw net.ipv6.conf.tenet-gw.disable_ipv6=1")
	w.ensure(s)
}

// probe is an address of the range, by which Standing asks for the way there.
var probe = netip.MustParseAddr("169.254.64.2")

// Cut off after any step, it has let nobody in, does not stand, and is finished
// by the next call.
func TestCutOff(t *testing.T) {
	w := newWorld(t)
	s := everything()
	h, err := openHere()
	must(t, err)
	defer h.Close()
	for steps := 0; ; steps++ {
		w.run("nft flush ruleset; ip addr flush dev tenet-gw; ip link set tenet-gw down; ip link set tenet-gw mtu 1500")
		changes, err := plan(t.Context(), h, s)
		must(t, err)
		if steps > len(changes) {
			break
		}
		for _, c := range changes[:steps] {
			must(t, c.do())
		}
		way := w.run("ip route show 169.254.64.0/18; ip -6 route show fd74:656e:6574::/64")
		if table := w.run("nft list tables"); table == "" && way != "" {
			t.Errorf("after %d steps there are routes and no table: %s", steps, way)
		}
		if got, want := Standing("tenet-gw", probe), steps == len(changes); got != want {
			t.Errorf("after %d steps of %d: Standing is %v", steps, len(changes), got)
		}
		w.ensure(s)
	}
}

// What leads nowhere does not stand.
func TestStanding(t *testing.T) {
	w := newWorld(t)
	for _, change := range []string{
		"ip link set tenet-gw down",
		"nft delete table inet tenet",
		"ip route flush dev tenet-gw",
		"ip route del 169.254.64.0/18",
		"ip addr del 169.254.64.1/32 dev tenet-gw", // which takes the routes along
		"ip route add 169.254.64.2/32 via 192.0.2.9",
	} {
		w.ensure(state())
		if !Standing("tenet-gw", probe) {
			t.Errorf("before %s: it does not stand", change)
		}
		w.run(change)
		if Standing("tenet-gw", probe) {
			t.Errorf("after %s: it stands", change)
		}
	}
}

// The link makes no addresses of its own and heeds nobody.
func TestQuiet(t *testing.T) {
	w := newWorld(t)
	w.ensure(everything())
	got := strings.Fields(w.run("ip -o addr show dev tenet-gw | awk '{print $4}'"))
	slices.Sort(got)
	if want := []string{"169.254.64.1/32", "fd74:656e:6574::1/128"}; !slices.Equal(got, want) {
		t.Errorf("the link has the addresses %q, want %q", got, want)
	}
}

// Connections live on when the table is replaced, and counters count on.
func TestReplaceUnderTraffic(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() {
		l, err := net.Listen("tcp", ":80")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			if c, err := l.Accept(); err == nil {
				io.Copy(c, c)
			}
		}()
	})
	w.ensure(publishes("tcp", "", 8080, "169.254.64.10:80"))
	w.in(w.outside, func() {
		w.run("ip route add 169.254.64.0/18 via 192.0.2.1")
		w.answer("a neighbour", w.ask("tcp", "", "169.254.64.10:80"), "nobody")
	})
	before, err := Drops()
	must(t, err)
	var c net.Conn
	w.in(w.outside, func() {
		c, err = net.Dial("tcp", "192.0.2.1:8080")
		must(t, err)
	})
	defer c.Close()
	for i := range 5 {
		w.ensure(publishes("tcp", "", uint16(8080+i), "169.254.64.10:80"))
		c.SetDeadline(time.Now().Add(10 * patience))
		b := make([]byte, 5)
		fmt.Fprintf(c, "round")
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	if after, err := Drops(); err != nil || after["guard"] < before["guard"] || before["guard"] == 0 {
		t.Errorf("Drops says %v (%v), and %v before", after, err, before)
	}
}

// A prefix that the host routes elsewhere is not taken over. All the rest is done.
func TestForeignRoute(t *testing.T) {
	w := newWorld(t)
	w.run("ip route add 10.7.0.0/24 via 192.0.2.9 metric 100")
	err := Ensure(t.Context(), everything())
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "10.7.0.0/24 via 192.0.2.9 dev eth0") {
		t.Errorf("Ensure says %v, want the host's route", err)
	}
	w.differs(everything(), "tenet-gw does not have the route 10.7.0.0/24 via 169.254.64.2 mtu 1400, the host has 10.7.0.0/24 via 192.0.2.9 dev eth0")
	// Who does not answer for that prefix hears nothing of it, nor of what is
	// left of another's, but of its own and of what all share.
	w.run("ip route del 10.7.1.0/24; ip route del 169.254.64.0/18; ip -6 route del table local ::1 dev tenet-gw; ip route add 10.9.0.0/24 dev tenet-gw proto 116")
	got, err := DiffFor(t.Context(), everything(), func(p netip.Prefix) bool { return p == netip.MustParsePrefix("10.7.1.0/24") })
	must(t, err)
	if want := []string{
		"tenet-gw does not have the route 10.7.1.0/24 via 169.254.64.2",
		"tenet-gw does not have the route local ::1/128",
		"tenet-gw does not have the route 169.254.64.0/18 via 169.254.64.2",
	}; !slices.Equal(got, want) {
		t.Errorf("DiffFor says %q, want %q", got, want)
	}
	for prefix, want := range map[string]string{
		"10.7.0.128/25": "10.7.0.0/24 via 192.0.2.9 dev eth0", "10.0.0.0/8": "10.7.0.0/24 via 192.0.2.9 dev eth0",
		"10.8.0.0/16": "", "192.0.2.0/25": "192.0.2.0/24 dev eth0",
	} {
		got, err := Overlapping(t.Context(), netip.MustParsePrefix(prefix), "tenet-gw")
		if err != nil || got != want {
			t.Errorf("Overlapping(%s) = %q, %v; want %q", prefix, got, err, want)
		}
	}
	for a, want := range map[string]bool{"192.0.2.7": true, "192.0.2.9": false, "2001:db8::1": true, "127.0.0.1": true} {
		if got, err := IsLocal(t.Context(), netip.MustParseAddr(a)); err != nil || got != want {
			t.Errorf("IsLocal(%s) = %v, %v; want %v", a, got, err, want)
		}
	}
}

// A host that begins to forward goes on heeding router advertisements where it
// did, and not where it did not. It is never told to stop forwarding.
func TestForwarding(t *testing.T) {
	w := newWorld(t)
	w.run("sysctl -qw net.ipv6.conf.lo.accept_ra=0")
	w.ensure(state())
	got := w.run("cd /proc/sys/net; cat ipv6/conf/eth0/accept_ra ipv6/conf/default/accept_ra ipv6/conf/lo/accept_ra ipv6/conf/tenet-gw/accept_ra ipv4/ip_forward ipv6/conf/all/forwarding")
	if want := "2\n2\n0\n0\n1\n1\n"; got != want {
		t.Errorf("accept_ra of eth0, default, lo and tenet-gw, and forwarding: %q, want %q", got, want)
	}
	s := state()
	s.Forward4, s.Forward6 = false, false
	w.ensure(s)
	must(t, Remove(t.Context(), s.Link))
	if got := w.run("cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"); got != "1\n1\n" {
		t.Errorf("forwarding is %q, want it left on", got)
	}
}

// Remove leaves nothing of ours and all that is others'; it can be repeated.
func TestRemove(t *testing.T) {
	w := newWorld(t)
	if Standing("tenet-gw", probe) {
		t.Error("it stands before it was made")
	}
	must(t, Remove(t.Context(), "tenet-gw"))
	w.run("nft add table ip tenet; nft add table inet other; ip route add 10.8.0.0/24 dev eth0 proto 116")
	w.ensure(everything())
	if !Standing("tenet-gw", probe) {
		t.Error("it does not stand")
	}
	must(t, Remove(t.Context(), "tenet-gw"))
	must(t, Remove(t.Context(), "tenet-gw"))
	if Standing("tenet-gw", probe) {
		t.Error("it stands after it was removed")
	}
	if got := w.run("nft list tables; ip route show proto 116; ip -6 route show table all proto 116"); got != "table ip tenet\ntable inet other\n10.8.0.0/24 dev eth0 scope link \n" {
		t.Errorf("left: %q", got)
	}
	if drops, err := Drops(); err != nil || drops != nil {
		t.Errorf("Drops says %v, %v without a table", drops, err)
	}
	w.run("ip link del tenet-gw")
	must(t, Remove(t.Context(), "tenet-gw"))
	if err := Ensure(t.Context(), state()); !errors.Is(err, ErrNoLink) {
		t.Errorf("Ensure without the link says %v", err)
	}
}

// Without IPv6 the range of IPv6 is left out, unless something needs it.
func TestNoIPv6(t *testing.T) {
	w := newWorld(t)
	s := state()
	s.MTU, s.Forward6 = 1200, false
	w.ensure(s)
	s.Masked = []netip.Addr{netip.MustParseAddr("fd74:656e:6574::11")}
	if err := Ensure(t.Context(), s); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "1280") {
		t.Errorf("Ensure says %v, want that IPv6 needs an MTU of 1280", err)
	}
}

// Two at once, without a lock, leave what one of them wanted.
func TestTwoAtOnce(t *testing.T) {
	w := newWorld(t)
	here, err := netns.Get()
	must(t, err)
	defer here.Close()
	s := many(300)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			// Threads of this namespace, which end with their goroutines.
			if err := enter(here); err != nil {
				t.Error(err)
				return
			}
			for range 5 {
				if err := Ensure(t.Context(), s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	w.differs(s)
}

func many(n int) State {
	s := state()
	for i := range n {
		to := netip.AddrFrom4([4]byte{169, 254, 64 + byte(i/250), byte(3 + i%250)})
		s.Published = append(s.Published, Published{Protocol: "tcp", HostPort: uint16(20000 + i), To: netip.AddrPortFrom(to, 80)})
	}
	return s
}

// More elements than one message can have, and than a socket has room for by itself.
func TestManyPorts(t *testing.T) {
	w := newWorld(t)
	s := many(15000)
	w.ensure(s)
	if n := strings.Count(w.run("nft list map inet tenet ports4"), "tcp . "); n != len(s.Published) {
		t.Errorf("nft counts %d ports, want %d", n, len(s.Published))
	}
}

// A gateway that cannot stand is refused before anything is changed.
func TestInvalid(t *testing.T) {
	for name, spoil := range map[string]func(*State){
		"no link":               func(s *State) { s.Link = "" },
		"every link":            func(s *State) { s.Link = "all" },
		"no MAC":                func(s *State) { s.MAC = nil },
		"a group's MAC":         func(s *State) { s.Peer = net.HardwareAddr{1, 0, 0, 0, 0, 1} },
		"no MTU":                func(s *State) { s.MTU = 0 },
		"zero net":              func(s *State) { s.Nets = append(s.Nets, Net{}) },
		"two nets":              func(s *State) { s.Nets = append(s.Nets, s.Nets[0]) },
		"router elsewhere":      func(s *State) { s.Nets[0].Via = netip.MustParseAddr("10.0.0.1") },
		"router is host":        func(s *State) { s.Nets[0].Via = s.Nets[0].Host.Addr() },
		"zero route":            func(s *State) { s.Routes = []Route{{}} },
		"default route":         func(s *State) { s.Routes = []Route{{Prefix: netip.MustParsePrefix("0.0.0.0/0")}} },
		"route with host bits":  func(s *State) { s.Routes = []Route{{Prefix: netip.MustParsePrefix("10.0.0.1/8")}} },
		"route over the range":  func(s *State) { s.Routes = []Route{{Prefix: netip.MustParsePrefix("169.254.0.0/16")}} },
		"routes that overlap":   func(s *State) { s.Routes = append(s.Routes, Route{Prefix: netip.MustParsePrefix("10.7.0.0/16")}) },
		"route without a range": func(s *State) { s.Nets = s.Nets[1:]; s.Forward4 = false },
		"negative MTU":          func(s *State) { s.Routes[0].MTU = -1 },
		"mapped route":          func(s *State) { s.Routes = []Route{{Prefix: netip.MustParsePrefix("::ffff:10.0.0.0/104")}} },
		"zero egress":           func(s *State) { s.Egress = []Egress{{}} },
		"mixed egress":          func(s *State) { s.Egress[0].Address = s.Egress[1].Address },
		"egress from elsewhere": func(s *State) { s.Egress[0].Transit = netip.MustParseAddr("10.0.0.1") },
		"egress as transit":     func(s *State) { s.Egress[0].Address = netip.MustParseAddr("169.254.64.12") },
		"egress twice":          func(s *State) { s.Egress = append(s.Egress, s.Egress[0]) },
		"zero alias":            func(s *State) { s.Masked = []netip.Addr{{}} },
		"alias is the host":     func(s *State) { s.Masked = []netip.Addr{s.Nets[0].Host.Addr()} },
		"zero port":             func(s *State) { s.Published = []Published{{}} },
		"protocol":              func(s *State) { s.Published[0].Protocol = "icmp" },
		"host port 0":           func(s *State) { s.Published[0].HostPort = 0 },
		"container port 0":      func(s *State) { s.Published[0].To = netip.MustParseAddrPort("169.254.64.10:0") },
		"published to loopback": func(s *State) { s.Published[0].To = netip.MustParseAddrPort("127.0.0.1:1") },
		"published to the host": func(s *State) { s.Published[0].To = netip.AddrPortFrom(s.Nets[0].Host.Addr(), 1) },
		"mixed families":        func(s *State) { s.Published[0].HostIP = netip.MustParseAddr("2001:db8::1") },
		"unspecified host":      func(s *State) { s.Published[0].HostIP = netip.IPv4Unspecified() },
		"host with a zone":      func(s *State) { s.Published[2].HostIP = netip.MustParseAddr("fe80::1%eth0") },
		"mapped host":           func(s *State) { s.Published[2].HostIP = netip.MustParseAddr("::ffff:192.0.2.1") },
		"published twice":       func(s *State) { s.Published = append(s.Published, s.Published[0]) },
	} {
		s := everything()
		spoil(&s)
		if err := s.validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
	if err := everything().validate(); err != nil {
		t.Error(err)
	}
}

// A client of UDP that sent before its port was published, or to a container
// that went, is led by what stands now.
func TestForget(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() { w.serve("udp", "169.254.64.10:53", "one"); w.serve("udp", "169.254.64.11:53", "two") })
	w.serve("udp", "192.0.2.1:53", "host")
	w.ensure(state())
	var c net.Conn
	w.in(w.outside, func() {
		var err error
		c, err = net.Dial("udp", "192.0.2.1:53")
		must(t, err)
	})
	defer c.Close()
	ask := func() string {
		c.SetDeadline(time.Now().Add(patience))
		c.Write([]byte("?"))
		b := make([]byte, 100)
		n, err := c.Read(b)
		if err != nil {
			return nobody(err)
		}
		return string(b[:n])
	}
	w.answer("before", ask(), "host 192.0.2.9")
	w.ensure(publishes("udp", "", 53, "169.254.64.10:53"))
	w.answer("not forgotten", ask(), "host 192.0.2.9")
	must(t, ForgetPort("udp", netip.Addr{}, 54))
	must(t, ForgetPort("tcp", netip.Addr{}, 53))
	must(t, ForgetPort("udp", netip.MustParseAddr("192.0.2.7"), 53))
	w.answer("another port, protocol or address", ask(), "host 192.0.2.9")
	must(t, ForgetPort("udp", netip.MustParseAddr("192.0.2.1"), 53))
	w.answer("forgotten", ask(), "one 192.0.2.9")

	w.ensure(publishes("udp", "", 53, "169.254.64.11:53"))
	w.answer("the container went", ask(), "one 192.0.2.9")
	if n, err := Forget(netip.MustParseAddr("169.254.64.11")); err != nil || n != 0 {
		t.Errorf("Forget of one without connections: %d, %v", n, err)
	}
	w.run("conntrack -I -w 7 -t 60 -p udp -s 169.254.64.10 -d 192.0.2.9 --sport 1 --dport 2") // the switch's
	if n, err := Forget(netip.MustParseAddr("169.254.64.10"), netip.MustParseAddr("fd74:656e:6574::10")); err != nil || n != 1 {
		t.Errorf("Forget: %d, %v; want 1", n, err)
	}
	w.answer("forgotten", ask(), "two 192.0.2.9")
}

// A port that a process of the host has is told, with the process.
func TestHolder(t *testing.T) {
	w := newWorld(t)
	w.serve("tcp4", "192.0.2.1:80", "")
	w.serve("tcp4", "0.0.0.0:81", "")
	w.serve("tcp6", "[::]:82", "")
	w.serve("tcp6", "[2001:db8::1]:83", "")
	w.serve("udp4", "127.0.0.53:53", "")
	me, err := os.ReadFile("/proc/self/comm")
	must(t, err)
	want := fmt.Sprintf("process %s (pid %d)", strings.TrimSpace(string(me)), os.Getpid())
	for _, c := range []struct {
		protocol, ip string
		port         uint16
		held         bool
	}{
		{"tcp", "", 80, true},
		{"tcp", "192.0.2.1", 80, true},
		{"tcp", "0.0.0.0", 80, true},
		{"tcp", "192.0.2.7", 80, false},
		{"tcp", "::", 80, false},
		{"udp", "", 80, false},
		{"sctp", "", 80, false},
		{"tcp", "", 84, false},
		{"tcp", "192.0.2.7", 81, true},
		{"tcp", "2001:db8::1", 81, false},
		{"tcp", "192.0.2.7", 82, true},
		{"tcp", "2001:db8::7", 82, true},
		{"tcp", "2001:db8::1", 83, true},
		{"tcp", "2001:db8::7", 83, false},
		{"udp", "", 53, true},
		{"udp", "192.0.2.1", 53, false},
		{"udp", "127.0.0.53", 53, true},
	} {
		var ip netip.Addr
		if c.ip != "" {
			ip = netip.MustParseAddr(c.ip)
		}
		got, err := Holder(c.protocol, ip, c.port)
		if err != nil || (got == want) != c.held || got != "" && !c.held {
			t.Errorf("Holder(%s, %s, %d) = %q, %v; held: %v", c.protocol, c.ip, c.port, got, err, c.held)
		}
	}
}

func BenchmarkEnsureNothing(b *testing.B)     { benchNothing(b, 10) }
func BenchmarkEnsureNothing1000(b *testing.B) { benchNothing(b, 1000) }
func BenchmarkEnsureOneOfThousand(b *testing.B) {
	w := newWorld(b)
	s := many(1000)
	w.ensure(s)
	for i := 0; b.Loop(); i++ {
		s.Published[0].HostPort = uint16(10000 + i%2)
		must(b, Ensure(b.Context(), s))
	}
}

func BenchmarkReplace1000(b *testing.B) {
	w := newWorld(b)
	s := many(1000)
	w.ensure(s)
	for b.Loop() {
		must(b, newTable(s).replace())
	}
}

func benchNothing(b *testing.B, n int) {
	w := newWorld(b)
	s := many(n)
	w.ensure(s)
	for b.Loop() {
		must(b, Ensure(b.Context(), s))
	}
}
