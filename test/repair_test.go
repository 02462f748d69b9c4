package test

import (
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestSyncMakesTheHostsLinkWholeAgain(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.server.Serve(80)
	for _, damage := range [][]string{
		{"ovs-vsctl", "del-port", "tenet-gw"},
		{"ip", "link", "del", "tenet-gw"},
		{"ip", "link", "set", "tenet-gw", "down"},
		{"ip", "address", "flush", "dev", "tenet-gw"},
		{"nft", "flush", "ruleset"},
	} {
		if w.Datapath == "system" && damage[0] == "ip" && damage[2] == "del" {
			continue // the kernel's does not let anybody delete it
		}
		w.Sh(damage...)
		w.Sync()
		conn, who, err := w.a.Dial(netip.AddrPortFrom(w.server.IP4, 80), 0)
		lab.Must(t, err)
		if lab.Must(t, conn.Close()); who != "server" {
			t.Errorf("after %q it reaches %q", damage, who)
		}
		w.Itself().Reaches(w.b.Alias(w.b.IP4))
		lab.Must(t, w.a.Do("CHECK").Failed())
	}
}

// The first container of a network sees to the host; one that was cut short has not.
func TestTheSecondContainerDoesNotRelyOnAFirstThatWasCutShort(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "pub", "10.5.0.0/24").With("gateway", "routed")
	first := h.Container("first")
	first.Conf = conf
	call := first.Call("ADD")
	call.Cut = "connected"
	if a, err := h.Exec(call); err != nil || !a.Killed {
		t.Fatalf("%v, %s", err, a.Stdout)
	}
	second := h.Attach("second", conf)
	h.Itself().Reaches(second.IP4)
	first.Del()
	h.Itself().Reaches(second.IP4)
}

// A DEL needs no switch that lives, nor a bridge that is still there.
func TestDELGetsThroughWithoutASwitch(t *testing.T) {
	for _, damage := range []struct {
		what string
		do   func(h *lab.Host)
	}{
		{"ovs-vswitchd is dead", func(h *lab.Host) { h.KillVswitchd() }},
		{"the bridge is gone", func(h *lab.Host) { h.Sh("ovs-vsctl", "del-br", lab.Bridge) }},
		{"the host's link is gone", func(h *lab.Host) { h.Sh("ovs-vsctl", "del-port", "tenet-gw") }},
	} {
		t.Run(damage.what, func(t *testing.T) {
			h := lab.NewHost(t)
			conf := h.Conf("blue", "web", web4, web6).With("gateway", "nat").With("runtimeConfig", mapping(8080, 80))
			c := h.Attach("c", conf)
			h.Itself().Reaches(c.Alias(c.IP6))
			damage.do(h)
			c.Del()
			if left := h.Records().Lasting(); len(left) > 0 {
				t.Errorf("records are left: %q", left)
			}
		})
	}
}

// A prefix that the host has by another way by now is a matter of its own network.
func TestAPrefixRoutedElsewhereIsNobodyElsesTrouble(t *testing.T) {
	h := lab.NewHost(t)
	routed := h.Attach("routed", h.Conf("blue", "pub", "10.5.0.0/24").With("gateway", "routed"))
	conf := h.Conf("red", "web", web4).With("gateway", "nat").With("runtimeConfig", mapping(8080, 80))
	before := h.Attach("before", conf)
	h.Sh("ip", "link", "add", "vpn0", "type", "veth", "peer", "name", "vpn1")
	h.Sh("ip", "link", "set", "vpn0", "up")
	h.Sh("ip", "route", "replace", "10.5.0.0/24", "dev", "vpn0")
	lab.Must(t, before.Do("CHECK").Failed())
	before.Del()
	h.Attach("after", conf).Del()
	h.Attach("routed2", h.Conf("red", "pub", "10.6.0.0/24").With("gateway", "routed")).Del()
	routed.Del()
}

// Nor is an address that another network leaves with, and the host has lost.
func TestALostEgressAddressIsItsOwnNetworksTrouble(t *testing.T) {
	h := lab.NewHost(t)
	h.Outside("server", "ext0", "203.0.113")
	h.Sh("ip", "address", "add", "203.0.113.2/24", "dev", "ext0")
	one := h.Attach("one", h.Conf("blue", "web", web4).With("gateway", "nat").With("egressAddress", "203.0.113.2"))
	other := h.Attach("other", h.Conf("red", "web", web4).With("gateway", "nat"))
	h.Sh("ip", "address", "del", "203.0.113.2/24", "dev", "ext0")
	lab.Must(t, other.Do("CHECK").Failed())
	lab.Fails(t, one.Do("CHECK"), lab.CodeConflict, "egressAddress 203.0.113.2")
}

// The host's link goes with the containers to another bridge.
func TestTheHostsLinkFollowsTheContainersToAnotherBridge(t *testing.T) {
	h := lab.NewHost(t)
	h.Attach("first", h.Conf("blue", "web", web4)).Del()
	c := h.Attach("c", h.Conf("red", "web", web4).With("bridge", "br-two"))
	h.Itself().Reaches(c.Alias(c.IP4))
}
