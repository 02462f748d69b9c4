package test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// A function serves as soon as it has both its ports, and no sooner, and leaves with the first of them; what it had goes with it.
func TestFunctionServesWhileItIsWhole(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw")
	w.lead("fw")
	say := func() error { return w.client.Exchange("udp", w.to(false), lab.PingToken("say")) }
	if say() == nil {
		t.Error("a closed group without a function lets traffic through")
	}
	if w.Drops()["chain-blocked"] == 0 {
		t.Errorf("what is dropped is not counted: %v", w.Drops())
	}
	before := w.Snapshot().Lasting()
	in := w.Container("fw1")
	in.IfName, in.Conf = "in0", w.conf.With("args", map[string]any{"cni": map[string]any{"serviceFunction": map[string]any{"group": "fw", "port": "ingress"}}})
	out := *in
	out.IfName, out.Conf = "out0", w.conf.FunctionConf("fw", "egress", 1)
	f := &lab.Function{In: in, Out: &out}
	in.Add()
	if len(in.Result.IPs) > 0 {
		t.Errorf("a transparent function's port has addresses: %v", in.Result.IPs)
	}
	if out := w.ctl("function", "show", "blue/fw/fw1"); !strings.Contains(out, "waits") || !strings.Contains(out, "missing") {
		t.Errorf("of a function with one port: %s", out)
	}
	if say() == nil {
		t.Error("a function with one port lets traffic through")
	}
	out.Add()
	f.Bridges()
	lab.Eventually(t, "traffic to pass once it is whole", func() bool { return say() == nil })
	for _, c := range []*lab.Container{in, &out} {
		lab.Must(t, c.Do("CHECK").Failed())
		lab.Must(t, c.Do("ADD").Failed()) // again: it stands
	}
	lab.Fails(t, w.portOf("fw1", "more0", "ingress", in.Path).Do("ADD"), lab.CodeConflict, "has its ingress port")
	out.Del()
	lab.Eventually(t, "traffic to stop when a port has gone", func() bool { return say() != nil })
	in.Del()
	in.Del()
	lab.Same(t, before, w.Snapshot().Lasting())
}

// portOf is a further interface of a container, as a port of group fw.
func (w chained) portOf(id, ifName, port, path string) *lab.Container {
	c := *w.client
	c.ID, c.IfName, c.Path, c.Conf = id, ifName, path, w.conf.FunctionConf("fw", port, 1)
	return &c
}

// What makes no sense is refused with a clear error, and changes nothing.
func TestFunctionBadInput(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw")
	w.ctl("group", "add", "red/theirs")
	w.bridge("ids")
	w.lead("ids")
	x := w.Container("x")
	for name, tc := range map[string]struct {
		function any
		with     map[string]any
		words    string
	}{
		"unknown group":           {map[string]any{"group": "nobody", "port": "both"}, nil, "group blue/nobody does not exist"},
		"another tenant's group":  {map[string]any{"group": "theirs", "port": "both"}, nil, "group blue/theirs does not exist"},
		"no group":                {map[string]any{"port": "both"}, nil, "group is missing"},
		"no port":                 {map[string]any{"group": "fw"}, nil, "must be ingress, egress or both"},
		"weight 0":                {map[string]any{"group": "fw", "port": "both", "weight": 0}, nil, "weight 0"},
		"negative weight":         {map[string]any{"group": "fw", "port": "both", "weight": -3}, nil, "weight -3"},
		"unknown key":             {map[string]any{"group": "fw", "port": "both", "mode": "routed"}, nil, `unknown key "mode"`},
		"an address, transparent": {map[string]any{"group": "fw", "port": "both"}, map[string]any{"runtimeConfig": map[string]any{"ips": []string{"10.0.0.77"}}}, "have no addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.Snapshot()
			x.Conf = w.conf.With("serviceFunction", tc.function)
			for k, v := range tc.with {
				x.Conf = x.Conf.With(k, v)
			}
			a := x.Do("ADD")
			if a.Err == nil || !strings.Contains(a.Err.Error()+a.Err.Details, tc.words) {
				t.Errorf("%v, want %q", a.Err, tc.words)
			}
			lab.Same(t, before, w.Snapshot())
		})
	}
	t.Run("its own client", func(t *testing.T) {
		out, err := w.Tenetctl("chain", "add", "blue/own", "--group", "ids", "--from", "endpoint:ids1/in0", "--to", "any")
		if err == nil || !strings.Contains(err.Error(), "cannot be its function and its client") {
			t.Errorf("%s, %v", out, err)
		}
	})
}

var functionCuts = []cut{
	{"ADD", "recorded"},
	{"ADD", "connected"},
	{"ADD", "laid"},
	{"ADD", "plugged"},
	{"ADD", "confirmed"},
	{"DEL", "left"},
	{"DEL", "unchained"},
	{"DEL", "disconnected"},
	{"DEL", "emptied-zones"},
	{"DEL", "unplugged"},
	{"DEL", "forgotten"},
}

// kill -9 of an ADD or DEL of a function's port leaves nothing, neither record, group, flow, path nor zone.
func TestCrashAnywhereLeavesNothingOfAFunction(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/rt", "--mode", "routed")
	w.lead("rt")
	stays := w.Function("stays", w.conf, "rt", 0).Routes()
	lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("first")))
	w.Function("warm", w.conf, "rt", 0).Del()
	before := w.Snapshot().Lasting()
	for _, cut := range functionCuts {
		for _, recovery := range recoveries {
			t.Run(cut.verb+" cut after "+cut.step+", then "+recovery.name, func(t *testing.T) {
				h := w.For(t)
				in := h.Container("victim")
				conf := w.conf.With("name", "functions") // that GC is asked for
				in.IfName, in.Conf = "in0", conf.FunctionConf("rt", "ingress", 1)
				out := *in
				out.IfName, out.Conf = "out0", conf.FunctionConf("rt", "egress", 1)
				in.Add()
				if cut.verb == "DEL" {
					out.Add()
				}
				call := out.Call(cut.verb)
				call.Cut = cut.step
				a, err := h.Exec(call)
				lab.Must(t, err)
				if !a.Killed {
					t.Fatalf("it was not killed: %s %v", a.Stderr, a.Err)
				}
				recovery.run(t, &out)
				if cut.step == "confirmed" { // it stands, whether or not its ADD could say so
					out.Del()
				}
				in.Del()
				lab.Same(t, before, h.Snapshot().Lasting())
				lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("after")))
			})
		}
	}
	_ = stays
}

// Containers that come by their labels are led, and when they go nobody inherits that.
func TestChainFollowsLabels(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "label:app=crawler", "--to", "label:role=server")
	ask := func(c *lab.Container, n int) {
		t.Helper()
		tk := lab.PingToken("ask")
		lab.Must(t, c.Exchange("tcp", w.to(false), tk))
		fw.Sees(t, tk, n, n)
	}
	ask(w.client, 0)
	labelled := w.conf.With("args", map[string]any{"cni": map[string]any{"labels": []any{map[string]any{"key": "app", "value": "crawler"}}}})
	crawler := w.Attach("crawler", labelled)
	ask(crawler, 1)
	crawler.Del()
	heir := w.Attach("heir", w.conf.With("runtimeConfig", map[string]any{"ips": []string{crawler.IP4.String()}}))
	ask(heir, 0)
}

// Chains lead what leaves the tenant and what comes in from outside, too, both ways.
func TestChainToAndFromOutside(t *testing.T) {
	for _, gateway := range []string{"nat", "routed"} {
		t.Run(gateway, func(t *testing.T) {
			h := lab.NewHost(t)
			outside := h.Outside("outside", "ext0", "203.0.113")
			conf := h.Conf("blue", "web", web4, web6).With("gateway", gateway)
			w := chained{Host: h, t: t, conf: conf, client: h.Attach("client", conf), server: h.Attach("server", lab.Published(conf, lab.Port("tcp", 8080, 80), lab.Port("udp", 8080, 80)))}
			h.Sh("ip", "route", "replace", "default", "via", "203.0.113.9")
			h.Sh("ip", "-6", "route", "replace", "default", "via", "2001:db8:113::9")
			w.server.Echo(80)
			outside.Echo(80)
			fw := w.bridge("fw")
			led := func(from *lab.Container, network string, to netip.AddrPort, n int) {
				t.Helper()
				tk := lab.PingToken(network)
				if err := from.Exchange(network, to, tk); err != nil {
					t.Errorf("%s from %s to %s: %v", network, from.ID, to, err)
				}
				fw.Sees(t, tk, n, n)
			}
			out := func(n int) {
				for _, a := range []netip.Addr{outside.IP4, outside.IP6} {
					for _, network := range []string{"tcp", "udp", "icmp"} {
						led(w.client, network, netip.AddrPortFrom(a, 80), n)
					}
				}
			}
			in := func(n int) {
				for _, network := range []string{"tcp", "udp"} {
					led(outside, network, netip.MustParseAddrPort("203.0.113.1:8080"), n)
					led(outside, network, netip.MustParseAddrPort("[2001:db8:113::1]:8080"), n)
				}
				if gateway == "routed" {
					led(outside, "icmp", netip.AddrPortFrom(w.server.IP4, 80), n)
				}
			}
			out(0)
			in(0)
			w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "network:web", "--to", "203.0.113.0/24")
			w.ctl("chain", "add", "blue/c6", "--group", "fw", "--from", "network:web", "--to", "2001:db8:113::/64")
			out(1)
			in(0)
			w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "203.0.113.0/24", "--to", "network:web")
			w.ctl("chain", "add", "blue/c6", "--group", "fw", "--from", "2001:db8:113::/64", "--to", "network:web")
			out(0)
			in(1)
			w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", "any")
			w.ctl("chain", "del", "blue/c6")
			out(1)
			in(1)
			// The gateway itself answers as before, and the host by the alias.
			w.client.Reaches(netip.MustParseAddr("10.0.0.1"))
			led(h.Itself(), "tcp", netip.AddrPortFrom(w.server.Alias(w.server.IP4), 80), 1)
		})
	}
}

// A network that comes later is as good as one that was there with the chain, and leaves nothing of it behind.
func TestChainLeadsNetworksThatComeLater(t *testing.T) {
	w := newChained(t)
	outside := w.Outside("outside", "ext0", "203.0.113")
	outside.Echo(80)
	fw := w.bridge("fw")
	w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", "any")
	agree := func() {
		t.Helper()
		if out := w.ctl("sync", "--dry-run"); !strings.Contains(out, "everything agrees") {
			t.Error(out)
		}
	}
	agree()
	w.ctl("network", "add", "blue/late", "--subnet", db4, "--gateway", "nat")
	agree()
	late := w.Attach("late", w.Conf("blue", "late"))
	agree()
	for _, to := range []netip.Addr{w.server.IP4, outside.IP4} {
		tk := lab.PingToken("late")
		lab.Must(t, late.Exchange("tcp", addrPort(to, 80), tk))
		fw.Sees(t, tk, 1, 1)
	}
	late.Reaches(netip.MustParseAddr("10.0.1.1"))
	late.Del()
	agree()
}

// What comes and goes on another bridge of the node leaves a chain's paths as they are.
func TestChainsOnTwoBridges(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.lead("fw")
	w.ctl("group", "add", "red/fw")
	w.ctl("chain", "add", "red/c", "--group", "fw", "--from", "any", "--to", "label:role=server")
	two := w.Conf("red", "web", web4).With("bridge", "br-two")
	client, server := w.Attach("client2", two), w.Attach("server2", two.With("labels", map[string]string{"role": "server"}))
	server.Echo(80)
	theirs := lab.Watch(w.Function("fw2", two, "fw", 0).Bridges())
	for from, f := range map[*lab.Container]*lab.Watched{w.client: fw, client: theirs} {
		to := map[*lab.Container]netip.Addr{w.client: w.server.IP4, client: server.IP4}[from]
		lab.Eventually(t, "the chain to lead", func() bool {
			tk := lab.PingToken("two")
			return from.Exchange("udp", addrPort(to, 80), tk) == nil && lab.Within(lab.Patience()/20, func() bool { return f.Saw(tk) == [2]int{1, 1} })
		})
	}
	theirs.Del()
	tk := lab.PingToken("still")
	lab.Must(t, w.client.Exchange("tcp", w.to(false), tk))
	fw.Sees(t, tk, 1, 1)
}

// A tenant's first chain comes in the middle of an ADD, and of a DEL: who is attached is led, and nothing is left of who goes.
func TestAFirstChainMeetsAnAddAndADel(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	held := func(c *lab.Container, verb, step string) func() error {
		file := filepath.Join(t.TempDir(), step)
		call := c.Call(verb)
		call.Cut = step + "@" + file
		done := make(chan error, 1)
		go func() {
			a, err := w.Exec(call)
			if err == nil {
				err = a.Failed()
			}
			done <- err
		}()
		lab.Eventually(t, verb+" to come to "+step, func() bool { _, err := os.Stat(file); return err == nil })
		return func() error {
			lab.Must(t, os.Remove(file))
			return <-done
		}
	}
	agrees := func() {
		t.Helper()
		if out := w.ctl("sync", "--dry-run"); !strings.Contains(out, "agrees") {
			t.Errorf("the switch does not agree: %s", out)
		}
	}
	for _, step := range []string{"recorded", "connected", "laid", "exposed"} {
		late := w.Container("late")
		late.Conf = w.conf
		goOn := held(late, "ADD", step)
		w.lead("fw")
		lab.Must(t, goOn())
		agrees()
		tk := lab.PingToken("late")
		lab.Must(t, late.Exchange("udp", w.to(false), tk))
		fw.Sees(t, tk, 1, 1)
		w.ctl("chain", "del", "blue/c")
		late.Del()
	}
	for _, step := range []string{"left", "disconnected", "unplugged"} {
		late := w.Attach("late", w.conf)
		goOn := held(late, "DEL", step)
		w.lead("fw")
		lab.Must(t, goOn())
		agrees()
		for _, record := range w.Records() {
			if strings.HasPrefix(record, "record zones/") && strings.Contains(record, string(vnet.Attachment{Container: "late", IfName: late.IfName}.ID())) {
				t.Errorf("DEL at %q leaves %s", step, record)
			}
		}
		w.ctl("chain", "del", "blue/c")
	}
}
