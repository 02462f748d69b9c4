package pipeline_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The sentences below are asked of a real switch that has the example's flows.
func TestWherePacketsGo(t *testing.T) {
	sw := exampleSwitch(t)
	const (
		fromA1 = "in_port=101,dl_src=0a:58:0a:00:00:02"
		fromB1 = "in_port=201,dl_src=0a:58:0a:00:00:02"
		fromA4 = "in_port=104,dl_src=0a:58:0a:05:00:02"
		fromB2 = "in_port=202,dl_src=0a:58:ac:14:00:05"
		host   = "in_port=2,dl_src=0a:58:00:00:00:03,dl_dst=0a:58:00:00:00:02"
		wire   = "in_port=256,dl_vlan=100,dl_vlan_pcp=0"
		a2     = "dl_dst=0a:58:0a:00:00:03"
		router = "dl_dst=0a:58:00:00:00:01"
		fromN2 = "in_port=1,tun_src=192.0.2.2,tun_dst=192.0.2.1"
		all    = "dl_dst=ff:ff:ff:ff:ff:ff"
	)
	for _, tc := range []struct{ sentence, packet, fate string }{
		{"a frame reaches its owner in the same network", fromA1 + "," + a2 + ",ip,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "102"},
		{"IPv6 does too", fromA1 + "," + a2 + ",ipv6,ipv6_src=fd00:1::2,ipv6_dst=fd00:1::3,nw_ttl=64", "102"},
		{"another tenant's MAC is unknown", fromB1 + "," + a2 + ",ip,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "drop in 50"},
		{"the router leads to the tenant's other network", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64", "103"},
		{"never to another tenant's", fromB2 + "," + router + ",ip,nw_src=172.20.0.5,nw_dst=10.0.1.2,nw_ttl=64", "drop in 40"},
		{"to the one that the host routes it leads as well", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64", "104"},
		{"what leaves by NAT goes to the host", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=192.0.2.1,nw_ttl=64", "2"},
		{"its spent TTL, too", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=192.0.2.1,nw_ttl=1", "2"},
		{"but no VXLAN", fromB1 + "," + router + ",udp,nw_src=10.0.0.2,nw_dst=192.0.2.9,nw_ttl=64,udp_dst=4789", "drop in 40"},
		{"with whatever TTL", fromB1 + "," + router + ",udp,nw_src=10.0.0.2,nw_dst=192.0.2.9,nw_ttl=1,udp_dst=4789", "drop in 40"},
		{"nor to the gateway's address by a spent TTL: the host may have it", fromB1 + "," + router + ",udp,nw_src=10.0.0.2,nw_dst=10.0.0.1,nw_ttl=1,udp_dst=53", "drop in 40"},
		{"nor, of a routed network, into the tenant's others", fromA4 + "," + router + ",udp,nw_src=10.5.0.2,nw_dst=10.0.1.2,nw_ttl=1,udp_dst=53", "drop in 40"},
		{"nothing for the node's link-local services", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=169.254.169.254,nw_ttl=64", "drop in 70"},
		{"nothing for the host's loopback", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=127.0.0.1,nw_ttl=64", "drop in 70"},
		{"no new connection to another's alias", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=169.254.64.101,nw_ttl=64", "drop in 71"},
		{"nor to the host's end of the link", fromB1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=169.254.64.1,nw_ttl=64", "drop in 71"},
		{"nor to the host in the gateway's place", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=10.0.0.1,nw_ttl=64", "drop in 71"},
		{"what is routed goes to the host as it is", fromA4 + "," + router + ",ip,nw_src=10.5.0.2,nw_dst=192.0.2.1,nw_ttl=64", "2"},
		{"but not to an alias", fromA4 + "," + router + ",ip,nw_src=10.5.0.2,nw_dst=169.254.64.101,nw_ttl=64", "drop in 71"},
		{"the host reaches an endpoint by its alias", host + ",ip,nw_src=169.254.64.1,nw_dst=169.254.64.101,nw_ttl=64", "101"},
		{"and the one that has the same address", host + ",ip,nw_src=169.254.64.1,nw_dst=169.254.64.201,nw_ttl=64", "201"},
		{"who reaches a published port of a network that leaves by NAT is let in", host + ",ip,nw_src=203.0.113.9,nw_dst=169.254.64.201,nw_ttl=63", "201"},
		{"not in one that has no way back", host + ",ip,nw_src=203.0.113.9,nw_dst=169.254.64.101,nw_ttl=63", "drop in 2"},
		{"what nobody asked for does not come in", host + ",ip,nw_src=203.0.113.9,nw_dst=169.254.64.6,nw_ttl=63", "drop in 3"},
		{"the routed network is reached by its addresses", host + ",ip,nw_src=203.0.113.9,nw_dst=10.5.0.2,nw_ttl=63", "104"},
		{"others are not", host + ",ip,nw_src=203.0.113.9,nw_dst=10.0.1.2,nw_ttl=63", "drop in 2"},
		{"an endpoint on a wire sends strangers there", fromB2 + ",dl_dst=02:00:00:00:00:01,ip,nw_src=172.20.0.5,nw_dst=172.20.0.9,nw_ttl=64", "256"},
		{"and reaches no other network of its tenant", fromB2 + "," + router + ",ip,nw_src=172.20.0.5,nw_dst=10.0.0.2,nw_ttl=64", "drop in 40"},
		{"and asks there", fromB2 + "," + all + ",arp,arp_op=1,arp_spa=172.20.0.5,arp_sha=0a:58:ac:14:00:05,arp_tpa=172.20.0.9", "256"},
		{"and says who it is", fromB2 + "," + all + ",arp,arp_op=1,arp_spa=172.20.0.5,arp_sha=0a:58:ac:14:00:05,arp_tpa=172.20.0.5", "256"},
		{"but not that it is somebody else", fromB2 + "," + all + ",arp,arp_op=1,arp_spa=172.20.0.9,arp_sha=0a:58:ac:14:00:05,arp_tpa=172.20.0.5", "drop in 10"},
		{"the wire reaches it", wire + ",dl_src=02:00:00:00:00:01,dl_dst=0a:58:ac:14:00:05,ip,nw_src=172.20.0.9,nw_dst=172.20.0.5", "202"},
		{"by broadcast, too", wire + ",dl_src=02:00:00:00:00:01," + all + ",arp,arp_op=1,arp_spa=172.20.0.9,arp_tpa=172.20.0.5", "202"},
		{"what it has for others does not go back to it", wire + ",dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,ip", "drop in 50"},
		{"nor does an answer to the router", wire + ",dl_src=02:00:00:00:00:01," + router + ",icmp6,ipv6_src=fd00:3::9,ipv6_dst=fd74:656e:6574::1,icmpv6_type=136,icmpv6_code=0,nw_ttl=255", "drop in 50"},
		{"nor do our own come by it", wire + ",dl_src=0a:58:ac:14:00:05," + all + ",ip", "drop in 0"},
		{"nor another VLAN", "in_port=256,dl_vlan=101,dl_vlan_pcp=0,dl_src=02:00:00:00:00:01," + all + ",ip", "drop in 0"},
		{"nor out of the tenant", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=192.0.2.1,nw_ttl=64", "drop in 40"},
		{"a spent TTL is not forwarded", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=1", "drop in 40"},
		{"VXLAN does not leave", fromA1 + "," + router + ",udp,nw_src=10.0.0.2,nw_dst=192.0.2.9,nw_ttl=64,udp_dst=4789", "drop in 40"},
		{"nobody has the address", fromA1 + "," + router + ",ip,nw_src=10.0.0.2,nw_dst=10.0.1.77,nw_ttl=64", "drop in 41"},
		{"another's MAC as source", "in_port=101,dl_src=0a:58:0a:00:00:03," + a2 + ",ip,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "drop in 10"},
		{"another's IPv4 address as source", fromA1 + "," + a2 + ",ip,nw_src=10.0.0.9,nw_dst=10.0.0.3,nw_ttl=64", "drop in 10"},
		{"another's IPv6 address as source", fromA1 + "," + a2 + ",ipv6,ipv6_src=fd00:1::9,ipv6_dst=fd00:1::3,nw_ttl=64", "drop in 10"},
		{"IPv6 from an endpoint that has none", "in_port=103,dl_src=0a:58:0a:00:01:02,dl_dst=33:33:00:00:00:01,ipv6,ipv6_src=fe80::858:aff:fe00:102,nw_ttl=64", "drop in 10"},
		{"a VLAN tag", fromA1 + "," + a2 + ",dl_vlan=5,dl_vlan_pcp=0,ip,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "drop in 10"},
		{"a priority tag", fromA1 + "," + a2 + ",vlan_tci=0x1000,ip,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64", "drop in 10"},
		{"spanning tree", fromA1 + ",dl_dst=01:80:c2:00:00:00,dl_type=0x1234", "drop in 10"},
		{"a question for a neighbour goes to its owner alone", fromA1 + "," + all + ",arp,arp_op=1,arp_spa=10.0.0.2,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.3", "102"},
		{"one for the gateway is answered", fromA1 + "," + all + ",arp,arp_op=1,arp_spa=10.0.0.2,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.1", "IN_PORT"},
		{"one for nobody is dropped", fromA1 + "," + all + ",arp,arp_op=1,arp_spa=10.0.0.2,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.77", "drop in 15"},
		{"a forged one too", fromA1 + "," + all + ",arp,arp_op=1,arp_spa=10.0.0.3,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.3", "drop in 10"},
		{"a forged answer", fromA1 + "," + a2 + ",arp,arp_op=2,arp_spa=10.0.0.1,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.3", "drop in 10"},
		{"a router advertisement", fromA1 + ",dl_dst=33:33:00:00:00:01,icmp6,ipv6_src=fe80::858:aff:fe00:2,ipv6_dst=ff02::1,icmpv6_type=134,nw_ttl=255", "drop in 10"},
		{"multicast reaches the members where the network carries it", fromA1 + ",dl_dst=01:00:5e:00:00:fb,ip,nw_src=10.0.0.2,nw_dst=224.0.0.251,nw_ttl=64", "102,1"},
		{"and nobody elsewhere", fromB1 + ",dl_dst=01:00:5e:00:00:fb,ip,nw_src=10.0.0.2,nw_dst=224.0.0.251,nw_ttl=64", "drop in 55"},
		{"nobody reaches the cluster's etcd", fromB1 + "," + router + ",tcp,nw_src=10.0.0.2,nw_dst=192.0.2.50,nw_ttl=64,tcp_dst=2379", "drop in 70"},
		{"what else is there they do", fromB1 + "," + router + ",tcp,nw_src=10.0.0.2,nw_dst=192.0.2.50,nw_ttl=64,tcp_dst=443", "2"},
		{"another node's endpoint is reached by a tunnel", fromA1 + ",dl_dst=0a:58:0a:00:00:09,ip,nw_src=10.0.0.2,nw_dst=10.0.0.9,nw_ttl=64", "1"},
		{"also from another network of the tenant", "in_port=103,dl_src=0a:58:0a:00:01:02," + router + ",ip,nw_src=10.0.1.2,nw_dst=10.0.0.9,nw_ttl=64", "1"},
		{"by the tunnel that its node asks for", fromB1 + ",dl_dst=0a:58:0a:00:00:09,ip,nw_src=10.0.0.2,nw_dst=10.0.0.9,nw_ttl=64", "3"},
		{"who asks all for it is answered", fromA1 + "," + all + ",arp,arp_op=1,arp_spa=10.0.0.2,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.9", "IN_PORT"},
		{"who asks it alone is not", fromA1 + ",dl_dst=0a:58:0a:00:00:09,arp,arp_op=1,arp_spa=10.0.0.2,arp_sha=0a:58:0a:00:00:02,arp_tpa=10.0.0.9", "1"},
		{"in IPv6, too", fromA1 + ",dl_dst=33:33:ff:00:00:09,icmp6,ipv6_src=fd00:1::2,ipv6_dst=ff02::1:ff00:9,icmpv6_type=135,icmpv6_code=0,nd_target=fd00:1::9,nd_sll=0a:58:0a:00:00:02,nw_ttl=255", "IN_PORT"},
		{"what comes by a tunnel reaches its owner", fromN2 + ",tun_id=1001,dl_src=0a:58:0a:00:00:09," + a2 + ",ip,nw_src=10.0.0.9,nw_dst=10.0.0.3,nw_ttl=64", "102"},
		{"of its own network", fromN2 + ",tun_id=2001,dl_src=0a:58:0a:00:00:09," + a2 + ",ip,nw_src=10.0.0.9,nw_dst=10.0.0.3,nw_ttl=64", "drop in 50"},
		{"not of one that is not here", fromN2 + ",tun_id=77,dl_src=0a:58:0a:00:00:09," + a2 + ",ip,nw_src=10.0.0.9,nw_dst=10.0.0.3,nw_ttl=64", "drop in 4"},
		{"nor from a stranger", "in_port=1,tun_src=192.0.2.77,tun_dst=192.0.2.1,tun_id=1001,dl_src=0a:58:0a:00:00:09," + a2 + ",ip,nw_src=10.0.0.9,nw_dst=10.0.0.3,nw_ttl=64", "drop in 1"},
		{"nor goes it on to a third node", fromN2 + ",tun_id=1001,dl_src=0a:58:0a:00:00:08,dl_dst=0a:58:0a:00:00:09,ip,nw_src=10.0.0.8,nw_dst=10.0.0.9,nw_ttl=64", "drop in 52"},
		{"multicast by a tunnel reaches the members here alone", fromN2 + ",tun_id=1001,dl_src=0a:58:0a:00:00:09,dl_dst=01:00:5e:00:00:fb,ip,nw_src=10.0.0.9,nw_dst=224.0.0.251,nw_ttl=64", "101,102"},
		{"a port of nobody", "in_port=999,dl_src=0a:58:0a:00:00:02," + a2 + ",ip", "drop in 0"},
	} {
		t.Run(tc.sentence, func(t *testing.T) {
			out, err := ovs.Control(t.Context(), sw.RunDir, "ofproto/trace", "br-tenet", tc.packet)
			if err != nil {
				t.Fatal(err)
			}
			if got := fate(out); got != tc.fate {
				t.Errorf("%s: %s, want %s\n%s", tc.packet, got, tc.fate, out)
			}
		})
	}
}

// Between endpoints nothing is tracked, whatever their networks have.
func TestPacketsBetweenEndpointsAreNotTracked(t *testing.T) {
	sw := exampleSwitch(t)
	for _, packet := range []string{
		"in_port=101,dl_src=0a:58:0a:00:00:02,dl_dst=0a:58:0a:00:00:03,tcp,nw_src=10.0.0.2,nw_dst=10.0.0.3,nw_ttl=64",
		"in_port=101,dl_src=0a:58:0a:00:00:02,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.0.1.2,nw_ttl=64",
		"in_port=101,dl_src=0a:58:0a:00:00:02,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.0.0.2,nw_dst=10.5.0.2,nw_ttl=64",
		"in_port=104,dl_src=0a:58:0a:05:00:02,dl_dst=0a:58:00:00:00:01,tcp,nw_src=10.5.0.2,nw_dst=10.0.0.2,nw_ttl=64",
	} {
		out, err := ovs.Control(t.Context(), sw.RunDir, "ofproto/trace", "br-tenet", packet)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, "ct(") || strings.HasPrefix(fate(out), "drop") {
			t.Errorf("%s is tracked, or dropped:\n%s", packet, out)
		}
	}
}

// exampleSwitch starts a switch with the example's flows and ports of the right numbers.
func exampleSwitch(t *testing.T) *ovstest.Switch { return switchOf(t, example()) }

func switchOf(t *testing.T, w world) *ovstest.Switch {
	t.Helper()
	sw := ovstest.Start(t)
	ports := []uint32{2, 101, 102, 103, 104, 201, 202, 256, 999}
	for _, f := range w.functions {
		for _, e := range f.ports {
			ports = append(ports, e.Port)
		}
	}
	args := []string{"ovs-vsctl", "add-br", "br-tenet", "--", "set", "bridge", "br-tenet", "fail_mode=secure", "protocols=OpenFlow15"}
	for _, port := range ports {
		name := fmt.Sprintf("p%d", port)
		args = append(args, "--", "add-port", "br-tenet", name, "--", "set", "interface", name, fmt.Sprintf("ofport_request=%d", port))
	}
	for _, e := range vnet.Encapsulations {
		args = append(args, "--", "add-port", "br-tenet", e.Link(), "--", "set", "interface", e.Link(), "type="+string(e),
			fmt.Sprintf("ofport_request=%d", e.OFPort()), "options:remote_ip=flow", "options:key=flow")
	}
	sw.Run(t, args...)
	c, err := openflow.Dial(t.Context(), filepath.Join(sw.RunDir, "br-tenet.mgmt"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.PutMeters(t.Context(), openflow.MeterConfig{ID: 1, RateKbps: 20_000, BurstKbits: 4_000}, openflow.MeterConfig{ID: 2, RateKbps: 10_000, BurstKbits: 2_000}); err != nil {
		t.Fatal(err)
	}
	var changes []openflow.Change
	groups, _ := w.led()
	for _, g := range groups {
		changes = append(changes, openflow.PutGroup(g))
	}
	for _, f := range w.flows() {
		changes = append(changes, openflow.AddFlow(f))
	}
	if err := c.Commit(t.Context(), changes); err != nil {
		t.Fatal(err)
	}
	return sw
}

// fate reads a trace, on past connection tracking: the ports of its last outputs, or the table that it was dropped in.
func fate(trace string) string {
	table, outputs := "", []string(nil)
	for line := range strings.Lines(trace) {
		line = strings.TrimSpace(line)
		if number, rest, ok := strings.Cut(line, ". "); ok && strings.Contains(rest, "priority") {
			table = number
		}
		if strings.Contains(line, "skipping output to input port") {
			outputs = outputs[:len(outputs)-1]
		}
		if strings.HasPrefix(line, "IN_PORT") {
			outputs = append(outputs, "IN_PORT")
		} else if port, ok := strings.CutPrefix(line, "output:"); ok && !strings.HasPrefix(port, "NXM") {
			outputs = append(outputs, port)
		} else if _, port, ok := strings.Cut(line, "-> output port is "); ok {
			outputs = append(outputs, port)
		}
	}
	if len(outputs) == 0 {
		return "drop in " + table
	}
	return strings.Join(outputs, ",")
}
