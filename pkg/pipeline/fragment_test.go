package pipeline_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A fragment that opens a connection is dropped where its ports would say which chain has it, and only there.
func TestFragmentsThatSeveralChainsMayWant(t *testing.T) {
	prefix := func(s string) []netip.Prefix {
		if s == "any" {
			return nil
		}
		return []netip.Prefix{netip.MustParsePrefix(s)}
	}
	chain := func(name string, priority int, from, to string, p vnet.Protocol, port uint16) pipeline.Chain {
		k := vnet.Classifier{Protocol: p}
		if port > 0 {
			k.DestinationPorts = vnet.PortRanges{{First: port, Last: port}}
		}
		c := vnet.Chain{Tenant: "blue", Name: vnet.ChainName(name), Priority: priority, Classifiers: []vnet.Classifier{k}}
		return pipeline.Chain{Chain: c, TenantNumber: 10, Classifiers: []pipeline.Classifier{{Classifier: k, From: prefix(from), To: prefix(to)}}}
	}
	for what, tc := range map[string]struct {
		a, b pipeline.Chain
		want string // in the match of the one flow; empty: there is none
	}{
		"two ports": {
			chain("a", 0, "any", "10.0.0.0/24", vnet.UDP, 53), chain("b", 10, "10.1.0.0/24", "10.0.0.2/32", vnet.UDP, 80),
			"priority=1021,ct_state=-inv+trk,ct_nw_proto=17,ip,metadata=0xa00000000/0xffffff00000000,nw_src=10.1.0.0/24,nw_dst=10.0.0.2,nw_frag=yes",
		},
		"the same two, the other first": {
			chain("a", 20, "any", "10.0.0.0/24", vnet.UDP, 53), chain("b", 10, "10.1.0.0/24", "10.0.0.2/32", vnet.UDP, 80), "priority=1041,ct_state",
		},
		"a port, and any after it":       {chain("a", 1, "any", "fd00::/64", vnet.UDP, 53), chain("b", 0, "any", "fd00::/64", "", 0), "priority=1003,ct_state=-inv+trk,ct_nw_proto=17,ipv6"},
		"any, and a port after it":       {chain("a", 1, "any", "10.0.0.0/24", "", 0), chain("b", 0, "any", "10.0.0.0/24", vnet.UDP, 53), ""},
		"other protocols":                {chain("a", 1, "any", "10.0.0.0/24", vnet.UDP, 53), chain("b", 0, "any", "10.0.0.0/24", vnet.TCP, 53), ""},
		"other receivers":                {chain("a", 1, "any", "10.0.0.2/32", vnet.UDP, 53), chain("b", 0, "any", "10.0.0.3/32", vnet.UDP, 80), ""},
		"other senders":                  {chain("a", 1, "10.0.0.2/32", "any", vnet.UDP, 53), chain("b", 0, "10.0.0.3/32", "any", vnet.UDP, 80), ""},
		"one chain alone, all its ports": {chain("a", 1, "any", "any", vnet.UDP, 53), chain("b", 0, "fd00::/64", "10.0.0.0/24", vnet.UDP, 80), ""},
	} {
		flows := pipeline.FragmentFlows([]pipeline.Chain{tc.a, tc.b})
		if n := map[bool]int{true: 1}[tc.want != ""]; len(flows) != n {
			t.Errorf("%s: %d flows, want %d: %v", what, len(flows), n, flows)
			continue
		}
		for _, f := range flows {
			if !strings.Contains(f.String(), tc.want) || pipeline.KindOf(f.Cookie) != pipeline.ChainedFragment {
				t.Errorf("%s: %s, want %q", what, f, tc.want)
			}
		}
	}
}
