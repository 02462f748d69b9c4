package gateway

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// What leaves the range has an address of the host, and finds back.
func TestMasquerade(t *testing.T) {
	w := newWorld(t)
	w.in(w.outside, func() { w.serve("tcp", ":80", "outside"); w.serve("udp", ":53", "outside") })
	w.ensure(state())
	w.in(w.inside, func() {
		w.answer("TCP", w.ask("tcp", "", "192.0.2.9:80"), "outside 192.0.2.1")
		w.answer("UDP", w.ask("udp", "", "192.0.2.9:53"), "outside 192.0.2.1")
		w.answer("IPv6", w.ask("tcp", "", "[2001:db8::9]:80"), "outside 2001:db8::1")
	})

	s := state()
	for transit, address := range map[string]string{"169.254.64.10": "192.0.2.7", "fd74:656e:6574::10": "2001:db8::7"} {
		s.Egress = append(s.Egress, Egress{Transit: netip.MustParseAddr(transit), Address: netip.MustParseAddr(address)})
	}
	w.ensure(s)
	w.in(w.inside, func() {
		w.answer("a fixed address", w.ask("tcp", "", "192.0.2.9:80"), "outside 192.0.2.7")
		w.answer("another's", w.ask("tcp", "169.254.64.11", "192.0.2.9:80"), "outside 192.0.2.1")
		w.answer("a fixed IPv6 address", w.ask("tcp", "", "[2001:db8::9]:80"), "outside 2001:db8::7")
	})
}

// A published port leads to the container, from outside and from the host
// itself, which sees an address and no loopback of the host.
func TestPublished(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() {
		w.serve("tcp", ":80", "one")
		w.serve("udp", ":53", "one")
		w.serve("tcp", ":81", "two")
	})
	s := state()
	s.Published = []Published{
		published("tcp", "", 8080, "169.254.64.10:80"),
		published("udp", "", 5353, "169.254.64.10:53"),
		published("tcp", "", 8080, "[fd74:656e:6574::10]:80"),
		published("tcp", "192.0.2.7", 8080, "169.254.64.11:81"),
		published("tcp", "2001:db8::7", 8080, "[fd74:656e:6574::11]:81"),
		published("sctp", "", 9, "169.254.64.10:9"),
		published("tcp", "127.0.0.1", 8081, "169.254.64.10:80"),
	}
	w.ensure(s)
	w.in(w.outside, func() {
		w.answer("TCP", w.ask("tcp", "", "192.0.2.1:8080"), "one 192.0.2.9")
		w.answer("UDP", w.ask("udp", "", "192.0.2.1:5353"), "one 192.0.2.9")
		w.answer("IPv6", w.ask("tcp", "", "[2001:db8::1]:8080"), "one 2001:db8::9")
		w.answer("one address", w.ask("tcp", "", "192.0.2.7:8080"), "two 192.0.2.9")
		w.answer("one IPv6 address", w.ask("tcp", "", "[2001:db8::7]:8080"), "two 2001:db8::9")
		w.answer("another protocol", w.ask("tcp", "", "192.0.2.1:5353"), "refused")
		w.answer("published on loopback", w.ask("tcp", "", "192.0.2.1:8081"), "refused")
	})
	// What is published is a port of the host's, not of others.
	w.in(w.outside, func() { w.serve("tcp", ":8080", "outside") })
	w.in(w.inside, func() { w.answer("a container, elsewhere", w.ask("tcp", "", "192.0.2.9:8080"), "outside 192.0.2.1") })
	w.answer("the host, elsewhere", w.ask("tcp", "", "192.0.2.9:8080"), "outside 192.0.2.1")

	w.answer("the host, by its address", w.ask("tcp", "", "192.0.2.1:8080"), "one 192.0.2.1")
	w.answer("the host, by one address", w.ask("tcp", "", "192.0.2.7:8080"), "two 192.0.2.1")
	w.answer("the host, by loopback", w.ask("tcp", "", "127.0.0.1:8080"), "one 169.254.64.1")
	w.answer("the host, UDP by loopback", w.ask("udp", "", "127.0.0.1:5353"), "one 169.254.64.1")
	w.answer("the host, by what is loopback's alone", w.ask("tcp", "", "127.0.0.1:8081"), "one 169.254.64.1")
	w.answer("the host, by IPv6 loopback", w.ask("tcp", "", "[::1]:8080"), "one fd74:656e:6574::1")
}

// Unpublished, a port is the host's own again, also on loopback.
func TestUnpublished(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() { w.serve("tcp", ":80", "one") })
	w.ensure(publishes("tcp", "", 8080, "[fd74:656e:6574::10]:80"))
	w.answer("published", w.ask("tcp", "", "[::1]:8080"), "one fd74:656e:6574::1")
	w.ensure(state())
	w.serve("tcp", ":8080", "host")
	w.answer("by loopback", w.ask("tcp", "", "[::1]:8080"), "host ::1")
	w.in(w.outside, func() { w.answer("from outside", w.ask("tcp", "", "[2001:db8::1]:8080"), "host 2001:db8::9") })
}

// Aliases are for the host alone. A neighbour that sends to one gets nowhere,
// whatever address it claims to have, and what is dropped is counted.
func TestAliases(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() { w.serve("tcp", ":80", "one"); w.serve("udp", ":53", "one") })
	w.ensure(state())
	w.answer("the host", w.ask("tcp", "", "169.254.64.10:80"), "one 169.254.64.1")
	w.answer("the host, IPv6", w.ask("tcp", "", "[fd74:656e:6574::10]:80"), "one fd74:656e:6574::1")
	w.serve("udp", "169.254.64.1:55", "host")
	w.answer("the host, itself", w.ask("udp", "", "169.254.64.1:55"), "host 169.254.64.1")
	w.in(w.outside, func() {
		w.run(`ip addr add 169.254.64.99/32 dev eth0
			ip route add 169.254.64.0/18 via 192.0.2.1
			ip route add fd74:656e:6574::/64 via 2001:db8::1`)
		w.answer("a neighbour", w.ask("tcp", "192.0.2.9", "169.254.64.10:80"), "nobody")
		w.answer("a neighbour, IPv6", w.ask("tcp", "", "[fd74:656e:6574::10]:80"), "nobody")
		w.answer("with an address of the range", w.ask("udp", "169.254.64.99", "169.254.64.10:53"), "nobody")
		w.answer("to the host, with an address of the range", w.ask("udp", "169.254.64.99", "192.0.2.1:53"), "nobody")
	})
	drops, err := Drops()
	must(t, err)
	if drops["guard"] < 4 {
		t.Errorf("Drops says %v, want four of the guard", drops)
	}

	// Without its guard, as other marks and hooks might make it, forward drops.
	w.run("nft flush chain inet tenet guard")
	w.in(w.outside, func() {
		w.answer("a neighbour, unguarded", w.ask("tcp", "192.0.2.9", "169.254.64.10:80"), "nobody")
	})
	if drops, err = Drops(); err != nil || drops["forward"] == 0 {
		t.Errorf("Drops says %v (%v), want some of forward", drops, err)
	}
}

// What comes for a tunnel's port of the host is the tunnel's: neither who publishes the port is given it, nor who has
// left by it for where it comes from, which looks like an answer.
func TestTunnelsAreNoContainers(t *testing.T) {
	w := newWorld(t)
	s := state()
	s.Tunnels = []uint16{4789, 6081}
	for _, to := range []string{"169.254.64.11:53", "[fd74:656e:6574::11]:53"} {
		s.Published = append(s.Published, published("udp", "", 4789, to))
	}
	w.ensure(s)
	w.serve("udp4", ":4789", "tunnel")
	w.serve("udp6", ":4789", "tunnel")
	for _, f := range []struct{ network, container, published, other, host string }{
		{"udp4", "169.254.64.10:4789", "169.254.64.11:53", "192.0.2.9:5000", "192.0.2.1:4789"},
		{"udp6", "[fd74:656e:6574::10]:4789", "[fd74:656e:6574::11]:53", "[2001:db8::9]:5000", "[2001:db8::1]:4789"},
	} {
		var container, other net.PacketConn
		listen := func(at string) net.PacketConn {
			c, err := net.ListenPacket(f.network, at)
			must(t, err)
			t.Cleanup(func() { c.Close() })
			return c
		}
		send := func(from net.PacketConn, to, text string) {
			a, err := net.ResolveUDPAddr(f.network, to)
			must(t, err)
			_, err = from.WriteTo([]byte(text), a)
			must(t, err)
		}
		hears := func(at net.PacketConn) string {
			b := make([]byte, 100)
			n, _, err := at.ReadFrom(b)
			if err != nil {
				return nobody(err)
			}
			return string(b[:n])
		}
		w.in(w.inside, func() { container = listen(f.container); w.serve(f.network, f.published, "published") })
		w.in(w.outside, func() { other = listen(f.other) })
		left := "nobody"
		for try := 0; try < 20 && left == "nobody"; try++ { // a link that has just come up may lose it
			send(container, f.other, "a way back")
			must(t, other.SetDeadline(time.Now().Add(patience/10)))
			left = hears(other)
		}
		w.answer("it leaves", left, "a way back")
		must(t, other.SetDeadline(time.Now().Add(patience)))
		send(other, f.host, "?")
		at, _ := netip.ParseAddrPort(f.other)
		w.answer("what comes by that way", hears(other), "tunnel "+at.Addr().String())
		must(t, container.SetDeadline(time.Now().Add(patience/6)))
		w.answer("the container hears", hears(container), "nobody")
	}
}

// Nothing behind the link sends to a tunnel, the host's or another's, in one piece or in fragments, nor to a service that
// is kept from it, nor to a port that is the host's own.
func TestKept(t *testing.T) {
	w := newWorld(t)
	s := state()
	s.Tunnels = []uint16{4789}
	s.Kept = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.9:2379"), netip.MustParseAddrPort("[2001:db8::9]:2379")}
	s.Own = []uint16{2378}
	w.ensure(s)
	w.in(w.outside, func() {
		for _, at := range []string{":2379", ":2378"} {
			w.serve("tcp", at, "outside")
		}
		for _, at := range []string{":4789", ":4788"} {
			w.serve("udp", at, "outside")
		}
	})
	w.serve("udp", ":4789", "host")
	for _, at := range []string{":2378", ":2377"} {
		w.serve("tcp", at, "host")
	}
	w.in(w.inside, func() {
		w.run("ip link set gw mtu 1450") // as the other end has now
		for _, f := range []struct{ outside, host, seen, alias string }{{"192.0.2.9", "192.0.2.1", "192.0.2.1", "169.254.64.10"}, {"2001:db8::9", "2001:db8::1", "2001:db8::1", "fd74:656e:6574::10"}} {
			for _, size := range []int{1, 4000} {
				w.answer(fmt.Sprintf("%d bytes to another port", size), w.tell("udp", net.JoinHostPort(f.outside, "4788"), size), "outside "+f.seen)
				w.answer(fmt.Sprintf("%d bytes to a tunnel", size), w.tell("udp", net.JoinHostPort(f.outside, "4789"), size), "nobody")
				w.answer(fmt.Sprintf("%d bytes to the host's", size), w.tell("udp", net.JoinHostPort(f.host, "4789"), size), "nobody")
			}
			w.answer("another port", w.ask("tcp", "", net.JoinHostPort(f.outside, "2378")), "outside "+f.seen)
			w.answer("the host's own", w.ask("tcp", "", net.JoinHostPort(f.host, "2378")), "nobody")
			w.answer("another of the host's", w.ask("tcp", "", net.JoinHostPort(f.host, "2377")), "host "+f.alias)
			w.answer("a kept one", w.ask("tcp", "", net.JoinHostPort(f.outside, "2379")), "nobody")
		}
	})
	w.answer("the host itself", w.ask("tcp", "", "192.0.2.9:2379"), "outside 192.0.2.1")
}

// What is behind the link reaches the host's own services, but neither its
// loopback, which route_localnet opens, nor its transit address.
func TestLoopbackIsNotForContainers(t *testing.T) {
	w := newWorld(t)
	w.ensure(publishes("tcp", "", 8080, "169.254.64.10:80"))
	w.serve("udp", "127.0.0.1:53", "loopback")
	w.serve("udp", "169.254.64.1:54", "transit")
	w.serve("udp", "192.0.2.1:55", "host")
	w.in(w.inside, func() {
		w.run(`sysctl -qw net.ipv4.conf.gw.route_localnet=1
			ip route add table local local 169.254.64.10 dev lo || true
			ip route del table local 127.0.0.0/8
			ip route del table local 127.0.0.1
			ip route add 127.0.0.1/32 via 169.254.64.1 dev gw onlink src 169.254.64.10`)
		w.answer("loopback", w.ask("udp", "169.254.64.10", "127.0.0.1:53"), "nobody")
		w.answer("the transit address", w.ask("udp", "", "169.254.64.1:54"), "nobody")
		w.answer("the host", w.ask("udp", "", "192.0.2.1:55"), "host 169.254.64.10")
	})
	drops, err := Drops()
	must(t, err)
	if drops["guard"] != 1 || drops["input"] != 1 {
		t.Errorf("Drops says %v, want one of the guard and one of input", drops)
	}

	// Without its guard, input drops: others may translate to loopback.
	w.run("nft flush chain inet tenet guard")
	w.in(w.inside, func() {
		w.answer("loopback, unguarded", w.ask("udp", "169.254.64.10", "127.0.0.1:53"), "nobody")
	})
	if drops, err = Drops(); err != nil || drops["input"] != 2 {
		t.Errorf("Drops says %v (%v), want two of input", drops, err)
	}
}

// What is published on loopback is for the host alone. Who sends to loopback's
// address by a wire, be it a neighbour of the host or a container, does not
// reach what is published there. (A packet for ::1 the kernel itself drops
// before any table sees it.)
func TestPublishedOnLoopbackIsForTheHostAlone(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() {
		w.serve("tcp", "169.254.64.10:80", "one")
		w.serve("udp", "169.254.64.10:53", "one")
		w.run(`nft add table ip arrived
			nft add chain ip arrived prerouting '{ type filter hook prerouting priority raw; }'
			nft add rule ip arrived prerouting ip daddr 169.254.64.10 counter`)
	})
	s := state()
	s.Published = []Published{
		published("tcp", "127.0.0.1", 8081, "169.254.64.10:80"),
		published("udp", "127.0.0.1", 5353, "169.254.64.10:53"),
	}
	w.ensure(s)
	for _, from := range []struct{ who, ns, link, address, host string }{
		{"a neighbour", w.outside, "eth0", "192.0.2.9", "192.0.2.1"},
		{"a container", w.inside, "gw", "169.254.64.11", "169.254.64.1"},
	} {
		w.in(from.ns, func() {
			w.run(`ip route del table local 127.0.0.0/8
				ip route del table local 127.0.0.1
				ip route add 127.0.0.1/32 via ` + from.host + ` dev ` + from.link + ` onlink`)
			w.answer(from.who+", TCP", w.ask("tcp", from.address, "127.0.0.1:8081"), "nobody")
			w.answer(from.who+", UDP", w.ask("udp", from.address, "127.0.0.1:5353"), "nobody")
		})
		w.in(w.inside, func() {
			if got := w.run("nft list chain ip arrived prerouting"); !strings.Contains(got, "counter packets 0 ") {
				t.Errorf("what %s sends to loopback arrives at the container: %s", from.who, got)
			}
		})
	}
	if drops, err := Drops(); err != nil || drops["guard"] < 4 {
		t.Errorf("Drops says %v (%v), want four of the guard", drops, err)
	}
	w.answer("the host, TCP", w.ask("tcp", "", "127.0.0.1:8081"), "one 169.254.64.1")
	w.answer("the host, UDP", w.ask("udp", "", "127.0.0.1:5353"), "one 169.254.64.1")
}

// A container that knows no way back but to the host sees the host, whoever asks.
func TestMasked(t *testing.T) {
	w := newWorld(t)
	s := publishes("tcp", "", 8080, "169.254.64.10:80")
	s.Published = append(s.Published, published("tcp", "", 8080, "[fd74:656e:6574::10]:80"))
	s.Masked = []netip.Addr{netip.MustParseAddr("169.254.64.10"), netip.MustParseAddr("fd74:656e:6574::10")}
	w.ensure(s)
	w.in(w.inside, func() {
		w.serve("tcp", ":80", "one")
		w.run("ip route del default; ip route add 169.254.64.1 dev gw; ip -6 route del default; ip -6 route add fd74:656e:6574::1 dev gw")
	})
	w.in(w.outside, func() {
		w.answer("IPv4", w.ask("tcp", "", "192.0.2.1:8080"), "one 169.254.64.1")
		w.answer("IPv6", w.ask("tcp", "", "[2001:db8::1]:8080"), "one fd74:656e:6574::1")
	})
}

// A routed prefix is reached by its own addresses, and asks with them.
func TestRouted(t *testing.T) {
	w := newWorld(t)
	w.in(w.inside, func() { w.serve("tcp", ":80", "one") })
	w.in(w.outside, func() { w.serve("tcp", ":80", "outside") })
	s := state()
	s.Routes = []Route{{Prefix: netip.MustParsePrefix("10.7.0.0/24"), MTU: 1400}, {Prefix: netip.MustParsePrefix("10.7.1.0/24")}}
	s.Published = []Published{published("tcp", "", 8080, "10.7.0.5:80")}
	w.ensure(s)
	w.in(w.outside, func() {
		w.answer("routed", w.ask("tcp", "", "10.7.0.5:80"), "one 192.0.2.9")
		w.answer("published", w.ask("tcp", "", "192.0.2.1:8080"), "one 192.0.2.9")
	})
	w.in(w.inside, func() { w.answer("asking", w.ask("tcp", "10.7.0.5", "192.0.2.9:80"), "outside 10.7.0.5") })

	// A service of the host's, whose backend is the asker's neighbour: the
	// answer comes back by the host, which must translate it back.
	w.run(`nft add table ip service
		nft add chain ip service prerouting '{ type nat hook prerouting priority dstnat; }'
		nft add rule ip service prerouting ip daddr 10.96.0.1 dnat to 10.7.0.5`)
	w.in(w.inside, func() {
		w.run("ip addr add 10.7.0.6/32 dev gw")
		w.answer("a service", w.ask("tcp", "10.7.0.6", "10.96.0.1:80"), "one 169.254.64.1")
	})

	// Fewer routes: what is ours goes, what is not stays.
	w.run("ip route add 10.8.0.0/24 dev tenet-gw")
	s.Routes = s.Routes[:1]
	w.ensure(s)
	got := strings.Fields(w.run("ip route show root 10.0.0.0/8 | cut -d' ' -f1"))
	if want := []string{"10.7.0.0/24", "10.8.0.0/24"}; !slices.Equal(got, want) {
		t.Errorf("routes to %q, want %q", got, want)
	}
}
