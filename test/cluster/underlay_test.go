package cluster

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/test/lab"
)

// Containers of all nodes get what the narrowest underlay carries. What is longer is refused where it comes from.
func TestTheNarrowestUnderlayCounts(t *testing.T) {
	const underlay, header = 1400, 50
	c := onEtcd(t, lab.NewFleet(t, 3), 1)
	n2 := c.Nodes[1]
	n2.Narrow(underlay)
	c.start()
	c.network(n2, "blue/web", "--subnet", web4, "--subnet", web6)
	for _, h := range c.Nodes {
		lab.Eventually(t, h.Name+" to know all nodes", func() bool { return strings.Contains(fmt.Sprint(h.Records()), `"leastMTU":1400`) || h == n2 })
	}
	var all []*lab.Container
	for _, h := range c.Nodes {
		e := h.Attach("on-"+h.Name, webOn(h))
		e.Echo(80)
		all = append(all, e)
	}
	c.reachEachOther(all...)
	for _, e := range all {
		if out := e.Sh("ip", "link", "show", "eth0"); !strings.Contains(out, fmt.Sprintf(" mtu %d ", underlay-header)) || e.Result.Interfaces[0].Mtu != underlay-header {
			t.Errorf("%s has another MTU than %d: %+v\n%s", e.ID, underlay-header, e.Result.Interfaces, out)
		}
		for _, to := range all {
			if to == e {
				continue
			}
			e.Reaches(to.IP4, "-Mdo", fmt.Sprintf("-s%d", underlay-header-28))
			e.Reaches(to.IP6, "-Mdo", fmt.Sprintf("-s%d", underlay-header-48))
			for _, a := range []netip.Addr{to.IP4, to.IP6} {
				if out, err := lab.RunIn(t, e.Path, "ping", "-n", "-c1", "-Mdo", "-s1372", a.String()); err == nil || !strings.Contains(out, "message too long") {
					t.Errorf("%s to %s: a ping of 1400 bytes: %s", e.ID, a, out)
				}
				e.Reaches(a, "-Mdont", "-s3000")
			}
			conn, err := e.Connect("tcp", netip.AddrPortFrom(to.IP4, 80))
			lab.Must(t, err)
			lab.Must(t, lab.Say(conn, strings.Repeat("tenet", 60_000)))
			conn.Close()
		}
	}
	if out, err := c.Nodes[0].Tenetctl("network", "add", "blue/wide", "--subnet", "10.9.0.0/24", "--mtu", "1450"); err == nil || !strings.Contains(out, "1350") {
		t.Errorf("a network with a larger MTU is made: %s", out)
	}
}

// A node with a narrower underlay may come later: containers get what it carries from then on, and those that have more
// agree with them on TCP segments that fit.
func TestANarrowerUnderlayComesLater(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.begin(n1, nil)
	c.joined(n1)
	c.ctl(n1, "network", "add", "blue/web", "--subnet", web4, "--subnet", web6)
	old := n1.Attach("old", webOn(n1))
	n2.Narrow(1400)
	c.begin(n2, nil)
	c.joined(n2)
	late := n2.Attach("late", webOn(n2))
	fresh := n1.Attach("fresh", webOn(n1))
	for e, want := range map[*lab.Container]int{old: 1450, late: 1350, fresh: 1350} {
		if mtu := e.Result.Interfaces[0].Mtu; mtu != want {
			t.Errorf("%s has an MTU of %d, want %d", e.ID, mtu, want)
		}
		e.Echo(80)
	}
	c.reachEachOther(old, late, fresh)
	for _, way := range [][2]*lab.Container{{old, late}, {late, old}} {
		for _, a := range []netip.Addr{way[1].IP4, way[1].IP6} {
			conn, err := way[0].Connect("tcp", netip.AddrPortFrom(a, 80))
			lab.Must(t, err)
			lab.Must(t, lab.Say(conn, strings.Repeat("tenet", 60_000)))
			conn.Close()
		}
	}
	c.settled()
}

// Each node says how it wants to be sent to, and addresses of nodes may be of either family: all reach each other.
func TestEncapsulations(t *testing.T) {
	for family, vtep := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).VTEP, "IPv6": (*lab.Host).VTEP6} {
		t.Run(family, func(t *testing.T) {
			c := onEtcd(t, lab.NewFleet(t, 3), 1)
			wants := map[*lab.Host]string{c.Nodes[0]: "vxlan", c.Nodes[1]: "geneve", c.Nodes[2]: "vxlan"}
			ports := map[string]uint16{"vxlan": 4789, "geneve": 6081}
			for _, h := range c.Nodes {
				c.begin(h, map[string]any{"vtep": vtep(h), "encapsulation": wants[h]})
			}
			c.allJoined()
			c.network(c.Nodes[0], "blue/web", "--subnet", web4, "--subnet", web6, "--multicast")
			var all []*lab.Container
			wires := map[*lab.Host]*lab.Capture{}
			for _, h := range c.Nodes {
				e := h.Attach("on-"+h.Name, webOn(h))
				e.Echo(80)
				all = append(all, e)
				wires[h] = h.Wire().Capture()
			}
			var listed []struct {
				Name, VTEP, Encapsulation, State, Version string
				MTU, Endpoints, Blocks                    int
			}
			lab.Must(t, json.Unmarshal([]byte(c.ctl(c.Nodes[0], "node", "list", "-o", "json")), &listed))
			for i, h := range c.Nodes {
				n := listed[i]
				if n.Name != h.Name || n.VTEP != vtep(h).String() || n.Encapsulation != wants[h] || n.State != "runs" || n.Version == "" || n.MTU != 1500 || n.Endpoints != 1 || n.Blocks != 2 {
					t.Errorf("%s is listed as %+v", h.Name, n)
				}
			}
			header := map[string]int{"IPv4": 50, "IPv6": 70}[family]
			c.reachEachOther(all...)
			for _, from := range all {
				for _, to := range all {
					if from == to {
						continue
					}
					from.Reaches(to.IP4, "-Mdo", fmt.Sprintf("-s%d", 1500-header-28))
					from.Reaches(to.IP6, "-Mdo", fmt.Sprintf("-s%d", 1500-header-48))
					for _, a := range []netip.Addr{to.IP4, to.IP6} {
						said := lab.PingToken("said")
						lab.Must(t, from.Exchange("udp", netip.AddrPortFrom(a, 80), said))
						wires[to.Host].Await(said)
						frames := wires[to.Host].Frames(lab.With(said))
						if len(frames) != 1 || tunnelled(frames[0]) != ports[wants[to.Host]] {
							t.Errorf("%s to %s: %d frames come in by the wire, want one to UDP port %d: %x", from.ID, to.ID, len(frames), ports[wants[to.Host]], frames)
						}
						lab.Must(t, from.Exchange("tcp", netip.AddrPortFrom(a, 80), strings.Repeat(said, 10_000)))
					}
				}
			}
			hears := []*lab.Capture{all[1].Capture(), all[2].Capture()}
			said := lab.PingToken("to all")
			all[0].Send(lab.UDP4(lab.Eth(all[0].MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(all[0].IP4, netip.MustParseAddr("255.255.255.255")), said))
			for _, k := range hears {
				k.Await(said)
			}
			c.settled()
		})
	}
}

// tunnelled is the UDP port that a frame on the underlay goes to, 0 if it is none of UDP.
func tunnelled(frame []byte) uint16 {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		return uint16(u.DstPort)
	}
	return 0
}
