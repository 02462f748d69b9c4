package test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// publishing is a world in which a and b, of overlapping tenants, publish the same port of theirs by TCP and UDP.
type publishing struct {
	outsideWorld

	ports map[*lab.Container]uint16
}

func newPublishing(t *testing.T, gateway string) publishing {
	t.Helper()
	h := lab.NewHost(t)
	p := publishing{outsideWorld: outsideWorld{Host: h, server: h.Outside("server", "ext0", "203.0.113")}}
	for _, to := range []netip.Addr{p.server.IP4, p.server.IP6} {
		h.Sh("ip", "route", "add", "default", "via", to.String())
	}
	blue, red := []string{web4, web6}, []string{web4, web6}
	if gateway == "routed" { // which cannot overlap
		red = []string{db4, db6}
	}
	p.a = h.Attach("a", lab.Published(h.Conf("blue", "web", blue...).With("gateway", gateway), lab.Port("tcp", 8080, 80), lab.Port("udp", 8080, 80)))
	p.b = h.Attach("b", lab.Published(h.Conf("red", "web", red...).With("gateway", gateway), lab.Port("tcp", 8081, 80), lab.Port("udp", 8081, 80)))
	p.ports = map[*lab.Container]uint16{p.a: 8080, p.b: 8081}
	p.a.Tell(80)
	p.b.Tell(80)
	return p
}

// The host's addresses, those of loopback last: only the host has them.
var hostAddrs = []string{"203.0.113.1", "2001:db8:113::1", "127.0.0.1", "127.0.0.53", "::1"}

const ofLoopback = 2

func TestPublishedPortsLeadToTheirContainer(t *testing.T) {
	for _, gateway := range []string{"none", "nat", "routed"} {
		t.Run(gateway, func(t *testing.T) {
			p := newPublishing(t, gateway)
			host := p.Itself()
			for c, port := range p.ports {
				for i, addr := range hostAddrs {
					to := netip.AddrPortFrom(netip.MustParseAddr(addr), port)
					for _, network := range []string{"tcp", "udp"} {
						asks(t, host, network, to, c)
						if i >= ofLoopback {
							continue
						}
						told := asks(t, p.server, network, to, c)
						if seen := told.Seen.Addr(); gateway != "none" && seen != p.server.IP4 && seen != p.server.IP6 {
							t.Errorf("%s sees the client as %s", c.ID, seen)
						}
						// From a container: to itself, and to the other tenant's.
						if gateway != "none" {
							asks(t, p.a, network, to, c)
							asks(t, p.b, network, to, c)
						}
					}
				}
				// Nobody asked for these.
				for _, from := range []*lab.Container{host, p.server} {
					_, err := from.Ask("tcp", netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), 80), 0, 16)
					if !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s asks a port of the host that nobody published: %v", from.ID, err)
					}
				}
			}
			large, err := p.server.Ask("udp", netip.AddrPortFrom(netip.MustParseAddr("203.0.113.1"), 8080), 0, 4000)
			if err != nil || large.Who != "a" {
				t.Errorf("in fragments: %v, %v", large, err)
			}
		})
	}
}

// asks fails the test unless c answers.
func asks(t *testing.T, from *lab.Container, network string, to netip.AddrPort, c *lab.Container) lab.Told {
	t.Helper()
	told, err := from.Ask(network, to, 0, 16)
	if err != nil || told.Who != c.ID {
		t.Errorf("%s asks %s by %s: %q, %v, want %s", from.ID, to, network, told.Who, err, c.ID)
	}
	return told
}

// A neighbour in the network is reached by the host's address as well.
func TestAPublishedPortIsReachedFromTheSameNetwork(t *testing.T) {
	for _, gateway := range []string{"nat", "routed"} {
		t.Run(gateway, func(t *testing.T) {
			p := newPublishing(t, gateway)
			peer := p.Attach("peer", p.Conf("blue", "web", web4, web6).With("gateway", gateway))
			for _, addr := range hostAddrs[:ofLoopback] {
				for _, network := range []string{"tcp", "udp"} {
					asks(t, peer, network, netip.AddrPortFrom(netip.MustParseAddr(addr), 8080), p.a)
				}
			}
		})
	}
}

func TestAPortIsPublishedAtOneAddressOfTheHost(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.Sh("ip", "address", "add", "203.0.113.2/24", "dev", "ext0")
	at := func(ip string) map[string]any {
		m := lab.Port("tcp", 8080, 80)
		m["hostIP"] = ip
		return m
	}
	conf := w.Conf("green", "web", web4, web6).With("gateway", "nat")
	var all []*lab.Container
	for _, ip := range []string{"203.0.113.1", "203.0.113.2", "127.0.0.1", "2001:db8:113::1", "::1"} {
		c := w.Attach("at"+strings.NewReplacer(".", "", ":", "").Replace(ip), lab.Published(conf, at(ip)))
		c.Tell(80)
		asks(t, w.Itself(), "tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), 8080), c)
		all = append(all, c)
	}
	for i, ip := range []string{"203.0.113.1", "203.0.113.2"} {
		asks(t, w.server, "tcp", netip.AddrPortFrom(netip.MustParseAddr(ip), 8080), all[i])
	}
	asks(t, w.server, "tcp", netip.MustParseAddrPort("[2001:db8:113::1]:8080"), all[3])
	c := w.Container("taken")
	c.Conf = lab.Published(conf, lab.Port("tcp", 8080, 80)) // all addresses
	before := w.Snapshot()
	lab.Fails(t, c.Do("ADD"), lab.CodeConflict, "8080", "/eth0 of network green/web")
	lab.Same(t, before, w.Snapshot())
}

func TestAPortThatIsTakenIsRefusedWithItsHolder(t *testing.T) {
	p := newPublishing(t, "nat")
	p.listens(t, "tcp4", "203.0.113.1:9000")
	p.listens(t, "tcp", ":9001")
	p.Itself().Tell(9002)
	for _, tc := range []struct {
		port  map[string]any
		words []string
	}{
		{lab.Port("tcp", 8080, 81), []string{"8080", "a/eth0", "blue/web"}},
		{lab.Port("udp", 8081, 81), []string{"8081", "b/eth0", "red/web"}},
		{lab.Port("tcp", 9000, 81), []string{"9000", "in use by", "test"}},
		{lab.Port("tcp", 9001, 81), []string{"9001", "in use by"}},
		{lab.Port("udp", 9002, 81), []string{"9002", "in use by"}},
	} {
		c := p.Container("late")
		c.Conf = lab.Published(p.Conf("green", "web", web4, web6).With("gateway", "nat"), tc.port)
		before := p.Snapshot()
		lab.Fails(t, c.Do("ADD"), lab.CodeConflict, tc.words...)
		lab.Same(t, before, p.Snapshot())
	}
	c := p.Attach("other", lab.Published(p.Conf("green", "web", web4, web6).With("gateway", "nat"), lab.Port("sctp", 8080, 80)))
	if rules := p.Sh("nft", "list", "table", "inet", "tenet"); strings.Count(rules, "sctp . 8080") != 2 { // a family each
		t.Errorf("SCTP is not led to the container:\n%s", rules)
	}
	c.Del()
}

// listens has somebody listen on the host.
func (p publishing) listens(t *testing.T, network, address string) {
	t.Helper()
	p.Itself().In(func() error {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), network, address)
		if err == nil {
			t.Cleanup(func() { _ = l.Close() })
		}
		return err
	})
}

// A published port goes with its container, whoever notices, and so does what is tracked of it.
func TestAPublishedPortGoesWithItsContainer(t *testing.T) {
	for _, how := range []struct {
		name string
		run  func(c *lab.Container)
	}{
		{"DEL", func(c *lab.Container) { c.Del() }},
		{"GC", func(c *lab.Container) {
			gc := *c
			gc.Conf = c.Conf.With("cni.dev/valid-attachments", []any{})
			lab.Must(t, gc.Do("GC").Failed())
		}},
	} {
		t.Run(how.name, func(t *testing.T) {
			p := newPublishing(t, "nat")
			to := netip.MustParseAddrPort("203.0.113.1:8080")
			asks(t, p.server, "udp", to, p.a)
			told, err := p.server.Ask("udp", to, 5555, 16)
			lab.Must(t, err)
			how.run(p.a)
			for _, from := range []*lab.Container{p.server, p.Itself()} {
				for _, network := range []string{"tcp", "udp"} {
					if _, err := from.Ask(network, to, 0, 16); !errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s asks by %s after %s: %v", from.ID, network, how.name, err)
					}
				}
			}
			if rules := p.Sh("nft", "list", "table", "inet", "tenet"); strings.Contains(rules, "8080") || !strings.Contains(rules, "8081") {
				t.Errorf("the rules:\n%s", rules)
			}
			// The same client, from the same port, comes to whoever has the port next, also if nobody had it before.
			never := netip.AddrPortFrom(to.Addr(), 8083)
			if _, err := p.server.Ask("udp", never, 5555, 16); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("nobody has published it: %v", err)
			}
			next := p.Attach("next", lab.Published(p.Conf("green", "web", web4, web6).With("gateway", "nat"), lab.Port("udp", 8080, 80), lab.Port("udp", 8083, 80)))
			next.Tell(80)
			if told, err := p.server.Ask("udp", never, 5555, 16); err != nil || told.Who != "next" {
				t.Errorf("published since: %v, %v", told, err)
			}
			again, err := p.server.Ask("udp", to, 5555, 16)
			if err != nil || again.Who != "next" || told.Who != "a" {
				t.Errorf("before %v, now %v, %v", told, again, err)
			}
		})
	}
}
