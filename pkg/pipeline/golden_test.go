package pipeline_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var update = flag.Bool("update", false, "write the golden files and the flows in DESIGN.md anew")

// world is the example of DESIGN.md: tenant blue with the networks web (a1, a2, both families,
// multicast), db (a3) and pub (a4, limited; the host routes it), tenant red with a network of the
// same prefix as web, that leaves by NAT, and an endpoint of the same address and MAC as a1, and
// with a network on a wire.
type world struct {
	web, db, pub, red, lan pipeline.Network
	a1, a2, a3, a4, b1, b2 pipeline.Endpoint
}

func example() world {
	var w world
	w.web = network(vnet.Network{Tenant: "blue", Name: "web", VNI: 1001, Multicast: true}, 10, 3, "10.0.0.0/24", "fd00:1::/64")
	w.db = network(vnet.Network{Tenant: "blue", Name: "db", VNI: 1002}, 10, 4, "10.0.1.0/24")
	w.pub = network(vnet.Network{Tenant: "blue", Name: "pub", VNI: 1003, Gateway: vnet.GatewayRouted}, 10, 5, "10.5.0.0/24")
	w.red = network(vnet.Network{Tenant: "red", Name: "web", VNI: 2001, Gateway: vnet.GatewayNAT}, 11, 6, "10.0.0.0/24", "fd00:1::/64")
	w.lan = network(vnet.Network{Tenant: "red", Name: "lan", VNI: 2002, Provider: vnet.Provider{Uplink: "lan", VLAN: 100}}, 11, 7, "172.20.0.0/24", "fd00:3::/64")
	w.lan.UplinkPort = 256
	w.a1 = endpoint(w.web, "a1", 101, "10.0.0.2/24", "fd00:1::2/64")
	w.a2 = endpoint(w.web, "a2", 102, "10.0.0.3/24", "fd00:1::3/64")
	w.a3 = endpoint(w.db, "a3", 103, "10.0.1.2/24")
	w.a4 = endpoint(w.pub, "a4", 104, "10.5.0.2/24")
	w.a4.Bandwidth = vnet.Bandwidth{Ingress: vnet.Limit{Rate: 20e6, Meter: 1}, Egress: vnet.Limit{Rate: 10e6, Meter: 2}}
	w.b1 = endpoint(w.red, "b1", 201, "10.0.0.2/24", "fd00:1::2/64")
	w.b2 = endpoint(w.lan, "b2", 202, "172.20.0.5/24", "fd00:3::5/64")
	return w
}

func network(n vnet.Network, number uint32, transit vnet.Transit, prefixes ...string) pipeline.Network {
	for _, p := range prefixes {
		n.Subnets = append(n.Subnets, vnet.Subnet{Prefix: netip.MustParsePrefix(p)})
	}
	n, err := n.Normal()
	if err != nil {
		panic(err)
	}
	return pipeline.Network{Network: n, TenantNumber: number, Transit: transit, Zone: 1000 + vnet.Zone(transit)}
}

func endpoint(n pipeline.Network, container string, port uint32, addrs ...string) pipeline.Endpoint {
	at := vnet.Attachment{Container: container, IfName: "eth0"}
	e := vnet.Endpoint{Attachment: at, ID: at.ID(), Tenant: n.Tenant, Network: n.Name, Transit: vnet.Transit(port)}
	var plain []netip.Addr
	for _, a := range addrs {
		p := netip.MustParsePrefix(a)
		e.Addrs, plain = append(e.Addrs, p), append(plain, p.Addr())
	}
	e.MAC = vnet.MACFor(plain)
	return pipeline.Endpoint{Endpoint: e, Port: port}
}

func (w world) flows() []openflow.Flow {
	return slices.Concat(pipeline.BaseFlows(),
		pipeline.NetworkFlows(w.web), pipeline.EndpointFlows(w.web, w.a1), pipeline.EndpointFlows(w.web, w.a2), pipeline.FloodFlows(w.web, []uint32{101, 102}),
		pipeline.NetworkFlows(w.db), pipeline.EndpointFlows(w.db, w.a3),
		pipeline.NetworkFlows(w.pub), pipeline.EndpointFlows(w.pub, w.a4),
		pipeline.NetworkFlows(w.red), pipeline.EndpointFlows(w.red, w.b1),
		pipeline.NetworkFlows(w.lan), pipeline.EndpointFlows(w.lan, w.b2), pipeline.FloodFlows(w.lan, []uint32{202}))
}

// Every table's flows are as its golden file has them, and DESIGN.md shows just those.
func TestFlowsAreAsDesigned(t *testing.T) {
	byTable := map[uint8][]string{}
	for _, f := range example().flows() {
		byTable[f.Table] = append(byTable[f.Table], f.String())
	}
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(design)
	for table, lines := range byTable {
		got := strings.Join(lines, "\n") + "\n"
		file := filepath.Join("testdata", fmt.Sprintf("%02d-%s.flows", table, pipeline.TableName(table)))
		text = showIn(t, text, filepath.Base(file), got)
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got), go test ./pkg/pipeline -update if it is meant:\n%s", file, diff)
		}
	}
	if *update {
		if err := os.WriteFile("DESIGN.md", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(design), text); diff != "" {
		t.Errorf("DESIGN.md shows other flows (-shown +rendered):\n%s", diff)
	}
}

// showIn puts flows into the fenced block of the document that names the golden file.
func showIn(t *testing.T, text, file, flows string) string {
	t.Helper()
	open := "```flows " + file + "\n"
	before, rest, found := strings.Cut(text, open)
	_, after, closed := strings.Cut(rest, "```\n")
	if !found || !closed {
		t.Errorf("DESIGN.md does not show %s", file)
		return text
	}
	return before + open + flows + "```\n" + after
}

// No two flows may have the same table, priority and match: one would replace the other.
func TestNoFlowReplacesAnother(t *testing.T) {
	seen := map[string]string{}
	for _, f := range example().flows() {
		if other, ok := seen[f.Key()]; ok {
			t.Errorf("the same key:\n  %s\n  %s", other, f)
		}
		seen[f.Key()] = f.String()
	}
}

// Whatever drops has a name of its own kind, and nothing else has.
func TestEveryDropIsNamed(t *testing.T) {
	for _, f := range example().flows() {
		kind := pipeline.KindOf(f.Cookie)
		if drops := len(f.Actions) == 0; drops != kind.Drops() {
			t.Errorf("flow %s is of kind %s", f, kind)
		}
		if kind.Drops() && (kind.Text() == "" || kind.String() == "unknown") {
			t.Errorf("drop %x has no name or text: %s", uint8(kind), f)
		}
	}
}

// An endpoint's flows can be told from all others by their owner, and there are no more of
// them than is documented.
func TestFlowsOfAnOwner(t *testing.T) {
	w := example()
	owners := map[pipeline.Owner]int{}
	for _, f := range w.flows() {
		owners[pipeline.OwnerOf(f.Cookie)]++
	}
	for _, want := range []struct {
		what  string
		owner pipeline.Owner
		flows int
	}{
		{"an endpoint with one IPv4 address", pipeline.EndpointOwner(w.a3.ID), 16},
		{"an endpoint with both families", pipeline.EndpointOwner(w.a1.ID), 36},
		{"a network with one IPv4 subnet", pipeline.NetworkOwner(w.db.Ref()), 6},
		{"a network with both families", pipeline.NetworkOwner(w.web.Ref()), 13},
		{"the base", pipeline.Base, 65},
	} {
		if got := owners[want.owner]; got != want.flows {
			t.Errorf("%s has %d flows, want %d", want.what, got, want.flows)
		}
	}
}
