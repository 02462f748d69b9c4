package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

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
		if _, err := n3.Tenetctl("node", "list"); err == nil {
			t.Errorf("%s: tenetctl node list works", what)
		} else {
			hinted(t, "tenetctl", err.Error(), wrong.want, wrong.hint)
		}
	}
	c.begin(n3, access(nil))
	c.allJoined()
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
		c.daemons[h].Terminate()
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

// alone makes a node one on its own: its configuration names no etcd.
func alone(h *lab.Host) { h.WriteConfig(map[string]any{"etcd": nil}) }

// A node that has served on its own brings along all that it has, and its containers notice nothing.
func TestJoiningBringsAlongWhatTheNodeHas(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 3), 1)
	n1, n2, own := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	c.begin(n1, nil)
	c.begin(n2, nil)
	c.joined(n1)
	c.joined(n2)
	c.ctl(n1, "network", "add", "green/web", "--subnet", web4) // what is there already is in nobody's way
	alone(own)
	d := own.BeginTenetd()
	c.ctl(own, "network", "add", "blue/web", "--subnet", web4, "--subnet", web6)
	c.ctl(own, "network", "add", "blue/db", "--subnet", db4, "--subnet", db6, "--mtu", "1400")
	c.ctl(own, "network", "add", "red/web", "--subnet", web4, "--subnet", web6, "--vni", "4711")
	c.ctl(own, "group", "add", "blue/fw")
	c.ctl(own, "group", "add", "blue/ids", "--on-failure", "open")
	c.ctl(own, "group", "add", "red/none")
	client, server := own.Attach("client", webOn(own)), own.Attach("server", webOn(own).With("labels", map[string]string{"role": "server"}))
	db := own.Attach("db", own.Conf("blue", "db"), "IP=10.0.1.77")
	red := own.Attach("red", own.Conf("red", "web"))
	fw := lab.Watch(own.Function("fw1", webOn(own), "fw", 0).Bridges())
	old := lab.Watch(own.Function("old", webOn(own), "ids", 0).Bridges())
	c.ctl(own, "chain", "add", "blue/c", "--group", "fw,ids", "--from", "any", "--to", "label:role=server")
	client.Patient()
	server.Patient()
	server.Echo(80)
	conn, err := client.Connect("tcp", netip.AddrPortFrom(server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	led := func() {
		t.Helper()
		lab.SeenBy(t, "led", on(conn), map[*lab.Watched]int{fw: 1, old: 1})
	}
	led()
	ids := lab.Watch(own.Function("ids1", webOn(own), "ids", 0).Bridges())
	c.ctl(own, "function", "drain", "blue/ids/old") // the connection keeps it
	led()
	had := []*lab.Container{client, server, db, red}
	seen := map[string]string{} // who has had an address, by tenant
	taken := func(conf lab.Conf, all ...*lab.Container) {
		t.Helper()
		for _, e := range all {
			for _, a := range []netip.Addr{e.IP4, e.IP6} {
				key := fmt.Sprint(conf["tenant"], " ", a)
				if who, twice := seen[key]; twice {
					t.Errorf("%s gets %s, which is %s's", e.ID, key, who)
				}
				seen[key] = e.ID
			}
		}
	}
	for _, e := range had {
		taken(e.Conf, e)
	}
	streams := []*lab.Stream{client.Stream(db), client.Stream(server), db.StreamTo(server, server.IP6)} // the latter two by the chain
	for _, s := range streams {
		s.Flows()
	}

	d.Terminate()
	c.begin(own, nil)
	c.joined(own)
	for _, s := range streams {
		if lost, silence := s.Lost(); lost > 0 {
			t.Errorf("its own containers lost %d datagrams, nothing came for %s", lost, silence)
		}
	}
	led()

	for _, name := range []string{"blue/web", "blue/db", "red/web", "green/web"} {
		c.known(name)
	}
	for _, kind := range []string{"network", "group", "chain"} {
		want := c.ctl(own, kind, "list", "-o", "yaml")
		for _, h := range []*lab.Host{n1, n2} {
			lab.Eventually(t, h.Name+" to have each "+kind, func() bool { return c.ctl(h, kind, "list", "-o", "yaml") == want })
		}
		for _, name := range map[string][]string{"network": {"4711", "mtu: 1400"}, "group": {"name: ids", "onFailure: open", "none"}, "chain": {"name: c"}}[kind] {
			if !strings.Contains(want, name) {
				t.Errorf("%s is gone from each %s:\n%s", name, kind, want)
			}
		}
	}
	if out := c.ctl(n1, "function", "list"); strings.Count(out, "serves") != 2 || strings.Count(out, "drained") != 1 {
		t.Errorf("the functions are\n%s", out)
	}
	for _, e := range had {
		lab.Must(t, e.Do("CHECK").Failed())
		if out := e.Sh("ip", "-brief", "address", "show", "eth0"); !strings.Contains(out, e.IP4.String()+"/") || !strings.Contains(out, e.IP6.String()+"/") {
			t.Errorf("%s has %s now, not %s and %s", e.ID, out, e.IP4, e.IP6)
		}
	}

	// From now on the network is shared.
	blue := append([]*lab.Container{}, client, server, db)
	reds := []*lab.Container{red}
	for i := range 12 {
		for _, h := range c.Nodes {
			e := h.Attach(fmt.Sprintf("%s-%d", h.Name, i), webOn(h))
			taken(e.Conf, e)
			if i == 0 {
				blue = append(blue, e)
				r := h.Attach("red-"+h.Name, h.Conf("red", "web"))
				taken(r.Conf, r)
				reds = append(reds, r)
			}
		}
	}
	c.reachEachOther(blue...)
	c.reachEachOther(reds...)
	far := blue[3]
	lab.Eventually(t, "the chain to lead from other nodes", func() bool {
		said := lab.PingToken("far")
		return far.Exchange("tcp", netip.AddrPortFrom(server.IP4, 80), said) == nil && fw.Saw(said) == [2]int{1, 1} && ids.Saw(said) == [2]int{1, 1}
	})
	led()
	c.settled()

	// Restarted, it is as it was.
	c.daemons[own].Terminate()
	c.daemons[own] = own.BeginTenetd()
	c.joined(own)
	led()
	server.Del()
	taken(webOn(own), own.Attach("last", webOn(own)))
}

// What a node brings along may be more than etcd takes in one transaction, and so may be what it knows of an etcd that was emptied.
// Killed on the way it goes on where it was.
func TestBringingAlongALot(t *testing.T) {
	const tenants, networks = 40, 70
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	own, there := c.Nodes[0], c.Nodes[1]
	alone(own)
	d := own.BeginTenetd()
	var all strings.Builder
	for i := range tenants {
		fmt.Fprintf(&all, "{kind: Network, tenant: t%d, name: web, subnets: [{prefix: 10.0.0.0/24}]}\n---\n{kind: Group, tenant: t%d, name: fw}\n---\n", i, i)
	}
	for i := range networks {
		fmt.Fprintf(&all, "{kind: Network, tenant: many, name: n%d, subnets: [{prefix: 10.1.%d.0/24}]}\n---\n", i, i)
	}
	file := filepath.Join(t.TempDir(), "all.yaml")
	lab.Must(t, os.WriteFile(file, []byte(strings.TrimSuffix(all.String(), "---\n")), 0o600))
	c.ctl(own, "apply", "-f", file)
	a := own.Attach("a", own.Conf("many", "n7"))
	had := c.ctl(own, "network", "list", "-o", "yaml") + c.ctl(own, "group", "list", "-o", "yaml")
	d.Terminate()

	c.begin(own, nil)
	c.joined(own)
	c.begin(there, nil)
	c.joined(there)
	same := func(when string) {
		t.Helper()
		for _, h := range c.Nodes {
			if now := c.ctl(h, "network", "list", "-o", "yaml") + c.ctl(h, "group", "list", "-o", "yaml"); now != had {
				t.Errorf("%s: %s has\n%s\nwant\n%s", when, h.Name, now, had)
			}
		}
	}
	same("joined")
	c.empties()
	c.restart(own)
	lab.Eventually(t, "it to have begun", func() bool { return strings.Contains(fmt.Sprint(c.inEtcd()), "/v1/refills/") })
	c.daemons[own].Kill()
	c.restart(there)
	c.joined(there)
	same("another has come") // and both of them have lost nothing
	c.restart(own)
	c.joined(own)
	same("emptied and filled")
	b := there.Attach("b", there.Conf("many", "n7"))
	lab.Eventually(t, "the two to meet", func() bool { return b.Pings(a.IP4) })
}

// The numbers of its chains' paths may be taken in the cluster. Its connections are led all the same.
func TestJoiningWhereOthersHaveChains(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	there, own := c.Nodes[0], c.Nodes[1]
	c.begin(there, nil)
	c.joined(there)
	alone(own)
	var functions []*lab.Watched
	var client, server *lab.Container
	for _, w := range []struct {
		h      *lab.Host
		tenant string
	}{{there, "green"}, {own, "blue"}} {
		conf := w.h.Conf(w.tenant, "web")
		c.ctl(w.h, "network", "add", w.tenant+"/web", "--subnet", web4, "--subnet", web6)
		c.ctl(w.h, "group", "add", w.tenant+"/fw")
		client, server = w.h.Attach("client", conf), w.h.Attach("server", conf.With("labels", map[string]string{"role": "server"}))
		client.Patient()
		server.Patient()
		server.Echo(80)
		functions = append(functions, lab.Watch(w.h.Function("fw", conf, "fw", 0).Bridges()))
		c.ctl(w.h, "chain", "add", w.tenant+"/c", "--group", "fw", "--from", "any", "--to", "label:role=server")
		lab.Eventually(t, "the chain to lead", func() bool {
			said := lab.PingToken("first")
			return client.Exchange("udp", netip.AddrPortFrom(server.IP4, 80), said) == nil && functions[len(functions)-1].Saw(said) == [2]int{1, 1}
		})
	}
	conn, err := client.Connect("tcp", netip.AddrPortFrom(server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	led := func(what string) {
		t.Helper()
		lab.SeenBy(t, what, on(conn), map[*lab.Watched]int{functions[1]: 1, functions[0]: 0})
	}
	led("before")
	s := client.Stream(server)
	s.Flows()
	c.begin(own, nil)
	c.joined(own)
	led("after")
	// What is in the function as its path gets another number comes back with the old one.
	if lost, silence := s.Lost(); lost > 2 {
		t.Errorf("%d datagrams were lost, nothing came for %s", lost, silence)
	}
	led("later")
}

// inEtcd is all that etcd has, one key a line.
func (c *cluster) inEtcd() lab.Snapshot {
	c.t.Helper()
	got, err := c.etcd.Client().Get(c.t.Context(), "", clientv3.WithPrefix())
	lab.Must(c.t, err)
	var s lab.Snapshot
	for _, kv := range got.Kvs {
		s = append(s, fmt.Sprintf("%s %d %s", kv.Key, kv.ModRevision, kv.Value))
	}
	return s
}

// What a node on its own has may be otherwise in the cluster. Then it does not join, and is told all that is in the way
// at once; nothing is changed here or there, and it goes on as it is.
func TestANodeThatConflictsStaysAlone(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	there, own := c.Nodes[0], c.Nodes[1]
	c.begin(there, nil)
	c.joined(there)
	alone(own)
	for h, networks := range map[*lab.Host][][]string{
		there: {
			{"blue/same", "--subnet", "10.1.0.0/24"},
			{"blue/there", "--subnet", "10.2.0.0/16"},
			{"red/there", "--subnet", "10.3.0.0/24", "--vni", "4711"},
			{"red/shared", "--subnet", "10.4.0.0/24"},
			{"red/fine", "--subnet", "10.5.0.0/24"},
		},
		own: {
			{"blue/same", "--subnet", "10.1.1.0/24"}, // another subnet
			{"blue/own", "--subnet", "10.2.2.0/24"},  // which overlaps that of blue/there
			{"red/own", "--subnet", "10.6.0.0/24", "--vni", "4711"},
			{"red/shared", "--subnet", "10.4.0.0/24"}, // in which both have an address of one block
			{"red/fine", "--subnet", "10.5.0.0/24"},
			{"green/web", "--subnet", "10.1.0.0/24"},
		},
	} {
		for _, network := range networks {
			c.ctl(h, append([]string{"network", "add"}, network...)...)
		}
		c.ctl(h, "group", "add", "blue/fw", "--mode", map[*lab.Host]string{there: "transparent", own: "routed"}[h])
	}
	first := there.Attach("first", there.Conf("red", "shared"), "IP=10.4.0.10")
	there.Attach("fine", there.Conf("red", "fine"), "IP=10.5.0.10")
	a, b := own.Attach("a", own.Conf("red", "shared"), "IP=10.4.0.11"), own.Attach("b", own.Conf("blue", "own"))
	own.Attach("fine", own.Conf("red", "fine"), "IP=10.5.0.20")
	own.Tenetd().Terminate()
	lab.Eventually(t, "etcd to have the others", func() bool {
		return len(c.inEtcd()[0]) > 0 && strings.Count(fmt.Sprint(c.inEtcd()), "/v1/endpoints/") == 2
	})
	inEtcd, onNode := c.inEtcd(), own.Snapshot()

	want := []string{
		"network blue/same stands and is declared differently: subnets",
		"subnet 10.2.2.0/24 overlaps subnet 10.2.0.0/16 of network blue/there",
		"vni 4711 belongs to network red/there",
		"addresses of network red/shared in 10.4.0.8/29 are in use here, and the block is node n1's",
		"group blue/fw stands there and is declared differently",
	}
	for range 2 { // systemd starts it again
		c.begin(own, nil)
		if code := c.daemons[own].Ends(); code != 1 {
			t.Errorf("tenetd ends with %d", code)
		}
		log := c.daemons[own].Log()
		for _, w := range append(want, "conflicts with the cluster:", "\nhint: delete or rename it here or there") {
			if strings.Count(log, w) != 1 {
				t.Errorf("it does not say once %q:\n%s", w, log)
			}
		}
		for _, w := range []string{"green", "red/fine"} {
			if strings.Contains(log, w) {
				t.Errorf("it has something against %s, which is in nobody's way:\n%s", w, log)
			}
		}
		lab.Same(t, inEtcd, c.inEtcd())
		lab.Same(t, onNode, own.Snapshot().Without("record meta/identity"))
	}

	// It goes on by itself, with this configuration and with the one that it had.
	more := own.Attach("more", own.Conf("blue", "own"))
	more.Reaches(b.IP4)
	lab.Same(t, inEtcd, c.inEtcd())
	alone(own)
	d := own.Tenetd()
	much := own.Attach("much", own.Conf("blue", "own"))
	much.Reaches(more.IP4)
	d.Terminate()

	// With all of it out of the way it joins.
	for _, e := range []*lab.Container{a, b, more, much} {
		e.Del()
	}
	own.WriteConfig(nil) // it is to be one of the cluster, and is not: what is deleted on it is its own
	inEtcd = c.inEtcd()
	for _, args := range [][]string{{"network", "del", "blue/same"}, {"network", "del", "blue/own"}, {"network", "del", "red/own"}, {"group", "del", "blue/fw"}} {
		if out := c.ctl(own, args...); !strings.Contains(out, "deleted") {
			t.Errorf("%v: %s", args, out)
		}
	}
	lab.Same(t, inEtcd, c.inEtcd())
	c.begin(own, nil)
	c.joined(own)
	again := own.Attach("again", own.Conf("red", "shared"))
	if netip.MustParsePrefix("10.4.0.8/29").Contains(again.IP4) {
		t.Errorf("it has %s, out of a block of %s's", again.IP4, there.Name)
	}
	lab.Eventually(t, "the two to meet", func() bool { return again.Pings(first.IP4) })
}

// Containers may come while their node joins: each address is one's alone, then and later, and all of them are reached.
func TestContainersComeWhileTheirNodeJoins(t *testing.T) {
	const many = 12
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	own, there := c.Nodes[0], c.Nodes[1]
	c.begin(there, nil)
	c.joined(there)
	alone(own)
	c.ctl(own, "network", "add", "blue/web", "--subnet", "10.0.0.0/27", "--subnet", "fd00:1::/123") // whose blocks are of two addresses
	all := []*lab.Container{own.Attach("first", webOn(own))}
	for _, h := range c.Nodes {
		for i := range many {
			e := h.Container(fmt.Sprintf("%s-%d", h.Name, i))
			e.Conf = webOn(h)
			all = append(all, e)
		}
	}
	come := func(list []*lab.Container) { // by and by, three at a time
		var workers sync.WaitGroup
		for i := range 3 {
			workers.Go(func() {
				for n := i; n < len(list); n += 3 {
					e := list[n]
					var last error
					if !lab.Within(lab.Patience(), func() bool {
						var a lab.Answer
						if a, last = e.Exec(e.Call("ADD")); last == nil {
							last = a.Failed()
						}
						if last == nil {
							e.Learn(a.Stdout)
						}
						return last == nil
					}) {
						t.Errorf("%s does not come: %v", e.ID, last)
					}
				}
			})
		}
		workers.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	come(all[1:4])
	c.begin(own, nil)
	come(all[4 : 1+many])
	c.joined(own)
	come(all[1+many:])
	different(t, all...)
	for _, e := range all {
		if e.Host == own {
			lab.Eventually(t, "the other node to reach "+e.ID, func() bool { return all[len(all)-1].Pings(e.IP4) })
		}
	}
}
