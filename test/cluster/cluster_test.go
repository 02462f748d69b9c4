package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/test/lab"
)

// cluster is a fleet with an etcd, whose nodes run tenetd and have joined.
type cluster struct {
	*lab.Fleet

	t       *testing.T
	etcd    *etcdtest.Cluster
	daemons map[*lab.Host]*lab.Daemon
}

// shortLease makes tenetd's lease as short as etcd allows, for what is to happen after it.
var shortLease = []string{"--lease=2s"}

// newCluster makes a cluster of n nodes on an etcd of one member or three. Whatever befalls it, no two containers are to
// be published with one address.
func newCluster(t *testing.T, n, members int, args ...string) *cluster {
	t.Helper()
	c := onEtcd(t, lab.NewFleet(t, n), members)
	c.neverTwice()
	c.neverLeftOut()
	c.start(args...)
	return c
}

// neverLeftOut fails the test if a node takes what another does in good order for a claim to what is not its own. A node that
// was away for too long has what is another's by now, and says so.
func (c *cluster) neverLeftOut() {
	c.t.Cleanup(func() {
		for h, d := range c.daemons {
			for line := range strings.Lines(d.Log()) {
				if strings.Contains(line, "endpoint's record is left out of account") && !strings.Contains(line, `of this node"`) || strings.Contains(line, "node's record is left out of account") {
					c.t.Errorf("%s: %s", h.Name, line)
				}
			}
		}
	})
}

// onEtcd gives a fleet an etcd. Its nodes are not told of it yet.
func onEtcd(t *testing.T, f *lab.Fleet, members int, opts ...etcdtest.Option) *cluster {
	t.Helper()
	c := &cluster{Fleet: f, t: t, daemons: map[*lab.Host]*lab.Daemon{}}
	var listen []string
	for _, a := range c.Etcd()[:members] {
		listen = append(listen, a.String())
	}
	c.etcd = etcdtest.Start(t, append(opts, etcdtest.Members(members), etcdtest.NetNS(c.Fabric.NetNS), etcdtest.Listen(listen...))...)
	c.EtcdEndpoints = c.etcd.Endpoints()
	return c
}

// begin writes a node's configuration, with these keys in the place of the usual ones, and starts its tenetd.
func (c *cluster) begin(h *lab.Host, keys map[string]any, args ...string) {
	c.t.Helper()
	h.WriteConfig(keys)
	c.daemons[h] = h.BeginTenetd(args...)
}

// start begins all nodes, as usual, and waits until they have joined.
func (c *cluster) start(args ...string) {
	c.t.Helper()
	for _, h := range c.Nodes {
		c.begin(h, nil, args...)
	}
	c.allJoined()
}

func (c *cluster) allJoined() {
	c.t.Helper()
	for _, h := range c.Nodes {
		c.joined(h)
	}
}

// joined waits until the node's tenetd has joined the cluster.
func (c *cluster) joined(h *lab.Host) {
	c.t.Helper()
	c.daemons[h].Logs("joined the cluster")
	c.daemons[h].Logs("etcd answers")
}

// restart begins the node's tenetd anew.
func (c *cluster) restart(h *lab.Host, args ...string) {
	c.t.Helper()
	c.daemons[h] = h.BeginTenetd(args...)
}

// ctl runs tenetctl on a node; it must succeed.
func (c *cluster) ctl(h *lab.Host, args ...string) string {
	c.t.Helper()
	out, err := h.Tenetctl(args...)
	lab.Must(c.t, err)
	return out
}

// known waits until all nodes have the network.
func (c *cluster) known(network string) {
	c.t.Helper()
	for _, h := range c.Nodes {
		lab.Eventually(c.t, h.Name+" to know network "+network, func() bool {
			_, err := h.Tenetctl("network", "show", network)
			return err == nil
		})
	}
}

// network declares a network on a node, and waits until all have it.
func (c *cluster) network(h *lab.Host, name string, args ...string) {
	c.t.Helper()
	c.ctl(h, append([]string{"network", "add", name}, args...)...)
	c.known(name)
}

// A network spans the nodes: its endpoints reach each other in both families, wherever they are, by ping, TCP and
// datagrams as long as the MTU allows; so do the networks of a tenant; and two tenants may have the same of everything.
func TestNetworkSpansNodes(t *testing.T) {
	c := newCluster(t, 3, 1)
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.network(n1, "blue/web", "--subnet", web4, "--subnet", web6)
	c.network(n2, "blue/db", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64")
	c.network(n3, "red/web", "--subnet", web4, "--subnet", web6)
	blue := []*lab.Container{n1.Attach("b1", n1.Conf("blue", "web")), n2.Attach("b2", n2.Conf("blue", "web")), n3.Attach("b3", n3.Conf("blue", "db"))}
	twin := blue[1].IP4 // of another tenant, elsewhere
	red := n1.Attach("r1", n1.Conf("red", "web"), "IP="+twin.String())
	other := n3.Attach("r3", n3.Conf("red", "web"))
	seen := map[netip.Addr]bool{}
	for _, e := range blue {
		if seen[e.IP4] || seen[e.IP6] {
			t.Errorf("%s has addresses that another has: %s, %s", e.ID, e.IP4, e.IP6)
		}
		seen[e.IP4], seen[e.IP6] = true, true
		e.Echo(80)
	}
	red.Echo(80)
	for _, from := range blue {
		for _, to := range blue {
			if from == to {
				continue
			}
			for _, a := range []netip.Addr{to.IP4, to.IP6} {
				lab.Eventually(t, from.ID+" to reach "+to.ID+" at "+a.String(), func() bool { return from.Pings(a) })
				for _, network := range []string{"tcp", "udp", "icmp"} {
					lab.Must(t, from.Exchange(network, netip.AddrPortFrom(a, 80), "hello"))
				}
			}
		}
	}
	token := "for red alone"
	hears := blue[1].Capture()
	lab.Eventually(t, other.ID+" to reach its tenant's", func() bool { return other.Exchange("udp", netip.AddrPortFrom(twin, 80), token) == nil })
	if hears.Count(token) > 0 {
		t.Error("a tenant's datagram came to another's endpoint of the same address")
	}
	before := time.Now()
	c.ctl(n2, "network", "add", "blue/web", "--subnet", web4, "--subnet", web6) // which changes nothing
	if d := time.Since(before); d > lab.Stretch(5*time.Second) {
		t.Errorf("to declare what stands took %s", d)
	}
	for _, h := range c.Nodes {
		if out := c.ctl(h, "status"); !strings.Contains(out, "agrees") {
			t.Errorf("%s: %s\n%s", h.Name, out, c.ctl(h, "sync", "--dry-run"))
		}
	}
}

// A container's name says nothing about its tenant: one that comes back in another is reached there, whichever of its end and
// its new beginning other nodes hear of first.
func TestAContainerComesBackInAnotherTenant(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	hears := map[string]*lab.Container{}
	for _, tenant := range []string{"red", "blue"} {
		c.network(n1, tenant+"/web", "--subnet", web4)
		hears[tenant] = n1.Attach("in-"+tenant, n1.Conf(tenant, "web"))
	}
	e := n2.Attach("moves", n2.Conf("red", "web"))
	for i := range 8 {
		tenant := []string{"blue", "red"}[i%2]
		asleep := []*lab.Host{n1, n1, n2, n2}[i%4] // who hears, or who tells
		c.daemons[asleep].Sleeps(func() {
			e.Del()
			e = n2.Attach("moves", n2.Conf(tenant, "web"))
		})
		lab.Eventually(t, "it to be reached in "+tenant, func() bool { return hears[tenant].Pings(e.IP4) })
		c.settled()
	}
}

// ADDs at once use a network up: as long as it has an address, none of them fails, whoever of them claims the blocks.
func TestContainersAtOnceUseANetworkUp(t *testing.T) {
	c := newCluster(t, 2, 1)
	h := c.Nodes[0]
	c.network(h, "blue/small", "--subnet", small4)
	for round := range 3 {
		var all sync.WaitGroup
		containers := make([]*lab.Container, smallSize)
		answers := make([]lab.Answer, smallSize)
		for i := range containers {
			containers[i] = h.Container(fmt.Sprintf("c%d-%d", round, i))
			containers[i].Conf = h.Conf("blue", "small")
			all.Go(func() { answers[i] = containers[i].Do("ADD") })
		}
		all.Wait()
		for i, a := range answers {
			lab.Must(t, a.Failed())
			containers[i].Learn(a.Stdout)
		}
		one := h.Container("one-too-many")
		one.Conf = h.Conf("blue", "small")
		lab.Fails(t, one.Do("ADD"), lab.CodeExhausted, "subnet "+small4+" has no free address")
		c.settled()
		for i, node := range c.Nodes { // each tells of what is its own
			want := fmt.Sprintf(`"used":%d,"free":0`, []int{smallSize, 0}[i])
			if out := c.ctl(node, "network", "show", "blue/small", "-o", "json"); !strings.Contains(strings.Join(strings.Fields(out), ""), want) {
				t.Errorf("%s does not say %s: %s", node.Name, want, out)
			}
		}
		for _, e := range containers {
			e.Del()
		}
	}
}

// An endpoint of another node is shown on any, with its node, whether etcd answers or not; a packet is traced to it, and from
// it where it is.
func TestAnEndpointOfAnotherNodeIsShown(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2, 1)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	a, b := c.across(n1, n2)
	shown := func() {
		t.Helper()
		for _, name := range []string{b.ID, b.ID + "/eth0", "blue/web/" + b.IP4.String()} {
			out := c.ctl(n1, "endpoint", "show", name)
			for _, words := range []string{b.ID + "/eth0", "blue/web", b.IP4.String(), b.IP6.String(), b.MAC.String(), "it is on node n2"} {
				if !strings.Contains(out, words) {
					t.Errorf("of %s it does not say %q: %s", name, words, out)
				}
			}
		}
		if out := c.ctl(n1, "endpoint", "show", b.ID, "-o", "json"); !strings.Contains(out, `"node": "n2"`) {
			t.Errorf("there is no node in %s", out)
		}
		for _, args := range [][]string{{"trace", b.ID, a.ID}, {"endpoint", "del", b.ID}} {
			out, err := n1.Tenetctl(args...)
			if err == nil || !strings.Contains(out, "is not on this node but on node n2") || !strings.Contains(out, "hint: run this on node n2") {
				t.Errorf("%v: %v: %s", args, err, out)
			}
		}
		if out := c.ctl(n1, "trace", a.ID, b.ID); !strings.Contains(out, "to "+b.IP4.String()+": ") || !strings.Contains(out, "handed to another node") {
			t.Errorf("a packet to it is traced to %s", out)
		}
		if out, err := n1.Tenetctl("endpoint", "show", "nobody"); err == nil || !strings.Contains(out, `no endpoint "nobody"`) {
			t.Errorf("%v: %s", err, out)
		}
	}
	shown()
	c.settled()
	c.etcdDies()
	shown()
	c.etcdLives()
	c.settled()
}
