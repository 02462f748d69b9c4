package node

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// capturedNames are those of the node that testdata/trace was captured on (Open vSwitch 3.1.0).
func capturedNames() names {
	web, db := vnet.Ref{Tenant: "blue", Network: "web"}, vnet.Ref{Tenant: "blue", Network: "db"}
	k := names{
		owners:    map[pipeline.Owner]string{pipeline.Base: "base"},
		places:    map[vnet.VNI]vnet.Ref{0xbe8029: web, 0x37716d: db},
		tenants:   map[uint32]vnet.TenantName{0x82fbf6: "blue"},
		endpoints: map[uint32]string{1024: "c1/eth0", 1025: "c2/eth0", 1026: "c3/eth0"},
	}
	for _, ref := range []vnet.Ref{web, db} {
		k.owners[pipeline.NetworkOwner(ref)] = "network " + ref.String()
	}
	for _, c := range []string{"c1", "c2", "c3"} {
		a := vnet.Attachment{Container: c, IfName: "eth0"}
		k.owners[pipeline.EndpointOwner(a.ID())] = "endpoint " + a.String()
	}
	return k
}

// What ovs-vswitchd answered is explained in words that a reader of the README knows.
func TestTraceIsExplained(t *testing.T) {
	files, err := filepath.Glob("testdata/trace/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no captured traces", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			visits, err := parseTrace(string(text))
			if err != nil {
				t.Fatal(err)
			}
			var got Trace
			got.Steps, got.Verdict = capturedNames().explain(visits, vnet.Endpoint{Attachment: vnet.Attachment{Container: "c1", IfName: "eth0"}})
			var b strings.Builder
			e := json.NewEncoder(&b)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			if err := e.Encode(got); err != nil {
				t.Fatal(err)
			}
			golden := strings.TrimSuffix(file, ".txt") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), b.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What no trace is in is refused, and an unforeseen line is not taken for an output.
func TestTraceOfSomethingElse(t *testing.T) {
	for _, text := range []string{"", "Flow: ip\n", "bridge(\"br0\")\n------\n", "999. priority 1\n"} {
		if _, err := parseTrace(text); !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("parseTrace(%q) = %v, want ErrInvalid", text, err)
		}
	}
	visits, err := parseTrace(" 0. priority 1\n    output:2\n     >> Nonexistent output port\n\nFinal flow: unchanged\n")
	if err != nil {
		t.Fatal(err)
	}
	if _, v := (names{}).explain(visits, vnet.Endpoint{}); v.Reason != "not-sent" || !strings.Contains(v.Sentence, "Nonexistent output port") {
		t.Errorf("verdict %+v", v)
	}
}

func FuzzTrace(f *testing.F) {
	files, err := filepath.Glob("testdata/trace/*.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	k := capturedNames()
	f.Fuzz(func(t *testing.T, text string) {
		visits, err := parseTrace(text)
		if err != nil {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		steps, verdict := k.explain(visits, vnet.Endpoint{})
		if len(steps) != len(visits) || verdict.Sentence == "" {
			t.Errorf("%d steps of %d visits, verdict %q", len(steps), len(visits), verdict.Sentence)
		}
	})
}

// A probe goes where the container's kernel would send it.
func TestProbeGoesWhereTheKernelWouldSendIt(t *testing.T) {
	net, err := vnet.Network{Tenant: "blue", Name: "web", Subnets: []vnet.Subnet{
		{Prefix: netip.MustParsePrefix("10.0.0.0/24")}, {Prefix: netip.MustParsePrefix("fd00:1::/64")},
	}}.Normal()
	if err != nil {
		t.Fatal(err)
	}
	endpoint := func(container string, addrs ...string) vnet.Endpoint {
		e := vnet.Endpoint{Attachment: vnet.Attachment{Container: container, IfName: "eth0"}}
		e.ID = e.Attachment.ID()
		var plain []netip.Addr
		for _, a := range addrs {
			p := netip.MustParsePrefix(a)
			e.Addrs, plain = append(e.Addrs, p), append(plain, p.Addr())
		}
		e.MAC = vnet.MACFor(plain)
		return e
	}
	c1, c2 := endpoint("c1", "10.0.0.2/24", "fd00:1::2/64"), endpoint("c2", "10.0.0.3/24", "fd00:1::3/64")
	const head = "in_port=7,dl_src=0a:58:0a:00:00:02,dl_dst="
	for _, tc := range []struct {
		what, to string
		probe    Probe
		packet   string
	}{
		{"a neighbour", "10.0.0.3", Probe{}, head + "0a:58:0a:00:00:03,icmp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64,icmp_type=8,icmp_code=0"},
		{"over IPv6", "fd00:1::3", Probe{Protocol: TCP, Port: 80}, head + "0a:58:0a:00:00:03,tcp6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::3,nw_ttl=64,tcp_src=40000,tcp_dst=80"},
		{"its link-local address", c2.MAC.LinkLocal().String(), Probe{}, head + "0a:58:0a:00:00:03,icmp6,ipv6_src=fe80::858:aff:fe00:2,ipv6_dst=fe80::858:aff:fe00:3,nw_ttl=64,icmpv6_type=128,icmpv6_code=0"},
		{"elsewhere, by the router", "10.0.1.2", Probe{Protocol: UDP, Port: 53}, head + "0a:58:00:00:00:01,udp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64,udp_src=40000,udp_dst=53"},
		{"the gateway", "10.0.0.1", Probe{}, head + "0a:58:00:00:00:01,icmp,nw_src=10.0.0.2,nw_dst=10.0.0.1,nw_ttl=64,icmp_type=8,icmp_code=0"},
		{"nobody: the question", "10.0.0.77", Probe{Protocol: TCP, Port: 80}, head + "ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_sha=0a:58:0a:00:00:02,arp_spa=10.0.0.2,arp_tpa=10.0.0.77"},
		{"nobody, IPv6", "fd00:1::1234:5678", Probe{}, head + "33:33:ff:34:56:78,icmp6,ipv6_src=fd00:1::2,ipv6_dst=ff02::1:ff34:5678,nw_ttl=255,icmpv6_type=135,icmpv6_code=0,nd_target=fd00:1::1234:5678,nd_sll=0a:58:0a:00:00:02"},
		{"multicast", "239.200.1.2", Probe{}, head + "01:00:5e:48:01:02,icmp,nw_src=10.0.0.2,nw_dst=239.200.1.2,nw_ttl=64,icmp_type=8,icmp_code=0"},
		{"as somebody else", "10.0.0.3", Probe{Source: netip.MustParseAddr("10.9.9.9"), SourceMAC: vnet.MAC{2, 0, 0, 0, 0, 9}}, "in_port=7,dl_src=02:00:00:00:00:09,dl_dst=0a:58:0a:00:00:03,icmp,nw_src=10.9.9.9,nw_dst=10.0.0.3,nw_ttl=64,icmp_type=8,icmp_code=0"},
	} {
		t.Run(tc.what, func(t *testing.T) {
			tc.probe.From, tc.probe.To = c1, netip.MustParseAddr(tc.to)
			p, err := tc.probe.address(net, []vnet.Endpoint{c1, c2})
			if err != nil {
				t.Fatal(err)
			}
			if got := p.text(7); got != tc.packet {
				t.Errorf("got  %s\nwant %s", got, tc.packet)
			}
		})
	}
	if _, err := (Probe{From: endpoint("c3", "10.0.0.4/24"), To: netip.MustParseAddr("fd00:1::3")}).address(net, nil); !errors.Is(err, vnet.ErrInvalid) {
		t.Errorf("IPv6 from an endpoint without: %v", err)
	}
}

// The free addresses of a pool are those that could be handed out one after another.
func TestAssignableCountsWhatNextHandsOut(t *testing.T) {
	for _, tc := range []struct {
		prefix, gateway string
		reserved        []string
	}{
		{prefix: "10.0.0.0/24"},
		{prefix: "10.0.0.0/24", gateway: "10.0.0.254", reserved: []string{"10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.20", "10.0.0.250-10.0.0.255"}},
		{prefix: "10.0.0.0/24", reserved: []string{"10.0.0.0/24"}},
		{prefix: "10.0.0.0/30"},
		{prefix: "10.0.0.0/31"},
		{prefix: "10.0.0.4/32"},
		{prefix: "192.168.255.0/24"},
		{prefix: "fd00::/120", reserved: []string{"fd00::10-fd00::1f"}},
		{prefix: "fd00::ffff:ffff:ffff:ff00/120"},
		{prefix: "fd00::/127"},
	} {
		s := vnet.Subnet{Prefix: netip.MustParsePrefix(tc.prefix)}
		if tc.gateway != "" {
			s.Gateway = netip.MustParseAddr(tc.gateway)
		}
		for _, text := range tc.reserved {
			var r vnet.Range
			if err := r.UnmarshalText([]byte(text)); err != nil {
				t.Fatal(err)
			}
			s.Reserved = append(s.Reserved, r)
		}
		s, err := s.Normal()
		if err != nil {
			t.Fatal(err)
		}
		var want uint64
		for a := s.Next(s.Prefix.Addr()); a.IsValid(); a = s.Next(a.Next()) {
			want++
		}
		if got := assignable(s); got != want {
			t.Errorf("%+v: %d, want %d", tc, got, want)
		}
	}
	if got := assignable(vnet.Subnet{Prefix: netip.MustParsePrefix("fd00::/64")}); got != Plenty {
		t.Errorf("a /64 has %d", got)
	}
}
