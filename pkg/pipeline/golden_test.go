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
// with a network on a wire. Another node, n2, has an endpoint of web, and n3 one of red's. Blue has chains, whose functions are in its network svc.
type world struct {
	web, db, pub, svc, red, lan pipeline.Network
	a1, a2, a3, a4, b1, b2      pipeline.Endpoint
	functions                   []function
	chains                      []pipeline.Chain
	n2, n3                      vnet.Peer       // other nodes
	far, alien                  pipeline.Remote // endpoints of theirs: of web, and of red's
}

// function is an instance with the endpoints that are its ports: one if it serves for both.
type function struct {
	pipeline.Function
	ports []pipeline.Endpoint
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
	w.n2 = vnet.Peer{Name: "n2", VTEP: netip.MustParseAddr("192.0.2.2"), Encapsulation: vnet.VXLAN}
	w.n3 = vnet.Peer{Name: "n3", VTEP: netip.MustParseAddr("192.0.2.3"), Encapsulation: vnet.Geneve}
	w.far = pipeline.Remote{Remote: endpoint(w.web, "far", 0, "10.0.0.9/24", "fd00:1::9/64").Publish("n2"), Peer: w.n2, Chained: true}
	w.alien = pipeline.Remote{Remote: endpoint(w.red, "alien", 0, "10.0.0.9/24").Publish("n3"), Peer: w.n3}
	w.svc = network(vnet.Network{Tenant: "blue", Name: "svc", VNI: 1004}, 10, 8, "10.9.0.0/24")
	for i, n := range []*pipeline.Network{&w.web, &w.db, &w.pub, &w.svc} {
		n.Outside = 2101 + vnet.Zone(i)
	}
	for i, e := range []*pipeline.Endpoint{&w.a1, &w.a2, &w.a3, &w.a4} {
		e.Zone = 2001 + vnet.Zone(i)
	}
	w.functions = []function{
		w.function(vnet.Group{Name: "fw"}, 1, w.port("fw1", 301), w.port("fw1", 302)),
		w.function(vnet.Group{Name: "fw"}, 2, w.port("fw2", 303), w.port("fw2", 304)),
		w.function(vnet.Group{Name: "rt", Mode: vnet.Routed}, 3, w.port("rt1", 311, "10.9.0.3/24"), w.port("rt1", 312, "10.9.0.4/24")),
		w.function(vnet.Group{Name: "nat", Mode: vnet.Rewriting}, 4, w.port("nat1", 321, "10.9.0.5/24"), w.port("nat1", 322, "10.9.0.6/24")),
		w.function(vnet.Group{Name: "ids", OnFailure: vnet.Open}, 5, w.port("ids1", 331)),
	}
	web := vnet.Selector{Network: "web"}
	w.chains = []pipeline.Chain{
		w.chain(vnet.Chain{Name: "front", Priority: 10, Groups: []vnet.GroupName{"fw", "rt"}}, []vnet.Leg{
			leg(1, path(1, 5000, hop("fw", 1), hop("rt", 3)), path(2, 5000, hop("fw", 2), hop("rt", 3))),
		}, pipeline.Classifier{
			Classifier: vnet.Classifier{From: web, To: vnet.Selector{Network: "db"}, Protocol: vnet.TCP, DestinationPorts: ports("80", "8000-8099")},
			From:       prefixes(w.web), To: prefixes(w.db),
		}, pipeline.Classifier{
			Classifier: vnet.Classifier{From: web, To: web, Protocol: vnet.TCP, DestinationPorts: ports("80")},
			From:       prefixes(w.web), To: prefixes(w.web),
		}),
		w.chain(vnet.Chain{Name: "hidden", Priority: 5, Groups: []vnet.GroupName{"fw", "nat", "rt"}}, []vnet.Leg{
			leg(2, path(3, 10_000, hop("fw", 1), hop("nat", 4))), leg(3, path(4, 10_000, hop("rt", 3))),
		}, pipeline.Classifier{
			Classifier: vnet.Classifier{From: web, To: vnet.Selector{Network: "pub"}, Protocol: vnet.UDP},
			From:       prefixes(w.web), To: prefixes(w.pub),
		}),
		w.chain(vnet.Chain{Name: "watch", Symmetric: new(bool), Groups: []vnet.GroupName{"ids"}}, []vnet.Leg{
			leg(4, path(5, 10_000, hop("ids", 5))),
		}, pipeline.Classifier{
			Classifier: vnet.Classifier{From: vnet.Selector{Endpoint: "a4/eth0"}, To: vnet.Selector{Any: true}, Protocol: vnet.ICMP},
			From:       []netip.Prefix{netip.MustParsePrefix("10.5.0.2/32")}, // to any
		}),
		w.chain(vnet.Chain{Name: "away", Priority: 7, Groups: []vnet.GroupName{"fw", "rt"}}, []vnet.Leg{
			leg(5, path(6, 10_000, vnet.Hop{Group: "fw", Instance: 2, Node: "n1"}, vnet.Hop{Group: "rt", Instance: 7, Node: "n2"})),
		}, pipeline.Classifier{
			Classifier: vnet.Classifier{From: vnet.Selector{Network: "db"}, To: web, Protocol: vnet.UDP},
			From:       prefixes(w.db), To: prefixes(w.web),
		}),
	}
	w.chains[3].Here, w.chains[3].Peers = "n1", map[vnet.NodeName]vnet.Peer{"n2": w.n2, "n3": w.n3}
	return w
}

// port is a port of a function: an endpoint in svc. What leaves a rewriting one is traffic of its own, which is tracked.
func (w world) port(container string, port uint32, addrs ...string) pipeline.Endpoint {
	e := endpoint(w.svc, container, port, addrs...)
	e.IfName = fmt.Sprintf("eth%d", port%10)
	e.ID = e.Attachment.ID()
	if len(addrs) == 0 {
		e.MAC, e.Transit = vnet.MAC{0x02, 0, 0, 0, byte(port >> 8), byte(port)}, 0
	}
	return e
}

// function is an instance with one or two ports.
func (w world) function(g vnet.Group, number uint32, ports ...pipeline.Endpoint) function {
	g.Tenant = "blue"
	g, err := g.Normal()
	if err != nil {
		panic(err)
	}
	in, out := &ports[0], &ports[len(ports)-1]
	f := function{ports: ports}
	f.Instance = vnet.Instance{Tenant: "blue", Group: g.Name, Container: in.Container, Number: number, Ingress: in.ID, Egress: out.ID, Weight: 1}
	f.TenantNumber, f.Mode, f.OnFailure = 10, g.Mode, g.OnFailure
	f.In, f.Out = pipeline.FunctionPort{Port: in.Port, MAC: in.MAC, Addrs: in.Addrs}, pipeline.FunctionPort{Port: out.Port, MAC: out.MAC, Addrs: out.Addrs}
	in.Function, out.Function = &vnet.FunctionPort{Group: g.Name, Port: vnet.Ingress}, &vnet.FunctionPort{Group: g.Name, Port: vnet.Egress}
	if in == out {
		in.Function.Port = vnet.Both
	}
	in.Mode, out.Mode = g.Mode, g.Mode
	if g.Mode.Addressed() {
		f.Zone = 2200 + vnet.Zone(number)
	}
	if g.Mode == vnet.Rewriting {
		out.Zone = 2010 + vnet.Zone(number)
	}
	return f
}

// chain is one of blue's.
func (w world) chain(c vnet.Chain, legs []vnet.Leg, classifiers ...pipeline.Classifier) pipeline.Chain {
	c.Tenant = "blue"
	for _, k := range classifiers {
		c.Classifiers = append(c.Classifiers, k.Classifier)
	}
	c, err := c.Normal()
	if err != nil {
		panic(err)
	}
	functions, modes := map[uint32]pipeline.Function{}, map[vnet.GroupName]vnet.Mode{}
	for _, f := range w.functions {
		functions[f.Number], modes[f.Group] = f.Function, f.Mode
	}
	return pipeline.Chain{
		Chain: c, TenantNumber: 10, Legs: legs, Classifiers: classifiers, Functions: functions, Modes: modes,
		Networks: []pipeline.Network{w.web, w.db, w.pub, w.svc},
	}
}

func leg(number uint32, paths ...vnet.Path) vnet.Leg {
	l := vnet.Leg{Number: number, Paths: paths}
	for _, h := range paths[0].Hops {
		l.Groups = append(l.Groups, h.Group)
	}
	return l
}

func path(id vnet.PathID, weight int, hops ...vnet.Hop) vnet.Path {
	return vnet.Path{ID: id, Weight: weight, Hops: hops}
}

func hop(g vnet.GroupName, number uint32) vnet.Hop { return vnet.Hop{Group: g, Instance: number} }

func ports(texts ...string) vnet.PortRanges {
	var ranges vnet.PortRanges
	for _, text := range texts {
		r, err := vnet.ParsePortRange(text)
		if err != nil {
			panic(err)
		}
		ranges = append(ranges, r)
	}
	return ranges
}

func prefixes(n pipeline.Network) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range n.Subnets {
		all = append(all, s.Prefix)
	}
	return all
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
	_, led := w.led()
	return slices.Concat(pipeline.BaseFlows(),
		pipeline.NetworkFlows(w.web), pipeline.EndpointFlows(w.web, w.a1), pipeline.EndpointFlows(w.web, w.a2), pipeline.FloodFlows(w.web, []uint32{101, 102}, []vnet.Peer{w.n2}),
		pipeline.NetworkFlows(w.db), pipeline.EndpointFlows(w.db, w.a3),
		pipeline.NetworkFlows(w.pub), pipeline.EndpointFlows(w.pub, w.a4),
		pipeline.NetworkFlows(w.red), pipeline.EndpointFlows(w.red, w.b1),
		pipeline.NetworkFlows(w.lan), pipeline.EndpointFlows(w.lan, w.b2), pipeline.FloodFlows(w.lan, []uint32{202}, nil),
		pipeline.EtcdFlows([]netip.AddrPort{netip.MustParseAddrPort("192.0.2.50:2379")}), pipeline.PeerFlows(w.n2), pipeline.PeerFlows(w.n3), pipeline.RemoteFlows(w.web, w.far), pipeline.RemoteFlows(w.red, w.alien),
		led)
}

// led are the groups and flows that lead through functions, and these functions' own.
func (w world) led() ([]openflow.GroupConfig, []openflow.Flow) {
	if len(w.chains) == 0 {
		return nil, nil
	}
	groups, flows := pipeline.FunctionGroups(), pipeline.NetworkFlows(w.svc)
	for _, n := range []pipeline.Network{w.web, w.db, w.pub, w.svc} {
		flows = append(flows, pipeline.TenantFlows(n)...)
	}
	for _, f := range w.functions {
		for _, e := range f.ports {
			flows = append(flows, pipeline.EndpointFlows(w.svc, e)...)
		}
		g, fl := pipeline.FunctionFlows(f.Function)
		groups, flows = append(groups, g...), append(flows, fl...)
	}
	for _, c := range w.chains {
		g, fl := pipeline.ChainFlows(c)
		groups, flows = append(groups, g...), append(flows, fl...)
	}
	return groups, append(flows, pipeline.FragmentFlows(w.chains)...)
}

// Every table's flows, and the groups, are as their golden file has them, and DESIGN.md shows just those.
func TestFlowsAreAsDesigned(t *testing.T) {
	w := example()
	files := map[string]string{}
	for _, f := range w.flows() {
		files[fmt.Sprintf("%02d-%s.flows", f.Table, pipeline.TableName(f.Table))] += f.String() + "\n"
	}
	groups, _ := w.led()
	for _, g := range groups {
		files["groups.flows"] += g.String() + "\n"
	}
	design, err := os.ReadFile("DESIGN.md")
	if err != nil {
		t.Fatal(err)
	}
	text := string(design)
	for name, got := range files {
		file := filepath.Join("testdata", name)
		text = showIn(t, text, name, got)
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
	standing, err := filepath.Glob("testdata/*.flows")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range standing {
		if _, ok := files[filepath.Base(file)]; !ok {
			t.Errorf("%s is of no table", file)
		}
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

// An owner's flows can be told from all others, and there are no more of them than is documented.
func TestFlowsOfAnOwner(t *testing.T) {
	w := example()
	chained := count(w.flows())
	unchained := count(plain().flows())
	for _, want := range []struct {
		what   string
		owners map[pipeline.Owner]int
		owner  pipeline.Owner
		flows  int
	}{
		{"an endpoint with one IPv4 address", unchained, pipeline.EndpointOwner(w.a3.ID), 16},
		{"an endpoint with both families", unchained, pipeline.EndpointOwner(w.a1.ID), 36},
		{"a network with one IPv4 subnet", unchained, pipeline.NetworkOwner(w.db.Ref()), 8},
		{"a network with both families", unchained, pipeline.NetworkOwner(w.web.Ref()), 16},
		{"the base", unchained, pipeline.Base, 141},
		{"the base, with chains", chained, pipeline.Base, 141},
		{"a member of etcd", unchained, pipeline.EtcdOwner, 2},
		{"another node", unchained, pipeline.PeerOwner("n2"), 1},
		{"another node's endpoint with one IPv4 address", unchained, pipeline.RemoteOwner(w.alien.Remote), 4},
		{"another node's endpoint with both families", unchained, pipeline.RemoteOwner(w.far.Remote), 9},
		{"another node's endpoint with both families, with chains", chained, pipeline.RemoteOwner(w.far.Remote), 9 + 2},
		{"an endpoint with one IPv4 address, with chains", chained, pipeline.EndpointOwner(w.a3.ID), 16 + 1},
		{"one that is limited", chained, pipeline.EndpointOwner(w.a4.ID), 16 + 1 + 1},
		{"an endpoint with both families, with chains", chained, pipeline.EndpointOwner(w.a1.ID), 36 + 2},
		{"a network with one IPv4 subnet, with chains", chained, pipeline.NetworkOwner(w.db.Ref()), 8},
		{"what one has for the sake of chains", chained, pipeline.LedOwner(w.db.Ref()), 4},
		{"a network with both families, with chains", chained, pipeline.NetworkOwner(w.web.Ref()), 16},
		{"what one with both families has for the sake of chains", chained, pipeline.LedOwner(w.web.Ref()), 8},
		{"another tenant's endpoint", chained, pipeline.EndpointOwner(w.b1.ID), unchained[pipeline.EndpointOwner(w.b1.ID)]},
		{"a port of a transparent function", chained, pipeline.EndpointOwner(w.functions[0].ports[0].ID), 1},
		{"a transparent function", chained, pipeline.FunctionOwner(w.functions[0].Instance), 0},
		{"a routed function", chained, pipeline.FunctionOwner(w.functions[2].Instance), 8 + 2*2},
		{"a rewriting function", chained, pipeline.FunctionOwner(w.functions[3].Instance), 4},
		// Matches of classifiers: four from web to db, one inside web in each family, each pair of addresses once more for fragments,
		// the last between link-local addresses, too; a leg, two paths of two hops.
		{"a chain of transparent and routed functions", chained, pipeline.ChainOwner(w.chains[0].Ref()), 3*(4+2) + 3*3 + 2 + 1 + 2*(2*4+4)},
		// One match; two legs, one rewriting function; a path that ends with it, and one of one hop.
		{"a chain with a rewriting function", chained, pipeline.ChainOwner(w.chains[1].Ref()), 3 + 3 + 2 + 4 + (4 + 2 + 4) + (4 + 4)},
		// One match; a leg; a path of two hops, of which the second is on another node: what comes out of it comes out there. What
		// comes by a tunnel comes for the first hop, either way, or home.
		{"a chain that leads to another node", chained, pipeline.ChainOwner(w.chains[3].Ref()), 3 + 3 + 1 + (4 + 2 + 4) + 3},
		{"the shortest chain", chained, pipeline.ChainOwner(w.chains[2].Ref()), 3 + 3 + 1 + (4 + 4)},
	} {
		if got := want.owners[want.owner]; got != want.flows {
			t.Errorf("%s has %d flows, want %d", want.what, got, want.flows)
		}
	}
	for _, f := range w.functions {
		if groups, _ := pipeline.FunctionFlows(f.Function); len(groups) != 4 {
			t.Errorf("function %s has %d groups, want 4", f.Instance, len(groups))
		}
	}
}

// plain is the example without chains.
func plain() world {
	w := example()
	w.functions, w.chains = nil, nil
	w.far.Chained = false
	for _, n := range []*pipeline.Network{&w.web, &w.db, &w.pub, &w.svc} {
		n.Outside = 0
	}
	for _, e := range []*pipeline.Endpoint{&w.a1, &w.a2, &w.a3, &w.a4} {
		e.Zone = 0
	}
	return w
}

func count(flows []openflow.Flow) map[pipeline.Owner]int {
	owners := map[pipeline.Owner]int{}
	for _, f := range flows {
		owners[pipeline.OwnerOf(f.Cookie)]++
	}
	return owners
}
