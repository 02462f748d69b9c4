package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// routedWorld is a node with two tenants whose networks the host routes, and an outside machine that has routes to them.
type routedWorld struct {
	*lab.Host

	server, a, b *lab.Container
}

const (
	blue4, blue6 = "10.5.0.0/24", "fd00:5::/64"
	red4, red6   = "10.6.0.0/24", "fd00:6::/64"
)

func newRoutedWorld(t *testing.T) routedWorld {
	t.Helper()
	h := lab.NewHost(t)
	w := routedWorld{Host: h, server: h.Outside("server", "ext0", "203.0.113")} // its default routes lead to the host
	w.a = h.Attach("a", h.Conf("blue", "pub", blue4, blue6).With("gateway", "routed"))
	w.b = h.Attach("b", h.Conf("red", "pub", red4, red6).With("gateway", "routed"))
	return w
}

// As a kubelet probes, and as a container asks its node for something.
func TestTheHostAndTheOutsideReachARoutedContainerByItsOwnAddress(t *testing.T) {
	w := newRoutedWorld(t)
	host := w.Itself()
	host.Tell(7000)
	w.server.Tell(7000)
	for _, c := range []*lab.Container{w.a, w.b} {
		c.Tell(80)
		serveHTTP(t, c, 8080)
		for _, f := range []struct{ own, server, host netip.Addr }{
			{c.IP4, w.server.IP4, netip.MustParseAddr("203.0.113.1")},
			{c.IP6, w.server.IP6, netip.MustParseAddr("2001:db8:113::1")},
		} {
			gateway := f.own.Prev() // the subnet's first address, its endpoint's is the second
			if out, _ := lab.RunIn(t, c.Path, "ping", "-n", "-c1", "-W5", "-t1", f.server.String()); !strings.Contains(out, "From "+gateway.String()) {
				t.Errorf("%s: a TTL of 1 ends unheard: %s", c.ID, out)
			}

			host.Reaches(f.own)
			w.server.Reaches(f.own)
			c.Reaches(f.server)
			for _, network := range []string{"tcp", "udp"} {
				asks(t, host, network, netip.AddrPortFrom(f.own, 80), c)
				if told := asks(t, w.server, network, netip.AddrPortFrom(f.own, 80), c); told.Seen.Addr() != f.server {
					t.Errorf("%s sees the outside machine as %s", c.ID, told.Seen)
				}
				if told := asks(t, c, network, netip.AddrPortFrom(f.server, 7000), w.server); told.Seen.Addr() != f.own {
					t.Errorf("the outside machine sees %s as %s", c.ID, told.Seen)
				}
			}
			if told := asks(t, c, "tcp", netip.AddrPortFrom(f.host, 7000), host); told.Seen.Addr() != f.own {
				t.Errorf("the host sees %s as %s", c.ID, told.Seen)
			}
			url := fmt.Sprintf("http://%s/", netip.AddrPortFrom(f.own, 8080))
			if status, body, err := get(host, url); err != nil || status != http.StatusOK || body != c.ID {
				t.Errorf("%s answers %d %q, %v", url, status, body, err)
			}
		}
	}
	asks(t, w.a, "tcp", netip.AddrPortFrom(w.b.IP4, 80), w.b) // they lead outside, and outside is the other: the host is a router
}

// serveHTTP answers GET with the container's id.
func serveHTTP(t *testing.T, c *lab.Container, port uint16) {
	t.Helper()
	s := &http.Server{
		ReadHeaderTimeout: lab.Patience(),
		Handler:           http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(c.ID)) }),
	}
	t.Cleanup(func() { _ = s.Close() })
	l := c.Listen(port)
	go s.Serve(l)
}

func get(from *lab.Container, url string) (int, string, error) {
	client := http.Client{Timeout: lab.Stretch(5 * time.Second), Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			var conn net.Conn
			err := lab.Inside(from.Path, func() error {
				var err error
				conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return conn, err
		},
	}}
	answer, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body), err
}

func TestARoutedNetworkMustBeNobodyElses(t *testing.T) {
	w := newRoutedWorld(t)
	w.Sh("ip", "route", "add", "10.9.0.0/16", "via", w.server.IP4.String())
	w.Sh("ip", "route", "add", "fd00:9::/48", "via", w.server.IP6.String())
	for _, tc := range []struct {
		prefix string
		words  []string
	}{
		{blue4, []string{blue4, "blue/pub"}},
		{"10.5.0.128/25", []string{"10.5.0.128/25", "blue/pub"}},
		{red6, []string{red6, "red/pub"}},
		{"10.9.9.0/24", []string{"10.9.9.0/24", "overlaps a route of the host"}},
		{"10.0.0.0/8", []string{"10.0.0.0/8", "overlaps"}},
		{"fd00:9:0:1::/64", []string{"fd00:9:0:1::/64", "overlaps a route of the host"}},
		{"203.0.113.0/25", []string{"203.0.113.0/25", "overlaps a route of the host"}},
	} {
		c := w.Container("c")
		c.Conf = w.Conf("green", "pub", tc.prefix).With("gateway", "routed")
		before := w.Snapshot()
		lab.Fails(t, c.Do("ADD"), lab.CodeConflict, tc.words...)
		lab.Same(t, before, w.Snapshot())
	}
}

func TestTheRoutesOfANetworkGoWithItsLastEndpoint(t *testing.T) {
	w := newRoutedWorld(t)
	second := w.Attach("a2", w.a.Conf)
	routes := func() string {
		return w.Sh("ip", "-4", "route", "show", "dev", "tenet-gw") + w.Sh("ip", "-6", "route", "show", "dev", "tenet-gw")
	}
	for _, step := range []struct {
		del        *lab.Container
		blue, gone bool
	}{{w.a, true, false}, {second, false, false}} {
		step.del.Del()
		for _, prefix := range []string{blue4, blue6} {
			if strings.Contains(routes(), prefix) != step.blue {
				t.Errorf("after DEL of %s: %s in %s", step.del.ID, prefix, routes())
			}
		}
		for _, prefix := range []string{red4, red6} {
			if !strings.Contains(routes(), prefix) {
				t.Errorf("after DEL of %s the other tenant's %s is not routed: %s", step.del.ID, prefix, routes())
			}
		}
	}
	w.Itself().Reaches(w.b.IP4)
	w.a.Add()
	w.Itself().Reaches(w.a.IP4)
	w.Itself().Reaches(w.a.IP6)
}

// kube-proxy, with nftables, translates a service's address on the host, for what passes it and what it sends itself.
func TestAServiceAddressOfTheHostsFirewallLeadsToARoutedContainer(t *testing.T) {
	w := newRoutedWorld(t)
	peer := w.Attach("peer", w.a.Conf)
	w.a.Tell(8080)
	for _, f := range []struct{ family, service, own string }{{"ip", "10.96.0.1", w.a.IP4.String()}, {"ip6", "fd00:96::1", w.a.IP6.String()}} {
		w.Sh("nft", fmt.Sprintf(`table %[1]s services {
			chain service { %[1]s daddr %[2]s tcp dport 80 dnat to %[3]s:8080; %[1]s daddr %[2]s udp dport 80 dnat to %[3]s:8080; }
			chain prerouting { type nat hook prerouting priority dstnat; jump service; }
			chain output { type nat hook output priority -100; jump service; }
		}`, f.family, f.service, bracketed(f.own)))
		// A host has a route by which it finds out what its own packets come from: the default route.
		w.Sh("ip", "route", "add", f.service, "dev", "ext0")
		to := netip.AddrPortFrom(netip.MustParseAddr(f.service), 80)
		for _, from := range []*lab.Container{w.Itself(), w.server, peer, w.b, w.a} { // the last one: itself
			for _, network := range []string{"tcp", "udp"} {
				asks(t, from, network, to, w.a)
			}
		}
	}
}

func bracketed(a string) string {
	if strings.Contains(a, ":") {
		return "[" + a + "]"
	}
	return a
}
