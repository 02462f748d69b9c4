package test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// waysWorld is a node with everything that leads out of tenants and in: two that overlap and leave by NAT, one of them
// with a published port and an egress address, one that is routed.
type waysWorld struct {
	outsideWorld

	routed *lab.Container
}

const egress4 = "192.0.2.77"

func newWaysWorld(t *testing.T) waysWorld {
	t.Helper()
	w := waysWorld{outsideWorld: newOutsideWorld(t, "nat")}
	w.Sh("ip", "address", "add", egress4, "dev", "ext0")
	w.Attach("p", lab.Published(w.Conf("green", "web", web4, web6).With("gateway", "nat").With("egressAddress", egress4), lab.Port("tcp", 8080, 80), lab.Port("udp", 8080, 80))).Tell(80)
	w.routed = w.Attach("r", w.Conf("blue", "pub", blue4, blue6).With("gateway", "routed"))
	w.routed.Tell(80)
	w.a.Tell(80)
	w.b.Tell(80)
	w.server.Serve(80)
	w.server.Tell(7000)
	return w
}

// lead fails the test unless every way leads where it should.
func (w waysWorld) lead(t *testing.T) {
	t.Helper()
	host := w.Itself()
	for _, c := range []*lab.Container{w.a, w.b} {
		asks(t, c, "udp", netip.AddrPortFrom(w.server.IP4, 7000), w.server)
		asks(t, c, "tcp", netip.AddrPortFrom(w.server.IP6, 7000), w.server)
		asks(t, host, "tcp", netip.AddrPortFrom(c.Alias(c.IP4), 80), c)
		asks(t, host, "tcp", netip.AddrPortFrom(c.Alias(c.IP6), 80), c)
	}
	p := &lab.Container{ID: "p"}
	asks(t, w.server, "tcp", netip.MustParseAddrPort("203.0.113.1:8080"), p)
	asks(t, w.server, "udp", netip.MustParseAddrPort("[2001:db8:113::1]:8080"), p)
	asks(t, host, "tcp", netip.MustParseAddrPort("127.0.0.1:8080"), p)
	asks(t, host, "tcp", netip.AddrPortFrom(w.routed.IP4, 80), w.routed)
	asks(t, w.server, "tcp", netip.AddrPortFrom(w.routed.IP6, 80), w.routed)
}

func TestAllWaysInAndOutComeBack(t *testing.T) {
	w := newWaysWorld(t)
	w.lead(t)
	before := w.Snapshot()
	for _, loss := range []struct {
		what string
		lose func(t *testing.T)
		sync bool // a restart by the drop-in has done it already
	}{
		{"kill -9 of ovs-vswitchd", func(t *testing.T) { t.Helper(); restart(t, w.Host) }, false},
		{"nft flush ruleset", func(*testing.T) { w.Sh("nft", "flush", "ruleset") }, true},
		{"the flows deleted", func(*testing.T) { w.OFCtl("del-flows") }, true},
		{"the flows of another version", func(*testing.T) {
			w.OFCtl("del-flows", "table=253")
			w.OFCtl("del-flows", "table=3")
		}, true},
		{"the routes deleted", func(*testing.T) {
			w.Sh("ip", "route", "del", blue4)
			w.Sh("ip", "-6", "route", "del", blue6)
		}, true},
		{"the host's link down, its address gone", func(*testing.T) {
			w.Sh("ip", "link", "set", "tenet-gw", "down")
			w.Sh("ip", "address", "flush", "dev", "tenet-gw")
		}, true},
		{"the host does not forward", func(*testing.T) {
			w.Sh("sysctl", "-qw", "net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
		}, true},
		{"the host's link deleted from the bridge", func(*testing.T) { w.Sh("ovs-vsctl", "del-port", "tenet-gw") }, true},
	} {
		t.Run(loss.what, func(t *testing.T) {
			loss.lose(t)
			if loss.sync {
				if err := w.checks(); err == nil {
					t.Error("CHECK sees nothing")
				}
				w.For(t).Sync()
			}
			w.lead(t)
			lab.Must(t, w.checks())
			// The port of the host's link has a row of its own, and a new one if somebody deleted it.
			lab.Same(t, before.Without("row "), w.For(t).Snapshot().Without("row "))
			w.server.Reaches(w.routed.IP4)
		})
	}
}

// checks is CHECK of those with a way out.
func (w waysWorld) checks() error {
	for _, c := range []*lab.Container{w.a, w.routed} {
		if err := c.Do("CHECK").Failed(); err != nil {
			return err
		}
	}
	return nil
}

// What repairs the node does not end what goes through it.
func TestConnectionsOutliveSync(t *testing.T) {
	w := newWaysWorld(t)
	w.a.Serve(81)
	p := []struct {
		what string
		from *lab.Container
		to   netip.AddrPort
	}{
		{"by NAT", w.a, netip.AddrPortFrom(w.server.IP4, 80)},
		{"by NAT, of the other tenant", w.b, netip.AddrPortFrom(w.server.IP4, 80)},
		{"by NAT in IPv6", w.b, netip.AddrPortFrom(w.server.IP6, 80)},
		{"by an alias", w.Itself(), netip.AddrPortFrom(w.a.Alias(w.a.IP4), 81)},
		{"from a routed network", w.routed, netip.AddrPortFrom(w.server.IP6, 80)},
	}
	var open []net.Conn
	for _, c := range p {
		conn, _, err := c.from.Dial(c.to, 0)
		lab.Must(t, err)
		defer conn.Close()
		open = append(open, conn)
	}
	transit := w.transit("blue", "web")
	for _, drift := range []struct {
		what  string
		drift func()
	}{
		{"nothing", func() {}},
		{"flows", func() { w.OFCtl("del-flows", "table=70"); w.OFCtl("del-flows", "table=2") }},
		{"the flows of another version", func() { w.OFCtl("mod-flows", "table=253,actions=note:00") }},
		{"nft flush ruleset", func() { w.Sh("nft", "flush", "ruleset") }},
	} {
		// Without the rules the kernel translates nothing: an acknowledgement that is late would go out as it is.
		lab.Eventually(t, "all to be acknowledged", func() bool {
			for _, c := range []*lab.Container{w.server, w.a, w.b, w.routed, w.Itself()} {
				for line := range strings.Lines(c.Sh("ss", "-tnH")) {
					if strings.Fields(line)[2] != "0" { // Send-Q
						return false
					}
				}
			}
			return true
		})
		drift.drift()
		w.Sync()
		for i, c := range p {
			if err := lab.Echoes(open[i], 50_000); err != nil {
				t.Fatalf("a connection %s after a sync that repairs %s: %v", c.what, drift.what, err)
			}
		}
	}
	if now := w.transit("blue", "web"); now != transit {
		t.Errorf("the network was %s and is %s", transit.Addr4(), now.Addr4())
	}
}
