package pipeline_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What conntrack would say is said by the packet: ct_mark and ct_label are kept until it is asked, and --ct-next gives
// the state. A pinned connection has its path in the label from bit 64 on, what is in a routed function the hop, too.
const (
	established  = " --ct-next trk,est"
	reply        = " --ct-next trk,est,rpl"
	path1        = ",ct_mark=1,ct_label=0x10000000000000000"
	path3        = ",ct_mark=1,ct_label=0x30000000000000000"
	path4        = ",ct_mark=1,ct_label=0x40000000000000000"
	path5        = ",ct_mark=1,ct_label=0x50000000000000000"
	path9        = ",ct_mark=1,ct_label=0x90000000000000000" // of nobody
	atHop2       = ",ct_mark=1,ct_label=0x1020000000000000000"
	toDB         = "dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64,tp_dst=80"
	fragmentToDB = "dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64"
	fromDB       = "in_port=103,dl_src=0a:58:0a:00:01:02,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.1.2,nw_dst=10.0.0.2,nw_ttl=64,tp_src=80"
	chainFromA1  = "in_port=101,dl_src=0a:58:0a:00:00:02,"
	toA2         = "dl_dst=0a:58:0a:00:00:03,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64,tp_dst=80"
	tags11       = "dl_src=0e:00:00:01:01:01,dl_dst=0e:00:00:01:01:02" // path 1, hop 1
	tags11back   = "dl_src=0e:00:00:01:01:02,dl_dst=0e:00:00:01:01:01"
	ipToDB       = ",tcp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64,tp_dst=80"
	ipFromDB     = ",tcp,nw_src=10.0.1.2,nw_dst=10.0.0.2,nw_ttl=63,tp_src=80"
)

// The sentences below are about the chains of the example.
func TestWhereChainsLead(t *testing.T) {
	sw := exampleSwitch(t)
	for _, tc := range []struct {
		sentence, packet, fate string
		shows                  string // that the trace has
	}{
		{"a new connection that a classifier wants goes into a function", chainFromA1 + toDB + ",dp_hash=2", "301", "set_field:0e:00:00:01:01:01->eth_src"},
		{"tagged with path and hop in both MACs", chainFromA1 + toDB + ",dp_hash=2", "301", "set(eth(src=0e:00:00:01:01:01,dst=0e:00:00:01:01:02))"},
		{"and its path is kept for the connection", chainFromA1 + toDB + ",dp_hash=2", "301", "ct(commit,zone=2001,mark=0x1/0x1,label=0x10000000000000000/0xffffff0000000000000000)"},
		{"another one may go into another", chainFromA1 + toDB + ",dp_hash=8", "303", "set_field:0e:00:00:02:01:01->eth_src"},
		{"in a network, too", chainFromA1 + toA2 + ",dp_hash=2", "301", "set(eth(src=0e:00:00:01:01:01,dst=0e:00:00:01:01:02))"},
		{"and with IPv6", chainFromA1 + "dl_dst=0a:58:0a:00:00:03,tcp6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::3,nw_ttl=64,tp_dst=80,dp_hash=2", "301", "set_field:0e:00:00:01:01:01->eth_src"},
		{"a port in the range", chainFromA1 + strings.Replace(toDB, "tp_dst=80", "tp_dst=8099", 1) + ",dp_hash=2", "301", ""},
		{"one behind it goes straight to its owner", chainFromA1 + strings.Replace(toDB, "tp_dst=80", "tp_dst=8100", 1), "103", ""},
		{"another tenant's with the same addresses is not led", strings.Replace(chainFromA1, "101", "201", 1) + toA2, "drop in 50", ""},
		{"nor is it if its tenant has such a network", strings.Replace(chainFromA1, "101", "201", 1) + "dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64,tp_dst=80", "drop in 41", ""},
		{"a fragment may be wanted, and is led", chainFromA1 + fragmentToDB + ",nw_frag=later,dp_hash=2,ct_state=trk|new,ct_nw_proto=6", "301", "label=0x10000000000000000/0xffffff0000000000000000"},
		{"the first one does not part from it, whatever its port", chainFromA1 + fragmentToDB + ",nw_frag=first,tp_dst=8100,dp_hash=2,ct_state=trk|new,ct_nw_proto=6", "301", ""},
		{"one of a protocol that no chain wants is not led", chainFromA1 + strings.Replace(fragmentToDB, "tcp", "udp", 1) + ",nw_frag=later,ct_state=trk|new,ct_nw_proto=17", "103", ""},
		{"nor is one of IPv6, which shows none", chainFromA1 + "dl_dst=0a:58:0a:00:00:03,ipv6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::3,nw_proto=44,nw_ttl=64,nw_frag=later,ct_state=trk|new,ct_nw_proto=17", "102", ""},
		{"one keeps the path of its connection", chainFromA1 + fragmentToDB + ",nw_frag=later" + path1 + established, "301", ""},
		{"one whose path is no more gets another", chainFromA1 + fragmentToDB + ",nw_frag=later,dp_hash=8,ct_state=trk|new,ct_nw_proto=6" + path9 + established, "303", ""},
		{"between link-local addresses nothing is led, so nothing passes", chainFromA1 + "dl_dst=0a:58:0a:00:00:03,tcp6,ipv6_src=fe80::858:aff:fe00:2,ipv6_dst=fe80::858:aff:fe00:3,nw_ttl=64,tp_dst=80", "drop in 20", ""},
		{"unless no classifier wants it", chainFromA1 + "dl_dst=0a:58:0a:00:00:03,tcp6,ipv6_src=fe80::858:aff:fe00:2,ipv6_dst=fe80::858:aff:fe00:3,nw_ttl=64,tp_dst=81", "102", ""},
		{"an established connection keeps its path", chainFromA1 + toDB + path1 + established, "301", ""},
		{"whose path is no more gets another", chainFromA1 + toDB + path9 + ",dp_hash=8" + established, "303", "label=0x20000000000000000/0xffffff0000000000000000"},
		{"what the tracker calls invalid is dropped", chainFromA1 + toDB + " --ct-next trk,inv", "drop in 21", ""},
		{"who answers a connection does not open one", chainFromA1 + toDB + reply, "103", ""},

		{"what comes out of fw1 goes to the next hop", "in_port=302," + tags11 + ipToDB, "311", "set(eth(src=0a:58:00:00:00:01,dst=0a:58:0a:09:00:03))"},
		{"and is tracked there, with path and hop", "in_port=302," + tags11 + ipToDB, "311", "ct(commit,zone=2203,mark=0x1/0x1,label=0x1020000000000000000/0xffffffff0000000000000000)"},
		{"not with another path's tag", "in_port=302,dl_src=0e:00:00:02:01:01,dl_dst=0e:00:00:02:01:02" + ipToDB, "drop in 36", ""},
		{"nor with another hop's", "in_port=302,dl_src=0e:00:00:01:02:01,dl_dst=0e:00:00:01:02:02" + ipToDB, "drop in 36", ""},
		{"nor from the other port", "in_port=301," + tags11 + ipToDB, "drop in 36", ""},
		{"nor from the other instance", "in_port=304," + tags11 + ipToDB, "drop in 36", ""},
		{"nor with the MACs swapped, which is an answer", "in_port=302," + tags11back + ipToDB, "drop in 36", ""},
		{"nor with one of them wrong", "in_port=302,dl_src=0e:00:00:01:01:01,dl_dst=0e:00:00:01:01:03" + ipToDB, "drop in 36", ""},
		{"nor from an endpoint", "in_port=101," + tags11 + ipToDB, "drop in 10", ""},
		{"nor in a VLAN", "in_port=302,dl_vlan=5,dl_vlan_pcp=0," + tags11 + ipToDB, "drop in 36", ""},
		{"what the function says itself to the client goes to it", "in_port=301," + tags11back + ipFromDB, "101", ""},
		{"a broadcast of the function is dropped", "in_port=302,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,ip,nw_src=10.0.0.2", "drop in 36", ""},
		{"and its ARP", "in_port=302,dl_src=02:00:00:00:00:01,dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=10.9.0.3,arp_tpa=10.0.0.2", "drop in 36", ""},
		{"a probe that has come back ends here", "in_port=302,dl_src=0e:00:00:00:00:01,dl_dst=0e:00:00:00:00:02,dl_type=0x88b5", "drop in 36", ""},

		{"what comes out of rt1 goes to the server", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01" + ipToDB + atHop2 + established, "103", "set(eth(src=0a:58:00:00:00:01,dst=0a:58:0a:00:01:02))"},
		{"by whichever port: its routes decide that", "in_port=311,dl_src=0a:58:0a:09:00:03,dl_dst=0a:58:00:00:00:01" + ipToDB + atHop2 + established, "103", ""},
		{"in its network with both MACs as they were", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64,tp_dst=80" + atHop2 + established, "102", "set(eth(src=0a:58:0a:00:00:02,dst=0a:58:0a:00:00:03))"},
		{"not if it was never sent in", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01" + ipToDB, "drop in 38", ""},
		{"nor with a MAC that is not the port's", "in_port=312,dl_src=0a:58:0a:09:00:05,dl_dst=0a:58:00:00:00:01" + ipToDB, "drop in 36", ""},
		{"what it sends as itself is an endpoint's", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.9.0.4,nw_dst=10.0.0.2,nw_ttl=64", "101", ""},
		{"its question for a neighbour, too", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=10.9.0.4,arp_sha=0a:58:0a:09:00:04,arp_tpa=10.9.0.1", "IN_PORT", ""},

		{"an answer is turned round at the client, into the last function", fromDB + path1 + reply, "312", "set(eth(dst=0a:58:0a:09:00:04))"},
		{"out of it, it goes to the function before", "in_port=311,dl_src=0a:58:0a:09:00:03,dl_dst=0a:58:00:00:00:01" + ipFromDB + atHop2 + reply, "302", "set(eth(src=0e:00:00:01:01:02,dst=0e:00:00:01:01:01))"},
		{"and out of that to the client", "in_port=301," + tags11back + ipFromDB, "101", "set(eth(src=0a:58:00:00:00:01,dst=0a:58:0a:00:00:02))"},
		{"in its network with both MACs as they were", "in_port=301," + tags11back + ",tcp,nw_src=10.0.0.3,nw_dst=10.0.0.2,nw_ttl=63,tp_src=80", "101", "set(eth(src=0a:58:0a:00:00:03,dst=0a:58:0a:00:00:02))"},
		{"one whose path is no more is given another at once", fromDB + path9 + ",dp_hash=8" + reply, "312", "ct(commit,zone=2001,mark=0x1/0x1,label=0x20000000000000000/0xffffff0000000000000000)"},
		{"in its network the last hop that it may make does not count", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=1,tp_dst=80" + atHop2 + established, "102", ""},
		{"to another it does", "in_port=312,dl_src=0a:58:0a:09:00:04,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=1,tp_dst=80" + atHop2 + established, "drop in 40", ""},
		{"an answer to a connection without a path goes straight", fromDB + reply, "101", ""},
		{"the gateway is not led to", chainFromA1 + "dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.1,nw_ttl=64,tp_dst=80", "drop in 71", ""},
		{"nor the one of another network, whose echo has to go back where it came from", "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.5.0.2,nw_dst=10.0.0.1,nw_ttl=64,icmp_type=8", "IN_PORT", ""},

		{"a rewriting function is entered by its MAC, and tracked", "in_port=302,dl_src=0e:00:00:03:01:01,dl_dst=0e:00:00:03:01:02,udp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64", "321", "ct(commit,zone=2204,mark=0x1/0x1,label=0x3020000000000000000/0xffffffff0000000000000000)"},
		{"what leaves it is its own and goes on by a path of the next leg", "in_port=322,dl_src=0a:58:0a:09:00:06,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.9.0.6,nw_dst=10.5.0.2,nw_ttl=63", "311", "ct(commit,zone=2014,mark=0x1/0x1,label=0x40000000000000000/0xffffff0000000000000000)"},
		{"with no other source", "in_port=322,dl_src=0a:58:0a:09:00:06,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=63", "drop in 10", ""},
		{"the answer to it goes the rest of the chain backwards", "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.5.0.2,nw_dst=10.9.0.6,nw_ttl=64" + path4 + reply, "312", ""},
		{"and what it makes of it, back to the hop before", "in_port=321,dl_src=0a:58:0a:09:00:05,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64,ct_mark=1,ct_label=0x3020000000000000000" + reply, "302", "set(eth(src=0e:00:00:03:01:02,dst=0e:00:00:03:01:01))"},

		{"a chain that is not symmetric leads the request", "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64,icmp_type=8", "331", ""},
		{"out of the same port, where it is one for both", "in_port=331,dl_src=0e:00:00:05:01:01,dl_dst=0e:00:00:05:01:02,icmp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64,icmp_type=8", "101", ""},
		{"and not the answer", "in_port=101,dl_src=0a:58:0a:00:00:02,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64,icmp_type=0" + path5 + reply, "104", ""},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			out := trace(t, sw, tc.packet)
			if got := fate(out); got != tc.fate || !strings.Contains(out, tc.shows) {
				t.Errorf("%s: %s, want %s, and %q\n%s", tc.packet, got, tc.fate, tc.shows, out)
			}
		})
	}
}

// An answer that is led comes by its receiver's port twice, and counts once for what that may receive.
func TestALedAnswerIsMeteredOnce(t *testing.T) {
	sw := exampleSwitch(t)
	packet := "dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64,icmp_type=0"
	into := trace(t, sw, chainFromA1+packet+path1+reply)
	out := trace(t, sw, "in_port=301,"+tags11back+",icmp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64,icmp_type=0")
	if fate(into) != "312" || strings.Contains(into, "meter:") {
		t.Errorf("on its way into the chain it is metered, or not led:\n%s", into)
	}
	if fate(out) != "104" || strings.Count(out, "meter:1") != 1 {
		t.Errorf("behind the chain it is not metered once:\n%s", out)
	}
}

// comesTo waits for a fate: the switch sees that a port has gone down with its next turn.
func comesTo(t *testing.T, sw *ovstest.Switch, sentence, packet, want string) {
	t.Helper()
	got := ""
	defer func() {
		if got != want {
			t.Logf("%s: it comes to %s\n%s", sentence, got, trace(t, sw, packet))
		}
	}()
	ovstest.Wait(t, sentence+": "+want, func() bool { got = fate(trace(t, sw, packet)); return got == want })
}

// A function is dead as soon as one of its ports is.
func TestWhereChainsLeadPastTheDead(t *testing.T) {
	sw := exampleSwitch(t)
	down := func(ports ...string) {
		for _, p := range ports {
			sw.Run(t, "ovs-ofctl", "-O", "OpenFlow15", "mod-port", "br-tenet", p, "down")
		}
	}
	expect := func(sentence, packet, want string) {
		t.Helper()
		comesTo(t, sw, sentence, packet, want)
	}
	down("p302", "p331")
	expect("closed: dropped, though the port that it goes in by works", chainFromA1+toDB+path1+established, "drop in 35")
	expect("so are answers", "in_port=311,dl_src=0a:58:0a:09:00:03,dl_dst=0a:58:00:00:00:01"+ipFromDB+atHop2+reply, "drop in 35")
	expect("a connection with another path lives", chainFromA1+toDB+",ct_mark=1,ct_label=0x20000000000000000"+established, "303")
	expect("open: to the next hop, here the end", "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64,icmp_type=8", "101")
	down("p301")
	for hash := 1; hash <= 16; hash++ { // 0 stands for none
		expect("new connections avoid it", fmt.Sprintf("%s%s,dp_hash=%d", chainFromA1, toDB, hash), "303")
	}
	down("p303")
	expect("all are dead, and their group is closed", chainFromA1+toDB+",dp_hash=2", "drop in 35")
	down("p322")
	expect("nobody else can translate what a rewriting function did", "in_port=CONTROLLER,metadata=0xa00000000,reg0=5,reg7=0x302,udp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64", "drop in 35")
}

// What hangs is as dead as what is down, though its ports work.
func TestWhatHangsIsPassedBy(t *testing.T) {
	const (
		toClosed = chainFromA1 + toDB + path1 + established
		toOpen   = "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,icmp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64,icmp_type=8"
	)
	w := example()
	for i := range w.functions {
		w.functions[i].Hung = true
	}
	for i := range w.chains {
		for _, f := range w.functions {
			w.chains[i].Functions[f.Number] = f.Function
		}
	}
	sw := switchOf(t, w)
	for packet, want := range map[string]string{toClosed: "drop in 35", toOpen: "101"} {
		if got := fate(trace(t, sw, packet)); got != want {
			t.Errorf("%s: %s, want %s", packet, got, want)
		}
	}
}

// A path with a function that is not on this bridge is none: neither does a new connection get it, nor does one keep it.
func TestAPathOfAnotherBridgeIsNone(t *testing.T) {
	w := example()
	i := slices.IndexFunc(w.chains, func(c pipeline.Chain) bool { return len(c.Legs[0].Paths) == 2 })
	delete(w.chains[i].Functions, w.chains[i].Legs[0].Paths[0].Hops[0].Instance)
	sw := switchOf(t, w)
	for hash := 1; hash <= 16; hash++ {
		if got := fate(trace(t, sw, fmt.Sprintf("%s%s,dp_hash=%d", chainFromA1, toDB, hash))); got != "303" {
			t.Errorf("hash %d: %s, want 303", hash, got)
		}
	}
	if got := fate(trace(t, sw, chainFromA1+toDB+path1+established)); got != "303" {
		t.Errorf("a connection with such a path: %s, want 303", got)
	}
	w.chains[i].Functions = nil
	if got := fate(trace(t, switchOf(t, w), chainFromA1+toDB)); got != "drop in 30" {
		t.Errorf("without any: %s, want drop in 30", got)
	}
}

// Eight dead functions in a row, the most there can be, are not too deep for the switch.
func TestAChainOfTheDeadPasses(t *testing.T) {
	w := example()
	var hops []vnet.Hop
	c := vnet.Chain{Name: "deep", Priority: 20}
	for i := range uint32(vnet.MaxHops) {
		name := vnet.GroupName(fmt.Sprintf("g%d", i))
		container := fmt.Sprintf("f%d", i)
		w.functions = append(w.functions, w.function(vnet.Group{Name: name, OnFailure: vnet.Open}, 10+i, w.port(container, 401+2*i), w.port(container, 402+2*i)))
		c.Groups, hops = append(c.Groups, name), append(hops, hop(name, 10+i))
	}
	w.chains = append(w.chains, w.chain(c, []vnet.Leg{leg(5, path(6, 10_000, hops...))}, pipeline.Classifier{
		Classifier: vnet.Classifier{From: vnet.Selector{Network: "web"}, To: vnet.Selector{Any: true}, Protocol: vnet.UDP},
		From:       prefixes(w.web),
	}))
	sw := switchOf(t, w)
	for i := range vnet.MaxHops {
		// The port that it would come out by: both groups are asked, which is the deepest.
		sw.Run(t, "ovs-ofctl", "-O", "OpenFlow15", "mod-port", "br-tenet", fmt.Sprintf("p%d", 402+2*i), "down")
	}
	for _, tc := range []struct{ packet, fate string }{
		{chainFromA1 + "dl_dst=0a:58:0a:00:00:03,udp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "102"},
		{"in_port=102,dl_src=0a:58:0a:00:00:03,dl_dst=0a:58:0a:00:00:02,udp,nw_src=10.0.0.3,nw_dst=10.0.0.2,nw_ttl=64,ct_mark=1,ct_label=0x60000000000000000 --ct-next trk,new" + reply, "101"},
	} {
		comesTo(t, sw, "past all", tc.packet, tc.fate)
	}
}

// What leaves a rewriting function that gets no new connections goes on by the path that it has, and past no function.
func TestADrainedRewritingFunctionGoesOn(t *testing.T) {
	const (
		leaves = "in_port=322,dl_src=0a:58:0a:09:00:06,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.9.0.6,nw_dst=10.5.0.2,nw_ttl=63"
		answer = "in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,udp,nw_src=10.5.0.2,nw_dst=10.9.0.6,nw_ttl=64" + path4 + reply
	)
	retired := path(4, 0, hop("rt", 3))
	for _, tc := range []struct {
		what string
		legs []vnet.Leg
	}{
		{"its group is closed", []vnet.Leg{
			{Number: 2, Groups: []vnet.GroupName{"fw", "nat"}, Blocked: "nat", Paths: []vnet.Path{path(3, 0, hop("fw", 1), hop("nat", 4))}},
			{Number: 3, Paths: []vnet.Path{retired}},
		}},
		{"one before is", []vnet.Leg{
			{Number: 2, Groups: []vnet.GroupName{"fw"}, Blocked: "fw", Paths: []vnet.Path{path(3, 0, hop("fw", 1), hop("nat", 4))}},
			{Number: 3, Paths: []vnet.Path{retired}},
		}},
		{"its group is open", []vnet.Leg{
			{Number: 2, Groups: []vnet.GroupName{"fw", "nat", "rt"}, Paths: []vnet.Path{path(6, 10_000, hop("fw", 1), hop("rt", 3)), path(3, 0, hop("fw", 1), hop("nat", 4))}},
			{Number: 3, Paths: []vnet.Path{retired}},
		}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			w := example()
			i := slices.IndexFunc(w.chains, func(c pipeline.Chain) bool { return c.Name == "hidden" })
			w.chains[i].Legs = tc.legs
			sw := switchOf(t, w)
			for _, tc := range []struct{ sentence, packet, fate string }{
				{"established", leaves + path4 + established, "311"},
				{"new", leaves, "drop in 30"},
				{"an answer", answer, "312"},
			} {
				out := trace(t, sw, tc.packet)
				if got := fate(out); got != tc.fate {
					t.Errorf("%s: %s, want %s\n%s", tc.sentence, got, tc.fate, out)
				}
			}
		})
	}
}

// trace asks the switch where a packet goes. Behind the packet there may be options.
func trace(t *testing.T, sw *ovstest.Switch, packet string) string {
	t.Helper()
	out, err := ovs.Control(t.Context(), sw.RunDir, "ofproto/trace", append([]string{"br-tenet"}, strings.Fields(packet)...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
