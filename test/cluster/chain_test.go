package cluster

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/test/lab"
)

// led is a cluster of three nodes with a client on the first and a server, which echoes on port 80, on the second.
type led struct {
	*cluster

	n1, n2, n3     *lab.Host
	client, server *lab.Container
}

func newLed(t *testing.T, args ...string) led {
	t.Helper()
	c := newCluster(t, 3, 1, args...)
	w := led{cluster: c, n1: c.Nodes[0], n2: c.Nodes[1], n3: c.Nodes[2]}
	c.network(w.n1, "blue/web", "--subnet", web4, "--subnet", web6)
	w.client = w.n1.Attach("client", webOn(w.n1))
	w.server = w.n2.Attach("server", webOn(w.n2).With("labels", map[string]string{"role": "server"}))
	w.client.Patient()
	w.server.Patient()
	w.server.Echo(80)
	return w
}

func webOn(h *lab.Host) lab.Conf { return h.Conf("blue", "web") }

// lead makes the chain blue/c through the groups, for all that is sent to the server, and waits until it leads there.
func (w led) lead(groups string, options ...string) {
	w.t.Helper()
	w.ctl(w.n3, append([]string{"chain", "add", "blue/c", "--group", groups, "--from", "any", "--to", "label:role=server"}, options...)...)
}

// through leads through a firewall on a node, and waits until it does.
func (w led) through(h *lab.Host) *lab.Watched {
	w.t.Helper()
	w.ctl(w.n1, "group", "add", "blue/fw")
	fw := lab.Watch(h.Function("fw1", webOn(h), "fw", 0).Bridges())
	w.lead("fw")
	w.leads(fw)
	w.settled()
	return fw
}

// exchange says something to the server, which may have to be said again: who has just been told of a way may not have it yet.
func (w led) exchange(network string, to netip.Addr, what string) string {
	w.t.Helper()
	said := ""
	lab.Eventually(w.t, "an answer by "+network+" from "+to.String(), func() bool {
		said = lab.PingToken(what)
		return w.client.Exchange(network, netip.AddrPortFrom(to, 80), said) == nil
	})
	return said
}

// asks is how the client says something to the server, once.
func (w led) asks(network string, to netip.Addr) func(token string) error {
	return func(token string) error { return w.client.Exchange(network, netip.AddrPortFrom(to, 80), token) }
}

// on is how something is said on a connection.
func on(conn net.Conn) func(token string) error {
	return func(token string) error { return lab.SayWithin(conn, token, 3*lab.Patience()/4) } // it may have to be sent several times
}

// leads waits until the chain leads the client's datagrams, and the answers, through the function.
func (w led) leads(f *lab.Watched) {
	w.t.Helper()
	lab.Eventually(w.t, "the chain to lead", func() bool {
		said := w.exchange("udp", w.server.IP4, "leads")
		return lab.Within(lab.Patience()/40, func() bool { return f.Saw(said) == [2]int{1, 1} })
	})
}

// Functions of one chain are on nodes of their own, its client and its server on others: each sees each packet once, and
// the answers in the other order, whatever kind of traffic it is.
func TestChainAcrossNodes(t *testing.T) {
	w := newLed(t)
	for _, g := range []string{"fw", "ids", "log"} {
		w.ctl(w.n2, "group", "add", "blue/"+g)
	}
	functions := []*lab.Watched{
		lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges()),
		lab.Watch(w.n1.Function("ids1", webOn(w.n1), "ids", 0).Bridges()),
		lab.Watch(w.n2.Function("log1", webOn(w.n2), "log", 0).Bridges()),
	}
	w.lead("fw,ids,log")
	first := w.exchange("udp", w.server.IP4, "first")
	lab.Eventually(t, "the chain to lead", func() bool {
		first = w.exchange("udp", w.server.IP4, "first")
		return lab.Within(lab.Patience()/40, func() bool { return functions[2].Saw(first) == [2]int{1, 1} })
	})
	for _, network := range []string{"tcp", "udp", "icmp"} {
		for _, to := range []netip.Addr{w.server.IP4, w.server.IP6} {
			said := lab.SeenBy(t, network, w.asks(network, to), map[*lab.Watched]int{functions[0]: 1, functions[1]: 1, functions[2]: 1})
			for i, f := range functions {
				if !slices.Equal(f.Forward.Hops(said), []byte{byte(i + 1)}) || !slices.Equal(f.Back.Hops(said), []byte{byte(i + 1)}) {
					t.Errorf("%s to %s: function %d is hop %v, back %v", network, to, i+1, f.Forward.Hops(said), f.Back.Hops(said))
				}
			}
		}
	}
	for _, h := range w.Nodes {
		if out := w.ctl(h, "sync", "--dry-run"); !strings.Contains(out, "agrees") {
			t.Errorf("%s: %s", h.Name, out)
		}
	}
}

// A connection keeps its path when functions on other nodes come, are drained and go; when its own dies it goes on by what
// its group says; and new ones are led past a dead function soon.
func TestChainAcrossNodesPinsAndPasses(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	w.ctl(w.n1, "group", "add", "blue/fw", "--on-failure", "open")
	first := lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges())
	w.lead("fw")
	w.leads(first)
	conn, err := w.client.Connect("tcp", netip.AddrPortFrom(w.server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	say := func(f *lab.Watched, what string) {
		t.Helper()
		lab.SeenBy(t, what, on(conn), map[*lab.Watched]int{f: 1})
	}
	say(first, "begins")
	second := lab.Watch(w.n2.Function("fw2", webOn(w.n2), "fw", 100).Bridges())
	lab.Eventually(t, "a new connection to come to the new function", func() bool {
		said := w.exchange("udp", w.server.IP4, "fresh")
		return lab.Within(lab.Patience()/40, func() bool { return second.Saw(said)[0] > 0 })
	})
	say(first, "stays")
	lab.Measures(t, w.n2, map[string]float64{`tenet_function_instances{group="fw",state="serves",tenant="blue"}`: 1})
	w.ctl(w.n1, "function", "drain", "blue/fw/fw2")
	for _, h := range w.Nodes {
		lab.Eventually(t, h.Name+" to say that it is drained", func() bool { return strings.Contains(w.ctl(h, "function", "show", "blue/fw/fw2"), "drained") })
	}
	lab.Measures(t, w.n2, map[string]float64{`tenet_function_instances{group="fw",state="drained",tenant="blue"}`: 1})
	before := second.Saw("drained-")
	for range 20 {
		w.exchange("udp", w.server.IP4, "drained-")
	}
	if after := second.Saw("drained-"); after != before {
		t.Errorf("a drained function on another node got new connections: %v, before %v", after, before)
	}
	w.ctl(w.n2, "function", "undrain", "blue/fw/fw2") // where it is
	lab.Measures(t, w.n2, map[string]float64{`tenet_function_instances{group="fw",state="serves",tenant="blue"}`: 1})
	first.In.Link("down")
	lab.Eventually(t, "the connection to go past the dead function", func() bool {
		said := lab.PingToken("past")
		return on(conn)(said) == nil && first.Saw(said)[0] == 0
	})
	lab.Eventually(t, "new connections to avoid it", func() bool {
		said := w.exchange("udp", w.server.IP4, "avoids")
		return lab.Within(lab.Patience()/40, func() bool { return second.Saw(said) == [2]int{1, 1} })
	})
	first.In.Link("up")
	lab.Eventually(t, "the connection to come back to it", func() bool {
		said := lab.PingToken("back")
		return on(conn)(said) == nil && lab.Within(lab.Patience()/40, func() bool { return first.Saw(said) == [2]int{1, 1} })
	})
}

// A function that rewrites, and one that routes, on other nodes than the client's and the server's.
func TestRewritingAndRoutedFunctionsAcrossNodes(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	w.network(w.n1, "blue/svc", "--subnet", "10.9.0.0/24", "--subnet", "fd00:9::/64")
	w.ctl(w.n2, "group", "add", "blue/rt", "--mode", "routed")
	w.ctl(w.n2, "group", "add", "blue/nat", "--mode", "rewriting")
	w.ctl(w.n2, "group", "add", "blue/ids")
	router := lab.Watch(w.n3.Function("rt1", w.n3.Conf("blue", "svc"), "rt", 0).Routes())
	nat := lab.Watch(w.n2.Function("nat1", w.n2.Conf("blue", "svc"), "nat", 0).Masquerades())
	ids := lab.Watch(w.n1.Function("ids1", webOn(w.n1), "ids", 0).Bridges())
	for groups, fresh := range map[string]*lab.Watched{"rt": router, "nat,ids": nat} {
		w.lead(groups)
		lab.Eventually(t, groups+" to lead", func() bool {
			said := w.exchange("udp", w.server.IP4, "first")
			return lab.Within(lab.Patience()/40, func() bool { return fresh.Saw(said) == [2]int{1, 1} })
		})
		for _, network := range []string{"tcp", "udp"} {
			want := map[*lab.Watched]int{router: 1, ids: 0, nat: 0}
			if groups != "rt" {
				want = map[*lab.Watched]int{router: 0, ids: 1, nat: 1}
			}
			lab.SeenBy(t, network, w.asks(network, w.server.IP4), want)
		}
	}
}

// Functions on the client's node are preferred where the chain says so, and others are taken when these die.
func TestLocalFunctionsArePreferred(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	w.ctl(w.n1, "group", "add", "blue/fw")
	near := lab.Watch(w.n1.Function("near", webOn(w.n1), "fw", 1).Bridges())
	far := lab.Watch(w.n3.Function("far", webOn(w.n3), "fw", 100).Bridges())
	w.lead("fw", "--prefer-local")
	lab.Eventually(t, "the near one to be taken", func() bool {
		said := w.exchange("udp", w.server.IP4, "first")
		return lab.Within(lab.Patience()/40, func() bool { return near.Saw(said) == [2]int{1, 1} })
	})
	for range 20 {
		said := w.exchange("udp", w.server.IP4, "near")
		near.Sees(t, said, 1, 1)
	}
	if out := w.ctl(w.n1, "trace", "client", w.server.IP4.String(), "tcp/80"); !strings.Contains(out, "near") || strings.Contains(out, "% of new connections") {
		t.Errorf("trace goes another way:\n%s", out)
	}
	near.In.Link("down")
	lab.Eventually(t, "the far one to be taken", func() bool {
		said := w.exchange("udp", w.server.IP4, "far")
		return lab.Within(lab.Patience()/40, func() bool { return far.Saw(said) == [2]int{1, 1} })
	})
}

// Nothing gets past a closed group whose last function has died, on whatever node it was: what the server gets before is what it gets
// after it lives again.
func TestAClosedGroupAcrossNodesLetsNothingPast(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	fw := w.through(w.n3)
	arrives := w.server.Capture()
	fw.In.Link("down")
	for _, h := range w.Nodes {
		lab.Eventually(t, h.Name+" to say so", func() bool {
			return strings.Contains(w.ctl(h, "chain", "show", "blue/c"), "group fw is closed, and no function in it lives")
		})
	}
	for _, network := range []string{"tcp", "udp", "icmp"} {
		said := lab.PingToken("past")
		if err := w.asks(network, w.server.IP4)(said); err == nil || arrives.Count(said) > 0 {
			t.Errorf("%s gets past a closed group: %v", network, err)
		}
	}
	fw.In.Link("up")
	w.leads(fw)
	w.settled()
}

// A node that is off takes its functions with it: connections go on through those of other nodes, and when it is back
// functions on it serve again.
func TestChainGoesOnWithoutANode(t *testing.T) {
	t.Parallel()
	w := newLed(t, "--lease=2s", "--grace=1h")
	w.ctl(w.n1, "group", "add", "blue/fw")
	lost := lab.Watch(w.n3.Function("lost", webOn(w.n3), "fw", 100).Bridges())
	w.lead("fw")
	w.leads(lost)
	kept := lab.Watch(w.n2.Function("kept", webOn(w.n2), "fw", 1).Bridges())
	w.n3.PowerOff()
	lab.Eventually(t, "the node to be off", func() bool { return strings.Contains(w.ctl(w.n1, "node", "list"), "off") })
	lab.Eventually(t, "new connections to go through the other function", func() bool {
		said := w.exchange("udp", w.server.IP4, "kept")
		return lab.Within(lab.Patience()/40, func() bool { return kept.Saw(said) == [2]int{1, 1} })
	})
	for range 20 {
		lab.SeenBy(t, "kept", w.asks("tcp", w.server.IP4), map[*lab.Watched]int{kept: 1})
	}
	if out := w.ctl(w.n1, "function", "list"); !strings.Contains(out, " off ") {
		t.Errorf("the function of a node that is off: %s", out)
	}
	w.n3.PowerOn()
	w.restart(w.n3, "--lease=2s", "--grace=1h")
	w.joined(w.n3)
	w.becomes(w.n3, w.n1, "runs")
	again := lab.Watch(w.n3.Function("again", webOn(w.n3), "fw", 100).Bridges()) // a boot takes containers' links away
	lab.Eventually(t, "new connections to go through a function of the node that is back", func() bool {
		said := w.exchange("udp", w.server.IP4, "back")
		return lab.Within(lab.Patience()/40, func() bool { return again.Saw(said) == [2]int{1, 1} })
	})
}

// A path that no new connection gets stands as long as a connection has it, on whatever node, and goes then.
func TestPathsOfOtherNodesConnectionsStand(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	w.ctl(w.n1, "group", "add", "blue/fw")
	w.ctl(w.n1, "group", "add", "blue/ids")
	fw := lab.Watch(w.n3.Function("fw1", webOn(w.n3), "fw", 0).Bridges())
	ids := lab.Watch(w.n3.Function("ids1", webOn(w.n3), "ids", 0).Bridges())
	w.lead("fw")
	w.leads(fw)
	conn, err := w.client.Connect("tcp", netip.AddrPortFrom(w.server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	lab.Must(t, lab.Say(conn, lab.PingToken("first")))
	w.lead("ids")
	w.leads(ids)
	paths := func() int { return strings.Count(w.records("legs/")["legs/blue/c"], `"group":"fw"`) }
	lab.Eventually(t, "nodes to tell of their connections", func() bool {
		uses := w.records("path-use/")
		return len(uses) == 3 && strings.Contains(uses["path-use/n1"], `"paths":[`) && !strings.Contains(uses["path-use/n1"], `"paths":[]`)
	})
	lab.SeenBy(t, "stands", on(conn), map[*lab.Watched]int{fw: 1})
	if paths() == 0 {
		t.Error("the path of a connection that stands has gone")
	}
	lab.Must(t, conn.Close())
	w.n1.Sh("ovs-appctl", "dpctl/flush-conntrack") // rather than wait for what a closed connection leaves to expire
	if !lab.Within(2*lab.Patience(), func() bool { return paths() == 0 }) {
		t.Errorf("the path stands though no connection has it: %v", w.records("path-use/"))
	}
}

// A chain is on the switch of a node while somebody of its tenant is there, and leads whoever comes from the beginning.
func TestAChainIsWhereItsTenantIs(t *testing.T) {
	t.Parallel()
	w := newLed(t)
	fw := w.through(w.n2)
	inChains := func() int {
		n := 0
		for _, f := range w.n3.Flows() {
			if slices.Contains(pipeline.ChainTables, f.Table) {
				n++
			}
		}
		return n
	}
	nobody := inChains()
	for range 3 {
		c := w.n3.Attach("visits", webOn(w.n3))
		if inChains() <= nobody {
			t.Error("the chain is not on the switch of a node with a client")
		}
		lab.Eventually(t, "the server to be reached", func() bool { return c.Pings(w.server.IP4) })
		c.Patient()
		visit := func(token string) error { return c.Exchange("tcp", netip.AddrPortFrom(w.server.IP4, 80), token) }
		lab.SeenBy(t, "visit", visit, map[*lab.Watched]int{fw: 1})
		c.Del()
		if n := inChains(); n != nobody {
			t.Errorf("without anybody of the tenant there are %d flows in the chains' tables, before there were %d", n, nobody)
		}
	}
	base := 0
	for _, f := range pipeline.BaseFlows() {
		if slices.Contains(pipeline.ChainTables, f.Table) {
			base++
		}
	}
	if nobody != base {
		t.Errorf("a node with nobody of the tenant has %d flows in the chains' tables, of the base there are %d", nobody, base)
	}
	w.settled()
	visits := w.n3.Attach("visits", webOn(w.n3))
	if w.leading(w.n3, "web", w.client) == 0 {
		t.Error("a node with a client is not led to another")
	}
	visits.Del()
	lab.Eventually(t, "a node with nobody of the tenant to be led to none of it", func() bool {
		return w.leading(w.n3, "web", w.client)+w.leading(w.n3, "web", w.server) == 0
	})
}
