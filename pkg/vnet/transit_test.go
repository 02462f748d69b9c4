package vnet_test

import (
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestEveryTransitNumberHasAnAddressOfItsOwnInBothRanges(t *testing.T) {
	seen := map[netip.Addr]vnet.Transit{}
	for n := vnet.HostTransit; n <= vnet.LastTransit; n++ {
		for _, a := range []netip.Addr{n.Addr4(), n.Addr6()} {
			if !vnet.TransitRange4.Contains(a) && !vnet.TransitRange6.Contains(a) {
				t.Fatalf("%d is %s, outside the ranges", n, a)
			}
			if other, twice := seen[a]; twice {
				t.Fatalf("%s is %d and %d", a, other, n)
			}
			seen[a] = n
		}
	}
	if got := vnet.HostTransit.Addr4().String() + " " + vnet.LastTransit.Addr4().String() + " " + vnet.LastTransit.Addr6().String(); got != "169.254.64.1 169.254.127.254 fd74:656e:6574::3ffe" {
		t.Errorf("the first and last are %s", got)
	}
}

func TestAnAliasLeadsToTheFirstAddressOfEachFamily(t *testing.T) {
	e := vnet.Endpoint{Transit: 5, Addrs: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("10.0.1.2/24"), netip.MustParsePrefix("fd00::2/64"),
	}}
	got := e.Aliases()
	if len(got) != 2 || got[0].Addr.String() != "10.0.0.2" || got[0].Alias != vnet.Transit(5).Addr4() || got[1].Addr.String() != "fd00::2" || got[1].Alias != vnet.Transit(5).Addr6() {
		t.Errorf("got %v", got)
	}
	e.Transit = 0
	if got := e.Aliases(); len(got) != 0 {
		t.Errorf("without a number: %v", got)
	}
}

func TestTheHostIsSeenAsTheGatewayWhereThatIsNobodyElse(t *testing.T) {
	plain := vnet.Network{Subnets: []vnet.Subnet{subnet(t, "10.0.0.0/24", "10.0.0.254")}}
	lone := vnet.Network{Subnets: []vnet.Subnet{subnet(t, "10.0.0.4/31", "")}}
	wire := vnet.Network{Subnets: plain.Subnets, Provider: vnet.Provider{Uplink: "lan"}}
	for _, tc := range []struct {
		net    vnet.Network
		addr   string
		host   string
		routes int
	}{
		{plain, "10.0.0.2/24", "10.0.0.254", 1},  // the default route
		{lone, "10.0.0.4/31", "169.254.64.1", 1}, // the one to the host
		{wire, "10.0.0.2/24", "169.254.64.1", 2}, // both
	} {
		p := netip.MustParsePrefix(tc.addr)
		if got := tc.net.HostAddr(tc.net.Subnets[0]).String(); got != tc.host {
			t.Errorf("%v: the host is seen as %s, want %s", tc.net.Subnets, got, tc.host)
		}
		if got := tc.net.Routes([]netip.Prefix{p}); len(got) != tc.routes {
			t.Errorf("%v: the routes are %v", tc.net.Subnets, got)
		}
	}
}
