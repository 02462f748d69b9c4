package test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// chained is a host with a client and a server, which echoes on port 80, in a tenant's network.
type chained struct {
	*lab.Host

	t              *testing.T
	conf           lab.Conf
	client, server *lab.Container
}

func newChained(t *testing.T) chained {
	t.Helper()
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	server := conf.With("labels", map[string]string{"role": "server"})
	w := chained{Host: h, t: t, conf: conf, client: h.Attach("client", conf), server: h.Attach("server", server)}
	w.client.Patient()
	w.server.Patient()
	w.server.Echo(80)
	return w
}

// ctl runs tenetctl, which must succeed.
func (w chained) ctl(args ...string) string {
	w.t.Helper()
	out, err := w.Tenetctl(args...)
	lab.Must(w.t, err)
	return out
}

// bridge makes a group of one transparent function, and returns what it sees.
func (w chained) bridge(group string, options ...string) *lab.Watched {
	w.t.Helper()
	w.ctl(append([]string{"group", "add", "blue/" + group}, options...)...)
	return lab.Watch(w.Function(group+"1", w.conf, group, 0).Bridges())
}

// lead makes the chain blue/c through the groups, for all that is sent to the server.
func (w chained) lead(groups ...string) {
	w.t.Helper()
	w.ctl("chain", "add", "blue/c", "--group", strings.Join(groups, ","), "--from", "any", "--to", "label:role=server")
}

// to is a port of the server.
func (w chained) to(is6 bool) netip.AddrPort {
	if is6 {
		return netip.AddrPortFrom(w.server.IP6, 80)
	}
	return netip.AddrPortFrom(w.server.IP4, 80)
}

// ways are all kinds of traffic that a chain leads.
func ways(w chained) map[string]func(token string) error {
	all := map[string]func(string) error{}
	for _, network := range []string{"tcp", "udp", "icmp"} {
		for _, is6 := range []bool{false, true} {
			name := network + map[bool]string{false: "4", true: "6"}[is6]
			all[name] = func(token string) error { return w.client.Exchange(network, w.to(is6), token) }
		}
	}
	return all
}

// Through one to eight hops, each function sees each packet once, in the order of the chain, and the answers in the other.
func TestChainOrderAndSymmetry(t *testing.T) {
	w := newChained(t)
	var names []string
	var functions []*lab.Watched
	for i := range 8 {
		names = append(names, fmt.Sprintf("g%d", i+1))
		functions = append(functions, w.bridge(names[i]))
	}
	for _, n := range []int{1, 2, 3, 5, 8} {
		w.lead(names[:n]...)
		for name, exchange := range ways(w) {
			token := fmt.Sprintf("%-6s%d", name, n) + lab.Token("x")
			token = token[:min(len(token), 16)]
			if err := exchange(token); err != nil {
				t.Errorf("%d hops, %s: %v", n, name, err)
				continue
			}
			for i, f := range functions {
				want := [2]int{}
				if i < n {
					want = [2]int{1, 1}
				}
				f.Sees(t, token, want[0], want[1])
				if i < n && (!slices.Equal(f.Forward.Hops(token), []byte{byte(i + 1)}) || !slices.Equal(f.Back.Hops(token), []byte{byte(i + 1)})) {
					t.Errorf("%d hops, %s: function %d is hop %v, back %v", n, name, i+1, f.Forward.Hops(token), f.Back.Hops(token))
				}
			}
		}
	}
}

// open opens a connection to the server, which stands until the test ends.
func (w chained) open(network string) func(token string) error {
	w.t.Helper()
	conn, err := w.client.Connect(network, w.to(false))
	lab.Must(w.t, err)
	w.Cleanup(func() { _ = conn.Close() })
	return func(token string) error { return lab.Say(conn, token) }
}

// A chain that is changed leads new connections by its new way; those that stand keep theirs until their function has gone.
func TestChainChangesLeadNewConnectionsOnly(t *testing.T) {
	w := newChained(t)
	fw, ids := w.bridge("fw"), w.bridge("ids")
	w.lead("fw")
	for _, step := range []struct {
		what   string
		groups []string
		hops   map[*lab.Watched]byte
	}{
		{"a hop is added", []string{"fw", "ids"}, map[*lab.Watched]byte{fw: 1, ids: 2}},
		{"they are re-ordered", []string{"ids", "fw"}, map[*lab.Watched]byte{ids: 1, fw: 2}},
		{"one is removed", []string{"ids"}, map[*lab.Watched]byte{ids: 1}},
		{"it is exchanged", []string{"fw"}, map[*lab.Watched]byte{fw: 1}},
	} {
		t.Run(step.what, func(t *testing.T) {
			before := map[string]func(string) error{"tcp": w.open("tcp"), "udp": w.open("udp")}
			was := map[string]map[*lab.Watched]string{}
			look := func(token string) map[*lab.Watched]string {
				seen := map[*lab.Watched]string{}
				for _, f := range []*lab.Watched{fw, ids} {
					lab.Within(lab.Patience()/40, func() bool { return f.Saw(token) == [2]int{1, 1} })
					seen[f] = fmt.Sprintf("%x %x", f.Forward.Hops(token), f.Back.Hops(token))
				}
				return seen
			}
			for network, say := range before {
				first := lab.PingToken("before-" + network)
				lab.Must(t, say(first))
				was[network] = look(first)
			}
			w.lead(step.groups...)
			for network, say := range before {
				again := lab.PingToken("after-" + network)
				lab.Must(t, say(again))
				for f, hops := range look(again) {
					if was[network][f] != hops {
						t.Errorf("%s: a connection that stands: %s saw it as hop %s, and after the change %s", network, f.In.ID, was[network][f], hops)
					}
				}
				fresh := lab.PingToken("new-" + network)
				lab.Must(t, w.client.Exchange(network, w.to(false), fresh))
				for _, f := range []*lab.Watched{fw, ids} {
					hop, visited := step.hops[f]
					n := map[bool]int{true: 1}[visited]
					f.Sees(t, fresh, n, n)
					if visited && !slices.Equal(f.Forward.Hops(fresh), []byte{hop}) {
						t.Errorf("%s: a new connection: %s is hop %v, want %d", network, f.In.ID, f.Forward.Hops(fresh), hop)
					}
				}
			}
		})
	}
	// Its function goes: it gets another, or, where the group is closed and empty, nothing.
	say := w.open("udp")
	first := lab.PingToken("going")
	lab.Must(t, say(first))
	fw.Sees(t, first, 1, 1)
	fw.Del()
	conn := lab.PingToken("gone")
	if err := say(conn); err == nil {
		t.Error("through a closed group without a function a connection goes on")
	}
	spare := lab.Watch(w.Function("spare", w.conf, "fw", 0).Bridges())
	w.Sh("ovs-appctl", "revalidator/wait") // what was dropped goes by its flow of before until then
	back := lab.PingToken("spare")
	lab.Must(t, say(back))
	spare.Sees(t, back, 1, 1)
}

// connections opens n connections to the server, each of which has a token, and returns what says it once more.
func (w chained) connections(n int) map[string]func() error {
	w.t.Helper()
	all := map[string]func() error{}
	for range n {
		say := w.open("tcp")
		tk := lab.PingToken("conn")
		lab.Must(w.t, say(tk))
		all[tk] = func() error { return say(tk) }
	}
	return all
}

// Connections are spread by weight; each sees one instance only, in both directions; and one that comes or is drained moves none.
func TestChainSharesLoadByConnection(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw")
	weights := []int{1, 1, 2}
	var fws []*lab.Watched
	for i, weight := range weights {
		fws = append(fws, lab.Watch(w.Function(fmt.Sprintf("fw%d", i+1), w.conf, "fw", weight).Bridges()))
	}
	w.lead("fw")
	t.Run("10,000 connections", func(t *testing.T) { spreads(t, w, fws, weights) })

	stand := w.connections(100)
	where := func() map[string][]int {
		seen := map[string][]int{}
		for tk := range stand {
			for i, f := range fws {
				if n := f.Saw(tk); n[0] > 0 || n[1] > 0 {
					seen[tk] = append(seen[tk], i)
				}
			}
		}
		return seen
	}
	steady := func(t *testing.T) {
		t.Helper()
		for _, say := range stand {
			lab.Must(t, say())
		}
		for tk, seen := range where() {
			if len(seen) != 1 {
				t.Errorf("connection %q was seen by instances %v", tk, seen)
			}
		}
	}
	t.Run("an instance comes", func(t *testing.T) {
		fws = append(fws, lab.Watch(w.Function("fw4", w.conf, "fw", 100).Bridges()))
		steady(t)
		fresh := lab.PingToken("fresh")
		lab.Eventually(t, "a new connection to come to the new instance", func() bool {
			lab.Must(t, w.client.Exchange("tcp", w.to(false), fresh))
			return fws[3].Saw(fresh)[0] > 0
		})
	})
	t.Run("one is drained", func(t *testing.T) {
		w.ctl("function", "drain", "blue/fw/fw4")
		steady(t)
		before := fws[3].Saw("fresh-")
		for range 50 {
			lab.Must(t, w.client.Exchange("tcp", w.to(false), lab.PingToken("fresh-")))
		}
		if after := fws[3].Saw("fresh-"); after != before {
			t.Errorf("a drained instance got new connections: %v, before %v", after, before)
		}
		w.ctl("function", "undrain", "blue/fw/fw4")
	})
	t.Run("one leaves", func(t *testing.T) {
		fws[3].Del()
		steady(t)
	})
}

// spreads opens 10,000 connections and counts which instances they come to.
func spreads(t *testing.T, w chained, fws []*lab.Watched, weights []int) {
	t.Helper()
	const many = 10_000
	prefix := lab.Token("many")
	conn := w.client.Datagrams()
	port := func(i int) uint16 { return uint16(20_000 + i) }
	before := w.DatapathFlows(t)
	for first := 0; first < many; first += 100 {
		left := make([]int, 100)
		for i := range left {
			left[i] = first + i
		}
		for try := 0; len(left) > 0; try++ { // a busy machine loses datagrams, and what it lost is said again
			if try == 10 {
				t.Fatalf("connections %v have no answer", left)
			}
			for _, i := range left {
				conn.Send(w.to(false), port(i), fmt.Sprintf("%s%05d", prefix, i))
			}
			lab.Within(lab.Patience()/100, func() bool {
				left = slices.DeleteFunc(left, func(i int) bool { return conn.Answered(port(i)) })
				return len(left) == 0
			})
		}
	}
	total, sum := 0, 0
	for _, weight := range weights {
		sum += weight
	}
	seenBy := map[string]int{}
	var got []int
	for i, f := range fws {
		mine := map[string]bool{}
		for _, k := range []*lab.Capture{f.Forward, f.Back} {
			for _, frame := range k.Frames(lab.With(prefix)) {
				at := strings.Index(string(frame), prefix) + len(prefix)
				mine[string(frame[at:at+5])] = true
			}
		}
		for c := range mine {
			if other, twice := seenBy[c]; twice {
				t.Errorf("connection %s was seen by instances %d and %d", c, other, i)
			}
			seenBy[c] = i
		}
		got = append(got, len(mine))
		total += len(mine)
	}
	if total < many*99/100 {
		t.Errorf("of %d connections %d were seen", many, total)
	}
	for i, weight := range weights {
		want := float64(total) * float64(weight) / float64(sum)
		if share := float64(got[i]); share < 0.9*want || share > 1.1*want {
			t.Errorf("instance %d of weight %d has %d of %d connections, want %.0f within 10 %%", i+1, weight, got[i], total, want)
		}
	}
	t.Logf("weights %v: connections %v; datapath flows %d before, %d after", weights, got, before, w.DatapathFlows(t))
}

var broadcast4 = netip.MustParseAddr("255.255.255.255")

func addrPort(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }
