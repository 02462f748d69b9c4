package probe_test

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/probe"
	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
)

// patience is how long what must come is waited for.
const patience = 10 * time.Second

// function puts the test's goroutine into a network namespace of its own, where what comes in by the far ends of the
// links "in" and "out" is bridged.
func function(t *testing.T) {
	t.Helper()
	netnstest.Enter(t)
	ip(t, "link add bridge type bridge stp_state 0 forward_delay 0")
	ip(t, "link set bridge up")
	for _, l := range []string{"in", "out"} {
		ip(t, "link add "+l+" type veth peer name far-"+l)
		ip(t, "link set far-"+l+" master bridge")
		ip(t, "link set far-"+l+" up")
		ip(t, "link set "+l+" up")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ip(t *testing.T, args string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(args)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", args, err, out)
	}
}

func open(t *testing.T, target probe.Target) *probe.Prober {
	t.Helper()
	p, err := probe.Open(target)
	must(t, err)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func passes(t *testing.T, p *probe.Prober, want bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; { // a bridge takes its time with a port
		through, err := p.Through(t.Context(), 100*time.Millisecond)
		must(t, err)
		if through == want {
			return
		}
		if time.Now().After(end) {
			t.Errorf("through: %v, want %v", through, want)
			return
		}
	}
}

// What bridges lets frames and packets of both families through; when it hangs they are missed, and when it recovers seen.
func TestProbesSeeWhatHangs(t *testing.T) {
	mac := func(n byte) net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, n} }
	for name, target := range map[string]probe.Target{
		"frame": {EtherType: 0x88b5},
		"IPv4":  {From: netip.MustParseAddr("10.1.0.1"), To: netip.MustParseAddr("198.19.255.254")},
		"IPv6":  {From: netip.MustParseAddr("fd01::1"), To: netip.MustParseAddr("fd00:198:19::fffe")},
	} {
		t.Run(name, func(t *testing.T) {
			function(t)
			target.In, target.Out, target.Src, target.Dst = "in", []string{"out", "in"}, mac(1), mac(2)
			p := open(t, target)
			for range 5 {
				passes(t, p, true)
			}
			ip(t, "link set far-out nomaster")
			passes(t, p, false)
			ip(t, "link set far-out master bridge")
			passes(t, p, true)
			ip(t, "link del in")
			if through, err := p.Through(t.Context(), patience); err == nil {
				t.Errorf("a link that has gone: through: %v, and no error", through)
			}
		})
	}
}

// A link that is not there is an error, which says its name.
func TestOpenWantsItsLinks(t *testing.T) {
	function(t)
	for _, target := range []probe.Target{{In: "gone"}, {In: "in", Out: []string{"gone"}}} {
		if _, err := probe.Open(target); err == nil || !strings.Contains(err.Error(), "gone") {
			t.Errorf("%+v: error %v", target, err)
		}
	}
}

// Who probes can be stopped at once.
func TestThroughEndsWithItsContext(t *testing.T) {
	function(t)
	ip(t, "link set far-out nomaster")
	p := open(t, probe.Target{In: "in", Out: []string{"out", "in"}, EtherType: 0x88b5, Src: net.HardwareAddr{2, 0, 0, 0, 0, 1}, Dst: net.HardwareAddr{2, 0, 0, 0, 0, 2}})
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	ended := make(chan bool)
	go func() {
		through, _ := p.Through(ctx, time.Hour)
		ended <- through
	}()
	select {
	case through := <-ended:
		if through {
			t.Error("it came through")
		}
	case <-time.After(patience):
		t.Error("it waits on")
	}
}
