package test

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// one makes a group of one function, which mode and prepare make what it is, and the chain blue/c through the groups.
func (w chained) one(group, mode string, prepare func(*lab.Function) *lab.Function) *lab.Watched {
	w.t.Helper()
	w.ctl("group", "add", "blue/"+group, "--mode", mode)
	return lab.Watch(prepare(w.Function(group+"1", w.conf, group, 0)))
}

// A router between its ports leaves addresses as they are; both directions pass it, whichever network the server is in.
func TestChainModeRouted(t *testing.T) {
	w := newChained(t)
	other := w.Attach("other", w.Conf("blue", "db", db4, db6).With("labels", map[string]string{"role": "server"}))
	other.Echo(80)
	router := w.one("rt", "routed", (*lab.Function).Routes)
	before := w.bridge("fw")
	w.lead("fw", "rt")
	for name, exchange := range ways(w) {
		tk := lab.PingToken(name)
		if err := exchange(tk); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		router.Sees(t, tk, 1, 1)
		before.Sees(t, tk, 1, 1)
	}
	for _, to := range []netip.Addr{other.IP4, other.IP6} {
		tk := lab.PingToken("other")
		if err := w.client.Exchange("tcp", netip.AddrPortFrom(to, 80), tk); err != nil {
			t.Errorf("to another network: %v", err)
		}
		router.Sees(t, tk, 1, 1)
	}
	// What its firewall does not let through does not pass.
	router.Filters("inet", "tcp dport 80")
	if err := w.client.Exchange("tcp", w.to(false), lab.PingToken("filtered")); err == nil {
		t.Error("the function's firewall forbids it, and it passes")
	}
	lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("allowed")))
	// Its own address is an endpoint's.
	w.client.Reaches(router.In.IP4)
}

// A function with one port for both directions serves, too.
func TestChainThroughOnePort(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/rt", "--mode", "routed")
	one := w.Container("one")
	one.Conf = w.conf.FunctionConf("rt", "both", 0)
	one.Add()
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0", "net.ipv4.conf.all.rp_filter=0"} {
		one.Sh("sysctl", "-qw", s)
	}
	k := one.Capture()
	w.lead("rt")
	for name, exchange := range ways(w) {
		tk := lab.PingToken(name)
		if err := exchange(tk); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lab.Eventually(t, "both directions to pass", func() bool { return k.Count(tk) == 2 })
	}
}

// Behind a function that masquerades, its address is who asks; the rest of the chain and all answers find their way.
func TestChainModeRewritingMasquerade(t *testing.T) {
	w := newChained(t)
	w.server.Tell(81)
	before, behind := w.bridge("fw"), w.bridge("ids")
	nat := w.one("nat", "rewriting", (*lab.Function).Masquerades)
	w.lead("fw", "nat", "ids")
	for _, network := range []string{"tcp", "udp"} {
		told, err := w.client.Ask(network, netip.AddrPortFrom(w.server.IP4, 81), 0, 8)
		lab.Must(t, err)
		if told.Seen.Addr() != nat.Out.IP4 {
			t.Errorf("%s: the server sees %s, want the function's %s", network, told.Seen, nat.Out.IP4)
		}
		told, err = w.client.Ask(network, netip.AddrPortFrom(w.server.IP6, 81), 0, 8)
		lab.Must(t, err)
		if told.Seen.Addr() != nat.Out.IP6 {
			t.Errorf("%s: the server sees %s, want the function's %s", network, told.Seen, nat.Out.IP6)
		}
	}
	for name, exchange := range ways(w) {
		tk := lab.PingToken(name)
		if err := exchange(tk); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, f := range []*lab.Watched{before, nat, behind} {
			f.Sees(t, tk, 1, 1)
		}
	}
}

// A TCP proxy ends the client's connection and opens one of its own.
func TestChainModeRewritingProxy(t *testing.T) {
	w := newChained(t)
	behind := w.bridge("ids")
	proxy := w.one("proxy", "rewriting", func(f *lab.Function) *lab.Function {
		f.Routes()
		f.In.Sh("nft", "add table inet nat; add chain inet nat pre { type nat hook prerouting priority -100; }; add rule inet nat pre iifname in0 tcp dport 80 redirect to :8080")
		// Its own packets: to the client by in0, to the server by out0.
		f.In.Sh("ip", "rule", "add", "from", f.Out.IP4.String(), "lookup", "100")
		f.In.Sh("ip", "rule", "add", "from", f.In.IP4.String(), "lookup", "101")
		return f
	})
	lab.Accept(proxy.In.Listen(8080), func(c net.Conn) { proxied(c, proxy.Out, w.to(false)) })
	w.server.Tell(81)
	w.lead("proxy", "ids")
	tk := lab.PingToken("proxied")
	lab.Must(t, w.client.Exchange("tcp", w.to(false), tk))
	proxy.Sees(t, tk, 1, 1)
	behind.Sees(t, tk, 1, 1)
	for _, frame := range behind.Forward.Frames(lab.With(tk)) {
		if from := netip.AddrFrom4([4]byte(frame[26:30])); from != proxy.Out.IP4 {
			t.Errorf("behind the proxy %s asks, want the proxy's egress %s", from, proxy.Out.IP4)
		}
	}
}

// proxied carries bytes between a connection and one to the server, from the function's egress address.
func proxied(c net.Conn, from *lab.Container, to netip.AddrPort) {
	s, err := from.ConnectFrom("tcp", from.IP4, to)
	if err != nil {
		return
	}
	defer s.Close()
	b := make([]byte, 4096)
	for {
		_ = c.SetDeadline(time.Now().Add(lab.Patience()))
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := s.Write(b[:n]); err != nil {
			return
		}
		if n, err = s.Read(b); err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// With answers that go straight, functions see the one direction only.
func TestChainAsymmetric(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", "label:role=server", "--asymmetric")
	for name, exchange := range ways(w) {
		tk := lab.PingToken(name)
		if err := exchange(tk); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		fw.Sees(t, tk, 1, 0)
	}
}

// A classifier leads what it says, and nothing else, and only that is tracked.
func TestChainClassifiersPick(t *testing.T) {
	w := newChained(t)
	other := w.Attach("other", w.conf)
	other.Echo(80)
	for _, port := range []uint16{7999, 8000, 8050, 8099, 8100} {
		w.server.Echo(port)
	}
	fw := w.bridge("fw")
	server := w.server.IP4
	for _, tc := range []struct {
		name    string
		flags   []string
		led     []string // network address:port from the client
		not     []string
		reverse bool
	}{
		{"ports", []string{"--from", "any", "--to", "label:role=server", "--protocol", "tcp", "--port", "8000-8099"}, []string{"tcp :8000", "tcp :8050", "tcp :8099"}, []string{"tcp :7999", "tcp :8100", "udp :8050", "icmp :0"}, false},
		{"a network", []string{"--from", "network:web", "--to", "network:web", "--protocol", "udp"}, []string{"udp :80"}, []string{"tcp :80", "icmp :0"}, false},
		{"an endpoint", []string{"--from", "endpoint:client/eth0", "--to", "endpoint:server/eth0"}, []string{"tcp :80", "udp :80", "icmp :0"}, nil, false},
		{"a prefix", []string{"--from", "10.0.0.0/30", "--to", "10.0.0.0/30", "--protocol", "icmp"}, []string{"icmp :0"}, []string{"tcp :80"}, false},
		{"the other way", []string{"--from", "endpoint:server/eth0", "--to", "any"}, nil, []string{"tcp :80", "udp :80", "icmp :0"}, true},
		{"everything", []string{"--from", "any", "--to", "any"}, []string{"tcp :80", "udp :8050", "icmp :0"}, nil, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.ctl(append([]string{"chain", "add", "blue/c", "--group", "fw"}, tc.flags...)...)
			defer w.ctl("chain", "del", "blue/c")
			w.Sh("ovs-appctl", "dpctl/flush-conntrack")
			try := func(c *lab.Container, to netip.Addr, what string, n int) {
				network, port, _ := strings.Cut(what, " ")
				tk := lab.PingToken(network + port)
				if err := c.Exchange(network, netip.MustParseAddrPort(to.String()+port), tk); err != nil {
					t.Errorf("%s: %v", what, err)
				}
				fw.Sees(t, tk, n, n)
			}
			for _, what := range tc.not {
				try(w.client, server, what, 0)
			}
			if tc.name != "everything" {
				try(w.client, other.IP4, "tcp :80", 0)
			}
			if tracked := w.Sh("ovs-appctl", "dpctl/dump-conntrack"); !tc.reverse && tracked != "" {
				t.Errorf("what no chain wants is tracked:\n%s", tracked)
			}
			for _, what := range tc.led {
				try(w.client, server, what, 1)
			}
			if tc.reverse {
				try(w.server, other.IP4, "tcp :80", 1)
			}
		})
	}
}

// Fragments of what a classifier picks by its ports go through the function, all of them.
func TestChainLeadsFragments(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", "label:role=server", "--protocol", "udp", "--port", "80")
	for _, is6 := range []bool{false, true} {
		conn, err := w.client.Connect("udp", w.to(is6))
		lab.Must(t, err)
		lab.Must(t, lab.Say(conn, "first"))
		tk := lab.Token("end")
		long := strings.Repeat("x", 5000) + tk
		if err := lab.Say(conn, long); err != nil {
			t.Errorf("a datagram of %d bytes: %v", len(long), err)
		}
		fw.Sees(t, tk, 1, 1)
		lab.Must(t, conn.Close())
	}
}

// A trace follows a packet from function to function, says what becomes of it, and where it would be dropped.
func TestChainTrace(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.one("rt", "routed", (*lab.Function).Routes)
	w.one("nat", "rewriting", (*lab.Function).Masquerades)
	w.bridge("ids")
	w.ctl("chain", "add", "blue/c", "--group", "fw,rt,nat,ids", "--from", "any", "--to", "label:role=server", "--protocol", "tcp")
	says := func(words string, args ...string) {
		t.Helper()
		if out := w.ctl(append([]string{"trace", "client/eth0", "server/eth0"}, args...)...); !strings.Contains(out, words) {
			t.Errorf("trace %v does not say %q:\n%s", args, words, out)
		}
	}
	says("delivered to the port of server/eth0, by way of fw1, rt1, nat1, ids1", "tcp/80")
	if out := w.ctl("trace", "client/eth0", "server/eth0", "udp/80"); strings.Contains(out, "by way of") || !strings.Contains(out, "delivered to the port of server/eth0") {
		t.Errorf("what no chain wants:\n%s", out)
	}
	// It knows the path of a connection that stands, though another would be chosen now.
	conn, err := w.client.Connect("tcp", w.to(false))
	lab.Must(t, err)
	defer conn.Close()
	lab.Must(t, lab.Say(conn, "stands"))
	port := netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
	spare := w.Function("fw2", w.conf, "fw", 100).Bridges()
	says("by way of fw2, rt1", "tcp/80")
	says("by way of fw1, rt1", "tcp/80", "--source-port", strconv.Itoa(int(port)))
	says("this connection has it", "tcp/80", "--source-port", strconv.Itoa(int(port)))
	// Dead and closed: the connection that has it, and new ones when nobody is left.
	fw.In.Link("down")
	lab.Eventually(t, "the switch to see that the link is down", func() bool {
		return strings.Contains(w.ctl("trace", "client/eth0", "server/eth0", "tcp/80", "--source-port", strconv.Itoa(int(port))), "function-down")
	})
	spare.Del()
	says("chain-blocked", "tcp/80")
	fw.In.Link("up")
	lab.Eventually(t, "the function to be back", func() bool { w.Sync(); return strings.Contains(w.ctl("function", "list"), "serves") })
	says("by way of fw1, rt1", "tcp/80")
	// The graph has all of them.
	for format, words := range map[string]string{"dot": "digraph chain", "mermaid": "flowchart LR"} {
		out := w.ctl("chain", "graph", "blue/c", "--format", format)
		for _, want := range []string{words, "fw1", "rt1", "nat1", "ids1", "100 %"} {
			if !strings.Contains(out, want) {
				t.Errorf("the %s graph has no %q:\n%s", format, want, out)
			}
		}
	}
}
