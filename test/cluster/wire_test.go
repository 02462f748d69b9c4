package cluster

import (
	"net/netip"
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

// refused fails the test unless tenetctl refuses that, with these words and a hint.
func (c *cluster) refused(h *lab.Host, words []string, args ...string) {
	c.t.Helper()
	out, err := h.Tenetctl(args...)
	if err == nil {
		c.t.Errorf("%s: tenetctl %v works: %s", h.Name, args, out)
	}
	for _, w := range append(words, "\nhint: ") {
		if !strings.Contains(out, w) {
			c.t.Errorf("%s: tenetctl %v says %s, and not %q", h.Name, args, out, w)
		}
	}
}

// A network on a wire is one network of the cluster: its addresses are unique, whoever is in it is known on every node, and it
// stands while anybody is. What they say goes by the wire.
func TestNetworkOnAWireSpansNodes(t *testing.T) {
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
