package test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/test/lab"
)

// hinted fails the test unless a program's last words are one line that says want, and a hint.
func hinted(t *testing.T, who, text, want, hint string) {
	t.Helper()
	var said []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, who+": ") || strings.HasPrefix(line, "hint: ") {
			said = append(said, strings.TrimSpace(line))
		}
	}
	if len(said) != 2 || !strings.Contains(said[0], want) || !strings.HasPrefix(said[1], "hint: ") || !strings.Contains(said[1], hint) {
		t.Errorf("%s says %q, want one line with %q and one with a hint, %q; all of it:\n%s", who, said, want, hint, text)
	}
}

// An etcd may ask for a client's certificate and a user's password, and let that user have no more than the prefix. A
// node that has not what it takes is told what is missing, and joins when it has.
func TestJoinsAnEtcdWithCertificatesAndUsers(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 3), 1, etcdtest.TLS(), etcdtest.Auth("/tenet/v1/"))
	access := func(more map[string]any) map[string]any {
		keys := map[string]any{
			"endpoints": c.EtcdEndpoints, "caFile": c.etcd.CAFile, "certFile": c.etcd.CertFile, "keyFile": c.etcd.KeyFile,
			"username": c.etcd.Username, "passwordFile": c.etcd.PasswordFile,
		}
		maps.Copy(keys, more)
		return map[string]any{"etcd": keys}
	}
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.begin(n1, access(nil))
	c.begin(n2, access(nil))
	guessed := filepath.Join(t.TempDir(), "guessed")
	lab.Must(t, os.WriteFile(guessed, []byte("guessed\n"), 0o600))
	for what, wrong := range map[string]struct {
		keys       map[string]any
		want, hint string
	}{
		"a wrong password": {map[string]any{"passwordFile": guessed}, "authentication failed", "check username and passwordFile"},
		"no certificate":   {map[string]any{"certFile": "", "keyFile": ""}, "tls: ", "check caFile, certFile and keyFile"},
		"no key":           {map[string]any{"keyFile": "/nonexistent.key"}, "/nonexistent.key", "see " + c.etcd.CertFile + " and /nonexistent.key"},
		"no authority":     {map[string]any{"caFile": ""}, "x509: ", "check caFile, certFile and keyFile"},
		"another prefix":   {map[string]any{"prefix": "/tenet/v2/"}, "permission denied", "readwrite /tenet/v2/"},
	} {
		c.begin(n3, access(wrong.keys))
		if code := c.daemons[n3].Ends(); code != 1 {
			t.Errorf("%s: tenetd ends with %d", what, code)
		}
		hinted(t, "tenetd", c.daemons[n3].Log(), wrong.want, wrong.hint)
		for _, args := range [][]string{{"node", "list"}, {"network", "add", "blue/none", "--subnet", "10.77.0.0/24"}} {
			_, err := n3.Tenetctl(args...)
			if err == nil {
				t.Errorf("%s: tenetctl %v works", what, args)
				continue
			}
			hinted(t, "tenetctl", err.Error(), wrong.want, wrong.hint)
		}
	}
	c.begin(n3, access(nil))
	for _, h := range c.Nodes {
		c.joined(h)
	}
	c.network(n3, "blue/web", "--subnet", web4, "--subnet", web6)
	var all []*lab.Container
	for i, h := range c.Nodes {
		all = append(all, h.Attach(fmt.Sprint("c", i), webOn(h)))
	}
	c.reachEachOther(all...)

	// A password that is changed behind their backs is told, too, stops nothing that is there, and may come back.
	password := func(p string) {
		_, err := c.etcd.Client().UserChangePassword(t.Context(), c.etcd.Username, p)
		lab.Must(t, err)
	}
	right, err := os.ReadFile(c.etcd.PasswordFile)
	lab.Must(t, err)
	password("another")
	all = append(all, n1.Attach("meanwhile", webOn(n1)))
	c.daemons[n1].Logs("authentication failed")
	c.daemons[n1].Logs(`hint="check username and passwordFile`)
	_, err = n1.Tenetctl("node", "list")
	hinted(t, "tenetctl", fmt.Sprint(err), "authentication failed", "check username and passwordFile")
	c.etcd.Kill(0)
	c.etcd.Start(0)
	c.daemons[n2].Logs(`level=ERROR msg="ask etcd"`) // who has nothing to tell etcd learns it, too
	all[0].Reaches(all[1].IP4)
	password(strings.TrimSpace(string(right)))
	c.reachEachOther(all...)

	for _, h := range c.Nodes {
		if out := c.ctl(h, "node", "list"); strings.Count(out, " runs ") != 3 {
			t.Errorf("%s: the nodes are\n%s", h.Name, out)
		}
		terminates(t, c.daemons[h])
	}
}

// reachEachOther waits until each of them reaches each other, in both families.
func (c *cluster) reachEachOther(all ...*lab.Container) {
	c.t.Helper()
	for _, from := range all {
		for _, to := range all {
			if from == to {
				continue
			}
			for _, a := range []netip.Addr{to.IP4, to.IP6} {
				lab.Eventually(c.t, from.ID+" to reach "+to.ID+" at "+a.String(), func() bool { return from.Pings(a) })
			}
		}
	}
}
