package test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// trio are three containers of one network: one asks, one owns what is asked for, one must not hear of it.
func trio(t *testing.T) (*lab.Container, *lab.Container, *lab.Container) {
	t.Helper()
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	return h.Attach("asker", conf), h.Attach("owner", conf), h.Attach("bystander", conf)
}

func TestNeighbourQuestionsGoToTheOwnerAlone(t *testing.T) {
	asker, owner, bystander := trio(t)
	at, nobody := owner.Capture(), bystander.Capture()
	group, groupMAC := lab.SolicitedNode(owner.IP6)
	questions := map[string]func(string) []byte{
		"ARP": func(token string) []byte {
			return lab.ARP(lab.Eth(asker.MAC, lab.Broadcast, layers.EthernetTypeARP), 1, asker.MAC, asker.IP4, owner.IP4, token)
		},
		"ND": func(token string) []byte {
			return lab.ICMPv6(lab.Eth(asker.MAC, groupMAC, layers.EthernetTypeIPv6), lab.IP6(asker.IP6, group, layers.IPProtocolICMPv6, 255),
				layers.ICMPv6TypeNeighborSolicitation, lab.Neighbour(0, owner.IP6, 1, asker.MAC, token))
		},
	}
	for what, question := range questions {
		token := lab.Token(what)
		asker.Send(question(token))
		at.Await(token)
		if got := vnet.MAC(at.Frames(lab.With(token))[0][:6]); got != owner.MAC {
			t.Errorf("%s: it arrives addressed to %s, not to the owner's MAC", what, got)
		}
		lab.Settled(t, asker, bystander, nobody)
		if n := nobody.Count(token); n > 0 || at.Count(token) > 1 {
			t.Errorf("%s: the bystander hears it %d times, the owner %d times", what, n, at.Count(token))
		}
	}
}

func TestNeighbourQuestionsForNobodyAreCountedAndNotFlooded(t *testing.T) {
	asker, owner, _ := trio(t)
	at := owner.Capture()
	lab.Settled(t, asker, owner, at)
	group, groupMAC := lab.SolicitedNode(someIP6)
	before, token := asker.Drops(), lab.Token("nobody")
	asker.Send(lab.ARP(lab.Eth(asker.MAC, lab.Broadcast, layers.EthernetTypeARP), 1, asker.MAC, asker.IP4, someIP4, token),
		lab.ICMPv6(lab.Eth(asker.MAC, groupMAC, layers.EthernetTypeIPv6), lab.IP6(asker.IP6, group, layers.IPProtocolICMPv6, 255),
			layers.ICMPv6TypeNeighborSolicitation, lab.Neighbour(0, someIP6, 1, asker.MAC, token)))
	asker.Counts(t, before, "unknown-neighbour", 2)
	lab.Settled(t, asker, owner, at)
	if at.Count(token) > 0 {
		t.Error("it was flooded")
	}
}

func TestNeighbourGatewayAnswers(t *testing.T) {
	h := lab.NewHost(t)
	a, b := h.Attach("a", h.Conf("blue", "web", web4, web6)), h.Attach("b", h.Conf("blue", "db", db4, db6))
	for _, gateway := range []netip.Addr{router4, router6, netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("fd00:2::1")} {
		a.Reaches(gateway) // its own and the one of the tenant's other network
	}
	if got := a.Sh("ip", "neigh", "show", "to", router4.String(), "dev", "eth0"); !strings.Contains(got, vnet.RouterMAC.String()) {
		t.Errorf("the gateway's neighbour entry is %s", got)
	}
	_ = b
}

// One-way traffic makes a kernel probe its neighbour; the gateway must be found alive without ever sending anything
// but its answer.
func TestNeighbourGatewayStaysReachableUnderOneWayTraffic(t *testing.T) {
	h := lab.NewHost(t)
	a, b := h.Attach("a", h.Conf("blue", "web", web4, web6)), h.Attach("b", h.Conf("blue", "db", db4, db6))
	at := b.Capture()
	for _, w := range []struct {
		to, gateway netip.Addr
		network     string
	}{{b.IP4, router4, "udp4"}, {b.IP6, router6, "udp6"}} {
		family := "ipv" + w.network[3:]
		// A kernel takes a probe's answer for granted for 15 to 45 s; let it ask at once.
		for _, key := range []string{"delay_first_probe_time=1", "base_reachable_time_ms=500", "retrans_time_ms=1000"} {
			a.Sh("sysctl", "-qw", "net."+family+".neigh.eth0."+key)
		}
		a.Sh("ip", "neigh", "flush", "dev", "eth0")
		var states []string
		lab.Eventually(t, "the neighbour entry of "+w.gateway.String()+" to be probed and found alive", func() bool {
			token := lab.Token(w.network)
			a.SendUDP(netip.AddrPortFrom(w.to, 9), token)
			at.Await(token)
			f := strings.Fields(a.Sh("ip", "neigh", "show", "to", w.gateway.String(), "dev", "eth0"))
			if state := f[len(f)-1]; len(states) == 0 || states[len(states)-1] != state {
				states = append(states, state)
			}
			return strings.HasSuffix(strings.Join(states, " "), "DELAY PROBE REACHABLE") || strings.HasSuffix(strings.Join(states, " "), "DELAY REACHABLE")
		})
		for _, s := range states {
			if s == "FAILED" {
				t.Errorf("%s: %v", w.gateway, states)
			}
		}
	}
}

func TestNeighbourDetectionFindsNoDuplicateOfItself(t *testing.T) {
	asker, _, _ := trio(t)
	own := asker.IP6.String() + "/64"
	asker.Sh("sysctl", "-qw", "net.ipv6.conf.eth0.accept_dad=1", "net.ipv6.conf.eth0.dad_transmits=1")
	asker.Sh("ip", "addr", "del", own, "dev", "eth0")
	before := asker.Drops()
	asker.Sh("ip", "addr", "add", own, "dev", "eth0") // without nodad: the kernel asks whether somebody has it
	lab.Eventually(t, "duplicate address detection to end", func() bool {
		return !strings.Contains(asker.Sh("ip", "addr", "show", "dev", "eth0", "tentative"), own)
	})
	if got := asker.Sh("ip", "addr", "show", "dev", "eth0", "dadfailed"); got != "" {
		t.Errorf("a duplicate was found: %s", got)
	}
	if now := asker.Drops(); now["self-probe"] == before["self-probe"] {
		t.Error("the kernel did not ask: this test proves nothing")
	}
}

func TestNeighboursReachEachOtherByEveryAddressAndSize(t *testing.T) {
	a, b, _ := trio(t)
	b.Serve(7000)
	a.Reaches(b.IP4)
	a.Reaches(b.IP6)
	a.Reaches(b.MAC.LinkLocal().WithZone("eth0"))
	mtu := a.Result.Interfaces[1].Mtu
	const icmp, ip4, ip6 = 8, 20, 40
	a.Reaches(b.IP4, "-Mdo", "-s"+strconv.Itoa(mtu-ip4-icmp))
	a.Reaches(b.IP6, "-Mdo", "-s"+strconv.Itoa(mtu-ip6-icmp))
	if a.Pings(b.IP4, "-Mdo", "-s"+strconv.Itoa(mtu-ip4-icmp+1)) {
		t.Error("a packet above the MTU gets through unfragmented")
	}
	a.Reaches(b.IP4, "-Mdont", "-s4000") // in fragments
	a.Reaches(b.IP6, "-Mdont", "-s4000")
	for _, to := range []netip.Addr{b.IP4, b.IP6} {
		conn, _, err := a.Dial(netip.AddrPortFrom(to, 7000), 0)
		lab.Must(t, err)
		defer conn.Close()
		if err := lab.Echoes(conn, 1<<20); err != nil {
			t.Errorf("1 MB to %s and back: %v", to, err)
		}
	}
	// A kernel that drops a segment for its checksum says so.
	for _, c := range []*lab.Container{a, b} {
		for line := range strings.Lines(c.Sh("nstat", "-asz", "TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors", "Icmp6InCsumErrors", "IcmpInCsumErrors")) {
			if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[0], "CsumErrors") && f[1] != "0" {
				t.Errorf("%s: %s", c.ID, line)
			}
		}
	}
}
