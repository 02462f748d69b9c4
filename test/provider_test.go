package test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

const (
	office4, office6 = "172.20.0.0/24", "fd00:20::/64"
	machine4         = "172.20.0.9"
	machine6         = "fd00:20::9"

	// What the host and others say untagged on the wire is in no network, and dropped as this.
	untagged = "unknown-port"
)

// wire is a node with a NIC, eth1, on a physical switch (another bridge of the same Open vSwitch, which learns), where
// machines are in VLANs.
type wire struct {
	*lab.Host

	tb testing.TB
}

func newWire(t *testing.T) wire {
	t.Helper()
	w := wire{lab.NewHost(t), t}
	w.Sh("ovs-vsctl", "add-br", "br-phy", "--", "set", "bridge", "br-phy", "datapath_type="+w.Datapath)
	w.Sh("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1p")
	for _, link := range []string{"eth1", "eth1p"} {
		w.Sh("ip", "link", "set", link, "up")
		w.Sh("ethtool", "-K", link, "tx", "off")
	}
	w.Sh("ip", "address", "add", "192.168.7.1/24", "dev", "eth1")
	w.Sh("ovs-vsctl", "add-port", "br-phy", "eth1p")
	return w
}

// machine is one on the wire, in a VLAN (0: untagged), with those addresses.
func (w wire) machine(id string, vlan int, addrs ...string) *lab.Container {
	w.tb.Helper()
	m := w.Container(id)
	link := "m-" + id
	w.Sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", m.Path)
	w.Sh("ip", "link", "set", link, "up")
	m.Sh("ethtool", "-K", "eth0", "tx", "off")
	m.Sh("ip", "link", "set", "eth0", "up")
	for _, a := range addrs {
		args := []string{"ip", "address", "add", a, "dev", "eth0"}
		if strings.Contains(a, ":") {
			args = append(args, "nodad")
		}
		m.Sh(args...)
	}
	tag := "tag=" + strconv.Itoa(vlan)
	if vlan == 0 {
		tag = "vlan_mode=access"
	}
	w.Sh("ovs-vsctl", "add-port", "br-phy", link, tag)
	m.In(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err == nil {
			m.MAC = vnet.MAC(eth0.HardwareAddr)
		}
		return err
	})
	return m
}

func (w wire) tenetctl(args ...string) {
	w.tb.Helper()
	_, err := w.Tenetctl(args...)
	lab.Must(w.tb, err)
}

func (w wire) office(tenant string, vlan int) lab.Conf {
	return w.Conf(tenant, "office", office4, office6).With("provider", map[string]any{"uplink": "lan", "vlan": vlan})
}

// Two tenants with the same prefix, each on a VLAN of its own, next to machines that overlap as well.
func TestAProviderNetworkIsAVLANOnTheWire(t *testing.T) {
	w := newWire(t)
	old := w.machine("old", 0, "192.168.7.9/24")
	w.Itself().Reaches(netip.MustParseAddr("192.168.7.9"))
	w.tenetctl("uplink", "add", "lan", "--nic", "eth1", "--vlans", "100-199")
	w.Itself().Reaches(netip.MustParseAddr("192.168.7.9"))
	old.Reaches(netip.MustParseAddr("192.168.7.1"))

	blueMachine := w.machine("m100", 100, machine4+"/24", machine6+"/64", "172.20.0.1/24", "198.51.100.1/32")
	redMachine := w.machine("m101", 101, machine4+"/24", machine6+"/64")
	heard := blueMachine.Capture()
	const mac = "MAC=0a:aa:00:00:00:01"
	a := w.Attach("a", w.office("blue", 100), mac)
	b := w.Attach("b", w.office("red", 101), mac)

	t.Run("those on the wire are told who came", func(t *testing.T) {
		lab.Eventually(t, "announcements", func() bool {
			return len(heard.Frames(announces(a, a.IP4))) == 1 && len(heard.Frames(announces(a, a.IP6))) == 1
		})
	})
	for _, pair := range []struct{ c, m *lab.Container }{{a, blueMachine}, {b, redMachine}} {
		pair.c.Serve(80)
		pair.m.Serve(80)
		for _, to := range []string{machine4, machine6} {
			pair.c.Reaches(netip.MustParseAddr(to))
			conn, who, err := pair.c.Dial(netip.AddrPortFrom(netip.MustParseAddr(to), 80), 0)
			lab.Must(t, err)
			if lab.Must(t, lab.Echoes(conn, 200_000)); who != pair.m.ID {
				t.Errorf("%s reaches %s instead of %s", pair.c.ID, who, pair.m.ID)
			}
			lab.Must(t, conn.Close())
		}
		for _, to := range []netip.Addr{pair.c.IP4, pair.c.IP6} {
			conn, who, err := pair.m.Dial(netip.AddrPortFrom(to, 80), 0)
			lab.Must(t, err)
			if lab.Must(t, conn.Close()); who != pair.c.ID {
				t.Errorf("%s reaches %s instead of %s", pair.m.ID, who, pair.c.ID)
			}
		}
		alias := pair.c.Alias(pair.c.IP4)
		if conn, who, err := w.Itself().Dial(netip.AddrPortFrom(alias, 80), 0); err != nil || who != pair.c.ID {
			t.Errorf("the host reaches %q by the alias of %s: %v", who, pair.c.ID, err)
		} else {
			lab.Must(t, conn.Close())
		}
	}
	a.Reaches(netip.MustParseAddr("198.51.100.1")) // its default route leads to a router on the wire
	t.Run("broadcasts come once and do not come back", func(t *testing.T) {
		second := w.Attach("a2", w.office("blue", 100))
		at := []*lab.Capture{a.Capture(), second.Capture(), b.Capture(), redMachine.Capture(), blueMachine.Capture()}
		token := lab.Token("shout")
		blueMachine.Send(lab.UDP4(lab.Eth(blueMachine.MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(netip.MustParseAddr(machine4), netip.MustParseAddr("255.255.255.255")), token))
		reply := lab.Token("answer")
		at[0].Await(token)
		at[1].Await(token)
		a.Send(lab.UDP4(lab.Eth(a.MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(a.IP4, netip.MustParseAddr("255.255.255.255")), reply))
		at[1].Await(reply)
		at[4].Await(reply)
		lab.Settled(t, a, second, at[1])
		for i, want := range [][2]int{{1, 0}, {1, 1}, {0, 0}, {0, 0}, {0, 1}} { // a packet socket does not see what its own end sends
			if got := [2]int{at[i].Count(token), at[i].Count(reply)}; got != want {
				t.Errorf("capture %d has %v, want %v", i, got, want)
			}
		}
	})
	t.Run("port security holds", func(t *testing.T) {
		k := blueMachine.Capture()
		forged := lab.Token("forged")
		for kind, frame := range map[string][]byte{
			"spoofed-ipv4": lab.UDP4(lab.Eth(a.MAC, blueMachine.MAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(netip.MustParseAddr("172.20.0.77"), netip.MustParseAddr(machine4)), forged),
			"spoofed-mac":  lab.UDP4(lab.Eth(vnet.MAC{2, 2, 2, 2, 2, 2}, blueMachine.MAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(a.IP4, netip.MustParseAddr(machine4)), forged),
			"forged-arp":   lab.ARP(lab.Eth(a.MAC, lab.Broadcast, layers.EthernetTypeARP), 1, a.MAC, netip.MustParseAddr(machine4), a.IP4, forged),
			"vlan-tag":     tagged(a.MAC, blueMachine.MAC, 101, forged),
		} {
			before := w.Drops()
			a.Send(frame)
			w.Counts(t, before, kind, 1, untagged)
		}
		honest := lab.Token("honest")
		a.Send(lab.UDP4(lab.Eth(a.MAC, blueMachine.MAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(a.IP4, netip.MustParseAddr(machine4)), honest))
		k.Await(honest)
		if n := k.Count(forged); n != 0 {
			t.Errorf("%d forged frames are on the wire", n)
		}
	})
	t.Run("an impostor on the wire is not let in", func(t *testing.T) {
		before := w.Drops()
		blueMachine.Send(lab.UDP4(lab.Eth(a.MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(a.IP4, netip.MustParseAddr("255.255.255.255")), lab.Token("impostor")))
		w.Counts(t, before, "uplink-loop", 1, untagged)
	})
	t.Run("a VLAN belongs to one network", func(t *testing.T) {
		c := w.Container("c")
		c.Conf = w.Conf("green", "office", "172.21.0.0/24").With("provider", map[string]any{"uplink": "lan", "vlan": 100})
		before := w.Snapshot()
		lab.Fails(t, c.Do("ADD"), lab.CodeConflict, "VLAN 100 of uplink lan", "blue/office")
		c.Conf = w.Conf("green", "office", "172.21.0.0/24").With("provider", map[string]any{"uplink": "lan", "vlan": 200})
		lab.Fails(t, c.Do("ADD"), lab.CodeConf, "vlan 200", "100-199")
		lab.Same(t, before, w.Snapshot())
	})
}

func TestAnUntaggedProviderNetwork(t *testing.T) {
	w := newWire(t)
	w.tenetctl("uplink", "add", "lan", "--nic", "eth1")
	m := w.machine("m", 0, machine4+"/24", machine6+"/64", "192.168.7.9/24")
	c := w.Attach("c", w.office("blue", 0))
	c.Reaches(netip.MustParseAddr(machine4))
	c.Reaches(netip.MustParseAddr(machine6))
	m.Reaches(c.IP4)
	w.Itself().Reaches(netip.MustParseAddr("192.168.7.9"))

	if _, err := w.Tenetctl("uplink", "del", "lan"); err == nil {
		t.Error("an uplink that carries a network is deleted")
	}
	c.Del()
	w.tenetctl("network", "del", "blue/office")
	w.tenetctl("uplink", "del", "lan")
	if got := w.Sh("ip", "-4", "-br", "address", "show", "eth1"); !strings.Contains(got, "192.168.7.1/24") {
		t.Errorf("the NIC has %q", got)
	}
	w.Itself().Reaches(netip.MustParseAddr("192.168.7.9"))
}

// announces matches what tells where a of c is.
func announces(c *lab.Container, a netip.Addr) func([]byte) bool {
	return func(f []byte) bool {
		if len(f) < 42 || net.HardwareAddr(f[6:12]).String() != c.MAC.String() {
			return false
		}
		switch binary.BigEndian.Uint16(f[12:]) {
		case 0x0806:
			return a.Is4() && string(f[28:32]) == string(a.AsSlice()) && string(f[38:42]) == string(a.AsSlice())
		case 0x86dd:
			return a.Is6() && len(f) == 86 && f[54] == 136 && f[58] == 0x20 && string(f[62:78]) == string(a.AsSlice())
		}
		return false
	}
}

// tagged is a frame that hops into another VLAN.
func tagged(from, to vnet.MAC, vlan uint16, token string) []byte {
	return lab.Frame(
		lab.Eth(from, to.HardwareAddr(), layers.EthernetTypeDot1Q),
		&layers.Dot1Q{VLANIdentifier: vlan, Type: layers.EthernetTypeIPv4},
		lab.IP4(netip.MustParseAddr("172.20.0.2"), netip.MustParseAddr(machine4)), gopacket.Payload(token))
}
