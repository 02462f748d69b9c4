package main

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var update = flag.Bool("update", false, "rewrite what the tests compare with")

// told is a report of everything.
func told() cluster.Report {
	return cluster.Report{
		Version: "1.2",
		Report: node.Report{
			At: time.Unix(1, 0), Problems: []node.Problem{},
			Endpoints: []node.EndpointCount{{Tenant: "blue", Network: "web", Endpoints: 3}, {Tenant: "red", Network: "web", Endpoints: 1}},
			Blocks:    []node.BlockCount{{Tenant: "blue", Network: "web", State: "held", Blocks: 2}, {Tenant: "blue", Network: "web", State: "returning", Blocks: 1}},
			Functions: []node.InstanceCount{{Tenant: "blue", Group: "fw", State: "down", Instances: 1}, {Tenant: "blue", Group: "fw", State: "serves", Instances: 2}},
			Drops: []node.Dropped{
				{Drop: node.Drop{Reason: "spoofed-ipv4", Packets: 7, Text: "it lied"}, Total: 12},
				{Drop: node.Drop{Reason: "vlan-tag", Text: "it tagged"}},
			},
			Work: node.Work{
				Since: time.Unix(0, 0), Restores: 2, BundleErrors: 1, Drift: map[string]uint64{"missing-flows": 40, "stray-flows": 0},
				Syncs: node.Syncs{Count: 5, Seconds: 1.5, Last: 0.2, Within: []node.Within{{Seconds: 0.1, Count: 3}, {Seconds: 1, Count: 5}}},
			},
		},
		Cluster: &cluster.Status{
			Node: "n1", Joined: true, Connected: true, Revision: 1234567, Lag: 0.25, Nodes: 4, Silent: []vnet.NodeName{"n2"}, Off: []vnet.NodeName{"n3"},
			Published: 3, Unpublished: 1,
		},
	}
}

// get asks a daemon whose report is this one.
func get(t *testing.T, r cluster.Report, path string) (int, string) {
	t.Helper()
	h := handler(&reports{look: func() cluster.Report { return r }, turn: make(chan struct{}, 1)})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// What Prometheus is told is in testdata/metrics.txt: names, labels and help are what dashboards and alerts depend on.
func TestPrometheusIsToldTheReport(t *testing.T) {
	code, body := get(t, told(), "/metrics")
	var ours strings.Builder
	for line := range strings.Lines(body) {
		if strings.Contains(line, "tenet_") {
			ours.WriteString(line)
		}
	}
	const file = "testdata/metrics.txt"
	if *update {
		if err := os.WriteFile(file, []byte(ours.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), ours.String()); code != http.StatusOK || diff != "" {
		t.Errorf("status %d, -want +got\n%s", code, diff)
	}
	for _, name := range []string{"go_goroutines ", "process_start_time_seconds "} {
		if !strings.Contains(body, "\n"+name) {
			t.Errorf("there is no %s", name)
		}
	}
	problems, err := testutil.CollectAndLint(exposition(told()))
	if err != nil || len(problems) > 0 {
		t.Errorf("names that Prometheus' conventions do not like: %v, %v", problems, err)
	}
}

// A node of its own tells nothing of a cluster, and one that has nothing tells that.
func TestPrometheusOfANodeOnItsOwn(t *testing.T) {
	r := told()
	r.Cluster = nil
	if _, body := get(t, r, "/metrics"); strings.Contains(body, "tenet_etcd") || strings.Contains(body, "tenet_nodes") || !strings.Contains(body, "tenet_healthy 1\n") {
		t.Error(body)
	}
	code, body := get(t, cluster.Report{Report: node.Report{Problems: []node.Problem{{What: "store", Error: "it is corrupt"}}}}, "/metrics")
	if code != http.StatusOK || !strings.Contains(body, "tenet_healthy 0\n") || strings.Contains(body, "tenet_endpoints") {
		t.Errorf("status %d\n%s", code, body)
	}
}

func TestHealth(t *testing.T) {
	away, out, unwell := told(), told(), told()
	away.Cluster = &cluster.Status{Joined: true, Lag: 12.3}
	out.Cluster = &cluster.Status{Joined: true, Connected: true, Refused: "node n1 is another machine"}
	unwell.Problems = []node.Problem{{What: "store", Error: "it is corrupt"}, {What: "OVSDB socket", Error: "connection refused"}}
	for _, tc := range []struct {
		what   string
		report cluster.Report
		code   int
		body   string
	}{
		{"all is well", told(), 200, "ok\n"},
		{"etcd is away, which stops no traffic", away, 200, "ok\netcd has not answered for 12s: the node goes on with what it has\n"},
		{"the cluster does not want the node", out, 200, "ok\nthe cluster does not want this node: node n1 is another machine\n"},
		{"the switch or the store is away", unwell, 503, "store: it is corrupt\nOVSDB socket: connection refused\n"},
	} {
		if code, body := get(t, tc.report, "/healthz"); code != tc.code || body != tc.body {
			t.Errorf("%s: status %d, %q, want %d, %q", tc.what, code, body, tc.code, tc.body)
		}
	}
	if code, _ := get(t, told(), "/nowhere"); code != http.StatusNotFound {
		t.Errorf("status %d for what there is not", code)
	}
}
