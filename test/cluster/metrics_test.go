package cluster

import (
	"net/http"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// Of a cluster's node it is known whether etcd answers, and since when not. Without it the node is well, and what it could
// not tell the others is counted until it has.
func TestTenetdTellsHowItsClusterIs(t *testing.T) {
	c := newCluster(t, 2, 1, shortLease...)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.network(n1, "blue/web", "--subnet", web4)
	n1.Attach("b1", n1.Conf("blue", "web"))
	n2.Attach("b2", n2.Conf("blue", "web"))
	for _, h := range c.Nodes {
		lab.Measures(t, h, map[string]float64{
			`tenet_etcd_connected`: 1, `tenet_nodes{state="runs"}`: 2, `tenet_nodes{state="off"}`: 0, `tenet_unpublished_endpoints`: 0, `tenet_healthy`: 1,
			`tenet_endpoints{network="web",tenant="blue"}`: 1, `tenet_blocks{network="web",state="held",tenant="blue"}`: 1, `tenet_etcd_lag_seconds`: 0,
		})
	}
	if r := lab.Scrape(t, n1)[`tenet_etcd_revision`]; r < 2 {
		t.Errorf("revision %g", r)
	}
	if out := c.ctl(n1, "status"); !strings.Contains(out, "node n1, joined, etcd answers, revision ") || !strings.Contains(out, "2 nodes") {
		t.Errorf("status:\n%s", out)
	}

	c.etcd.Stop(0)
	lab.Measures(t, n1, map[string]float64{`tenet_etcd_connected`: 0, `tenet_healthy`: 1})
	lab.Healthy(t, n1, http.StatusOK, "ok\netcd has not answered for ")
	n1.Attach("b3", n1.Conf("blue", "web"))
	lab.Measures(t, n1, map[string]float64{`tenet_unpublished_endpoints`: 1, `tenet_endpoints{network="web",tenant="blue"}`: 2})
	first := lab.Scrape(t, n1)[`tenet_etcd_lag_seconds`]
	lab.Eventually(t, "the lag to grow", func() bool { return first > 0 && lab.Scrape(t, n1)[`tenet_etcd_lag_seconds`] > first })
	if out := c.ctl(n1, "status"); !strings.Contains(out, "node n1: etcd has not answered for ") || !strings.Contains(out, "1 endpoint here that others do not know") {
		t.Errorf("status:\n%s", out)
	}
	if r := lab.ToldBy(t, n1); r.Cluster == nil || r.Cluster.Connected || r.Cluster.Unpublished != 1 {
		t.Errorf("top: %+v", r.Cluster)
	}

	c.etcd.Start(0)
	lab.Measures(t, n1, map[string]float64{`tenet_etcd_connected`: 1, `tenet_etcd_lag_seconds`: 0, `tenet_unpublished_endpoints`: 0})
	lab.Healthy(t, n1, http.StatusOK, "ok\n")

	c.daemons[n1].Terminate()
	if out := c.ctl(n1, "status"); !strings.Contains(out, "unknown without tenetd") {
		t.Errorf("status:\n%s", out)
	}
}
