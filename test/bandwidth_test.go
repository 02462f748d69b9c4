package test

import (
	"fmt"
	"math"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/test/lab"
)

// Rates in bits per second: low, so that an emulated guest carries several of them at once.
const (
	ingressRate = 4_000_000
	egressRate  = 2_000_000
)

// limits is a configuration with the limits above; a burst of 0 is one that is not given.
func limits(c lab.Conf, burst int) lab.Conf {
	b := map[string]any{"ingressRate": ingressRate, "egressRate": egressRate}
	if burst > 0 {
		b["ingressBurst"], b["egressBurst"] = burst, burst
	}
	return c.With("runtimeConfig", map[string]any{"bandwidth": b})
}

// limited is a limited container with a free one of the same network.
type limited struct {
	what    string
	c, free *lab.Container
}

// bandwidthWorld is three limited containers of a tenant, one for each kind of burst, and a pair of another tenant with
// the first one's addresses and no limit.
func bandwidthWorld(t *testing.T) ([]limited, limited) {
	t.Helper()
	h := lab.NewHost(t)
	var list []limited
	blue := h.Conf("blue", "web", web4, web6)
	for what, burst := range map[string]int{"no burst": 0, "a tiny burst": 1000, "a runtime's that knows no burst": math.MaxInt32} {
		id := string(rune('a' + len(list)))
		list = append(list, limited{what, h.Attach(id, limits(blue, burst)), h.Attach(id+"-free", blue)})
	}
	red := h.Conf("red", "web", web4, web6)
	other := limited{"another tenant", h.Attach("red", red), h.Attach("red-free", red)}
	if first := list[0]; other.c.IP4 != first.c.IP4 || other.free.IP4 != first.free.IP4 {
		t.Fatalf("the tenants do not overlap: %v %v, %v %v", first.c.IP4, first.free.IP4, other.c.IP4, other.free.IP4)
	}
	return list, other
}

// measured fails the test with what is wrong by a measurement, as lab.Holds says.
func measured(t *testing.T, measure func(wrong func(format string, about ...any))) {
	t.Helper()
	var mu sync.Mutex
	var said []string
	holds := lab.Holds(func() bool {
		said = nil
		measure(func(format string, about ...any) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, fmt.Sprintf(format, about...))
		})
		return len(said) == 0
	})
	if !holds {
		t.Error(strings.Join(said, "\n"))
	}
}

// A limit counts the bits of Ethernet frames; what is measured here is payload, which is 95 to 97 % of it.
func TestALimitIsReachedAndKept(t *testing.T) {
	list, other := bandwidthWorld(t)
	const settled, end = 2 * time.Second, 10 * time.Second // what a burst lets pass comes first
	for _, direction := range []struct {
		name string
		rate float64
		of   func(l limited) (from, to *lab.Container)
	}{
		{"received", ingressRate, func(l limited) (*lab.Container, *lab.Container) { return l.free, l.c }},
		{"sent", egressRate, func(l limited) (*lab.Container, *lab.Container) { return l.c, l.free }},
	} {
		for name, load := range map[string]lab.Load{"TCP": lab.TCP, "UDP at twice the rate": lab.Load(2 * direction.rate)} {
			t.Run(direction.name+" "+name, func(t *testing.T) {
				measured(t, func(wrong func(format string, about ...any)) {
					var all sync.WaitGroup
					for _, l := range list {
						from, to := direction.of(l)
						all.Go(func() {
							got, err := from.Carry(to, load, end)
							if err != nil {
								wrong("%s: %v", l.what, err)
								return
							}
							steady, whole := got.Rate(settled, end)/direction.rate, got.Rate(0, end)/direction.rate
							t.Logf("%s: %.3f of the rate, with the burst %.3f", l.what, steady, whole)
							if steady < 0.9 || steady > 1.1 {
								wrong("%s: %.3f of the rate", l.what, steady)
							}
							if whole > 1.1 {
								wrong("%s: the burst makes it %.3f of the rate over %s", l.what, whole, end)
							}
						})
					}
					from, to := direction.of(other)
					all.Go(func() {
						got, err := from.Carry(to, lab.Load(3*direction.rate), end)
						if err != nil || got.Rate(settled, end) < 2*direction.rate {
							wrong("%s has %.3f of a rate that is not its own, %v", other.what, got.Rate(settled, end)/direction.rate, err)
						}
					})
					all.Wait()
				})
			})
		}
	}
}

func TestALimitGoesWithItsContainer(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	h.Attach("free", conf)
	if m := h.Meters(); len(m) > 0 {
		t.Fatalf("meters before there is a limit: %v", m)
	}
	c := h.Attach("c", limits(conf, 0))
	if m := h.Meters(); len(m) != 2 {
		t.Errorf("two limits make the meters %v", m)
	}
	c.Del()
	if m := h.Meters(); len(m) > 0 {
		t.Errorf("DEL leaves the meters %v", m)
	}
}

func TestALimitIsRestored(t *testing.T) {
	for what, lose := range map[string]func(t *testing.T, h *lab.Host){
		"after ovs-vswitchd was killed": func(t *testing.T, h *lab.Host) {
			t.Helper()
			restart(t, h) // whose last command is tenetctl sync
		},
		"after ovs-vswitchd was killed, without the drop-in": func(_ *testing.T, h *lab.Host) {
			h.KillVswitchd()
			h.StartVswitchd()
			h.Sync()
		},
		"after the meters were deleted": func(t *testing.T, h *lab.Host) {
			t.Helper()
			flows := len(h.Flows())
			h.OFCtl("del-meters")
			if len(h.Flows()) == flows || len(h.Meters()) > 0 {
				t.Error("nothing is lost: this test proves nothing")
			}
			h.Sync()
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := lab.NewHost(t)
			conf := h.Conf("blue", "web", web4, web6)
			free, c := h.Attach("free", conf), h.Attach("c", limits(conf, 0))
			before, meters := h.Snapshot(), h.Meters()
			lose(t, h)
			lab.Same(t, before, h.Snapshot())
			if diff := cmp.Diff(meters, h.Meters()); diff != "" {
				t.Errorf("meters before (-) and after (+):\n%s", diff)
			}
			lab.Must(t, c.Do("CHECK").Failed())
			const end = 4 * time.Second
			measured(t, func(wrong func(format string, about ...any)) {
				got, err := free.Carry(c, 3*ingressRate, end)
				if rate := got.Rate(end/2, end) / ingressRate; err != nil || rate < 0.9 || rate > 1.1 {
					wrong("%.3f of the rate, %v", rate, err)
				}
			})
		})
	}
}

// A meter that is put again has a full bucket again: who syncs every second would lift every limit.
func TestSyncAndOtherContainersLeaveALimitAlone(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	free, c := h.Attach("free", conf), h.Attach("c", limits(conf, 0))
	for range 20 {
		free.SendUDP(netip.AddrPortFrom(c.IP4, 9), "counted")
	}
	lab.Eventually(t, "the meter to have counted", func() bool { return h.Metered() >= 20 })
	h.Sync()
	h.Attach("b", conf).Del()
	if n := h.Metered(); n < 20 {
		t.Errorf("the meters count %d packets: they were put again", n)
	}
}

func TestABadLimitChangesNothing(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	h.Attach("stays", limits(conf, 0))
	for what, bad := range map[string]struct {
		bandwidth map[string]any
		words     []string
	}{
		"no rate but a burst": {map[string]any{"ingressRate": 0, "ingressBurst": 1000, "egressRate": egressRate}, []string{"ingressRate is 0", "1000 bits"}},
		"rates of 0":          {map[string]any{"ingressRate": 0, "egressRate": 0}, []string{"ingressRate and egressRate are 0"}},
		"a bit a second":      {map[string]any{"egressRate": 1}, []string{"egressRate 1", "8000 to"}},
		"beyond any link":     {map[string]any{"ingressRate": uint64(math.MaxUint64)}, []string{"ingressRate 18446744073709551615", "to 1000000000000"}},
		"less than nothing":   {map[string]any{"ingressRate": -ingressRate}, []string{"ingressRate", "-4000000"}},
	} {
		t.Run(what, func(t *testing.T) {
			h := h.For(t)
			c := h.Container("c")
			c.Conf = conf.With("runtimeConfig", map[string]any{"bandwidth": bad.bandwidth})
			before, meters := h.Snapshot(), h.Meters()
			lab.Fails(t, c.Do("ADD"), lab.CodeConf, bad.words...)
			lab.Same(t, before, h.Snapshot())
			if diff := cmp.Diff(meters, h.Meters()); diff != "" {
				t.Errorf("meters before (-) and after (+):\n%s", diff)
			}
		})
	}
}
