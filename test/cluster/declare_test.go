package cluster

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/test/lab"
)

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

// A network can be deleted however many nodes hold blocks of it.
func TestANetworkOfManyBlocksIsDeleted(t *testing.T) {
	c := newCluster(t, 2, 1)
	c.network(c.Nodes[0], "blue/web", "--subnet", "10.0.0.0/16")
	for i := range 100 { // as nodes do that are off by now
		block := fmt.Sprintf("blocks/blue/web/10.0.%d.0/26", i)
		for key, value := range map[string]string{block: fmt.Sprintf(`{"node":"off%d","v":1}`, i), fmt.Sprintf("holdings/off%d/%s", i, block): ""} {
			c.put(key, value)
		}
	}
	c.ctl(c.Nodes[0], "network", "del", "blue/web")
	for _, h := range c.Nodes {
		lab.Eventually(t, h.Name+" to forget it", func() bool { return !strings.Contains(c.ctl(h, "network", "list"), "blue/web") })
	}
	if left := fmt.Sprint(c.inEtcd()); strings.Contains(left, "blue/web") {
		t.Errorf("left in etcd: %s", left)
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
	lab.Fails(t, other.Do("ADD"), lab.CodeConflict, "declared differently: subnets")
	other.Conf = c.Nodes[2].Conf("blue", "db", "10.0.0.128/25")
	lab.Fails(t, other.Do("ADD"), lab.CodeConflict, "overlaps subnet 10.0.0.0/24 of network blue/web")
	c.ctl(c.Nodes[0], "network", "add", "blue/db", "--subnet", db4) // and what is declared by hand a configuration may repeat
	other.Conf = c.Nodes[2].Conf("blue", "db", db4)
	other.Add()
	lab.Eventually(t, "one of the other network", func() bool { return other.Pings(containers[0].IP4) })
}

// A network may be deleted while containers come into it: then either it stands, with all whose ADD succeeds, or it has gone, with
// none.
func TestANetworkIsDeletedWhileContainersCome(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 3, 1)
	for round := range 12 {
		c.network(c.Nodes[0], "blue/web", "--subnet", web4)
		c.known("blue/web")
		var all sync.WaitGroup
		answers := make([]lab.Answer, 2)
		var containers []*lab.Container
		for i := range answers {
			e := c.Nodes[i].Container(fmt.Sprintf("c%d-%d", round, i))
			e.Conf = c.Nodes[i].Conf("blue", "web")
			containers = append(containers, e)
			all.Go(func() { answers[i] = e.Do("ADD") })
		}
		time.Sleep(time.Duration(round) * 8 * time.Millisecond) // the order of events is what is tried
		_, _ = c.Nodes[2].Tenetctl("network", "del", "blue/web")
		all.Wait()
		came := 0
		for _, a := range answers {
			if a.Err == nil {
				came++
			}
		}
		stands := len(c.records("networks/blue/web"))
		published := func() bool { return len(c.records("endpoints/blue/web/")) == came }
		late := slices.ContainsFunc(answers, func(a lab.Answer) bool { return strings.Contains(a.Stderr, unpublished) })
		agree := published() || late && lab.Within(lab.Patience(), published)
		if !agree || came > 0 && stands == 0 {
			t.Errorf("round %d: %d ADDs succeed, networks: %d, published: %v", round, came, stands, c.records("endpoints/blue/web/"))
		}
		for _, e := range containers {
			lab.Must(t, e.Do("DEL").Failed())
		}
		lab.Eventually(t, "nobody to be published", func() bool { return len(c.records("endpoints/blue/web/")) == 0 })
		_, _ = c.Nodes[2].Tenetctl("network", "del", "blue/web")
	}
	c.settled()
}
