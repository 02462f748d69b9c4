package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// world is a node with a real switch: tenetctl and attach run in its network namespace.
type world struct {
	*ovstest.Switch
	t       *testing.T
	sandbox map[string]string // containers' network namespaces
}

// attachment is what the program attach is told: an ADD by the node's own steps.
type attachment struct {
	Config  node.Config
	Network vnet.Network
	Want    vnet.Attachment
	NetNS   string
	// Function says which port of a service function it is, nil: none.
	Function *vnet.FunctionPort
}

// attach attaches one container, as plugins/tenet does.
func attach() {
	var a attachment
	err := json.Unmarshal([]byte(os.Args[1]), &a)
	if err == nil {
		a.Config.Datapath = os.Args[2]
		err = add(a)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func add(a attachment) error {
	ctx := context.Background()
	n := node.Open(a.Config, nil)
	defer n.Close()
	if err := n.EnsureBridge(ctx); err != nil {
		return err
	}
	r, err := n.Record(ctx, node.Want{Attachment: a.Want, CNINetwork: "net1", NetNS: a.NetNS, Network: a.Network, Declare: true, Function: a.Function})
	if err != nil {
		return err
	}
	e := r.Endpoint
	if err := n.Connect(ctx, e, uint32(e.OFPort)); err != nil {
		return err
	}
	if err := n.Lay(ctx, &e); err != nil {
		return err
	}
	if _, err := n.Plug(ctx, e); err != nil {
		return err
	}
	if err := n.Expose(ctx, r); err != nil {
		return err
	}
	if err := n.Confirm(ctx, e); err != nil {
		return err
	}
	return n.Chained(ctx, e)
}

// newWorld starts a node with nothing on it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Switch: ovstest.Start(t, ovstest.Real()), t: t, sandbox: map[string]string{}}
	work := t.TempDir()
	t.Setenv("WORK", work)
	if err := os.Symlink(w.RunDir, filepath.Join(work, "run")); err != nil {
		t.Fatal(err)
	}
	return w
}

// attach starts a container and attaches it on a bridge.
func (w *world) attach(container, network, bridge string, prefixes ...string) {
	w.t.Helper()
	w.start(container)
	w.plug(attachment{Config: node.Config{Bridge: bridge}, Want: vnet.Attachment{Container: container, IfName: "eth0"}}, network, prefixes...)
}

// serve starts a container and attaches it as a service function, with a port for each role.
func (w *world) serve(container, group string, roles ...vnet.PortRole) {
	w.t.Helper()
	w.start(container)
	for i, role := range roles {
		w.plug(attachment{
			Config: node.Config{Bridge: "br-tenet"}, Want: vnet.Attachment{Container: container, IfName: fmt.Sprint("eth", i)},
			Function: &vnet.FunctionPort{Group: vnet.GroupName(group), Port: role, Weight: 1},
		}, "blue/svc", "10.0.9.0/24")
	}
}

// start starts a container. It ends with the test, whatever becomes of that.
func (w *world) start(container string) {
	w.t.Helper()
	sandbox := exec.CommandContext(w.t.Context(), "sleep", "3600")
	sandbox.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := sandbox.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = sandbox.Process.Kill()
		_ = sandbox.Wait()
	})
	w.sandbox[container] = fmt.Sprintf("/proc/%d/ns/net", sandbox.Process.Pid)
}

// plug attaches one interface of a container that runs.
func (w *world) plug(a attachment, network string, prefixes ...string) {
	w.t.Helper()
	ref, err := parseRef(network)
	if err != nil {
		w.t.Fatal(err)
	}
	a.Config.OVSRunDir, a.Config.DataDir = w.RunDir, filepath.Join(os.Getenv("WORK"), "data")
	a.Network, a.NetNS = vnet.Network{Tenant: ref.Tenant, Name: ref.Network}, w.sandbox[a.Want.Container]
	for _, p := range prefixes {
		a.Network.Subnets = append(a.Network.Subnets, vnet.Subnet{Prefix: netip.MustParsePrefix(p)})
	}
	text, err := json.Marshal(a)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Run(w.t, "attach", string(text), w.Datapath)
}

// in runs a program in a container, whether or not it succeeds.
func (w *world) in(container string, args ...string) {
	_, _ = w.Output(append([]string{"nsenter", "--net=" + w.sandbox[container]}, args...)...)
}

// tenetctl runs tenetctl, which must do what it is asked.
func (w *world) tenetctl(args ...string) string {
	w.t.Helper()
	return w.Run(w.t, append([]string{"tenetctl"}, args...)...)
}

// wants looks for texts in an output.
func (w *world) wants(out string, texts ...string) {
	w.t.Helper()
	for _, text := range texts {
		if !strings.Contains(out, text) {
			w.t.Errorf("no %q in:\n%s", text, out)
		}
	}
}

var web = []string{"10.0.0.0/24", "fd00:1::/64"}

// populate attaches what most tests look at: two tenants that overlap.
func (w *world) populate() {
	w.t.Helper()
	w.attach("c1", "blue/web", "br-tenet", web...)
	w.attach("c2", "blue/web", "br-tenet", web...)
	w.attach("c3", "blue/db", "br-tenet", "10.0.1.0/24")
	w.attach("r1", "red/web", "br-tenet", web...)
}

func TestTraceTellsWhereAPacketGoes(t *testing.T) {
	w := newWorld(t)
	w.populate()
	for _, tc := range []struct{ sentence, args, verdict string }{
		{"a neighbour is reached", "c1 c2", "delivered to the port of c2/eth0"},
		{"over IPv6 too", "c1 fd00:1::3 tcp/443", "delivered to the port of c2/eth0"},
		{"the tenant's other network is reached by the router", "c1 c3 tcp/5432", "delivered to the port of c3/eth0"},
		{"the gateway answers", "c1 10.0.0.1", "answered by the gateway, to c1/eth0 itself"},
		{"nothing leaves the tenant", "c1 192.0.2.1 udp/53", "dropped in Route: unroutable: "},
		{"nobody has the address", "c1 10.0.0.77", "dropped in Neighbour: unknown-neighbour: "},
		{"nobody has it in the other network", "c1 10.0.1.77", "dropped in NextHop: unknown-address: "},
		{"another tenant's address leads to one's own", "c2 r1", "delivered to the port of c1/eth0"},
		{"another's IPv4 address is refused", "c1 c2 --source-ip 10.0.0.3", "dropped in PortSecurity: spoofed-ipv4: the sender used "},
		{"another's IPv6 address is refused", "c1 c2 --source-ip fd00:1::3", "dropped in PortSecurity: spoofed-ipv6: the sender used "},
		{"another's MAC is refused", "c1 c2 --source-mac 0a:58:0a:00:00:03", "dropped in PortSecurity: spoofed-mac: the sender used "},
		{"multicast is not carried unless asked for", "c1 224.0.0.251 udp/5353", "dropped in Flood: no-multicast: "},
		{"a place names the sender and the target", "blue/web/10.0.0.2 blue/db/10.0.1.2", "delivered to the port of c3/eth0"},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			w.t = t
			out := w.tenetctl(append([]string{"trace"}, strings.Fields(tc.args)...)...)
			if verdict := out[strings.LastIndex(out, "\n")+1:]; !strings.HasPrefix(verdict, tc.verdict) {
				t.Errorf("%s, want %s\n%s", verdict, tc.verdict, out)
			}
		})
	}
	w.t = t
	w.wants(w.tenetctl("trace", "c2", "r1"), "note: r1 is of another tenant, whom c2/eth0 cannot address")
	var got traceView
	if err := json.Unmarshal([]byte(w.tenetctl("trace", "c1", "c3", "-o", "json")), &got); err != nil {
		t.Fatal(err)
	}
	var tables []string
	for _, s := range got.Steps {
		tables = append(tables, s.Name)
	}
	if want := []string{"Classify", "PortSecurity", "Route", "NextHop", "RouterSource", "Destination", "Output"}; !slices.Equal(tables, want) {
		t.Errorf("tables %v, want %v", tables, want)
	}
	if !slices.Equal(got.Verdict.Delivered, []string{"c3/eth0"}) {
		t.Errorf("delivered to %v", got.Verdict.Delivered)
	}
}

func TestStatusCountsWhatIsThereAndWhatIsDropped(t *testing.T) {
	w := newWorld(t)
	w.wants(w.tenetctl("status"), "br-tenet, to be made by the first ADD", "not there yet", "0 tenants, 0 networks, 0 endpoints")
	w.populate()
	w.wants(w.tenetctl("status"),
		"Open vSwitch", "br-tenet, datapath "+w.Datapath+", 5 ports", "agrees with the store",
		"2 tenants, 3 networks, 4 endpoints", "addresses in use: 7", "blue/web  10.0.0.0/24     2  251")

	w.in("c1", "ping", "-c1", "-W1", "10.0.0.3")
	w.in("c1", "ip", "addr", "add", "10.0.0.66/24", "dev", "eth0")
	w.in("c1", "ping", "-c1", "-W1", "-I", "10.0.0.66", "10.0.0.3")
	var got endpointDetails
	ovstest.Wait(t, "the counters", func() bool { // the switch counts with a delay
		got = endpointDetails{}
		if err := json.Unmarshal([]byte(w.tenetctl("endpoint", "show", "c1", "-o", "json")), &got); err != nil {
			t.Fatal(err)
		}
		return len(got.Traffic.Drops) > 0 && got.Traffic.SentPackets > 1 && got.Traffic.ReceivedPackets > 0
	})
	if d := got.Traffic.Drops[0]; d.Reason != "spoofed-ipv4" && d.Reason != "forged-arp" {
		t.Errorf("drops %+v", got.Traffic.Drops)
	}
	if got.Switch == nil || got.Switch.OFPort <= 0 || len(got.Differences) > 0 {
		t.Errorf("port %+v, differences %v", got.Switch, got.Differences)
	}
	w.wants(w.tenetctl("status"), "DROPPED", got.Traffic.Drops[0].Reason)
	w.wants(w.tenetctl("endpoint", "show", "c1"), "everything stands as recorded", "the sender")

	w.in("c2", "ip", "link", "set", "eth0", "mtu", "1300")
	w.wants(w.tenetctl("endpoint", "show", "c2"), "differs: ")
}

func TestSyncRepairsEveryBridge(t *testing.T) {
	w := newWorld(t)
	w.populate()
	w.attach("o1", "blue/web", "br-other", web...)
	agree := "br-tenet: everything agrees with the store\nbr-other: everything agrees with the store"
	if out := w.tenetctl("sync", "--dry-run"); out != agree {
		t.Errorf("at first:\n%s", out)
	}
	for _, bridge := range []string{"br-tenet", "br-other"} {
		w.Run(t, "ovs-ofctl", "-O", "OpenFlow15", "del-flows", w.Mgmt(bridge))
	}
	w.Run(t, "ovs-ofctl", "-O", "OpenFlow15", "add-flow", w.Mgmt("br-tenet"), "table=9,priority=7,actions=drop")
	w.Run(t, "ovs-vsctl", "del-port", "t"+string(vnet.Attachment{Container: "c2", IfName: "eth0"}.ID()))
	w.wants(w.tenetctl("trace", "c1", "c3"), "dropped in Classify: no flow matches")

	dry := w.tenetctl("sync", "--dry-run")
	w.wants(dry, "br-tenet: 1 stray flow would be removed", "would be plugged in again", "br-other: ", "missing flows would be written")
	if again := w.tenetctl("sync", "--dry-run"); again != dry {
		t.Errorf("a dry run changed something:\n%s\n%s", dry, again)
	}
	w.wants(w.tenetctl("sync"), "br-tenet: 1 stray flow removed", "plugged in again", "missing flows written")
	if out := w.tenetctl("sync"); out != agree {
		t.Errorf("after a sync:\n%s", out)
	}
	w.wants(w.tenetctl("trace", "c1", "c2"), "delivered to the port of c2/eth0")
	w.wants(w.tenetctl("endpoint", "show", "o1"), "everything stands as recorded")
}

func TestARestartOfTheSwitchIsPreparedAndRepaired(t *testing.T) {
	w := newWorld(t)
	w.populate()
	w.attach("o1", "blue/web", "br-other", web...)
	w.Run(t, "ovs-vsctl", "add-br", "br-foreign", "--", "set", "bridge", "br-foreign", "datapath_type="+w.Datapath)
	flag := func() string {
		return w.Run(t, "ovs-vsctl", "--if-exists", "get", "Open_vSwitch", ".", "other_config:flow-restore-wait")
	}
	w.KillVswitchd()
	w.tenetctl("sync", "--before-switch")
	if flag() != `"true"` {
		t.Errorf("the switch is not told to wait: flag %s", flag())
	}
	w.StartVswitchd()
	w.wants(w.tenetctl("status"), "waits for its flows")
	w.wants(w.tenetctl("sync", "--after-switch"), "missing flows written")
	if flag() != "" {
		t.Errorf("the switch still waits: flag %s", flag())
	}
	w.wants(w.tenetctl("status"), "br-tenet, ", "br-other, ", "agrees with the store")
	if out := w.tenetctl("sync", "--dry-run"); strings.Contains(out, "would") {
		t.Errorf("left undone:\n%s", out)
	}
	// A bridge of somebody else's is left alone, also if the configuration names it.
	before := w.Run(t, "ovs-ofctl", "dump-flows", "--no-stats", "br-foreign")
	if _, err := w.Output("tenetctl", "sync", "--after-switch", "--bridge", "br-foreign"); err == nil {
		t.Error("somebody else's bridge was accepted")
	}
	if after := w.Run(t, "ovs-ofctl", "dump-flows", "--no-stats", "br-foreign"); after != before {
		t.Errorf("flows of somebody else's bridge: %s, before %s", after, before)
	}
}

func TestEndpointDelLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.populate()
	w.wants(w.tenetctl("endpoint", "del", "c1"), "endpoint c1/eth0 deleted")
	if out := w.tenetctl("endpoint", "list"); strings.Contains(out, "c1/eth0") {
		t.Error(out)
	}
	w.wants(w.tenetctl("sync", "--dry-run"), "everything agrees with the store")
	w.wants(w.tenetctl("trace", "c2", "10.0.0.2"), "nobody's address", "dropped in Neighbour")
	if out := w.Run(t, "ip", "-o", "link"); strings.Contains(out, vnet.Attachment{Container: "c1", IfName: "eth0"}.ID().Port()) {
		t.Error(out)
	}
	for _, c := range []string{"c2", "c3", "r1"} {
		w.tenetctl("endpoint", "del", c)
	}
	for _, network := range []string{"blue/web", "blue/db", "red/web"} {
		w.tenetctl("network", "del", network)
	}
	w.tenetctl("tenant", "del", "red")
	w.wants(w.tenetctl("status"), "1 tenant, 0 networks, 0 endpoints", "addresses in use: 0", "agrees with the store")
}

func TestANetworkIsRefusedThatTheNodeCannotLeadOut(t *testing.T) {
	w := newWorld(t)
	w.Run(t, "ip", "addr", "add", "192.0.2.10/32", "dev", "lo")
	w.Run(t, "ip", "link", "set", "lo", "up")
	w.Run(t, "ip", "route", "add", "198.51.100.0/24", "dev", "lo")
	refused := func(want string, args ...string) {
		t.Helper()
		out, err := w.Output(append([]string{"tenetctl"}, args...)...)
		if err == nil || !strings.Contains(fmt.Sprint(out, err), want) {
			t.Errorf("%v: got %v %s, want %s", args, err, out, want)
		}
	}
	refused("egressAddress 192.0.2.11 of network blue/api is not an address of this node",
		"network", "add", "blue/api", "--subnet", "10.0.3.0/24", "--gateway", "nat", "--egress-address", "192.0.2.11")
	refused("subnet 198.51.100.0/25 of network blue/pub overlaps a route of the host: ",
		"network", "add", "blue/pub", "--subnet", "198.51.100.0/25", "--gateway", "routed")
	if out := w.tenetctl("network", "list"); out != "" {
		t.Errorf("there is a network:\n%s", out)
	}

	w.tenetctl("network", "add", "blue/api", "--subnet", "10.0.3.0/24", "--gateway", "nat", "--egress-address", "192.0.2.10")
	w.tenetctl("network", "add", "blue/pub", "--subnet", "203.0.113.0/24", "--gateway", "routed")
	w.wants(w.tenetctl("network", "list"), "nat 192.0.2.10", "routed")
	w.wants(w.tenetctl("network", "show", "blue/api"), "gateway    nat", "seen as    192.0.2.10")
	w.wants(w.tenetctl("network", "show", "blue/api", "-o", "json"), `"egressAddress": "192.0.2.10"`)
	w.wants(w.tenetctl("network", "show", "blue/api", "-o", "yaml"), "egressAddress: 192.0.2.10")

	// A network that is there stays as it is, whatever the node has lost since.
	w.Run(t, "ip", "addr", "del", "192.0.2.10/32", "dev", "lo")
	w.wants(w.tenetctl("network", "add", "blue/api", "--subnet", "10.0.3.0/24", "--gateway", "nat", "--egress-address", "192.0.2.10"), "unchanged")
}

func TestAnUplinkComesAndGoes(t *testing.T) {
	w := newWorld(t)
	for _, nic := range []string{"eth1", "eth2"} {
		w.Run(t, "ip", "link", "add", nic, "type", "veth", "peer", "name", nic+"-wire")
		w.Run(t, "ip", "link", "set", nic, "up")
		w.Run(t, "ip", "link", "set", nic+"-wire", "up")
	}
	w.Run(t, "ip", "addr", "add", "192.168.7.2/24", "dev", "eth1")
	w.Run(t, "ip", "addr", "add", "192.168.8.2/24", "dev", "eth2")
	w.Run(t, "ip", "route", "add", "default", "via", "192.168.8.1")
	nothing := func() {
		t.Helper()
		if out := w.tenetctl("uplink", "list") + w.tenetctl("network", "list"); out != "" {
			t.Errorf("there is something:\n%s", out)
		}
	}
	w.wants(w.tenetctl("uplink", "add", "lan", "--nic", "eth1", "--vlans", "100-199,7"), "uplink lan created")
	w.wants(w.tenetctl("uplink", "add", "lan", "--nic", "eth1", "--vlans", "7", "--vlans", "100-199"), "uplink lan unchanged")
	w.wants(w.tenetctl("uplink", "show", "lan"), "nic        eth1, up, mtu 1500", "192.168.7.2/24", "everything stands as recorded")
	w.wants(w.tenetctl("network", "add", "blue/lan", "--subnet", "192.168.7.0/24", "--mtu", "1500", "--provider", "lan:100"), "network blue/lan created")
	w.wants(w.tenetctl("uplink", "list"), "lan     eth1  7,100-199  blue/lan")
	w.Run(t, "ip", "link", "set", "br-lan", "down")
	w.wants(w.tenetctl("uplink", "show", "lan"), "differs: link br-lan is down")
	w.wants(w.tenetctl("uplink", "add", "lan", "--nic", "eth1", "--vlans", "7,100-199"), "uplink lan")
	w.wants(w.tenetctl("uplink", "show", "lan"), "everything stands as recorded")
	w.tenetctl("network", "del", "blue/lan")
	w.wants(w.tenetctl("uplink", "del", "lan"), "uplink lan deleted")
	w.wants(w.Run(t, "ip", "addr", "show", "eth1"), "192.168.7.2/24")
	nothing()

	// The way to everywhere else is only moved by somebody who says so, and by no file.
	file := filepath.Join(os.Getenv("WORK"), "uplinks.yaml")
	text := "{kind: Network, tenant: blue, name: lan, subnets: [{prefix: 192.168.7.0/24}], provider: {uplink: lan, vlan: 100}}\n---\n{kind: Uplink, name: lan, nic: eth1}\n"
	if err := os.WriteFile(file, []byte(text+"---\n{kind: Uplink, name: wan, nic: eth2}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"uplink", "add", "wan", "--nic", "eth2"}, {"apply", "-f", file}} {
		if out, err := w.Output(append([]string{"tenetctl"}, args...)...); err == nil || !strings.Contains(fmt.Sprint(out, err), "nic eth2 carries the host's default route") {
			t.Errorf("%v: got %v %s", args, err, out)
		}
		nothing()
		w.wants(w.Run(t, "ip", "addr", "show", "eth1"), "192.168.7.2/24")
	}
	w.wants(w.tenetctl("uplink", "add", "wan", "--nic", "eth2", "--force"), "uplink wan created")
	w.wants(w.Run(t, "ip", "route"), "default via 192.168.8.1 dev br-wan")
	w.wants(w.tenetctl("apply", "-f", file), "uplink lan created\nuplink wan unchanged\nnetwork blue/lan created")
	w.wants(w.tenetctl("apply", "-f", file), "uplink lan unchanged\nuplink wan unchanged\nnetwork blue/lan unchanged")
	w.wants(w.tenetctl("uplink", "list", "-o", "yaml"), "kind: Uplink\nname: lan\nnic: eth1")
}

func TestAChainIsShownAndDrawnAsItsFunctionsAre(t *testing.T) {
	w := newWorld(t)
	w.populate()
	w.tenetctl("group", "add", "blue/fw")
	w.tenetctl("group", "add", "blue/ids", "--on-failure", "open")
	w.tenetctl("chain", "add", "blue/in", "--group", "fw,ids", "--from", "any", "--to", "network:web")
	w.wants(w.tenetctl("chain", "show", "blue/in"), "blocked", "group fw is closed, and no function in it lives")
	w.serve("fw-1", "fw", vnet.Ingress, vnet.Egress)
	w.serve("fw-2", "fw", vnet.Both)
	w.serve("ids-1", "ids", vnet.Both)
	w.wants(w.tenetctl("chain", "show", "blue/in"), "2 of 2", "1 of 1", "fw-1 → ids-1  50.0 %", "fw-2 → ids-1  50.0 %")
	w.wants(w.tenetctl("function", "list"), "blue/fw/fw-1    serves", "blue/fw/fw-2    serves", "blue/ids/ids-1  serves")
	graph := func(format, want string) {
		t.Helper()
		if diff := cmp.Diff(strings.TrimSpace(want), w.tenetctl("chain", "graph", "blue/in", "--format", format)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", format, diff)
		}
	}
	graph("mermaid", `
flowchart LR
  from0["any"]
  to0["network web"]
  subgraph hop1["1 fw: transparent, closed"]
    f1["fw-1 (serves)"]
    f2["fw-2 (serves)"]
  end
  subgraph hop2["2 ids: transparent, open"]
    f3["ids-1 (serves)"]
  end
  from0 -->|50 %| f1
  f1 -->|50 %| f3
  f3 -->|100 %| to0
  from0 -->|50 %| f2
  f2 -->|50 %| f3
`)
	w.tenetctl("function", "drain", "blue/fw/fw-1")
	link := func(state, serving string) {
		t.Helper()
		w.in("ids-1", "ip", "link", "set", "eth0", state)
		ovstest.Wait(t, "the link", func() bool { return strings.Contains(w.tenetctl("group", "show", "blue/ids"), serving) })
		w.tenetctl("sync")
	}
	link("down", " down ")
	w.wants(w.tenetctl("group", "list"), "1 of 2", "0 of 1")
	w.wants(w.tenetctl("chain", "show", "blue/in"), "drained", "down", "none: only those that have it")
	graph("dot", `
digraph chain {
  label="chain blue/in";
  rankdir=LR;
  node [shape=box];
  from0 [label="any"];
  to0 [label="network web"];
  subgraph cluster_hop1 {
    label="1 fw: transparent, closed";
    f1 [label="fw-1 (drained)", style=dashed];
    f2 [label="fw-2 (serves)"];
  }
  subgraph cluster_hop2 {
    label="2 ids: transparent, open";
    f3 [label="ids-1 (down)", style=dashed];
  }
  from0 -> f2 [label="100 %"];
  f2 -> to0 [label="100 %"];
}
`)
	w.tenetctl("function", "undrain", "blue/fw/fw-1")
	link("up", " serves ")
	w.wants(w.tenetctl("chain", "show", "blue/in"), "fw-1 → ids-1  50.0 %", "fw-2 → ids-1  50.0 %")
	w.wants(w.tenetctl("sync", "--dry-run"), "everything agrees with the store")
}

// The store is the authority: what is declared meanwhile, the switch is told when it comes back.
func TestChainsAreDeclaredWhileTheSwitchIsAway(t *testing.T) {
	for what, away := range map[string]struct{ stop, start func(*world) }{
		"ovsdb-server": {func(w *world) { w.StopDB() }, func(w *world) { w.StartDB() }},
		"ovs-vswitchd": {func(w *world) { w.KillVswitchd() }, func(w *world) { w.StartVswitchd() }},
		"both":         {func(w *world) { w.KillVswitchd(); w.StopDB() }, func(w *world) { w.StartDB(); w.StartVswitchd() }},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.populate()
			w.tenetctl("group", "add", "blue/fw")
			w.serve("fw-1", "fw", vnet.Both)
			w.tenetctl("chain", "add", "blue/old", "--group", "fw", "--from", "any", "--to", "network:db")
			away.stop(w)
			if out := w.tenetctl("group", "add", "blue/ids", "--on-failure", "open"); out != "group blue/ids created" {
				t.Error(out)
			}
			if out := w.tenetctl("chain", "add", "blue/in", "--group", "fw,ids", "--from", "any", "--to", "network:web"); out != "chain blue/in created" {
				t.Error(out)
			}
			w.wants(w.tenetctl("chain", "del", "blue/old"), "chain blue/old deleted")
			w.wants(w.tenetctl("group", "list"), "blue/ids")
			w.wants(w.tenetctl("chain", "show", "blue/in"), "1 fw")
			away.start(w)
			ovstest.Wait(t, "the switch", func() bool { _, err := w.Output("tenetctl", "sync"); return err == nil })
			w.wants(w.tenetctl("sync", "--dry-run"), "everything agrees with the store")
			w.wants(w.tenetctl("function", "list"), "blue/fw/fw-1  serves")
			w.wants(w.tenetctl("chain", "show", "blue/in"), "fw-1     100.0 %")
		})
	}
}
