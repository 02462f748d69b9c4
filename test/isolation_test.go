package test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// twins are two tenants that have everything in common: prefixes, addresses, MACs.
type twins struct{ a1, a2, b1, b2 *lab.Container }

func newTwins(t *testing.T, h *lab.Host, multicast bool) twins {
	t.Helper()
	const mac1, mac2 = "MAC=0a:aa:00:00:00:01", "MAC=0a:aa:00:00:00:02"
	blue, red := declared(t, h, "blue", multicast), declared(t, h, "red", multicast)
	w := twins{h.Attach("a1", blue, mac1), h.Attach("a2", blue, mac2), h.Attach("b1", red, mac1), h.Attach("b2", red, mac2)}
	if w.a1.MAC != w.b1.MAC || w.a1.IP4 != w.b1.IP4 || w.a2.MAC != w.b2.MAC || w.a2.IP6 != w.b2.IP6 {
		t.Fatalf("the tenants do not overlap: %v %v, %v %v", w.a1.MAC, w.a1.IP4, w.b1.MAC, w.b1.IP4)
	}
	return w
}

// declared declares the network web as an operator does, and returns a configuration that names it.
func declared(t *testing.T, h *lab.Host, tenant string, multicast bool) lab.Conf {
	t.Helper()
	_, err := h.Tenetctl("network", "add", tenant+"/web", "--subnet="+web4, "--subnet="+web6, fmt.Sprintf("--multicast=%v", multicast))
	lab.Must(t, err)
	return h.Conf(tenant, "web")
}

func TestIsolationOfTenantsThatOverlapInEverything(t *testing.T) {
	for _, tc := range []struct {
		name      string
		multicast bool
	}{{"multicast off", false}, {"multicast on", true}} {
		t.Run(tc.name, func(t *testing.T) {
			w := newTwins(t, lab.NewHost(t), tc.multicast)
			flooded := 0
			if tc.multicast {
				flooded = 1
			}
			own, strangers := w.b2.Capture(), []*lab.Capture{w.a1.Capture(), w.a2.Capture(), w.b1.Capture()}
			mac2, ip4, ip6 := w.b2.MAC.HardwareAddr(), w.b2.IP4, w.b2.IP6
			v4 := func(dst net.HardwareAddr, to netip.Addr) func(string) []byte {
				return func(token string) []byte {
					return lab.UDP4(lab.Eth(w.b1.MAC, dst, layers.EthernetTypeIPv4), lab.IP4(w.b1.IP4, to), token)
				}
			}
			v6 := func(dst net.HardwareAddr, to netip.Addr) func(string) []byte {
				return func(token string) []byte {
					return lab.UDP6(lab.Eth(w.b1.MAC, dst, layers.EthernetTypeIPv6), lab.IP6(w.b1.IP6, to, layers.IPProtocolUDP, 64), token)
				}
			}
			group, groupMAC := lab.SolicitedNode(ip6)
			for _, sent := range []struct {
				what  string
				frame func(token string) []byte
				want  int // times that its own tenant's b2 gets it
			}{
				{"unicast", v4(mac2, ip4), 1},
				{"IPv6 unicast", v6(mac2, ip6), 1},
				{"broadcast", v4(lab.Broadcast, netip.MustParseAddr("255.255.255.255")), flooded},
				{"multicast", v4(net.HardwareAddr{1, 0, 0x5e, 1, 2, 3}, netip.MustParseAddr("239.1.2.3")), flooded},
				{"IPv6 multicast", v6(net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, netip.MustParseAddr("ff02::1")), flooded},
				{"unknown unicast", v4(net.HardwareAddr{0x0a, 0xaa, 0, 0, 0, 0x77}, netip.MustParseAddr("10.0.0.77")), 0},
				{"ARP", func(token string) []byte {
					return lab.ARP(lab.Eth(w.b1.MAC, lab.Broadcast, layers.EthernetTypeARP), 1, w.b1.MAC, w.b1.IP4, ip4, token)
				}, 1},
				{"ND", func(token string) []byte {
					return lab.ICMPv6(lab.Eth(w.b1.MAC, groupMAC, layers.EthernetTypeIPv6), lab.IP6(w.b1.IP6, group, layers.IPProtocolICMPv6, 255),
						layers.ICMPv6TypeNeighborSolicitation, lab.Neighbour(0, ip6, 1, w.b1.MAC, token))
				}, 1},
			} {
				token := lab.Token(sent.what)
				w.b1.Send(sent.frame(token))
				// Two honest datagrams: when they are there, so is whatever came before them.
				lab.Settled(t, w.b1, w.b2, own)
				lab.Settled(t, w.a1, w.a2, strangers[1])
				lab.Settled(t, w.a2, w.a1, strangers[0])
				lab.Settled(t, w.b2, w.b1, strangers[2])
				if got := own.Count(token); got != sent.want {
					t.Errorf("%s: the tenant's own container gets it %d times, want %d", sent.what, got, sent.want)
				}
				for i, who := range []string{"the other tenant's a1", "the other tenant's a2", "the sender"} {
					if got := strangers[i].Count(token); got > 0 {
						t.Errorf("%s: %s gets it %d times", sent.what, who, got)
					}
				}
			}
		})
	}
}

func TestIsolationOfTheSameConnectionInTwoTenants(t *testing.T) {
	w := newTwins(t, lab.NewHost(t), false)
	w.a2.Serve(7000)
	w.b2.Serve(7000)
	var both sync.WaitGroup
	for _, pair := range []struct{ from, to *lab.Container }{{w.a1, w.a2}, {w.b1, w.b2}} {
		for i, to := range []netip.Addr{pair.to.IP4, pair.to.IP6} {
			conn, id, err := pair.from.Dial(netip.AddrPortFrom(to, 7000), 4321+uint16(i))
			lab.Must(t, err)
			defer conn.Close()
			if id != pair.to.ID {
				t.Errorf("%s asks %s and %s answers", pair.from.ID, to, id)
			}
			both.Go(func() {
				if err := lab.Echoes(conn, 100_000); err != nil {
					t.Errorf("%s to %s: %v", pair.from.ID, to, err)
				}
			})
		}
	}
	both.Wait()
}

func TestIsolationLetsTheNetworksOfATenantReachEachOther(t *testing.T) {
	h := lab.NewHost(t)
	web, db := h.Attach("web", h.Conf("blue", "web", web4, web6)), h.Attach("db", h.Conf("blue", "db", db4, db6))
	at := db.Capture()
	for _, to := range []netip.Addr{db.IP4, db.IP6} {
		if out := web.Sh("ping", "-n", "-c1", to.String()); !strings.Contains(out, "ttl=63") {
			t.Errorf("the answer of %s was not routed once:\n%s", to, out)
		}
	}
	token := lab.Token("routed")
	web.Send(lab.UDP4(lab.Eth(web.MAC, lab.Router, layers.EthernetTypeIPv4), lab.IP4(web.IP4, db.IP4), token))
	at.Await(token)
	p := gopacket.NewPacket(at.Frames(lab.With(token))[0], layers.LayerTypeEthernet, gopacket.Default)
	eth, _ := p.LinkLayer().(*layers.Ethernet)
	ip, _ := p.NetworkLayer().(*layers.IPv4)
	if eth.SrcMAC.String() != vnet.RouterMAC.String() || eth.DstMAC.String() != db.MAC.String() || ip.TTL != 63 {
		t.Errorf("it arrives from %s to %s with TTL %d", eth.SrcMAC, eth.DstMAC, ip.TTL)
	}

	before := h.Drops()
	last4, last6 := lab.IP4(web.IP4, db.IP4), lab.IP6(web.IP6, db.IP6, layers.IPProtocolUDP, 1)
	last4.TTL = 1
	token = lab.Token("expired")
	web.Send(lab.UDP4(lab.Eth(web.MAC, lab.Router, layers.EthernetTypeIPv4), last4, token),
		lab.UDP6(lab.Eth(web.MAC, lab.Router, layers.EthernetTypeIPv6), last6, token))
	h.Counts(t, before, "ttl-expired", 2)
	if at.Count(token) > 0 {
		t.Error("a packet with TTL 1 was routed")
	}
}

func TestIsolationHoldsForWhatIsRouted(t *testing.T) {
	h := lab.NewHost(t)
	stranger, db := h.Attach("stranger", h.Conf("red", "web", web4, web6)), h.Attach("db", h.Conf("blue", "db", db4, db6))
	peer := h.Attach("peer", h.Conf("blue", "db", db4, db6))
	at := db.Capture()
	before := h.Drops()
	token := lab.Token("trespass")
	stranger.Send(
		lab.UDP4(lab.Eth(stranger.MAC, lab.Router, layers.EthernetTypeIPv4), lab.IP4(stranger.IP4, db.IP4), token),
		lab.UDP6(lab.Eth(stranger.MAC, lab.Router, layers.EthernetTypeIPv6), lab.IP6(stranger.IP6, db.IP6, layers.IPProtocolUDP, 64), token))
	h.Counts(t, before, "unroutable", 2)
	before = h.Drops()
	stranger.Send(lab.UDP(stranger, db, token)) // straight to its MAC
	h.Counts(t, before, "unknown-mac", 1)
	lab.Settled(t, peer, db, at)
	if at.Count(token) > 0 {
		t.Error("it arrives all the same")
	}
}
