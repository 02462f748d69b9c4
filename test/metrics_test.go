package test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	agent "github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/test/lab"
)

// httpGet asks a node's tenetd over HTTP, on the node's own loopback.
func httpGet(t *testing.T, h *lab.Host, path string) (int, string) {
	t.Helper()
	client := http.Client{Timeout: lab.Patience(), Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, at string) (net.Conn, error) {
			var conn net.Conn
			err := lab.Inside(h.NetNS, func() error {
				var err error
				conn, err = (&net.Dialer{}).DialContext(ctx, network, at)
				return err
			})
			return conn, err
		},
	}}
	got, err := client.Get("http://127.0.0.1:9477" + path)
	lab.Must(t, err)
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	lab.Must(t, err)
	return got.StatusCode, string(body)
}

// scrape are the samples that a node's tenetd tells Prometheus, by name and labels.
func scrape(t *testing.T, h *lab.Host) map[string]float64 {
	t.Helper()
	code, body := httpGet(t, h, "/metrics")
	if code != http.StatusOK {
		t.Fatalf("status %d: %s", code, body)
	}
	samples := map[string]float64{}
	for line := range strings.Lines(body) {
		if i := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") && i > 0 {
			value, err := strconv.ParseFloat(strings.TrimSpace(line[i:]), 64)
			lab.Must(t, err)
			samples[line[:i]] = value
		}
	}
	return samples
}

// measures waits until a node's tenetd tells Prometheus these values.
func measures(t *testing.T, h *lab.Host, want map[string]float64) {
	t.Helper()
	var got map[string]float64
	agrees := func() bool {
		got = scrape(t, h)
		for name, value := range want {
			if is, ok := got[name]; !ok || is != value {
				return false
			}
		}
		return true
	}
	if lab.Within(lab.Patience(), agrees) {
		return
	}
	for name, value := range want {
		if is, ok := got[name]; !ok || is != value {
			t.Errorf("%s: %s is %g (told at all: %t), want %g", h.Name, name, is, ok, value)
		}
	}
	t.FailNow()
}

// healthy waits until /healthz answers with this status and these words.
func healthy(t *testing.T, h *lab.Host, code int, words string) {
	t.Helper()
	var is int
	var body string
	if !lab.Within(lab.Patience(), func() bool {
		is, body = httpGet(t, h, "/healthz")
		return is == code && strings.Contains(body, words)
	}) {
		t.Fatalf("%s: /healthz says %d, want %d and %q:\n%s", h.Name, is, code, words, body)
	}
}

// toldBy is what tenetd says over its socket.
func toldBy(t *testing.T, h *lab.Host) agent.Report {
	t.Helper()
	out, err := h.Tenetctl("top", "-o", "json")
	lab.Must(t, err)
	var r agent.Report
	lab.Must(t, json.Unmarshal([]byte(out), &r))
	return r
}

// A node of its own tells what it has and what it drops; that a sum of drops falls neither with an endpoint nor with the switch
// is what Prometheus goes by. status and top say the same.
func TestTenetdTellsHowItsNodeIs(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4)
	attacker, victim := h.Attach("attacker", conf), h.Attach("victim", conf)
	f := forger{attacker, victim}
	h.Tenetd()
	measures(t, h, map[string]float64{
		`tenet_healthy`: 1, `tenet_endpoints{network="web",tenant="blue"}`: 2, `tenet_restores_total`: 1, `tenet_sync_seconds_count`: 1,
		`tenet_drift_total{what="missing-flows"}`: 0, `tenet_bundle_errors_total`: 0, `tenet_drops_total{reason="spoofed-ipv4"}`: 0,
	})
	healthy(t, h, http.StatusOK, "ok\n")

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
	measures(t, h, map[string]float64{spoofed: 3})
	for _, d := range toldBy(t, h).Drops {
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
	healthy(t, h, http.StatusServiceUnavailable, "management socket of br-tenet: ")
	measures(t, h, map[string]float64{`tenet_healthy`: 0, `tenet_endpoints{network="web",tenant="blue"}`: 2, spoofed: 3})
	h.StartVswitchd()
	healthy(t, h, http.StatusOK, "ok\n")
	measures(t, h, map[string]float64{`tenet_restores_total`: 2})
	if drift := scrape(t, h)[`tenet_drift_total{what="missing-flows"}`]; drift == 0 {
		t.Error("all flows were lost, and no drift was found")
	}
	spoof(2)
	measures(t, h, map[string]float64{spoofed: 5})
	attacker.Del()
	measures(t, h, map[string]float64{`tenet_endpoints{network="web",tenant="blue"}`: 1, spoofed: 5})
	corrupt(h)
	healthy(t, h, http.StatusServiceUnavailable, "store: ")
}

// Functions are counted by what becomes of them.
func TestTenetdTellsOfFunctions(t *testing.T) {
	w := newChained(t)
	one, _, _ := w.shared()
	w.Tenetd()
	const instances = `tenet_function_instances{group="fw",state="%s",tenant="blue"}`
	measures(t, w.Host, map[string]float64{fmt.Sprintf(instances, "serves"): 2})
	one.Out.Link("down")
	measures(t, w.Host, map[string]float64{fmt.Sprintf(instances, "serves"): 1, fmt.Sprintf(instances, "down"): 1})
	out, err := w.Tenetctl("top", "--once")
	lab.Must(t, err)
	if !strings.Contains(out, "blue/fw") || !strings.Contains(out, "down") {
		t.Error(out)
	}
}

// Of a cluster's node it is known whether etcd answers, and since when not. Without it the node is well, and what it could
// not tell the others is counted until it has.
func TestTenetdTellsHowItsClusterIs(t *testing.T) {
	c := newCluster(t, 2, 1, shortLease...)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.network(n1, "blue/web", "--subnet", web4)
	n1.Attach("b1", n1.Conf("blue", "web"))
	n2.Attach("b2", n2.Conf("blue", "web"))
	for _, h := range c.Nodes {
		measures(t, h, map[string]float64{
			`tenet_etcd_connected`: 1, `tenet_nodes{state="runs"}`: 2, `tenet_nodes{state="off"}`: 0, `tenet_unpublished_endpoints`: 0, `tenet_healthy`: 1,
			`tenet_endpoints{network="web",tenant="blue"}`: 1, `tenet_blocks{network="web",state="held",tenant="blue"}`: 1, `tenet_etcd_lag_seconds`: 0,
		})
	}
	if r := scrape(t, n1)[`tenet_etcd_revision`]; r < 2 {
		t.Errorf("revision %g", r)
	}
	if out := c.ctl(n1, "status"); !strings.Contains(out, "node n1, joined, etcd answers, revision ") || !strings.Contains(out, "2 nodes") {
		t.Errorf("status:\n%s", out)
	}

	c.etcd.Stop(0)
	measures(t, n1, map[string]float64{`tenet_etcd_connected`: 0, `tenet_healthy`: 1})
	healthy(t, n1, http.StatusOK, "ok\netcd has not answered for ")
	n1.Attach("b3", n1.Conf("blue", "web"))
	measures(t, n1, map[string]float64{`tenet_unpublished_endpoints`: 1, `tenet_endpoints{network="web",tenant="blue"}`: 2})
	first := scrape(t, n1)[`tenet_etcd_lag_seconds`]
	lab.Eventually(t, "the lag to grow", func() bool { return first > 0 && scrape(t, n1)[`tenet_etcd_lag_seconds`] > first })
	if out := c.ctl(n1, "status"); !strings.Contains(out, "node n1: etcd has not answered for ") || !strings.Contains(out, "1 endpoint here that others do not know") {
		t.Errorf("status:\n%s", out)
	}
	if r := toldBy(t, n1); r.Cluster == nil || r.Cluster.Connected || r.Cluster.Unpublished != 1 {
		t.Errorf("top: %+v", r.Cluster)
	}

	c.etcd.Start(0)
	measures(t, n1, map[string]float64{`tenet_etcd_connected`: 1, `tenet_etcd_lag_seconds`: 0, `tenet_unpublished_endpoints`: 0})
	healthy(t, n1, http.StatusOK, "ok\n")
}
