package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// cannot fails the test if a node reaches an address at once, which it could before.
func cannot(t *testing.T, h *lab.Host, to netip.Addr) {
	t.Helper()
	if wait := lab.Stretch(300 * time.Millisecond).Seconds(); h.Itself().Pings(to, fmt.Sprintf("-W%.1f", wait)) {
		t.Errorf("%s still reaches %s", h.Name, to)
	}
}

// meet fails the test unless two nodes reach each other in both families.
func meet(t *testing.T, a, b *lab.Host) {
	t.Helper()
	for _, way := range [][2]*lab.Host{{a, b}, {b, a}} {
		reached(t, way[0], way[1].VTEP())
		reached(t, way[0], way[1].VTEP6())
	}
}

// reached waits until the host reaches the address: its kernel may just have begun to.
func reached(t *testing.T, h *lab.Host, a netip.Addr) {
	t.Helper()
	lab.Eventually(t, h.Name+" to reach "+a.String(), func() bool { return h.Itself().Pings(a) })
}

func TestFleetOfThreeNodesMeets(t *testing.T) {
	f := lab.NewFleet(t, 3)
	for i, h := range f.Nodes {
		if want := fmt.Sprintf("n%d 192.0.2.%d 2001:db8:0:2::%d", i+1, 11+i, 11+i); fmt.Sprint(h.Name, " ", h.VTEP(), " ", h.VTEP6()) != want {
			t.Errorf("%s has %s and %s, want %s", h.Name, h.VTEP(), h.VTEP6(), want)
		}
		for _, other := range f.Nodes {
			meet(t, h, other)
			out := h.Itself().Sh("ping", "-n", "-c3", "-i0.01", "-Mdo", "-s1472", other.VTEP().String())
			if strings.Contains(out, "DUP") {
				t.Errorf("%s is answered twice:\n%s", h.Name, out)
			}
			h.Itself().Reaches(other.VTEP6(), "-Mdo", "-s1452")
		}
		for _, a := range f.Etcd() {
			reached(t, h, a)
		}
	}
}

func TestFleetOfAnotherMTU(t *testing.T) {
	f := lab.NewFleet(t, 2, lab.UnderlayMTU(9000))
	a, b := f.Nodes[0].Itself(), f.Nodes[1]
	meet(t, f.Nodes[0], b)
	a.Reaches(b.VTEP(), "-Mdo", "-s8972")
	if a.Pings(b.VTEP(), "-Mdo", "-s8973") {
		t.Error("more than its MTU passes")
	}
}

// What lies in the fabric's namespace, as an etcd cluster does, speaks TCP with all nodes.
func TestFleetSpeaksTCPWithItsFabric(t *testing.T) {
	f := lab.NewFleet(t, 2)
	for i, a := range f.Etcd() {
		echo(t, f.Fabric.NetNS, netip.AddrPortFrom(a, 2379))
		for _, h := range f.Nodes {
			conn, err := h.Itself().Connect("tcp", netip.AddrPortFrom(a, 2379))
			lab.Must(t, err)
			defer conn.Close()
			if err := lab.Say(conn, strings.Repeat("tenet", 50_000+i)); err != nil {
				t.Errorf("%s to %s: %v", h.Name, a, err)
			}
		}
	}
}

// echo answers with what comes in on an address of a namespace, until the test ends.
func echo(t *testing.T, netns string, at netip.AddrPort) {
	t.Helper()
	var l net.Listener
	lab.Must(t, lab.Inside(netns, func() error {
		var err error
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "tcp", at.String())
		return err
	}))
	t.Cleanup(func() { l.Close() })
	lab.Accept(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
}

func TestFleetPartsAndHeals(t *testing.T) {
	f := lab.NewFleet(t, 3)
	one, two, three := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	meet(t, one, two)
	f.Partition(one, two)
	for _, way := range [][2]*lab.Host{{one, two}, {two, one}} {
		cannot(t, way[0], way[1].VTEP())
		cannot(t, way[0], way[1].VTEP6())
	}
	for _, h := range []*lab.Host{one, two} {
		meet(t, h, three)
		h.Itself().Reaches(f.Etcd()[0])
	}
	f.Heal()
	meet(t, one, two)

	f.CutFromEtcd(three)
	for _, a := range f.Etcd() {
		cannot(t, three, a)
	}
	meet(t, one, three)
	one.Itself().Reaches(f.Etcd()[2])
	f.Heal()
	three.Itself().Reaches(f.Etcd()[2])
}

// far are two containers on two nodes, joined by nothing of tenet's: a bridge with a tunnel's port, and two flows.
func far(t *testing.T, f *lab.Fleet, vtep func(*lab.Host) netip.Addr) (*lab.Container, *lab.Container) {
	t.Helper()
	var pair [2]*lab.Container
	for i := range pair {
		h, peer := f.Nodes[i], f.Nodes[1-i]
		h.Sh("ovs-vsctl", "add-br", "br-tun", "--", "set", "bridge", "br-tun", "datapath_type="+h.Datapath, "fail_mode=secure",
			"--", "add-port", "br-tun", "tun0", "--", "set", "interface", "tun0", "type=vxlan", "options:remote_ip=flow", "options:key=flow", "ofport_request=1")
		c := h.Container(h.Name + "-c")
		h.Sh("ip", "link", "add", "c0", "type", "veth", "peer", "name", "eth0", "netns", c.Path)
		h.Sh("ip", "link", "set", "c0", "up")
		h.Sh("ovs-vsctl", "add-port", "br-tun", "c0", "--", "set", "interface", "c0", "ofport_request=2")
		field := "tun_dst"
		if vtep(peer).Is6() {
			field = "tun_ipv6_dst"
		}
		h.Sh("ovs-ofctl", "-OOpenFlow15", "add-flow", "br-tun", fmt.Sprintf("in_port=2,actions=set_field:%s->%s,set_field:77->tun_id,output:1", vtep(peer), field))
		h.Sh("ovs-ofctl", "-OOpenFlow15", "add-flow", "br-tun", "in_port=1,tun_id=77,actions=output:2")
		c.IP4 = netip.AddrFrom4([4]byte{10, 9, 0, byte(i + 1)})
		c.Sh("ip", "address", "add", c.IP4.String()+"/24", "dev", "eth0")
		c.Sh("ip", "link", "set", "eth0", "up", "mtu", "1430") // 1500 less IPv6, UDP, VXLAN and Ethernet
		if h.Datapath == "netdev" {
			c.Sh("ethtool", "-K", "eth0", "tx", "off")
		}
		pair[i] = c
	}
	lab.Eventually(t, "packets to pass the tunnel", func() bool { return pair[0].Pings(pair[1].IP4, "-W1") })
	return pair[0], pair[1]
}

func TestFleetCarriesTunnels(t *testing.T) {
	for what, vtep := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).VTEP, "IPv6": (*lab.Host).VTEP6} {
		t.Run(what, func(t *testing.T) {
			f := lab.NewFleet(t, 2)
			a, b := far(t, f, vtep)
			b.Reaches(a.IP4, "-Mdo", "-s1402")
			s := a.Stream(b)
			s.Flows()
			f.CutFromEtcd(f.Nodes[0])
			s.Flows()
			f.Partition(f.Nodes[0], f.Nodes[1])
			s.Stalls()
			f.Heal()
			lost, silence := s.Lost()
			t.Logf("%d datagrams lost, nothing for %s", lost, silence)
			if lost == 0 {
				t.Error("the stream has not noticed")
			}
			b.Echo(7)
			conn, err := a.Connect("tcp", netip.AddrPortFrom(b.IP4, 7))
			lab.Must(t, err)
			defer conn.Close()
			lab.Must(t, lab.Say(conn, strings.Repeat("tenet", 10_000)))
		})
	}
}

func TestFleetFollowsAnAddressThatChanges(t *testing.T) {
	f := lab.NewFleet(t, 2)
	one, two := f.Nodes[0], f.Nodes[1]
	meet(t, one, two)
	old4, old6 := two.VTEP(), two.VTEP6()
	two.Readdress(netip.MustParseAddr("192.0.2.99"))
	two.Readdress(netip.MustParseAddr("2001:db8:0:2::99"))
	if two.VTEP() == old4 || two.VTEP6() == old6 {
		t.Errorf("it is said to have %s and %s", two.VTEP(), two.VTEP6())
	}
	meet(t, one, two)
	cannot(t, one, old4)
	cannot(t, one, old6)
}

// What stands in a node's configuration file holds for every program.
func TestFleetNodesGoByTheirConfigurationFile(t *testing.T) {
	h := lab.NewFleet(t, 1).Nodes[0]
	// In IPv6 the tunnel's header is longer, which shows that the plugin has read it.
	h.WriteConfig(map[string]any{"vtep": h.VTEP6()})
	a, b := h.Attach("a", h.Conf("blue", "web", web4)), h.Attach("b", h.Conf("blue", "web"))
	a.Reaches(b.IP4)
	if mtu := a.Result.Interfaces[0].Mtu; mtu != 1500-70 {
		t.Errorf("the MTU is %d", mtu)
	}
	h.Sync("--dry-run")
	if log := h.Tenetd().Log(); !strings.Contains(log, "dataDir="+h.DataDir) {
		t.Errorf("tenetd works elsewhere:\n%s", log)
	}
}

func TestFleetNodesLoseTheirPowerAndBootAgain(t *testing.T) {
	f := lab.NewFleet(t, 2)
	one, two := f.Nodes[0], f.Nodes[1]
	conf := two.Conf("blue", "web", web4)
	lost := two.Attach("lost", conf)
	d := two.Tenetd()
	meet(t, one, two)

	two.PowerOff()
	cannot(t, one, two.VTEP())
	if code := d.End(syscall.SIGTERM); code != -1 {
		t.Errorf("tenetd lived on, and ends with %d", code)
	}
	if _, err := two.Output("ovs-vsctl", "--timeout=1", "show"); err == nil {
		t.Error("the switch's database lives")
	}

	two.PowerOn()
	meet(t, one, two)
	if links := two.Sh("ip", "-brief", "link"); strings.Contains(links, lost.Port()) {
		t.Errorf("its containers have kept their links:\n%s", links)
	}
	two.Tenetd()
	lost.Del()
	two.Attach("a", conf).Reaches(two.Attach("b", conf).IP4)
}
