package test

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
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
	fw := watch(own.Function("fw1", webOn(own), "fw", 0).Bridges())
	old := watch(own.Function("old", webOn(own), "ids", 0).Bridges())
	c.ctl(own, "chain", "add", "blue/c", "--group", "fw,ids", "--from", "any", "--to", "label:role=server")
	server.Echo(80)
	conn, err := client.Connect("tcp", netip.AddrPortFrom(server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	led := func() {
		t.Helper()
		said := token("led")
		lab.Must(t, lab.Say(conn, said))
		fw.sees(t, said, 1, 1)
		old.sees(t, said, 1, 1)
	}
	led()
	ids := watch(own.Function("ids1", webOn(own), "ids", 0).Bridges())
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

	terminates(t, d)
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
		said := token("far")
		return far.Exchange("tcp", netip.AddrPortFrom(server.IP4, 80), said) == nil && fw.saw(said) == [2]int{1, 1} && ids.saw(said) == [2]int{1, 1}
	})
	led()
	c.agree()

	// Restarted, it is as it was.
	terminates(t, c.daemons[own])
	c.daemons[own] = own.BeginTenetd()
	c.joined(own)
	led()
	server.Del()
	taken(webOn(own), own.Attach("last", webOn(own)))
}

// The numbers of its chains' paths may be taken in the cluster. Its connections are led all the same.
func TestJoiningWhereOthersHaveChains(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	there, own := c.Nodes[0], c.Nodes[1]
	c.begin(there, nil)
	c.joined(there)
	alone(own)
	var functions []*watched
	var client, server *lab.Container
	for _, w := range []struct {
		h      *lab.Host
		tenant string
	}{{there, "green"}, {own, "blue"}} {
		conf := w.h.Conf(w.tenant, "web")
		c.ctl(w.h, "network", "add", w.tenant+"/web", "--subnet", web4, "--subnet", web6)
		c.ctl(w.h, "group", "add", w.tenant+"/fw")
		client, server = w.h.Attach("client", conf), w.h.Attach("server", conf.With("labels", map[string]string{"role": "server"}))
		server.Echo(80)
		functions = append(functions, watch(w.h.Function("fw", conf, "fw", 0).Bridges()))
		c.ctl(w.h, "chain", "add", w.tenant+"/c", "--group", "fw", "--from", "any", "--to", "label:role=server")
		lab.Eventually(t, "the chain to lead", func() bool {
			said := token("first")
			return client.Exchange("udp", netip.AddrPortFrom(server.IP4, 80), said) == nil && functions[len(functions)-1].saw(said) == [2]int{1, 1}
		})
	}
	conn, err := client.Connect("tcp", netip.AddrPortFrom(server.IP4, 80))
	lab.Must(t, err)
	defer conn.Close()
	led := func(what string) {
		t.Helper()
		said := token(what)
		lab.Must(t, lab.Say(conn, said))
		functions[1].sees(t, said, 1, 1)
		functions[0].sees(t, said, 0, 0)
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
	terminates(t, own.Tenetd())
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
	terminates(t, d)

	// With all of it out of the way it joins.
	for _, e := range []*lab.Container{a, b, more, much} {
		e.Del()
	}
	for _, args := range [][]string{{"network", "del", "blue/same"}, {"network", "del", "blue/own"}, {"network", "del", "red/own"}, {"group", "del", "blue/fw"}} {
		c.ctl(own, args...)
	}
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
	has := map[netip.Addr]string{}
	for _, e := range all {
		for _, a := range []netip.Addr{e.IP4, e.IP6} {
			if who, twice := has[a]; twice {
				t.Errorf("%s has %s, which is %s's", e.ID, a, who)
			}
			has[a] = e.ID
		}
	}
	for _, e := range all {
		if e.Host == own {
			lab.Eventually(t, "the other node to reach "+e.ID, func() bool { return all[len(all)-1].Pings(e.IP4) })
		}
	}
}

// eachKnows waits until what a node lists of a kind all list, and returns it.
func (c *cluster) eachKnows(kind string) string {
	c.t.Helper()
	want := ""
	lab.Eventually(c.t, "all nodes to list the same of kind "+kind, func() bool {
		want = c.ctl(c.Nodes[0], kind, "list", "-o", "yaml")
		for _, h := range c.Nodes[1:] {
			if c.ctl(h, kind, "list", "-o", "yaml") != want {
				return false
			}
		}
		return true
	})
	return want
}

// Many may declare at once, wherever they are, and some of them the same: each network comes once, with a number of its own.
func TestDeclaredAtOnceOnAllNodes(t *testing.T) {
	const workers, each, networks = 12, 10, 60 // each network twice, on two nodes
	c := newCluster(t, 3, 1)
	name := func(i int) string {
		// The names of which numbers are made collide in these pairs.
		if n, collides := map[int]int{3: 382, 33: 8449, 18: 6705, 48: 12805}[i]; collides {
			i = n
		}
		return fmt.Sprintf("blue/n%d", i)
	}
	var all sync.WaitGroup
	for w := range workers {
		h := c.Nodes[w%len(c.Nodes)]
		all.Go(func() {
			for n := range each {
				i := (w*networks/workers + n) % networks
				if _, err := h.Tenetctl("network", "add", name(i), "--subnet", fmt.Sprintf("10.%d.0.0/24", i)); err != nil {
					t.Errorf("%s: %v", h.Name, err)
				}
			}
		})
	}
	all.Wait()
	list := c.eachKnows("network")
	seen := map[string]bool{}
	for line := range strings.Lines(list) {
		if vni, ok := strings.CutPrefix(line, "vni: "); ok {
			if seen[vni] {
				t.Errorf("two networks have VNI %s", vni)
			}
			seen[vni] = true
		}
	}
	if len(seen) != networks {
		t.Errorf("there are %d numbers of %d networks:\n%s", len(seen), networks, list)
	}
	for i := range networks {
		if n := strings.Count(list, "name: "+strings.TrimPrefix(name(i), "blue/")+"\n"); n != 1 {
			t.Errorf("%s is listed %d times", name(i), n)
		}
	}
	// Two whose numbers would have been one, on two nodes each.
	for _, i := range []int{3, 33} {
		network := strings.TrimPrefix(name(i), "blue/")
		one, two := c.Nodes[0].Attach("one"+network, c.Nodes[0].Conf("blue", network)), c.Nodes[1].Attach("two"+network, c.Nodes[1].Conf("blue", network))
		lab.Eventually(t, "those of "+network+" to meet", func() bool { return one.Pings(two.IP4) })
	}
}

// A manifest may be applied on any node, and what it declares goes on any node: but no network that somebody is in, wherever.
func TestDeclaredAndDeletedOnAnyNode(t *testing.T) {
	c := newCluster(t, 3, 1)
	n1, n2, n3 := c.Nodes[0], c.Nodes[1], c.Nodes[2]
	file := filepath.Join(t.TempDir(), "all.yaml")
	lab.Must(t, os.WriteFile(file, []byte(`
kind: Network
tenant: blue
name: web
subnets: [{prefix: 10.0.0.0/24}, {prefix: "fd00:1::/64"}]
---
kind: Network
tenant: blue
name: db
subnets: [{prefix: 10.0.1.0/24}]
---
kind: Group
tenant: blue
name: fw
---
kind: Chain
tenant: blue
name: c
groups: [fw]
classifiers: [{from: {network: db}, to: {network: web}}]
`), 0o600))
	if out := c.ctl(n3, "apply", "-f", file); strings.Count(out, "created") != 4 {
		t.Errorf("apply says\n%s", out)
	}
	if out := c.ctl(n1, "apply", "-f", file); strings.Count(out, "unchanged") != 4 {
		t.Errorf("apply elsewhere says\n%s", out)
	}
	for kind, has := range map[string]string{"network": "name: db", "group": "name: fw", "chain": "name: c"} {
		if list := c.eachKnows(kind); !strings.Contains(list, has) {
			t.Errorf("no %s on any node:\n%s", kind, list)
		}
	}
	lab.Must(t, os.WriteFile(file, []byte("{kind: Network, tenant: blue, name: db, subnets: [{prefix: 10.0.9.0/24}]}"), 0o600))
	if out, err := n2.Tenetctl("apply", "-f", file); err == nil || !strings.Contains(out, "declared differently: subnets") {
		t.Errorf("another declaration is taken: %s", out)
	}

	e := n2.Attach("somebody", webOn(n2))
	lab.Eventually(t, "the others to hear of it", func() bool { return strings.Contains(c.ctl(n1, "endpoint", "list"), "somebody") })
	refused := func(h *lab.Host, why string, args ...string) {
		t.Helper()
		if out, err := h.Tenetctl(args...); err == nil || !strings.Contains(out, why) || !strings.Contains(out, "\nhint: ") {
			t.Errorf("%s: tenetctl %v: %s; want a refusal with %q and a hint", h.Name, args, out, why)
		}
	}
	for _, h := range c.Nodes {
		refused(h, "somebody/eth0 on n2", "network", "del", "blue/web")
		refused(h, "chain blue/c", "network", "del", "blue/db")
	}
	e.Del()
	c.ctl(n3, "chain", "del", "blue/c")
	lab.Eventually(t, "the network to be free", func() bool {
		_, err := n1.Tenetctl("network", "del", "blue/web")
		return err == nil
	})
	for _, h := range c.Nodes {
		lab.Eventually(t, h.Name+" to forget it", func() bool { return !strings.Contains(c.ctl(h, "network", "list"), "blue/web") })
	}
	if out := e.Do("ADD"); out.Code() == 0 || !strings.Contains(string(out.Stdout), "blue/web does not exist") {
		t.Errorf("a container comes into the network that has gone: %s", out.Stdout)
	}
	c.network(n2, "blue/web", "--subnet", "10.0.7.0/24")
	e.Add()
	if !strings.HasPrefix(e.IP4.String(), "10.0.7.") {
		t.Errorf("it has %s", e.IP4)
	}
}

// A configuration that declares its network does so for the whole cluster, whichever node meets it first.
func TestAConfigurationDeclaresForTheCluster(t *testing.T) {
	c := newCluster(t, 3, 1)
	var containers []*lab.Container
	for i := range 6 {
		h := c.Nodes[i%len(c.Nodes)]
		e := h.Container(fmt.Sprint("c", i))
		e.Conf = h.Conf("blue", "web", web4, web6)
		containers = append(containers, e)
	}
	answers := make([]lab.Answer, len(containers))
	var all sync.WaitGroup
	for i, e := range containers { // on all nodes at once
		all.Go(func() {
			var err error
			if answers[i], err = e.Exec(e.Call("ADD")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for i, e := range containers {
		lab.Must(t, answers[i].Failed())
		e.Learn(answers[i].Stdout)
	}
	if list := c.eachKnows("network"); strings.Count(list, "kind: Network") != 1 || !strings.Contains(list, "prefix: "+web4) {
		t.Errorf("the networks are\n%s", list)
	}
	c.reachEachOther(containers...)
	other := c.Nodes[2].Container("other")
	other.Conf = c.Nodes[2].Conf("blue", "web", "10.9.0.0/24")
	fails(t, other.Do("ADD"), codeConflict, "declared differently: subnets")
	other.Conf = c.Nodes[2].Conf("blue", "db", "10.0.0.128/25")
	fails(t, other.Do("ADD"), codeConflict, "overlaps subnet 10.0.0.0/24 of network blue/web")
	c.ctl(c.Nodes[0], "network", "add", "blue/db", "--subnet", db4) // and what is declared by hand a configuration may repeat
	other.Conf = c.Nodes[2].Conf("blue", "db", db4)
	other.Add()
	lab.Eventually(t, "one of the other network", func() bool { return other.Pings(containers[0].IP4) })
}

// Containers of all nodes get what the narrowest underlay carries. What is longer is refused where it comes from.
func TestTheNarrowestUnderlayCounts(t *testing.T) {
	const underlay, header = 1400, 50
	c := onEtcd(t, lab.NewFleet(t, 3), 1)
	n2 := c.Nodes[1]
	n2.Narrow(underlay)
	for _, h := range c.Nodes {
		c.begin(h, nil)
	}
	for _, h := range c.Nodes {
		c.joined(h)
	}
	c.network(n2, "blue/web", "--subnet", web4, "--subnet", web6)
	for _, h := range c.Nodes {
		lab.Eventually(t, h.Name+" to know all nodes", func() bool { return strings.Contains(fmt.Sprint(h.Records()), `"leastMTU":1400`) || h == n2 })
	}
	var all []*lab.Container
	for _, h := range c.Nodes {
		e := h.Attach("on-"+h.Name, webOn(h))
		e.Echo(80)
		all = append(all, e)
	}
	c.reachEachOther(all...)
	for _, e := range all {
		if out := e.Sh("ip", "link", "show", "eth0"); !strings.Contains(out, fmt.Sprintf(" mtu %d ", underlay-header)) || e.Result.Interfaces[0].Mtu != underlay-header {
			t.Errorf("%s has another MTU than %d: %+v\n%s", e.ID, underlay-header, e.Result.Interfaces, out)
		}
		for _, to := range all {
			if to == e {
				continue
			}
			e.Reaches(to.IP4, "-Mdo", fmt.Sprintf("-s%d", underlay-header-28))
			e.Reaches(to.IP6, "-Mdo", fmt.Sprintf("-s%d", underlay-header-48))
			for _, a := range []netip.Addr{to.IP4, to.IP6} {
				if out, err := lab.RunIn(t, e.Path, "ping", "-n", "-c1", "-Mdo", "-s1372", a.String()); err == nil || !strings.Contains(out, "message too long") {
					t.Errorf("%s to %s: a ping of 1400 bytes: %s", e.ID, a, out)
				}
				e.Reaches(a, "-Mdont", "-s3000")
			}
			conn, err := e.Connect("tcp", netip.AddrPortFrom(to.IP4, 80))
			lab.Must(t, err)
			lab.Must(t, lab.Say(conn, strings.Repeat("tenet", 60_000)))
			conn.Close()
		}
	}
	if out, err := c.Nodes[0].Tenetctl("network", "add", "blue/wide", "--subnet", "10.9.0.0/24", "--mtu", "1450"); err == nil || !strings.Contains(out, "1350") {
		t.Errorf("a network with a larger MTU is made: %s", out)
	}
}

// A node with a narrower underlay may come later: containers get what it carries from then on, and those that have more
// agree with them on TCP segments that fit.
func TestANarrowerUnderlayComesLater(t *testing.T) {
	c := onEtcd(t, lab.NewFleet(t, 2), 1)
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.begin(n1, nil)
	c.joined(n1)
	c.ctl(n1, "network", "add", "blue/web", "--subnet", web4, "--subnet", web6)
	old := n1.Attach("old", webOn(n1))
	n2.Narrow(1400)
	c.begin(n2, nil)
	c.joined(n2)
	late := n2.Attach("late", webOn(n2))
	fresh := n1.Attach("fresh", webOn(n1))
	for e, want := range map[*lab.Container]int{old: 1450, late: 1350, fresh: 1350} {
		if mtu := e.Result.Interfaces[0].Mtu; mtu != want {
			t.Errorf("%s has an MTU of %d, want %d", e.ID, mtu, want)
		}
		e.Echo(80)
	}
	c.reachEachOther(old, late, fresh)
	for _, way := range [][2]*lab.Container{{old, late}, {late, old}} {
		for _, a := range []netip.Addr{way[1].IP4, way[1].IP6} {
			conn, err := way[0].Connect("tcp", netip.AddrPortFrom(a, 80))
			lab.Must(t, err)
			lab.Must(t, lab.Say(conn, strings.Repeat("tenet", 60_000)))
			conn.Close()
		}
	}
	c.agree()
}

// agree waits until each node's switch agrees with its store.
func (c *cluster) agree() {
	c.t.Helper()
	for _, h := range c.Nodes {
		out := ""
		if !lab.Within(lab.Patience()/4, func() bool { out = c.ctl(h, "sync", "--dry-run"); return strings.Contains(out, "agrees") }) {
			c.t.Errorf("%s: %s", h.Name, out)
		}
	}
}

// Each node says how it wants to be sent to, and addresses of nodes may be of either family: all reach each other.
func TestEncapsulations(t *testing.T) {
	for family, vtep := range map[string]func(*lab.Host) netip.Addr{"IPv4": (*lab.Host).VTEP, "IPv6": (*lab.Host).VTEP6} {
		t.Run(family, func(t *testing.T) {
			c := onEtcd(t, lab.NewFleet(t, 3), 1)
			wants := map[*lab.Host]string{c.Nodes[0]: "vxlan", c.Nodes[1]: "geneve", c.Nodes[2]: "vxlan"}
			ports := map[string]uint16{"vxlan": 4789, "geneve": 6081}
			for _, h := range c.Nodes {
				c.begin(h, map[string]any{"vtep": vtep(h), "encapsulation": wants[h]})
			}
			for _, h := range c.Nodes {
				c.joined(h)
			}
			c.network(c.Nodes[0], "blue/web", "--subnet", web4, "--subnet", web6, "--multicast")
			var all []*lab.Container
			wires := map[*lab.Host]*lab.Capture{}
			for _, h := range c.Nodes {
				e := h.Attach("on-"+h.Name, webOn(h))
				e.Echo(80)
				all = append(all, e)
				wires[h] = h.Wire().Capture()
			}
			header := map[string]int{"IPv4": 50, "IPv6": 70}[family]
			c.reachEachOther(all...)
			for _, from := range all {
				for _, to := range all {
					if from == to {
						continue
					}
					from.Reaches(to.IP4, "-Mdo", fmt.Sprintf("-s%d", 1500-header-28))
					from.Reaches(to.IP6, "-Mdo", fmt.Sprintf("-s%d", 1500-header-48))
					for _, a := range []netip.Addr{to.IP4, to.IP6} {
						said := token("said")
						lab.Must(t, from.Exchange("udp", netip.AddrPortFrom(a, 80), said))
						wires[to.Host].Await(said)
						frames := wires[to.Host].Frames(lab.With(said))
						if len(frames) != 1 || tunnelled(frames[0]) != ports[wants[to.Host]] {
							t.Errorf("%s to %s: %d frames come in by the wire, want one to UDP port %d: %x", from.ID, to.ID, len(frames), ports[wants[to.Host]], frames)
						}
						lab.Must(t, from.Exchange("tcp", netip.AddrPortFrom(a, 80), strings.Repeat(said, 10_000)))
					}
				}
			}
			hears := []*lab.Capture{all[1].Capture(), all[2].Capture()}
			said := token("to all")
			all[0].Send(lab.UDP4(lab.Eth(all[0].MAC, lab.Broadcast, layers.EthernetTypeIPv4), lab.IP4(all[0].IP4, netip.MustParseAddr("255.255.255.255")), said))
			for _, k := range hears {
				k.Await(said)
			}
			c.agree()
		})
	}
}

// tunnelled is the UDP port that a frame on the underlay goes to, 0 if it is none of UDP.
func tunnelled(frame []byte) uint16 {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	if u, ok := p.Layer(layers.LayerTypeUDP).(*layers.UDP); ok {
		return uint16(u.DstPort)
	}
	return 0
}
