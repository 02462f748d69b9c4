package test

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// shared is a group of two bridges that a chain leads to, before an IDS of its own.
func (w chained) shared(options ...string) (*lab.Watched, *lab.Watched, *lab.Watched) {
	w.t.Helper()
	w.ctl(append([]string{"group", "add", "blue/fw"}, options...)...)
	one := lab.Watch(w.Function("fw1", w.conf, "fw", 0).Bridges())
	two := lab.Watch(w.Function("fw2", w.conf, "fw", 0).Bridges())
	ids := w.bridge("ids")
	w.lead("fw", "ids")
	return one, two, ids
}

// fresh opens n new connections and returns how many of them failed.
func (w chained) fresh(n int) (string, int) {
	w.t.Helper()
	prefix, failed := lab.Token("fresh"), 0
	for i := range n {
		conn, err := w.client.Connect("udp", w.to(false))
		lab.Must(w.t, err)
		if lab.SayWithin(conn, fmt.Sprintf("%s%d", prefix, i), 300*time.Millisecond) != nil {
			failed++
		}
		_ = conn.Close()
	}
	return prefix, failed
}

// avoids waits until new connections go through two and none through one.
func (w chained) avoids(t *testing.T, one, two *lab.Watched) {
	t.Helper()
	start := time.Now()
	lab.Eventually(t, "new connections to avoid the dead function", func() bool {
		prefix, failed := w.fresh(10)
		return failed == 0 && one.Saw(prefix)[0] == 0 && two.Saw(prefix)[0] == 10
	})
	t.Logf("all new connections avoid it %d ms later", time.Since(start).Milliseconds())
}

// Whichever port of a function goes down, and with or without tenetd, new connections go elsewhere, those that have it
// do as its group says, and when the port is back all is as before.
func TestChainPassesByTheDead(t *testing.T) {
	for _, daemon := range []bool{true, false} {
		for _, on := range []string{"open", "closed"} {
			t.Run(fmt.Sprintf("tenetd %v, %s", daemon, on), func(t *testing.T) {
				w := newChained(t)
				one, two, ids := w.shared("--on-failure", on)
				if daemon {
					w.Tenetd()
				}
				ports := map[string]*lab.Container{"ingress": one.In}
				if daemon { // the switch alone watches one port of a path for new connections
					ports["egress"] = one.Out
				}
				for name, port := range ports {
					say := w.pinned(t, one)
					before := w.Drops()
					port.Link("down")
					w.avoids(t, one, two)
					w.Sh("ovs-appctl", "revalidator/wait") // what stands goes by its flows of before until then
					tk := lab.PingToken("standing")
					err := say(tk)
					switch {
					case on == "open" && err != nil:
						t.Errorf("%s down: a connection that has the open function stops: %v", name, err)
					case on == "open":
						ids.Sees(t, tk, 1, 1)
					case err == nil:
						t.Errorf("%s down: a connection that has the closed function goes on", name)
					case w.Drops()["function-down"] <= before["function-down"]:
						t.Errorf("%s down: what is dropped is not counted: %v", name, w.Drops())
					}
					port.Link("up")
					lab.Eventually(t, "the connection to go on", func() bool { return say(lab.PingToken("back")) == nil })
					lab.Eventually(t, "new connections to come to it again", func() bool {
						prefix, _ := w.fresh(10)
						return one.Saw(prefix)[0] > 0
					})
				}
			})
		}
	}
}

// pinned opens connections until one has the function, and returns what says something on it.
func (w chained) pinned(t *testing.T, f *lab.Watched) func(string) error {
	t.Helper()
	for range 64 {
		conn, err := w.client.Connect("udp", w.to(false))
		lab.Must(t, err)
		tk := lab.PingToken("pin")
		lab.Must(t, lab.Say(conn, tk))
		if lab.Within(lab.Patience()/100, func() bool { return f.Saw(tk)[0] > 0 }) {
			w.Cleanup(func() { _ = conn.Close() })
			return func(token string) error { return lab.SayWithin(conn, token, 500*time.Millisecond) }
		}
		_ = conn.Close()
	}
	t.Fatalf("of 64 connections none came to %s", f.In.ID)
	return nil
}

// A datagram each millisecond: few are lost when the function dies that they go through.
func TestChainLosesLittleWhenAFunctionDies(t *testing.T) {
	w := newChained(t)
	one, _, _ := w.shared("--on-failure", "open")
	w.Tenetd()
	w.ctl("function", "drain", "blue/fw/fw2") // so that the stream comes to the one that dies
	s := w.client.Stream(w.server)
	s.Flows()
	w.ctl("function", "undrain", "blue/fw/fw2")
	one.In.Link("down")
	s.Flows()
	lost, silence := s.Lost()
	t.Logf("%d datagrams lost, nothing for %s (datapath %s)", lost, silence, w.Datapath)
	if silence > lab.Stretch(time.Second) {
		t.Errorf("nothing for %s: more than a second", silence)
	}
}

// A function that hangs while its ports are up is found by its group's probe, and found again when it has recovered.
func TestChainProbesFindTheHung(t *testing.T) {
	for _, mode := range []string{"transparent", "routed"} {
		t.Run(mode, func(t *testing.T) {
			w := newChained(t)
			w.ctl("group", "add", "blue/fw", "--mode", mode, "--probe-interval", "100ms", "--probe-threshold", "3")
			prepare, hang, mend := (*lab.Function).Bridges, [][]string{{"ip", "link", "set", "in0", "nomaster"}}, [][]string{{"ip", "link", "set", "in0", "master", "bridge"}}
			if mode == "routed" {
				prepare = (*lab.Function).Routes
				hang, mend = [][]string{{"sysctl", "-qw", "net.ipv4.ip_forward=0"}}, [][]string{{"sysctl", "-qw", "net.ipv4.ip_forward=1"}, {"sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0"}}
			}
			one := lab.Watch(prepare(w.Function("fw1", w.conf, "fw", 0)))
			two := lab.Watch(prepare(w.Function("fw2", w.conf, "fw", 0)))
			w.lead("fw")
			d := w.Tenetd()
			state := func(name string) string {
				out := w.ctl("function", "list")
				for line := range strings.Lines(out) {
					if f := strings.Fields(line); f[0] == "blue/fw/"+name {
						return f[1]
					}
				}
				return out
			}
			lab.Eventually(t, "both to serve", func() bool { return state("fw1") == "serves" && state("fw2") == "serves" })
			for _, c := range hang {
				one.In.Sh(c...)
			}
			lab.Eventually(t, "the function to be found hung", func() bool { return state("fw1") == "hung" })
			w.avoids(t, one, two)
			// A verdict outlives its daemon's death, and the next one takes it back when it is wrong.
			d.End(syscall.SIGKILL)
			if s := state("fw1"); s != "hung" {
				t.Errorf("without a daemon it is %s", s)
			}
			d = w.Tenetd()
			for _, c := range mend {
				one.In.Sh(c...)
			}
			lab.Eventually(t, "the function to serve again", func() bool { return state("fw1") == "serves" })
			lab.Eventually(t, "new connections to come to it again", func() bool {
				prefix, _ := w.fresh(10)
				return one.Saw(prefix)[0] > 0
			})
			if s := state("fw2"); s != "serves" {
				t.Errorf("the other one is %s", s)
			}
			if n := w.Drops()["probe"]; n == 0 {
				t.Error("probes that come back are not counted as such")
			}
			if code := d.End(syscall.SIGTERM); code != 0 {
				t.Errorf("tenetd ends with %d", code)
			}
		})
	}
}

// A function that is probed gets connections once a probe has come through: its inside may be set up after its ADD.
func TestChainWaitsForAProbedFunction(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw", "--probe-interval", "100ms", "--probe-threshold", "20") // a busy machine's probes may be late
	w.Function("fw1", w.conf, "fw", 0).Bridges()
	w.lead("fw")
	w.Tenetd()
	two := lab.Watch(w.Function("fw2", w.conf, "fw", 100))
	for range 5 {
		prefix, failed := w.fresh(10)
		if failed > 0 || two.Saw(prefix)[0] > 0 {
			t.Errorf("%d of 10 connections fail, and %d come to a function that is not set up", failed, two.Saw(prefix)[0])
		}
	}
	two.Bridges()
	lab.Eventually(t, "connections to come to it", func() bool {
		prefix, failed := w.fresh(10)
		return failed == 0 && two.Saw(prefix)[0] > 0
	})
}
