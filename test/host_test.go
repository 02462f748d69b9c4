package test

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

func TestTheHostReachesOverlappingEndpointsByTheirAliases(t *testing.T) {
	for _, gateway := range []string{"none", "nat"} {
		t.Run(gateway, func(t *testing.T) {
			w := newOutsideWorld(t, gateway)
			w.a.Tell(7000)
			w.b.Tell(7000)
			for family := range 2 {
				var open []net.Conn // to both, at once
				for _, c := range []*lab.Container{w.a, w.b} {
					a, gw := c.IP4, "10.0.0.1"
					if family == 1 {
						a, gw = c.IP6, "fd00:1::1"
					}
					open = append(open, reachedByAlias(t, w.Itself(), c, a, gw))
				}
				if tracked := w.Sh("ovs-appctl", "dpctl/dump-conntrack"); !strings.Contains(tracked, "zone=30000") {
					t.Errorf("the host's own zone is empty, what is below proves nothing:\n%s", tracked)
				}
				for _, conn := range open {
					lab.Must(t, lab.Echoes(conn, 100_000))
					lab.Must(t, conn.Close())
				}
			}
			w.a.Del()
			w.b.Del()
			for tracked := range strings.Lines(w.Sh("ovs-appctl", "dpctl/dump-conntrack")) {
				if !strings.HasPrefix(tracked, "icmpv6") { // see pkg/node/connections.go
					t.Errorf("the switch remembers who is gone: %s", tracked)
				}
			}
		})
	}
}

// reachedByAlias does all that a host may want of a container, which runs Tell on port 7000 and sees the host as gw, and
// returns a connection.
func reachedByAlias(t *testing.T, host, c *lab.Container, a netip.Addr, gw string) net.Conn {
	t.Helper()
	alias := c.Alias(a)
	host.Reaches(alias)
	host.Reaches(alias, "-s", "4000")
	for _, network := range []string{"tcp", "udp"} {
		if told := asks(t, host, network, netip.AddrPortFrom(alias, 7000), c); told.Seen.Addr().String() != gw {
			t.Errorf("%s of %s by %s: it sees %s", network, c.ID, alias, told.Seen)
		}
		if _, err := host.Ask(network, netip.AddrPortFrom(alias, 7001), 0, 16); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed %s port of %s by %s: %v", network, c.ID, alias, err)
		}
	}
	// From the same port to every container, which for two tenants is the same flow to the last bit.
	if told, err := host.Ask("udp", netip.AddrPortFrom(alias, 7000), 5556, 16); err != nil || told.Who != c.ID || told.Seen.Port() != 5556 {
		t.Errorf("%s by %s: %v, %v", c.ID, alias, told, err)
	}
	port := uint16(7100)
	if a.Is6() {
		port++
	}
	c.Serve(port)
	conn, who, err := host.Dial(netip.AddrPortFrom(alias, port), 0)
	lab.Must(t, err)
	if who != c.ID {
		t.Errorf("%s, the alias of %s, leads to %s", alias, c.ID, who)
	}
	return conn
}

// Whatever a network is like, the host reaches what is in it: probes do not care about gateways.
func TestTheHostReachesEndpointsOfEveryKindOfNetwork(t *testing.T) {
	h := lab.NewHost(t)
	for _, n := range []struct {
		name, gw4, gw6 string
		conf           lab.Conf
	}{
		{"routed", "10.5.0.1", "fd00:5::1", h.Conf("blue", "routed", "10.5.0.0/24", "fd00:5::/64").With("gateway", "routed")},
		{"v6only", "", "fd00:6::1", h.Conf("blue", "v6only", "fd00:6::/64")},
		{"v6nat", "", "fd00:6::1", h.Conf("red", "v6nat", "fd00:6::/64").With("gateway", "nat")},
		{"v4only", "10.7.0.1", "", h.Conf("blue", "v4only", "10.7.0.0/24")},
		{"bare", "169.254.64.1", "fd74:656e:6574::1", h.Conf("blue", "bare", "10.8.0.0/31", "fd00:8::/127")},
		{"barered", "169.254.64.1", "fd74:656e:6574::1", h.Conf("red", "bare", "10.8.0.0/31", "fd00:8::/127")},
	} {
		t.Run(n.name, func(t *testing.T) {
			h := h.For(t)
			c := h.Attach(n.name, n.conf)
			c.Tell(7000)
			if c.IP4.IsValid() {
				lab.Must(t, lab.Echoes(reachedByAlias(t, h.Itself(), c, c.IP4, n.gw4), 100_000))
			}
			if c.IP6.IsValid() {
				lab.Must(t, lab.Echoes(reachedByAlias(t, h.Itself(), c, c.IP6, n.gw6), 100_000))
			}
		})
	}
}

// Aliases are the host's alone, also where the host is told to route them, and whoever poses as the host.
func TestAliasesAreForTheHostAlone(t *testing.T) {
	w := newOutsideWorld(t, "none")
	routed := w.Attach("r", w.Conf("green", "routed", "10.5.0.0/24", "fd00:5::/64").With("gateway", "routed"))
	nat := w.Attach("n", lab.Published(w.Conf("green", "nat", "10.6.0.0/24", "fd00:6::/64").With("gateway", "nat"), lab.Port("tcp", 8080, 80)))
	w.Sh("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.ext0.rp_filter=0")
	all := []*lab.Container{w.a, w.b, routed, nat}
	var at []*lab.Capture
	token := lab.Token("stranger")
	var alien [][]byte // from the outside machine
	own, mac := w.server.LinkMAC(), w.On("ext0").LinkMAC().HardwareAddr()
	for _, c := range all {
		at = append(at, c.Capture())
		alias4, alias6 := c.Alias(c.IP4), c.Alias(c.IP6)
		for _, src := range []netip.Addr{w.server.IP4, vnet.HostTransit.Addr4(), vnet.PeerTransit.Addr4(), w.a.Alias(w.a.IP4), netip.MustParseAddr("127.0.0.1")} {
			alien = append(alien, lab.UDP4(lab.Eth(own, mac, layers.EthernetTypeIPv4), lab.IP4(src, alias4), token))
		}
		for _, src := range []netip.Addr{w.server.IP6, vnet.HostTransit.Addr6(), vnet.PeerTransit.Addr6(), w.a.Alias(w.a.IP6), netip.MustParseAddr("::1")} {
			alien = append(alien, lab.UDP6(lab.Eth(own, mac, layers.EthernetTypeIPv6), lab.IP6(src, alias6, layers.IPProtocolUDP, 64), token))
		}
	}
	arrived := w.On("ext0").Capture()
	w.server.Send(alien...)
	lab.Eventually(t, "all to arrive at the host", func() bool { return arrived.Count(token) == len(alien) })
	for _, c := range []*lab.Container{routed, nat} { // endpoints that may leave
		for _, to := range all {
			f := crafted{c, token}
			before := w.Drops()
			c.Send(f.udp(to.Alias(to.IP4).String(), 9), f.udp(to.Alias(to.IP6).String(), 9), f.syn(to.Alias(to.IP4).String()), f.syn(to.Alias(to.IP6).String()))
			w.Counts(t, before, "host", 4)
		}
	}
	for i, c := range all {
		w.Itself().Reaches(c.Alias(c.IP4)) // what came before it has come
		w.Itself().Reaches(c.Alias(c.IP6))
		if n := at[i].Count(token); n > 0 {
			t.Errorf("%s gets %d of them", c.ID, n)
		}
	}
	rules := w.Sh("nft", "list", "table", "inet", "tenet")
	if !strings.Contains(rules, "guard") {
		t.Errorf("no guard stands:\n%s", rules)
	}
}
