package test

import (
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

// Of a packet in fragments only the first has ports, on the userspace datapath. One that opens a connection is led by the chain
// that wants it or, if several may, by none of them, and gets round none; what none may want is none's business.
func TestChainTellsFragmentsApart(t *testing.T) {
	w := newChained(t)
	fw, ids := w.bridge("fw"), w.bridge("ids")
	say := func(is6 bool, port uint16, size int, d time.Duration) (string, error) {
		conn, err := w.client.Connect("udp", netip.AddrPortFrom(w.to(is6).Addr(), port))
		lab.Must(t, err)
		defer conn.Close()
		tk := lab.Token("end")
		return tk, lab.SayWithin(conn, strings.Repeat("x", size)+tk, d)
	}
	add := func(name, group, protocol, port string, more ...string) {
		t.Helper()
		w.ctl(append([]string{"chain", "add", "blue/" + name, "--group", group, "--from", "any", "--to", "label:role=server", "--protocol", protocol, "--port", port}, more...)...)
	}
	both := []bool{false, true}
	add("web", "ids", "tcp", "443")
	for _, is6 := range both {
		tk, err := say(is6, 80, 5000, 5*time.Second)
		if err != nil {
			t.Errorf("IPv6 %v: of a protocol that no chain wants: %v", is6, err)
		}
		ids.Sees(t, tk, 0, 0)
	}
	add("fw", "fw", "udp", "80")
	for _, is6 := range both {
		tk, err := say(is6, 80, 5000, 5*time.Second)
		if err != nil {
			t.Errorf("IPv6 %v: one chain may want it: %v", is6, err)
		}
		fw.Sees(t, tk, 1, 1)
	}
	add("low", "ids", "udp", "53", "--priority", "10")
	server := w.server.Capture()
	for _, is6 := range both {
		tk, err := say(is6, 80, 5000, time.Second)
		fw.Saw(tk)
		ids.Sees(t, tk, 0, 0)
		if err != nil && server.Count(tk) > 0 || err == nil && fw.Saw(tk) != [2]int{1, 1} {
			t.Errorf("IPv6 %v: several may want it: %v, and the firewall saw it %v times", is6, err, fw.Saw(tk))
		}
		if err != nil && w.Drops()["chained-fragment"] == 0 {
			t.Errorf("it is dropped and not counted: %v", w.Drops())
		}
	}
}

// A server that speaks first once its connection's function has gone is heard: the connection has another function by then.
func TestChainHearsTheServerWhenAFunctionHasGone(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw")
	one := w.Function("fw1", w.conf, "fw", 0).Bridges()
	w.lead("fw")
	l := w.server.Listen(81)
	client, err := w.client.Connect("tcp", netip.AddrPortFrom(w.server.IP4, 81))
	lab.Must(t, err)
	defer client.Close()
	server, err := l.Accept()
	lab.Must(t, err)
	defer server.Close()
	said := func(from, to net.Conn, what string) {
		t.Helper()
		if _, err := from.Write([]byte(what)); err != nil {
			t.Error(err)
		}
		lab.Must(t, to.SetReadDeadline(time.Now().Add(lab.Stretch(10*time.Second))))
		b := make([]byte, len(what))
		if _, err := to.Read(b); err != nil || string(b) != what {
			t.Errorf("%q arrives as %q, %v", what, b, err)
		}
	}
	said(client, server, "hello")
	two := lab.Watch(w.Function("fw2", w.conf, "fw", 0).Bridges())
	one.Del()
	forged := w.Drops()["forged-path"]
	tk := lab.Token("push")
	said(server, client, tk)
	two.Sees(t, tk, 0, 1)
	tk = lab.Token("ask")
	said(client, server, tk)
	two.Sees(t, tk, 1, 0)
	if n := w.Drops()["forged-path"]; n != forged {
		t.Errorf("what the server said was dropped as forged %d times", n-forged)
	}
}

// What is said to and by a routed function itself is led by no chain: a TTL that runs out, a refusal, its own address.
func TestRoutedFunctionsSpeakAsThemselves(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/rt", "--mode", "routed")
	rt := w.Function("rt1", w.conf, "rt", 0).Routes()
	w.ctl("chain", "add", "blue/c", "--group", "rt", "--from", "any", "--to", "any")
	lab.Must(t, w.client.Exchange("tcp", w.to(false), lab.PingToken("first")))
	out, _ := lab.RunIn(t, w.client.Path, "ping", "-n", "-c1", "-W2", "-t1", w.server.IP4.String())
	if !strings.Contains(out, "Time to live exceeded") {
		t.Errorf("a packet that it cannot send on: %s", out)
	}
	w.client.Reaches(rt.In.IP4)
	w.client.Reaches(rt.In.IP6)
	rt.In.Sh("nft", "add table inet filter; add chain inet filter forward { type filter hook forward priority 0; }; add rule inet filter forward tcp dport 80 reject")
	if _, err := w.client.Connect("tcp", w.to(false)); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("what it refuses: %v", err)
	}
}

// Within its network a packet may have made its last hop, behind a chain as without one.
func TestChainLeadsWhatMayGoNoFurther(t *testing.T) {
	w := newChained(t)
	w.one("rt", "routed", (*lab.Function).Routes)
	fw := w.bridge("fw")
	w.lead("fw")
	for ttl, hops := range map[int]string{1: "fw", 2: "rt"} { // a router takes one away
		w.lead(hops)
		out, err := lab.RunIn(t, w.client.Path, "ping", "-n", "-c1", "-W2", "-t"+strconv.Itoa(ttl), w.server.IP4.String())
		if err != nil {
			t.Errorf("TTL %d through %s: %s", ttl, hops, out)
		}
	}
	_ = fw
}

// Link-local traffic cannot be led. Only that of those whom a chain names is dropped for it.
func TestChainDropsLinkLocalOfWhomItNamesOnly(t *testing.T) {
	w := newChained(t)
	w.bridge("fw")
	named := w.Attach("named", w.conf.With("labels", map[string]string{"app": "x"}))
	w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "label:app=x", "--to", "any", "--protocol", "udp")
	local := netip.AddrPortFrom(w.server.LinkMAC().LinkLocal(), 80)
	says := func(c *lab.Container) error {
		conn, err := c.Connect("udp", netip.AddrPortFrom(local.Addr().WithZone(c.IfName), 80))
		lab.Must(t, err)
		defer conn.Close()
		return lab.SayWithin(conn, "local", 2*time.Second)
	}
	lab.Must(t, says(w.client))
	if says(named) == nil {
		t.Error("one whom the chain names gets round it")
	}
	if w.Drops()["chained-link-local"] == 0 {
		t.Errorf("what is dropped is not counted: %v", w.Drops())
	}
}

// A group that is open lets through without any of its functions, tenetd or not.
func TestAnOpenGroupOfTheDeadIsPassedBy(t *testing.T) {
	w := newChained(t)
	one, two, ids := w.shared("--on-failure", "open")
	for _, f := range []*lab.Watched{one, two} {
		f.Out.Link("down")
	}
	for range 10 {
		var tk string
		lab.Eventually(t, "a connection to pass", func() bool {
			tk = lab.PingToken("dead")
			return w.client.Exchange("udp", w.to(false), tk) == nil
		})
		one.Sees(t, tk, 0, 0)
		two.Sees(t, tk, 0, 0)
		ids.Sees(t, tk, 1, 1)
	}
	one.In.Link("down")
	two.In.Link("down")
	lab.Eventually(t, "the switch to see four ports down", func() bool {
		return strings.Count(w.OFCtl("dump-ports-desc"), "LINK_DOWN") >= 4
	})
	w.Run(t, "ovs-appctl", "revalidator/wait") // what the datapath goes by follows within half a second
	for range 10 {
		lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("dead")))
	}
}

// Whoever cannot see the node's links does not take its functions for dead, and whoever has another store changes nothing.
func TestChainsAreSafeFromStrangers(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.lead("fw")
	elsewhere := w.Container("elsewhere") // which has a network namespace
	at := []string{filepath.Join(w.Bin, "tenetctl"), "--ovs-run-dir=" + w.RunDir, "--bridge=" + lab.Bridge}
	_, err := lab.RunIn(t, elsewhere.Path, append(at, "--data-dir="+w.DataDir, "group", "add", "blue/more")...)
	lab.Must(t, err)
	for range 5 {
		tk := lab.PingToken("seen")
		lab.Must(t, w.client.Exchange("udp", w.to(false), tk))
		fw.Sees(t, tk, 1, 1)
	}
	before := w.Snapshot()
	for _, args := range [][]string{{"group", "add", "q/q"}, {"sync"}} {
		out, err := lab.RunIn(t, w.NetNS, append(append(at, "--data-dir="+t.TempDir()), args...)...)
		if err == nil || !strings.Contains(err.Error(), "belongs to") {
			t.Errorf("%v with another store: %s, %v", args, out, err)
		}
	}
	lab.Same(t, before, w.Snapshot())
}

// A closed chain of very many flows is closed at each moment of its change.
func TestALargeClosedChainIsClosedWhileItChanges(t *testing.T) {
	w := newChained(t)
	w.ctl("group", "add", "blue/fw")
	lead := func(priority int) {
		t.Helper()
		w.ctl("chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", "label:role=server", "--protocol", "udp",
			"--port", "1-65534", "--source-port", "1-65534", "--priority", strconv.Itoa(priority))
	}
	lead(0)
	server, conn := w.server.Capture(), w.client.Datagrams()
	tk := lab.Token("past")
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 4 {
			lead(1 + i%2)
		}
		w.Sync()
	}()
	for i := 0; ; i++ {
		conn.Send(w.to(false), uint16(10_000+i%20_000), tk)
		select {
		case <-done:
			if n := server.Count(tk); n > 0 {
				t.Errorf("%d of %d datagrams get round it", n, i)
			}
			return
		case <-time.After(100 * time.Microsecond):
		}
	}
}
