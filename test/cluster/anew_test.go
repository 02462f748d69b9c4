package cluster

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/test/lab"
)

// replaced puts another etcd in the place of the cluster's, or the one that it was when the snapshot was made, and waits until
// each node has noticed and is a member again. It is said once.
func (c *cluster) replaced(snapshot string) {
	c.t.Helper()
	const notices, joins, settles = "the node begins anew with etcd", "joined the cluster", "the cluster has settled"
	before := map[string]int{}
	for _, h := range c.Nodes {
		for _, words := range []string{notices, joins, settles} {
			before[h.Name+words] = strings.Count(c.daemons[h].Log(), words)
		}
	}
	c.etcd.Restore(snapshot)
	for _, words := range []string{notices, joins, settles} {
		for _, h := range c.Nodes {
			lab.Eventually(c.t, h.Name+" to say: "+words, func() bool { return strings.Count(c.daemons[h].Log(), words) > before[h.Name+words] })
		}
	}
	for _, h := range c.Nodes {
		if n := strings.Count(c.daemons[h].Log(), notices) - before[h.Name+notices]; n != 1 {
			c.t.Errorf("%s begins anew %d times", h.Name, n)
		}
	}
}

// different fails the test if two of them have an address.
func different(t *testing.T, all ...*lab.Container) {
	t.Helper()
	has := map[netip.Addr]string{}
	for _, e := range all {
		for _, a := range []netip.Addr{e.IP4, e.IP6} {
			if who, twice := has[a]; twice {
				t.Errorf("%s has %s, which is %s's", e.ID, a, who)
			}
			has[a] = e.ID
		}
	}
}

// An etcd that is restored from an older snapshot while nodes run is told what they have: all of them, running on, hear of what
// is declared from then on and of each other's containers. Nothing is lost of the traffic of those that came after the
// snapshot, which etcd knows nothing of.
func TestEtcdIsRestored(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 3), 3)
	c.start()
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.network(n1, "blue/web", "--subnet", web4, "--subnet", web6)
	goes := n2.Attach("goes", n2.Conf("blue", "web"))
	c.network(n2, "blue/goes", "--subnet", "10.9.0.0/24")
	c.settled()
	snapshot := c.etcd.Snapshot()
	a, b := c.across(n1, n2)
	all := []*lab.Container{a, b}
	for i := range 10 { // into more blocks than the snapshot has
		for _, h := range c.Nodes {
			all = append(all, h.Attach(fmt.Sprintf("more%d-%s", i, h.Name), webOn(h)))
		}
	}
	goes.Del()
	c.ctl(n1, "network", "del", "blue/goes")
	c.network(n1, "red/lost", "--subnet", "10.8.0.0/24")
	c.settled()
	step := 0
	unhurt(t, a, b, "etcd restored from an older snapshot", func(*live) {
		step++
		c.replaced(snapshot)
		c.network(c.Nodes[step%2], fmt.Sprintf("blue/net%d", step), "--subnet", "10.7.0.0/24")
		late := n3.Attach(fmt.Sprintf("late%d", step), webOn(n3))
		all = append(all, late)
		c.meet(a, late)
		c.settled()
	})
	different(t, all...)
	c.meet(a, b)
	for _, h := range c.Nodes {
		if _, err := h.Tenetctl("network", "show", "red/lost"); err == nil {
			t.Errorf("%s still has what etcd has not", h.Name)
		}
		lab.Healthy(t, h, http.StatusOK, "ok\n")
		lab.Measures(t, h, map[string]float64{`tenet_etcd_connected`: 1, `tenet_etcd_lag_seconds`: 0, `tenet_unpublished_endpoints`: 0})
		if strings.Contains(c.daemons[h].Log(), "an endpoint goes") {
			t.Errorf("%s has lost an endpoint", h.Name)
		}
	}
}

// An etcd that has lost everything is told it by the nodes, while they run on and traffic between them goes on. To declare once
// more what was there changes nothing.
func TestEtcdLosesEverything(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	c.start()
	n1, n2 := c.Nodes[0], c.Nodes[1]
	a, b := c.across(n1, n2)
	c.settled()
	unhurt(t, a, b, "etcd wiped", func(*live) {
		c.replaced("")
		c.known("blue/web")
		for _, h := range c.Nodes {
			for _, of := range c.Nodes {
				c.becomes(of, h, "runs")
			}
		}
	})
	c.ctl(n1, "network", "add", "blue/web", "--subnet", web4, "--subnet", web6)
	c.network(n2, "blue/db", "--subnet", db4)
	late := n2.Attach("late", webOn(n2))
	c.meet(a, late)
	c.meet(a, b)
	c.settled()
	different(t, a, b, late)
}

// The password of etcd's user is changed, and then the nodes' files: they go on with it by themselves. Between the two etcd does
// not take what they say, which stops no traffic and is told everywhere.
func TestThePasswordIsChanged(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1, etcdtest.Auth("/tenet/v1/"))
	for _, h := range c.Nodes {
		c.begin(h, map[string]any{"etcd": map[string]any{"endpoints": c.EtcdEndpoints, "username": c.etcd.Username, "passwordFile": c.etcd.PasswordFile}})
	}
	c.allJoined()
	n1, n2 := c.Nodes[0], c.Nodes[1]
	a, b := c.across(n1, n2)
	c.settled()
	step := 0
	unhurt(t, a, b, "the password changed", func(*live) {
		step++
		password := fmt.Sprintf("another%d", step)
		_, err := c.etcd.Client().UserChangePassword(t.Context(), c.etcd.Username, password)
		lab.Must(t, err)
		for _, h := range c.Nodes {
			lab.Measures(t, h, map[string]float64{`tenet_etcd_connected`: 0, `tenet_healthy`: 1})
			lab.Healthy(t, h, http.StatusOK, "ok\netcd refuses this node since ")
			out := c.ctl(h, "status")
			for _, words := range []string{"etcd refuses this node since ", "authentication failed", "hint: check username and passwordFile"} {
				if !strings.Contains(out, words) {
					t.Errorf("%s: status does not say %q:\n%s", h.Name, words, out)
				}
			}
		}
		lab.Must(t, os.WriteFile(c.etcd.PasswordFile, []byte(password+"\n"), 0o600))
		for _, h := range c.Nodes {
			lab.Measures(t, h, map[string]float64{`tenet_etcd_connected`: 1, `tenet_etcd_lag_seconds`: 0})
			lab.Healthy(t, h, http.StatusOK, "ok\n")
		}
		c.network(n1, fmt.Sprintf("blue/net%d", step), "--subnet", fmt.Sprintf("10.7.%d.0/24", step))
		c.settled()
	})
	late := n2.Attach("late", webOn(n2))
	c.meet(a, late)
	c.settled()
}

// A node's certificate runs out. Etcd takes it no more when the node connects again, which stops no traffic and is told; and when
// its files have a new one the node goes on with it by itself.
func TestACertificateIsRenewed(t *testing.T) {
	t.Parallel()
	c := onEtcd(t, lab.NewFleet(t, 2), 1, etcdtest.TLS())
	certified := func(d time.Duration) (string, string) { return c.etcd.ClientCertificate("nodes", d) }
	life := lab.Stretch(15 * time.Second)
	runsOut := time.Now().Add(life)
	cert, key := certified(life)
	for _, h := range c.Nodes {
		c.begin(h, map[string]any{"etcd": map[string]any{"endpoints": c.EtcdEndpoints, "caFile": c.etcd.CAFile, "certFile": cert, "keyFile": key}})
	}
	c.allJoined()
	n1, n2 := c.Nodes[0], c.Nodes[1]
	a, b := c.across(n1, n2)
	c.settled()
	lab.Eventually(t, "the certificate to run out", func() bool { return time.Now().After(runsOut) })
	c.etcd.Kill(0)
	c.etcd.Start(0)
	for _, h := range c.Nodes {
		lab.Measures(t, h, map[string]float64{`tenet_etcd_connected`: 0, `tenet_healthy`: 1})
		lab.Healthy(t, h, http.StatusOK, "ok\netcd refuses this node since ")
		if out := c.ctl(h, "status"); !strings.Contains(out, "tls: ") || !strings.Contains(out, "hint: check caFile, certFile and keyFile") {
			t.Errorf("%s: status does not say why:\n%s", h.Name, out)
		}
	}
	c.meet(a, b)
	certified(time.Hour)
	for _, h := range c.Nodes {
		lab.Measures(t, h, map[string]float64{`tenet_etcd_connected`: 1, `tenet_etcd_lag_seconds`: 0})
		lab.Healthy(t, h, http.StatusOK, "ok\n")
	}
	late := n2.Attach("late", webOn(n2))
	c.meet(a, late)
	c.settled()
}
