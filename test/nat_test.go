package test

import (
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// outsideWorld is a node with the world beyond it, and two tenants that overlap in everything, with the same way out.
type outsideWorld struct {
	*lab.Host

	server *lab.Container // an outside machine, which knows no tenant
	a, b   *lab.Container
}

func newOutsideWorld(t *testing.T, gateway string) outsideWorld {
	t.Helper()
	h := lab.NewHost(t)
	w := outsideWorld{Host: h, server: h.Outside("server", "ext0", "203.0.113")}
	h.Sh("ip", "route", "add", "default", "via", w.server.IP4.String())
	h.Sh("ip", "route", "add", "default", "via", w.server.IP6.String())
	const mac = "MAC=0a:aa:00:00:00:01"
	w.a = h.Attach("a", h.Conf("blue", "web", web4, web6).With("gateway", gateway), mac)
	w.b = h.Attach("b", h.Conf("red", "web", web4, web6).With("gateway", gateway), mac)
	if w.a.IP4 != w.b.IP4 || w.a.IP6 != w.b.IP6 || w.a.MAC != w.b.MAC {
		t.Fatalf("the tenants do not overlap: %v %v %v, %v %v %v", w.a.IP4, w.a.IP6, w.a.MAC, w.b.IP4, w.b.IP6, w.b.MAC)
	}
	return w
}

func TestTenantsThatOverlapReachTheSameServerAtOnce(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.server.Serve(80)
	for i, to := range []netip.Addr{w.server.IP4, w.server.IP6} {
		t.Run(to.String(), func(t *testing.T) {
			seen := map[string]string{}
			for _, c := range []*lab.Container{w.a, w.b} {
				conn, who, err := c.Dial(netip.AddrPortFrom(to, 80), uint16(5555+i))
				lab.Must(t, err)
				defer conn.Close() //nolint:errcheck // nothing to lose
				if who != "server" {
					t.Errorf("%s was answered by %q", c.ID, who)
				}
				seen[c.ID] = conn.LocalAddr().String()
				defer func() { // both are open now
					lab.Must(t, lab.Echoes(conn, 100_000))
				}()
			}
			if seen["a"] != seen["b"] {
				t.Errorf("the connections differ, which proves nothing: %v", seen)
			}
			w.a.Reaches(to)
			w.b.Reaches(to)
		})
	}
}

func TestTheHostReachesOverlappingEndpointsByTheirAliases(t *testing.T) {
	for _, gateway := range []string{"none", "nat"} {
		t.Run(gateway, func(t *testing.T) {
			w := newOutsideWorld(t, gateway)
			host := w.Itself()
			for _, c := range []*lab.Container{w.a, w.b} {
				c.Serve(7000)
				for _, a := range []netip.Addr{c.IP4, c.IP6} {
					alias := c.Alias(a)
					conn, who, err := host.Dial(netip.AddrPortFrom(alias, 7000), 0)
					lab.Must(t, err)
					if who != c.ID {
						t.Errorf("%s, the alias of %s, leads to %s", alias, c.ID, who)
					}
					lab.Must(t, lab.Echoes(conn, 100_000))
					lab.Must(t, conn.Close())
					host.Reaches(alias)
				}
			}
		})
	}
}
