package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

var probed = []string{"--probe-interval", "100ms", "--probe-threshold", "3"}

// hung reports what is recorded of an instance of blue/fw.
func (w chained) hung(container string) bool {
	w.t.Helper()
	var i vnet.Instance
	lab.Must(w.t, w.Store().View(w.t.Context(), func(tx store.Tx) error {
		var err error
		i, err = store.FindInstance(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"}, container)
		return err
	}))
	return i.Hung
}

func (w chained) findsHung(t *testing.T, container string) {
	t.Helper()
	lab.Eventually(t, "the function to be found hung", func() bool { return w.hung(container) })
}

// A tenetd serves all bridges of its node, whichever it is configured with.
func TestTenetdServesEveryBridge(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6).With("bridge", "br-two")
	server := conf.With("labels", map[string]string{"role": "server"})
	w := chained{Host: h, t: t, conf: conf, client: h.Attach("client", conf), server: h.Attach("server", server)}
	w.server.Echo(80)
	one, two, _ := w.shared()
	w.Tenetd()
	one.Out.Link("down") // which the switch does not see by itself
	w.avoids(t, one, two)
	one.Out.Link("up")
	lab.Eventually(t, "new connections to come to it again", func() bool {
		prefix, _ := w.fresh(10)
		return one.Saw(prefix)[0] > 0
	})
	w.ctl(append([]string{"group", "add", "blue/fw"}, probed...)...)
	one.Hangs()
	w.avoids(t, one, two)
	h.KillVswitchd()
	h.StartVswitchd()
	w.avoids(t, one, two)
}

// What tenetd has to do does not depend on the switch being there when it begins.
func TestTenetdBeginsWithoutTheSwitch(t *testing.T) {
	w := newChained(t)
	one, two, _ := w.shared(probed...)
	one.Hangs()
	w.KillVswitchd()
	d := w.BeginTenetd()
	w.findsHung(t, "fw1")
	w.StartVswitchd()
	w.avoids(t, one, two)
	w.KillVswitchd()
	d.Terminate()
}

// An endpoint that cannot be removed, as its IPAM plugin fails or hangs, keeps tenetd from nothing else.
func TestTenetdGoesOnPastWhatCannotBeTidied(t *testing.T) {
	for what, script := range map[string]string{"fails": "#!/bin/sh\nexit 1\n", "hangs": "#!/bin/sh\nexec sleep 300\n"} {
		t.Run(what, func(t *testing.T) {
			w := newChained(t)
			one, two, _ := w.shared()
			orphan := w.Attach("orphan", w.conf)
			dir := t.TempDir()
			lab.Must(t, os.WriteFile(filepath.Join(dir, "ipam"), []byte(script), 0o700)) //nolint:gosec // a program
			w.Update(func(tx store.Tx) error {
				e, err := store.Endpoint(tx, vnet.Attachment{Container: orphan.ID, IfName: orphan.IfName}.ID())
				if err != nil {
					return err
				}
				e.Delegate = &vnet.Delegate{Type: "ipam", Path: dir, Conf: []byte("{}")}
				return store.PutEndpoint(tx, &e)
			})
			orphan.Sh("ip", "link", "del", "eth0")
			d := w.Tenetd()
			begun := time.Now()
			one.Out.Link("down")
			w.avoids(t, one, two)
			w.KillVswitchd()
			w.StartVswitchd()
			w.avoids(t, one, two)
			if took := time.Since(begun); took > lab.Stretch(10*time.Second) { // it gives the plugin longer
				t.Errorf("it heard of nothing for %s", took)
			}
			if n := strings.Count(d.Log(), "level=ERROR"); n > 4 {
				t.Errorf("%d errors are logged", n)
			}
			d.Terminate()
		})
	}
}

// Whatever it waits for, tenetd ends when it is told to.
func TestTenetdEndsInEveryState(t *testing.T) {
	stop := func(t *testing.T, pid int) func() {
		t.Helper()
		lab.Must(t, syscall.Kill(pid, syscall.SIGSTOP))
		return func() { lab.Must(t, syscall.Kill(pid, syscall.SIGCONT)) }
	}
	for what, hold := range map[string]func(t *testing.T, w chained) func(){
		"ovs-vswitchd hangs": func(t *testing.T, w chained) func() {
			t.Helper()
			return stop(t, w.Pid())
		},
		"the database hangs": func(t *testing.T, w chained) func() {
			t.Helper()
			text, err := os.ReadFile(filepath.Join(w.RunDir, "ovsdb-server.pid"))
			lab.Must(t, err)
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			lab.Must(t, err)
			return stop(t, pid)
		},
		"somebody has the store": func(t *testing.T, w chained) func() {
			t.Helper()
			unlock, err := store.Lock(t.Context(), w.DataDir, "store")
			lab.Must(t, err)
			return unlock
		},
		"a probe is under way": func(_ *testing.T, w chained) func() {
			w.ctl("group", "add", "blue/fw", "--probe-interval", "1s", "--probe-threshold", "100")
			return func() {}
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newChained(t)
			one, _, _ := w.shared()
			for _, begins := range []bool{true, false} {
				var d *lab.Daemon
				if !begins {
					d = w.Tenetd()
				}
				release := hold(t, w)
				if begins {
					d = w.BeginTenetd()
				} else {
					one.Out.Link("down")
				}
				one.Hangs()
				time.Sleep(1500 * time.Millisecond) // until it waits
				d.Terminate()
				release()
				one.Recovers()
				one.Out.Link("up")
			}
		})
	}
}

// Neither another tenetd nor another way of probing leads anybody into a function that hangs.
func TestTenetdKeepsAVerdictUntilAProbePasses(t *testing.T) {
	w := newChained(t)
	one, two, _ := w.shared(probed...)
	d := w.Tenetd()
	one.Hangs()
	w.avoids(t, one, two)
	stillAvoided := func(after string) {
		t.Helper()
		for end := time.Now().Add(lab.Stretch(1500 * time.Millisecond)); time.Now().Before(end); {
			if prefix, _ := w.fresh(5); one.Saw(prefix)[0] > 0 {
				t.Fatalf("after %s new connections come to it", after)
			}
		}
	}
	d.End(syscall.SIGKILL)
	d = w.Tenetd()
	stillAvoided("a new tenetd")
	w.ctl("group", "add", "blue/fw", "--probe-interval", "150ms", "--probe-threshold", "50")
	stillAvoided("another threshold")
	one.Recovers()
	lab.Eventually(t, "the function to serve again", func() bool { return !w.hung("fw1") })
	w.ctl("group", "add", "blue/fw", "--probe-interval", "150ms", "--probe-threshold", "2")
	one.Hangs()
	w.findsHung(t, "fw1")
	w.ctl("group", "add", "blue/fw", "--probe-interval", "0") // nobody could say any more that it has recovered
	lab.Eventually(t, "the verdict to go with the probes", func() bool { return !w.hung("fw1") })
	d.Terminate()
}

// A verdict that cannot be recorded is not forgotten.
func TestTenetdRecordsAVerdictOnceItCan(t *testing.T) {
	w := newChained(t)
	one, two, _ := w.shared(probed...)
	d := w.Tenetd()
	good, err := os.ReadFile(w.Store().Path())
	lab.Must(t, err)
	corrupt(w.Host)
	one.Hangs()
	d.Logs("record a verdict")
	lab.Must(t, os.WriteFile(w.Store().Path(), good, 0o600))
	w.findsHung(t, "fw1")
	w.avoids(t, one, two)
}

// A function that cannot be probed is told of, once.
func TestTenetdSaysWhatItCannotProbe(t *testing.T) {
	w := newChained(t)
	one, _, _ := w.shared(probed...)
	d := w.Tenetd()
	d.Logs("tidied up") // which would take a function away that has lost its link
	one.In.Sh("ip", "link", "del", "in0")
	const words = "cannot probe a function"
	d.Logs(words)
	time.Sleep(time.Second)
	if n := strings.Count(d.Log(), words); n != 1 || !strings.Contains(d.Log(), "function=blue/fw/fw1") {
		t.Errorf("it says so %d times", n)
	}
}

// A command that died between the store and the switch is finished.
func TestTenetdFinishesWhatWasCutShort(t *testing.T) {
	w := newChained(t)
	fw := w.bridge("fw")
	w.lead("fw")
	w.Tenetd()
	ref := vnet.ChainRef{Tenant: "blue", Chain: "c"}
	var c vnet.Chain
	leads := func(want int) {
		t.Helper()
		lab.Eventually(t, fmt.Sprintf("the chain to lead: %d", want), func() bool {
			tk := lab.PingToken("cut")
			return w.client.Exchange("udp", w.to(false), tk) == nil && lab.Within(lab.Patience()/100, func() bool { return fw.Saw(tk) == [2]int{want, want} })
		})
	}
	leads(1)
	w.Update(func(tx store.Tx) error {
		var err error
		if c, err = store.Chain(tx, ref); err != nil {
			return err
		}
		return store.DeleteChain(tx, ref)
	})
	leads(0)
	w.Update(func(tx store.Tx) error { return store.PutChain(tx, c) })
	leads(1)
}

// Paths that nobody has any more go from all bridges.
func TestCollectPathsOfEveryBridge(t *testing.T) {
	h := lab.NewHost(t)
	h.Attach("other", h.Conf("red", "web", web4))
	conf := h.Conf("blue", "web", web4).With("bridge", "br-two")
	w := chained{Host: h, t: t, conf: conf}
	w.shared()
	w.ctl("function", "drain", "blue/fw/fw1")
	ref := vnet.ChainRef{Tenant: "blue", Chain: "c"}
	w.Update(func(tx store.Tx) error {
		legs, err := store.Legs(tx, ref)
		for _, l := range legs {
			for i := range l.Paths {
				if p := &l.Paths[i]; p.Weight == 0 {
					p.Retired = p.Retired.Add(-time.Hour)
				}
			}
		}
		if err != nil {
			return err
		}
		return store.PutLegs(tx, ref, legs, time.Now())
	})
	n := node.Open(node.Config{DataDir: h.DataDir, OVSRunDir: h.RunDir, Bridge: lab.Bridge}, nil)
	defer n.Close()
	lab.Must(t, lab.Inside(h.NetNS, func() error {
		removed, err := n.CollectPaths(t.Context())
		if removed == 0 {
			t.Error("nothing is removed: this test proves nothing")
		}
		return err
	}))
	lab.Must(t, h.Store().View(t.Context(), func(tx store.Tx) error {
		retired, err := paths.Retired(tx)
		if len(retired) > 0 {
			t.Errorf("paths are left: %v", retired)
		}
		return err
	}))
	if out := w.ctl("sync", "--dry-run"); strings.Count(out, "everything agrees") != 2 {
		t.Error(out)
	}
}
