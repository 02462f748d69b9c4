package cluster

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

const office4, office6 = "172.20.0.0/24", "fd00:20::/64"

// joinedByWire gives two nodes a NIC each, eth1, of which one is at the other end of the other's wire.
func joinedByWire(one, two *lab.Host) {
	one.Sh("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "eth1", "netns", two.NetNS)
	for _, h := range []*lab.Host{one, two} {
		h.Sh("ip", "link", "set", "eth1", "up")
		h.Sh("ethtool", "-K", "eth1", "tx", "off")
	}
}

// uplink makes each node's eth1 its uplink lan.
func (c *cluster) uplink(nodes ...*lab.Host) {
	c.t.Helper()
	for _, h := range nodes {
		c.ctl(h, "uplink", "add", "lan", "--nic", "eth1", "--vlans", "100-199")
	}
}

func (c *cluster) office(h *lab.Host) {
	c.t.Helper()
	c.network(h, "blue/office", "--subnet", office4, "--subnet", office6, "--provider", "lan:100")
}

// refused fails the test unless tenetctl refuses that, with these words.
func (c *cluster) refused(h *lab.Host, words []string, args ...string) {
	c.t.Helper()
	out, err := h.Tenetctl(args...)
	if err == nil {
		c.t.Errorf("%s: tenetctl %v works: %s", h.Name, args, out)
	}
	for _, w := range words {
		if !strings.Contains(out, w) {
			c.t.Errorf("%s: tenetctl %v says %s, and not %q", h.Name, args, out, w)
		}
	}
}

// A network on a wire is one network of the cluster: its addresses are unique, whoever is in it is known on every node, and it
// stands while anybody is. What they say goes by the wire.
func TestNetworkOnAWireSpansNodes(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1)
	n1, n2, off := c.Nodes[0], c.Nodes[1], c.Nodes[2] // the latter is not on the wire
	joinedByWire(n1, n2)
	c.uplink(n1, n2)
	c.office(n1)
	c.network(off, "blue/web", "--subnet", web4, "--subnet", web6)
	a, b := n1.Attach("a", n1.Conf("blue", "office")), n2.Attach("b", n2.Conf("blue", "office"))
	near, far := n1.Attach("near", webOn(n1)), off.Attach("far", webOn(off))
	different(t, a, b)
	a.Echo(80)
	b.Echo(80)
	c.meet(a, b)
	c.meet(near, far)
	c.settled()
	onWire, inTunnel := n2.On("eth1").Capture(), []*lab.Capture{n1.Wire().Capture(), n2.Wire().Capture()}
	for _, network := range []string{"icmp", "udp", "tcp"} {
		for _, to := range []netip.Addr{b.IP4, b.IP6} {
			said := lab.PingToken(network)
			lab.Must(t, a.Exchange(network, netip.AddrPortFrom(to, 80), said))
			onWire.Await(said)
			for _, k := range inTunnel {
				if n := k.Count(said); n > 0 {
					t.Errorf("%d frames of %s to %s are on the underlay", n, network, to)
				}
			}
		}
	}
	for _, h := range c.Nodes {
		if out := c.ctl(h, "endpoint", "list", "--network", "blue/office"); !strings.Contains(out, "a/eth0") || !strings.Contains(out, "b/eth0") {
			t.Errorf("%s lists\n%s", h.Name, out)
		}
	}
	for _, name := range []string{"b", "blue/office/" + b.IP4.String()} {
		if out := c.ctl(n1, "trace", "a", name); !strings.Contains(out, "to "+b.IP4.String()+": on the wire") {
			t.Errorf("a packet to %s is traced to %s", name, out)
		}
		if out := c.ctl(off, "endpoint", "show", name); !strings.Contains(out, "it is on node n2") {
			t.Errorf("of %s is shown %s", name, out)
		}
	}

	a.Del()
	for _, h := range c.Nodes {
		lab.Eventually(t, "no more than one to be in it", func() bool { return !strings.Contains(c.ctl(h, "endpoint", "list"), "a/eth0") })
		c.refused(h, []string{"network blue/office still has 1 endpoints: b/eth0 on n2"}, "network", "del", "blue/office")
	}
	b.Del()
	lab.Eventually(t, "the network to be free", func() bool {
		_, err := off.Tenetctl("network", "del", "blue/office")
		return err == nil
	})
	c.settled()
}

// onWire are the nodes that etcd says have a NIC on the uplink lan; nil: it does not have the uplink.
func (c *cluster) onWire() []string {
	c.t.Helper()
	if _, stands := c.records("uplinks/")["uplinks/lan"]; !stands {
		return nil
	}
	nodes := []string{}
	for key := range c.records("uplink-nodes/lan/") {
		nodes = append(nodes, strings.TrimPrefix(key, "uplink-nodes/lan/"))
	}
	slices.Sort(nodes)
	return nodes
}

func (c *cluster) comesOnWire(want ...string) {
	c.t.Helper()
	lab.Eventually(c.t, fmt.Sprint("etcd to know ", want, " on the wire"), func() bool { now := c.onWire(); return now != nil && slices.Equal(now, want) })
}

// A node that was one on its own brings its uplinks, too: others may have a NIC on the same wire.
func TestJoiningBringsUplinks(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 3), 1)
	own, n2, other := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	joinedByWire(own, n2)
	for _, h := range []*lab.Host{own, other} {
		alone(h)
	}
	c.uplink(own)
	c.ctl(own, "network", "add", "blue/office", "--subnet", office4, "--subnet", office6, "--provider", "lan:100")
	a := own.Attach("a", own.Conf("blue", "office"))
	c.begin(own, nil)
	c.joined(own)
	c.begin(n2, nil)
	c.joined(n2)
	c.comesOnWire("n1")
	c.uplink(n2)
	c.comesOnWire("n1", "n2")
	b := n2.Attach("b", n2.Conf("blue", "office"))
	c.meet(a, b)
	different(t, a, b)
	c.settled(own, n2)

	other.Sh("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "end1")
	other.Sh("ip", "link", "set", "eth1", "up")
	c.ctl(other, "uplink", "add", "lan", "--nic", "eth1", "--vlans", "7")
	c.begin(other, nil)
	if code := c.daemons[other].Ends(); code != 1 {
		t.Errorf("tenetd ends with %d", code)
	}
	if log := c.daemons[other].Log(); !strings.Contains(log, "uplink lan: uplink lan stands in the cluster and is declared differently") || !strings.Contains(log, "conflicts with the cluster:") {
		t.Errorf("it does not say what is in the way:\n%s", log)
	}
	c.comesOnWire("n1", "n2")
}

// An etcd that was emptied gets uplinks and networks on wires back, whichever node comes first.
func TestAnEmptiedEtcdGetsUplinksBack(t *testing.T) {
	t.Parallel()
	for what, order := range map[string][]int{"who is on the wire comes first": {0, 1, 2}, "who is not comes first": {2, 1, 0}} {
		t.Run(what, func(t *testing.T) {
			c := newCluster(t, 3, 1)
			n1, n2 := c.Nodes[0], c.Nodes[1]
			joinedByWire(n1, n2)
			c.uplink(n1, n2)
			c.office(n1)
			a, b := n1.Attach("a", n1.Conf("blue", "office")), n2.Attach("b", n2.Conf("blue", "office"))
			c.meet(a, b)
			c.settled()
			c.empties()
			for _, i := range order {
				c.restart(c.Nodes[i])
				c.joined(c.Nodes[i])
			}
			c.comesOnWire("n1", "n2")
			c.settled()
			c.meet(a, b)
			c.network(c.Nodes[2], "blue/more", "--subnet", db4, "--provider", "lan:101")
			c.refused(c.Nodes[2], []string{"VLAN 100 of uplink lan is network blue/office"}, "network", "add", "red/office", "--subnet", office4, "--provider", "lan:100")
		})
	}
}

// An uplink stands in the cluster as long as a node has a NIC on it, or a network is on it, whatever is cut short.
func TestAnUplinkGoesWithItsLastNode(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1, shortLease...)
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	joinedByWire(n1, n2)
	c.uplink(n1, n2)
	c.office(n1)
	b := n2.Attach("b", n2.Conf("blue", "office"))

	c.etcdDies()
	before := n1.Snapshot()
	c.refused(n1, []string{"uplink lan stays as it is", "\nhint: "}, "uplink", "del", "lan")
	lab.Same(t, before, n1.Snapshot())
	c.etcdLives()
	lab.Eventually(t, "etcd to answer", func() bool {
		_, err := n1.Tenetctl("uplink", "del", "lan") // in whose network there is nobody here
		return err == nil
	})
	c.comesOnWire("n2")
	c.refused(n1, []string{"uplink lan is not on this node but on n2"}, "uplink", "del", "lan")
	c.refused(n2, []string{"still carries network blue/office"}, "uplink", "del", "lan")
	c.refused(n1, []string{"nic eth9"}, "uplink", "add", "lan", "--nic", "eth9", "--vlans", "100-199")
	c.comesOnWire("n2")

	b.Del()
	c.ctl(n2, "uplink", "del", "lan")
	c.comesOnWire()
	c.refused(n3, []string{"still carries network blue/office"}, "uplink", "del", "lan")
	c.refused(n1, []string{"declared differently"}, "uplink", "add", "lan", "--nic", "eth1", "--vlans", "7")
	lab.Eventually(t, "the network to be free", func() bool {
		_, err := n3.Tenetctl("network", "del", "blue/office")
		return err == nil
	})
	c.ctl(n3, "uplink", "del", "lan")
	if nodes := c.onWire(); nodes != nil {
		t.Errorf("the uplink still stands, with %v", nodes)
	}

	// Cut short between the node and etcd it is finished by whoever comes, and so is that of a node that is no more.
	c.uplink(n1, n2)
	c.put("uplink-nodes/lan/n3", "n3")
	c.ctl(n3, "uplink", "del", "lan")
	c.comesOnWire("n1", "n2")
	c.daemons[n1].Terminate()
	c.erase("uplink-nodes/lan/n1")
	c.restart(n1)
	c.comesOnWire("n1", "n2")
	c.daemons[n2].Terminate()
	lab.Eventually(t, "a node to be removed that has ended", func() bool {
		_, err := n1.Tenetctl("node", "del", "n2", "--force")
		return err == nil
	})
	c.comesOnWire("n1")
	c.ctl(n1, "uplink", "del", "lan")
	if nodes := c.onWire(); nodes != nil {
		t.Errorf("the uplink still stands, with %v", nodes)
	}
}
