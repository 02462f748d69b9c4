package test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// frames are what the function was given with a token; each is one.
func given(t *testing.T, k *lab.Capture, token string) []byte {
	t.Helper()
	k.Await(token)
	return bytes.Clone(k.Frames(lab.With(token))[0])
}

// A function sees its chain's traffic of its tenant, and nothing else; and what it makes up goes nowhere.
func TestChainIsolatesFunctions(t *testing.T) {
	w := newChained(t)
	fw, ids := w.bridge("fw"), w.bridge("ids")
	w.lead("fw", "ids")
	w.ctl("chain", "add", "blue/other", "--group", "ids", "--from", "any", "--to", "label:role=other")
	// The other tenant has everything in common with the first, and a chain of its own.
	red := w.Conf("red", "web", web4, web6)
	b1, b2 := w.Attach("b1", red), w.Attach("b2", red.With("labels", map[string]string{"role": "server"}))
	b2.Echo(80)
	w.ctl("group", "add", "red/fw")
	theirs := lab.Watch(w.Function("red-fw", red, "fw", 0).Bridges())
	w.ctl("chain", "add", "red/c", "--group", "fw", "--from", "any", "--to", "label:role=server")
	if b2.IP4 != w.server.IP4 {
		t.Fatalf("the tenants do not overlap: %s, %s", b2.IP4, w.server.IP4)
	}
	for _, exchange := range []struct {
		from *lab.Container
		own  []*lab.Watched
		not  []*lab.Watched
	}{{w.client, []*lab.Watched{fw, ids}, []*lab.Watched{theirs}}, {b1, []*lab.Watched{theirs}, []*lab.Watched{fw, ids}}} {
		for _, network := range []string{"tcp", "udp", "icmp"} {
			tk := lab.PingToken(network)
			lab.Must(t, exchange.from.Exchange(network, w.to(false), tk))
			for _, f := range exchange.own {
				f.Sees(t, tk, 1, 1)
			}
			for _, f := range exchange.not {
				f.Sees(t, tk, 0, 0)
			}
		}
	}
	// No floods, ARP, ND or DHCP.
	tk := lab.PingToken("bcast")
	w.client.Send(lab.UDP4(lab.Eth(w.client.MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(w.client.IP4, broadcast4), tk))
	w.client.Sh("ip", "neigh", "flush", "dev", "eth0")
	lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("arp")))
	for _, f := range []*lab.Watched{fw, ids, theirs} {
		for _, k := range []*lab.Capture{f.Forward, f.Back} {
			if n := len(k.Frames(func(frame []byte) bool {
				return frame[0]&1 == 1 || frame[12] == 8 && frame[13] == 6 || frame[12] != 8 && frame[12] != 0x86
			})); n > 0 {
				t.Errorf("%s was given %d frames that are no led packets", f.In.ID, n)
			}
		}
	}

	say := lab.PingToken("honest")
	lab.Must(t, w.client.Exchange("udp", w.to(false), say))
	toFW, atNext := given(t, fw.Forward, say), given(t, ids.Forward, say) // as the switch tagged them
	other := w.Attach("o", w.conf.With("labels", map[string]string{"role": "other"}))
	other.Echo(80)
	tk = lab.PingToken("other")
	lab.Must(t, w.client.Exchange("udp", addrPort(other.IP4, 80), tk))
	toOther := given(t, ids.Forward, tk)
	ends := []*lab.Capture{w.server.Capture(), w.client.Capture(), other.Capture(), b1.Capture(), b2.Capture()}
	swap := func(f []byte) []byte {
		f = bytes.Clone(f)
		f[5], f[11] = f[11], f[5]
		return f
	}
	at := func(f []byte, i int, b byte) []byte {
		f = bytes.Clone(f)
		f[i], f[6+i] = b, b
		return f
	}
	for _, lie := range []struct {
		what   string
		from   *lab.Container
		frame  []byte
		reason string
	}{
		{"a path that there is not", fw.Out, at(toFW, 3, 99), "forged-path"},
		{"a hop that there is not", fw.Out, at(toFW, 4, 7), "forged-path"},
		{"the next function's hop", fw.Out, atNext, "forged-path"},
		{"another chain's path", fw.Out, toOther, "forged-path"},
		{"by the wrong port", fw.In, toFW, "forged-path"},
		{"an answer by the wrong port", fw.Out, swap(toFW), "forged-path"},
		{"half a tag", fw.Out, append(slices.Clone(w.server.MAC[:]), toFW[6:]...), "forged-path"},
		{"a replay by the function behind", ids.Out, toFW, "forged-path"},
		{"a tag from another tenant's function", theirs.Out, toFW, "forged-path"},
		{"its own broadcast", fw.Out, lab.UDP4(lab.Eth(fw.Out.MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(w.client.IP4, broadcast4), "x"), "function-stray"},
		{"its own ARP", fw.Out, lab.ARP(lab.Eth(fw.Out.MAC, lab.Broadcast, layers.EthernetTypeARP), 1, fw.Out.MAC, w.client.IP4, w.server.IP4, "x"), "function-stray"},
		{"a plain packet to the server", fw.Out, lab.UDP4(lab.Eth(w.client.MAC, w.server.MAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(w.client.IP4, w.server.IP4), "x"), "function-stray"},
		{"a tag from a container", w.client, toFW, "spoofed-mac"},
		{"a tag to a function from a container", w.client, lab.UDP4(lab.Eth(w.client.MAC, vnet.MAC(toFW[:6]).HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(w.client.IP4, w.server.IP4), "x"), ""},
	} {
		t.Run(lie.what, func(t *testing.T) {
			before := w.Drops()
			tk := lab.PingToken("lie")
			frame := bytes.Replace(lie.frame, []byte(say), []byte(tk), 1)
			lie.from.Send(frame)
			if lie.reason != "" {
				w.Counts(t, before, lie.reason, 1, "function-stray", "unknown-mac")
			}
			lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("settle")))
			for _, k := range ends {
				if lie.reason != "" && k.Count(tk) > 0 {
					t.Error("it arrived")
				}
			}
		})
	}
}

// A function that is given a connection cannot make up others: not in its own zone, nor by another function's.
func TestChainIsolatesRoutedFunctions(t *testing.T) {
	w := newChained(t)
	rt := w.one("rt", "routed", (*lab.Function).Routes)
	other := w.Attach("o", w.conf)
	w.lead("rt")
	lab.Must(t, w.client.Exchange("udp", w.to(false), lab.PingToken("honest")))
	k := other.Capture()
	before := w.Drops()
	tk := lab.PingToken("made-up")
	rt.Out.Send(lab.UDP4(lab.Eth(rt.Out.MAC, other.MAC.HardwareAddr(), layers.EthernetTypeIPv4), lab.IP4(w.client.IP4, other.IP4), tk))
	w.Counts(t, before, "forged-path", 1, "function-stray")
	if k.Count(tk) > 0 {
		t.Error("it arrived")
	}
}

// Restarts, repairs and renewals leave chains as they were.
func TestRestartKeepsChains(t *testing.T) {
	w := newChained(t)
	fw, ids := w.bridge("fw"), w.bridge("ids")
	rt := w.one("rt", "routed", (*lab.Function).Routes)
	w.lead("fw", "rt", "ids")
	say := w.open("tcp")
	lab.Must(t, say(lab.PingToken("before")))
	before := w.Snapshot()
	again := func(t *testing.T, transparent bool) {
		t.Helper()
		lab.Same(t, before, w.Snapshot())
		for name, exchange := range ways(w) {
			tk := lab.PingToken(name)
			if err := exchange(tk); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			for _, f := range []*lab.Watched{fw, rt, ids} {
				f.Sees(t, tk, 1, 1)
			}
		}
		if transparent {
			tk := lab.PingToken("standing")
			if err := say(tk); err != nil {
				t.Errorf("a connection that stood: %v", err)
			}
			fw.Sees(t, tk, 1, 1)
		}
	}
	again(t, true)
	t.Run("by the drop-in", func(t *testing.T) {
		restart(t, w.Host)
		// The userspace datapath loses what it tracks: a routed function's answers to what stood are found no more until
		// the client has spoken, which it does first here.
		again(t, true)
	})
	t.Run("by tenetd alone", func(t *testing.T) {
		w.Tenetd()
		w.KillVswitchd()
		w.StartVswitchd()
		lab.Eventually(t, "tenetd to restore the flows", func() bool { return w.client.Exchange("udp", w.to(false), lab.PingToken("x")) == nil })
		again(t, true)
	})
	t.Run("flows and groups that somebody deleted", func(t *testing.T) {
		w.OFCtl("del-flows")
		w.OFCtl("del-groups")
		w.Sync()
		again(t, true)
	})
}
