package test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// A node of its own tells what it has and what it drops; that a sum of drops falls neither with an endpoint nor with the switch
// is what Prometheus goes by. status and top say the same.
func TestTenetdTellsHowItsNodeIs(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4)
	attacker, victim := h.Attach("attacker", conf), h.Attach("victim", conf)
	f := forger{attacker, victim}
	h.Tenetd()
	lab.Measures(t, h, map[string]float64{
		`tenet_healthy`: 1, `tenet_endpoints{network="web",tenant="blue"}`: 2, `tenet_restores_total`: 1, `tenet_sync_seconds_count`: 1,
		`tenet_drift_total{what="missing-flows"}`: 0, `tenet_bundle_errors_total`: 0, `tenet_drops_total{reason="spoofed-ipv4"}`: 0,
	})
	lab.Healthy(t, h, http.StatusOK, "ok\n")

	spoof := func(n int) {
		t.Helper()
		before := h.Drops()
		for range n {
			attacker.Send(f.udp4(attacker.MAC, someIP4, victim.IP4, lab.Token("forged")))
		}
		h.Counts(t, before, "spoofed-ipv4", uint64(n))
	}
	const spoofed = `tenet_drops_total{reason="spoofed-ipv4"}`
	spoof(3)
	lab.Measures(t, h, map[string]float64{spoofed: 3})
	for _, d := range lab.ToldBy(t, h).Drops {
		if d.Reason == "spoofed-ipv4" && (d.Packets != 3 || d.Total != 3) {
			t.Errorf("the socket says %+v", d)
		}
	}
	for _, verb := range [][]string{{"status"}, {"top", "--once"}} {
		out, err := h.Tenetctl(verb...)
		lab.Must(t, err)
		found := false
		for line := range strings.Lines(out) {
			if w := strings.Fields(line); len(w) > 2 && w[0] == "spoofed-ipv4" {
				found = w[1] == "3" || w[2] == "3" // top has the rate between
			}
		}
		if !found {
			t.Errorf("%s does not say that 3 were dropped:\n%s", verb, out)
		}
	}
	if out, _ := h.Tenetctl("status"); !strings.Contains(out, "runs since") || strings.Contains(out, "cluster ") {
		t.Errorf("status of a node of its own:\n%s", out)
	}

	h.KillVswitchd()
	lab.Healthy(t, h, http.StatusServiceUnavailable, "management socket of br-tenet: ")
	lab.Measures(t, h, map[string]float64{`tenet_healthy`: 0, `tenet_endpoints{network="web",tenant="blue"}`: 2, spoofed: 3})
	h.StartVswitchd()
	lab.Healthy(t, h, http.StatusOK, "ok\n")
	lab.Measures(t, h, map[string]float64{`tenet_restores_total`: 2})
	if drift := lab.Scrape(t, h)[`tenet_drift_total{what="missing-flows"}`]; drift == 0 {
		t.Error("all flows were lost, and no drift was found")
	}
	spoof(2)
	lab.Measures(t, h, map[string]float64{spoofed: 5})
	attacker.Del()
	lab.Measures(t, h, map[string]float64{`tenet_endpoints{network="web",tenant="blue"}`: 1, spoofed: 5})
	corrupt(h)
	lab.Healthy(t, h, http.StatusServiceUnavailable, "store: ")
}

// Functions are counted by what becomes of them.
func TestTenetdTellsOfFunctions(t *testing.T) {
	w := newChained(t)
	one, _, _ := w.shared()
	w.Tenetd()
	const instances = `tenet_function_instances{group="fw",state="%s",tenant="blue"}`
	lab.Measures(t, w.Host, map[string]float64{fmt.Sprintf(instances, "serves"): 2})
	one.Out.Link("down")
	lab.Measures(t, w.Host, map[string]float64{fmt.Sprintf(instances, "serves"): 1, fmt.Sprintf(instances, "down"): 1})
	out, err := w.Tenetctl("top", "--once")
	lab.Must(t, err)
	if !strings.Contains(out, "blue/fw") || !strings.Contains(out, "down") {
		t.Error(out)
	}
}
