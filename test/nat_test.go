package test

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/gateway"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
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

// transit is what the host sees a network as.
func (w outsideWorld) transit(tenant, network string) vnet.Transit {
	var g store.Gateway
	w.Update(func(tx store.Tx) error {
		var err error
		g, err = store.NetworkGateway(tx, vnet.Ref{Tenant: vnet.TenantName(tenant), Network: vnet.NetworkName(network)})
		return err
	})
	return g.Transit
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
				defer conn.Close()
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

// The tenants' flows are the same to the last bit of their 5-tuples, and live at the same moment.
func TestTheSameDatagramsAndPingsOfTwoTenantsAreKeptApart(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.server.Tell(7000)
	w.server.Sh("ip", "link", "set", "eth0", "mtu", "1450") // in IPv6 the first answer that must be smaller is lost
	for _, to := range []netip.Addr{w.server.IP4, w.server.IP6} {
		at := netip.AddrPortFrom(to, 7000)
		for _, size := range []int{16, 4000} { // in one piece, and in fragments
			seen := map[string]netip.AddrPort{}
			for _, c := range []*lab.Container{w.a, w.b, w.a, w.b} {
				told, err := c.Ask("udp", at, 5555, size)
				if err != nil {
					t.Fatalf("%s asks %s with %d bytes: %v", c.ID, to, size, err)
				}
				if before, again := seen[c.ID]; again && before != told.Seen {
					t.Errorf("%s is %s and then %s", c.ID, before, told.Seen)
				}
				seen[c.ID] = told.Seen
			}
			if seen["a"] == seen["b"] {
				t.Errorf("%s sees both as %s", to, seen["a"])
			}
		}
		w.a.Reaches(to, "-e", "77")
		w.b.Reaches(to, "-e", "77")
		w.a.Reaches(to, "-e", "77")
	}
}

func TestErrorsOfTheOutsideComeBackToTheRightContainer(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	far := w.Beyond(w.server, "far", 1400)
	far.Serve(80)
	for i, c := range []*lab.Container{w.a, w.b} {
		for _, f := range []struct {
			server, far, other netip.Addr
			gateway, hop       string
		}{
			{w.server.IP4, far.IP4, netip.MustParseAddr("198.51.100.10"), "10.0.0.1", "203.0.113.9"},
			{w.server.IP6, far.IP6, netip.MustParseAddr("2001:db8:ff::10"), "fd00:1::1", "2001:db8:113::9"},
		} {
			other := []*lab.Container{w.b, w.a}[i]
			if _, err := c.Ask("udp", netip.AddrPortFrom(f.server, 7001), 5555, 16); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s asks a closed port of %s: %v", c.ID, f.server, err)
			}
			for ttl, who := range []string{f.gateway, f.hop} {
				out, _ := lab.RunIn(t, c.Path, "ping", "-n", "-c1", "-W5", "-t", strconv.Itoa(ttl+1), f.far.String())
				if !strings.Contains(out, "From "+who) || !strings.Contains(strings.ToLower(out), "exceeded") && !strings.Contains(out, "Hop limit") {
					t.Errorf("%s, %s with a TTL of %d: %s", c.ID, f.far, ttl+1, out)
				}
			}
			learns := []netip.Addr{f.far}
			// Open vSwitch's userspace conntrack writes what it takes for a UDP checksum over the MTU that an ICMPv6
			// error about UDP carries (lib/conntrack.c, un_nat_packet).
			if f.far.Is4() || w.Datapath == "system" {
				learns = append(learns, f.other)
				if got := c.PathMTU(f.other, 1450); got != 1400 {
					t.Errorf("%s takes the path to %s to carry %d bytes", c.ID, f.other, got)
				}
			}
			conn, who, err := c.Dial(netip.AddrPortFrom(f.far, 80), 0)
			lab.Must(t, err)
			if lab.Must(t, lab.Echoes(conn, 200_000)); who != "far" {
				t.Errorf("%s was answered by %s", c.ID, who)
			}
			lab.Must(t, conn.Close())
			for _, to := range learns {
				if out := c.Sh("ip", "route", "get", to.String()); !strings.Contains(out, "mtu 1400") {
					t.Errorf("%s has not learnt the path to %s: %s", c.ID, to, out)
				}
				if out := other.Sh("ip", "route", "get", to.String()); i == 0 && strings.Contains(out, "mtu 1400") {
					t.Errorf("%s has learnt what is %s's: %s", other.ID, c.ID, out)
				}
			}
		}
	}
}

func TestATenantLeavesWithItsEgressAddress(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.server.Tell(7000)
	for _, f := range []struct {
		name, own, host string
		server          netip.Addr
	}{{"v4", "192.0.2.77", "203.0.113.1", w.server.IP4}, {"v6", "2001:db8:77::77", "2001:db8:113::1", w.server.IP6}} {
		w.Sh("ip", "address", "add", f.own, "dev", "ext0") // alone: not what the host itself would take
		conf := w.Conf("green", f.name, web4, web6).With("gateway", "nat").With("egressAddress", f.own)
		c := w.Attach("c"+f.name, conf.With("tenant", "green"+f.name))
		for who, want := range map[*lab.Container]string{c: f.own, w.a: f.host} {
			for _, network := range []string{"tcp", "udp"} {
				told, err := who.Ask(network, netip.AddrPortFrom(f.server, 7000), 5555, 16)
				lab.Must(t, err)
				if told.Seen.Addr().String() != want {
					t.Errorf("%s by %s: the server sees %s, not %s", who.ID, network, told.Seen, want)
				}
			}
		}
	}
	d := w.Container("d")
	d.Conf = w.Conf("yellow", "web", web4).With("gateway", "nat").With("egressAddress", "203.0.113.78")
	before := w.Snapshot()
	lab.Fails(t, d.Do("ADD"), lab.CodeConf, "egressAddress 203.0.113.78", "not an address of this node")
	lab.Same(t, before, w.Snapshot())
}

// What a tenant may do outside is what any stranger may; the transit range and the host's loopback are not outside.
func TestATenantThatLeavesByNATComesNowhereElse(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	db := w.Attach("db", w.Conf("blue", "db", db4, db6))
	peer := w.Attach("peer", w.Conf("blue", "db", db4, db6))
	// Published ports make the host accept packets for its loopback that come in from elsewhere.
	w.Attach("p", lab.Published(w.Conf("green", "web", web4, web6).With("gateway", "nat"), lab.Port("tcp", 8080, 80)))
	host := w.Itself()
	host.Serve(8000)
	gate, at := w.On(vnet.GatewayLink).Capture(), db.Capture()
	for _, sent := range []struct {
		what, counts string
		to           []string
	}{
		{"the other tenant's alias", "host", []string{w.a.Alias(w.a.IP4).String(), w.a.Alias(w.a.IP6).String()}},
		{"its own alias", "host", []string{w.b.Alias(w.b.IP4).String(), w.b.Alias(w.b.IP6).String()}},
		{"the host's end of the link", "host", []string{vnet.HostTransit.Addr4().String(), vnet.HostTransit.Addr6().String()}},
		{"loopback", "unroutable", []string{"127.0.0.1", "127.8.0.1", "::1"}},
		{"nowhere", "unroutable", []string{"0.0.0.0", "::", "255.255.255.255", "fe80::1", "ff02::1", "224.0.0.1"}},
	} {
		f := crafted{w.b, lab.Token(sent.what)}
		before, n := w.Drops(), 0
		for _, to := range sent.to {
			w.b.Send(f.udp(to, 8080), f.syn(to))
			n += 2
		}
		w.Counts(t, before, sent.counts, uint64(n))
		if gate.Count(f.token) > 0 {
			t.Errorf("to %s: it comes out to the host", sent.what)
		}
	}

	f := crafted{w.b, lab.Token("trespass")}
	outside := w.server.Capture()
	w.b.Send(f.udp(db.IP4.String(), 9), f.udp(db.IP6.String(), 9)) // red has no such network: it is just somewhere outside
	lab.Eventually(t, "both to come out", func() bool { return gate.Count(f.token) == 2 && outside.Count(f.token) == 2 })
	lab.Settled(t, peer, db, at)
	if at.Count(f.token) > 0 {
		t.Error("another tenant's container gets it")
	}
	for _, to := range []string{"203.0.113.1", "2001:db8:113::1"} {
		if _, who, err := w.b.Dial(netip.AddrPortFrom(netip.MustParseAddr(to), 8000), 0); err != nil || who != "host" {
			t.Errorf("a service of the host at %s: %q, %v", to, who, err)
		}
	}
}

func TestNobodyOutsideOpensAConnectionToATenant(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.Sh("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.ext0.rp_filter=0") // the worst host: nothing else helps
	at := []*lab.Capture{w.a.Capture(), w.b.Capture()}
	gate := w.On("ext0").Capture()
	own, mac := w.server.LinkMAC(), w.On("ext0").LinkMAC()
	token := lab.Token("intruder")
	host4, host6 := vnet.HostTransit.Addr4(), vnet.HostTransit.Addr6()
	var to4, to6 []netip.Addr
	for n := vnet.FirstTransit; n < vnet.FirstTransit+6; n++ { // the two networks' and the two endpoints', and some
		to4, to6 = append(to4, n.Addr4()), append(to6, n.Addr6())
	}
	sent := 0
	for i := range to4 {
		for _, src := range []netip.Addr{w.server.IP4, host4, to4[0]} {
			w.server.Send(lab.UDP4(lab.Eth(own, mac.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(src, to4[i]), token))
		}
		for _, src := range []netip.Addr{w.server.IP6, host6, to6[0]} {
			w.server.Send(lab.UDP6(lab.Eth(own, mac.HardwareAddr(), layers.EthernetTypeIPv6), lab.IP6(src, to6[i], layers.IPProtocolUDP, 64), token))
		}
		sent += 6
	}
	w.server.Send(
		lab.UDP4(lab.Eth(own, mac.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(w.server.IP4, w.a.IP4), token),
		lab.UDP4(lab.Eth(own, mac.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(host4, netip.MustParseAddr("203.0.113.1")), token))
	sent += 2
	lab.Eventually(t, "all to arrive at the host", func() bool { return gate.Count(token) == sent })

	lab.Must(t, lab.Inside(w.NetNS, func() error {
		drops, err := gateway.Drops()
		if want := uint64(sent - 1); drops["guard"] != want { // all but that to the container's own address
			t.Errorf("the host's guard drops %d, want %d", drops["guard"], want)
		}
		return err
	}))

	before := w.Drops()
	network := w.transit("blue", "web")
	w.Itself().SendUDP(netip.AddrPortFrom(network.Addr4(), 9), token) // the host may not either, but for aliases
	w.Itself().SendUDP(netip.AddrPortFrom(network.Addr6(), 9), token)
	w.Counts(t, before, "unsolicited", 2)
	for i, c := range []*lab.Container{w.a, w.b} {
		c.Reaches(w.server.IP4) // what came before it has come
		if n := at[i].Count(token); n > 0 {
			t.Errorf("%s gets %d of them", c.ID, n)
		}
	}
}

// A connection dies with its container: what comes for it does not reach the next that has the address.
func TestTheNextContainerWithAnAddressGetsNothingOfTheLast(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	for _, server := range []netip.Addr{w.server.IP4, w.server.IP6} {
		var s net.PacketConn
		w.server.In(func() error {
			var err error
			s, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", netip.AddrPortFrom(server, 7000).String())
			return err
		})
		defer s.Close()
		lab.Must(t, s.SetDeadline(time.Now().Add(lab.Patience())))
		w.a.SendUDP(netip.AddrPortFrom(server, 7000), "hello")
		b := make([]byte, 100)
		_, back, err := s.ReadFrom(b)
		lab.Must(t, err)
		at, token := w.a.Capture(), lab.Token("for the first")
		_, err = s.WriteTo([]byte(token), back)
		lab.Must(t, err)
		at.Await(token)

		w.a.Reaches(server)
		w.a.Del()
		for tracked := range strings.SplitSeq(w.Sh("ovs-appctl", "dpctl/dump-conntrack"), "\n") {
			if strings.HasPrefix(tracked, "icmpv6") { // see pkg/node/connections.go
				continue
			}
			if strings.Contains(tracked, w.a.IP4.String()+",") || strings.Contains(tracked, w.a.IP6.String()+",") {
				t.Errorf("the switch remembers %s", tracked)
			}
		}
		w.a.Args = strings.Join([]string{"MAC=" + w.a.MAC.String(), "IP=" + w.a.IP4.String() + "," + w.a.IP6.String()}, ";")
		w.a.Add()
		at, token = w.a.Capture(), lab.Token("for the second")
		_, err = s.WriteTo([]byte(token), back)
		lab.Must(t, err)
		w.a.Reaches(server)
		if at.Count(token) > 0 {
			t.Error("it gets what was for the first")
		}
	}
}
