package cni_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func runtimeConfig(t *testing.T, text string) *cni.NetConf {
	t.Helper()
	c, err := cni.ParseTenet([]byte(conf(tenant+`,"runtimeConfig":{`+text+`}`)), "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Libraries without JSON tags write capitalised keys, podman and cri-o do not: both publish the same.
func TestPortsArePublishedAsAnyRuntimeAsksForThem(t *testing.T) {
	want := []vnet.PortMapping{
		{HostPort: 53, ContainerPort: 5353, Protocol: "udp", HostIP: netip.MustParseAddr("192.0.2.1")},
		{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
	}
	var prints []string
	for what, text := range map[string]string{
		"CNI":               `{"hostPort":8080,"containerPort":80},{"hostPort":53,"containerPort":5353,"protocol":"udp","hostIP":"192.0.2.1"}`,
		"capitalised":       `{"HostPort":53,"ContainerPort":5353,"Protocol":"UDP","HostIP":"192.0.2.1"},{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}`,
		"both, alike":       `{"hostPort":8080,"HostPort":8080,"containerPort":80,"protocol":"Tcp"},{"hostPort":53,"ContainerPort":5353,"protocol":"udp","HostIP":"::ffff:192.0.2.1"}`,
		"one of them twice": `{"hostPort":8080,"containerPort":80},{"hostPort":53,"containerPort":5353,"protocol":"udp","hostIP":"192.0.2.1"},{"HostPort":8080,"ContainerPort":80}`,
	} {
		c := runtimeConfig(t, `"portMappings":[`+text+`]`)
		ports, err := c.PortMappings()
		if diff := cmp.Diff(want, ports, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); err != nil || diff != "" {
			t.Errorf("%s: %v %s", what, err, diff)
		}
		prints = append(prints, c.Fingerprint())
	}
	for _, p := range prints {
		if p != prints[0] {
			t.Errorf("the same ports have fingerprints %q", prints)
			break
		}
	}
}

func TestBandwidthIsLimitedAsAnyRuntimeAsksForIt(t *testing.T) {
	const unlimitedBurst = 1<<31 - 1 // what the kubelet's annotations come to
	for text, want := range map[string]vnet.Bandwidth{
		`"bandwidth":null`: {},
		`"bandwidth":{}`:   {},
		`"mac":""`:         {},
		`"bandwidth":{"ingressRate":1000000,"ingressBurst":2147483647}`: {
			Ingress: vnet.Limit{Rate: 1_000_000, Burst: unlimitedBurst},
		},
		`"bandwidth":{"IngressRate":0,"IngressBurst":0,"EgressRate":2000000,"EgressBurst":2147483647}`: {
			Egress: vnet.Limit{Rate: 2_000_000, Burst: unlimitedBurst},
		},
		`"bandwidth":{"ingressRate":1000000,"ingressBurst":0,"egressRate":2000000,"egressBurst":5}`: {
			Ingress: vnet.Limit{Rate: 1_000_000}, Egress: vnet.Limit{Rate: 2_000_000, Burst: 5},
		},
	} {
		got, err := runtimeConfig(t, text).Bandwidth()
		if err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// A runtime that cannot say what it wants must still be able to remove what stands.
func TestBadCapabilitiesAreNoErrorUntilAnEndpointIsMade(t *testing.T) {
	runtimeConfig(t, `"portMappings":[{"hostPort":0}],"bandwidth":{"ingressRate":0}`)
}

func TestANetworkIsDeclaredWithItsWayOut(t *testing.T) {
	c, err := cni.ParseTenet([]byte(conf(four+`,"gateway":"nat","egressAddress":"192.0.2.1","dns":{"nameservers":["10.0.0.53"],"domain":"blue","search":["blue.example"],"options":["ndots:1"]}`)), "")
	if err != nil {
		t.Fatal(err)
	}
	n, declared, err := c.Declaration()
	if err != nil || !declared {
		t.Fatal(declared, err)
	}
	if n.Gateway != vnet.GatewayNAT || n.EgressAddress != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("got gateway %s, egressAddress %s", n.Gateway, n.EgressAddress)
	}
	dns := vnet.DNS{Nameservers: []string{"10.0.0.53"}, Domain: "blue", Search: []string{"blue.example"}, Options: []string{"ndots:1"}}
	if diff := cmp.Diff(dns, n.DNS); diff != "" {
		t.Error(diff)
	}
	if differs := n.Differs(n); differs != "" {
		t.Errorf("the same declaration again differs: %s", differs)
	}
	if c, err = cni.ParseTenet([]byte(conf(four+`,"provider":{"uplink":"lan","vlan":100}`)), ""); err != nil {
		t.Fatal(err)
	}
	if n, _, err = c.Declaration(); err != nil || n.Provider != (vnet.Provider{Uplink: "lan", VLAN: 100}) {
		t.Errorf("got provider %+v, %v", n.Provider, err)
	}
}
