package vnet_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func blue(subnets ...vnet.Subnet) vnet.Network {
	return vnet.Network{Tenant: "blue", Name: "web", Subnets: subnets}
}

func TestNetworksThatMakeNoSenseAreRefused(t *testing.T) {
	four, six := subnet(t, "10.0.0.0/24", ""), subnet(t, "fd00::/64", "")
	var many []vnet.Subnet
	for i := range 17 {
		many = append(many, subnet(t, fmt.Sprintf("10.%d.0.0/24", i), ""))
	}
	for _, test := range []struct {
		change func(*vnet.Network)
		want   string
	}{
		{func(n *vnet.Network) { n.Tenant = "" }, "tenant is missing"},
		{func(n *vnet.Network) { n.Name = "a/b" }, `network "a/b"`},
		{func(n *vnet.Network) { n.VNI = vnet.MaxVNI + 1 }, "vni 15728640"},
		{func(n *vnet.Network) { n.EgressAddress = netip.MustParseAddr("192.0.2.1") }, "only a network with gateway nat"},
		{func(n *vnet.Network) { n.Gateway, n.EgressAddress = "nat", netip.MustParseAddr("127.0.0.1") }, "nobody outside could answer"},
		{func(n *vnet.Network) { n.Provider = vnet.Provider{Uplink: "lan", VLAN: 4095} }, "vlan 4095"},
		{func(n *vnet.Network) { n.Provider = vnet.Provider{VLAN: 7} }, "uplink is missing"},
		{func(n *vnet.Network) { n.Gateway, n.Provider = "nat", vnet.Provider{Uplink: "lan"} }, "way out is a router on the wire"},
		{func(n *vnet.Network) { n.DNS.Nameservers = []string{"ns1"} }, `nameserver "ns1"`},
		{func(n *vnet.Network) { n.DNS.Search = []string{"a\nb"} }, "must be one word"},
		{func(n *vnet.Network) { n.Gateway = "None" }, `gateway "None"`},
		{func(n *vnet.Network) { n.Subnets = nil }, "no subnets"},
		{func(n *vnet.Network) { n.Subnets = many }, "17 subnets"},
		{func(n *vnet.Network) { n.Subnets = append(n.Subnets, subnet(t, "10.0.0.128/25", "")) }, "10.0.0.0/24 and 10.0.0.128/25 overlap"},
		{func(n *vnet.Network) { n.Subnets = append(n.Subnets, subnet(t, "10.0.0.0/24", "")) }, "overlap"},
		{func(n *vnet.Network) { n.MTU = 575 }, "mtu 575"},
		{func(n *vnet.Network) { n.MTU = 65536 }, "mtu 65536"},
		{func(n *vnet.Network) { n.MTU = -1 }, "mtu -1"},
		{func(n *vnet.Network) { n.MTU, n.Subnets = 1279, []vnet.Subnet{four, six} }, "mtu 1279: below 1280"},
	} {
		n := blue(four)
		test.change(&n)
		if _, err := n.Normal(); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%+v: got %v, want an ErrInvalid with %q", n, err, test.want)
		}
	}
}

func TestDefaultsAreFilledInWithoutChangingTheDeclaration(t *testing.T) {
	declared := blue(subnet(t, "10.0.0.0/24", ""), subnet(t, "fd00::/64", ""))
	n, err := declared.Normal()
	if err != nil {
		t.Fatal(err)
	}
	if n.Gateway != vnet.GatewayNone || n.Subnets[1].Gateway.String() != "fd00::1" {
		t.Errorf("got %+v", n)
	}
	if declared.Subnets[0].Gateway.IsValid() {
		t.Error("Normal wrote into the declaration")
	}
}

func TestDifferenceNamesTheField(t *testing.T) {
	stands, err := blue(subnet(t, "10.0.0.0/24", "", "10.0.0.8/29")).Normal()
	if err != nil {
		t.Fatal(err)
	}
	stands.VNI, stands.MTU = 7, 1400
	for _, test := range []struct {
		change func(*vnet.Network)
		want   string
	}{
		{func(*vnet.Network) {}, ""},
		{func(n *vnet.Network) { n.VNI, n.MTU = 0, 0 }, ""}, // left to tenet: any will do
		{func(n *vnet.Network) { n.VNI = 8 }, "vni: 8 is asked, 7 stands"},
		{func(n *vnet.Network) { n.MTU = 1300 }, "mtu: 1300 is asked, 1400 stands"},
		{func(n *vnet.Network) { n.Gateway = "nat" }, `gateway: "nat" is asked`},
		{func(n *vnet.Network) { n.Multicast = true }, "multicast: true is asked"},
		{func(n *vnet.Network) { n.Subnets = []vnet.Subnet{normal(t, "10.0.1.0/24", "")} }, "subnets: "},
		{func(n *vnet.Network) { n.Subnets = []vnet.Subnet{normal(t, "10.0.0.0/24", "10.0.0.2", "10.0.0.8/29")} }, "gateway 10.0.0.2"},
		{func(n *vnet.Network) { n.Subnets = []vnet.Subnet{normal(t, "10.0.0.0/24", "")} }, "subnets: "},
		{func(n *vnet.Network) { n.Subnets = append([]vnet.Subnet{}, n.Subnets[0], normal(t, "10.0.1.0/24", "")) }, "subnets: "},
	} {
		n := stands
		test.change(&n)
		got := n.Differs(stands)
		if test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
