package veth

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Each link event in the host's namespace makes ovs-vswitchd reconfigure all
// its ports. Made, up, carrier: three are what the kernel sends for any link.
func TestLayingACableCausesFewLinkEvents(t *testing.T) {
	w := newWorld(t)
	events := linkEvents(t)
	c := w.cable()
	w.lay(c)
	got := events()
	t.Logf("Lay: %d link events: %v", len(got), got)
	if len(got) > 3 {
		t.Errorf("Lay causes %d link events, want 3 at most", len(got))
	}
	w.check(c)
	if got := events(); len(got) > 0 {
		t.Errorf("Check causes link events: %v", got)
	}
	must(t, Remove(ctx(t), c.Host))
	t.Logf("Remove: %v", events())
}

// linkEvents subscribes to the link events of the host's namespace, as
// ovs-vswitchd does. What it returns gives those that came since it was last called.
func linkEvents(t *testing.T) func() []string {
	t.Helper()
	s, err := nl.SubscribeAt(netns.None(), netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	must(t, err)
	t.Cleanup(s.Close)
	must(t, s.SetReceiveTimeout(&unix.Timeval{Usec: 300_000}))
	return func() []string {
		var events []string
		for {
			msgs, _, err := s.Receive()
			if err != nil {
				return events
			}
			for _, m := range msgs {
				l, err := netlink.LinkDeserialize(&unix.NlMsghdr{Type: m.Header.Type}, m.Data)
				must(t, err)
				events = append(events, fmt.Sprintf("%d %s flags=%v oper=%v alias=%q", m.Header.Type, l.Attrs().Name, l.Attrs().Flags, l.Attrs().OperState, l.Attrs().Alias))
			}
		}
	}
}

// The container may start sending the moment Lay returns.
func TestFramesPassAtOnce(t *testing.T) {
	w := newWorld(t)
	lost := 0
	const rounds = 30
	for range rounds {
		c := w.cable4()
		w.lay(c)
		tap := openTap(t, c.Host)
		w.in(func() error { return transmit(c.Container, probes(c)[:1]) })
		first := make([]byte, 2000)
		if n, _, err := unix.Recvfrom(tap, first, 0); err != nil || string(first[:n]) != string(probes(c)[0]) {
			lost++
		}
		unix.Close(tap)
		must(t, Remove(ctx(t), c.Host))
	}
	if lost > 0 {
		t.Errorf("%d of %d first frames were lost", lost, rounds)
	}
}

// How long a cable takes, the median and the 90th percentile.
func BenchmarkLayAndRemove(b *testing.B) {
	for _, tt := range []struct {
		name  string
		cable func(world) Cable
	}{
		{"userspace, both families", world.cable},
		{"kernel, IPv4", func(w world) Cable { c := w.cable4(); c.Userspace = false; return c }},
	} {
		b.Run(tt.name, func(b *testing.B) {
			w := newWorld(b)
			c := tt.cable(w)
			// A cable that stays, as on a node in use: the kernel patches its own
			// code when the first ingress hook comes and when the last one goes.
			stays := w.cable()
			stays.Host, stays.Container, stays.Addrs, stays.Routes = "tstays", "eth9", nil, nil
			_, err := Lay(ctx(b), stays)
			must(b, err)
			var lay, remove []time.Duration
			for b.Loop() {
				start := time.Now()
				_, err := Lay(ctx(b), c)
				laid := time.Now()
				must(b, err)
				must(b, Remove(ctx(b), c.Host))
				lay, remove = append(lay, laid.Sub(start)), append(remove, time.Since(laid))
			}
			for name, d := range map[string][]time.Duration{"lay": lay, "remove": remove} {
				slices.Sort(d)
				b.ReportMetric(float64(d[len(d)/2].Microseconds()), name+"-p50-µs")
				b.ReportMetric(float64(d[len(d)*9/10].Microseconds()), name+"-p90-µs")
			}
		})
	}
}
