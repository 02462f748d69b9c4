package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// A subnet of sixteen addresses, in blocks of two: all but the first two and the last are handed out.
const (
	small4    = "10.2.0.0/28"
	smallSize = 13
)

// small is a cluster of three nodes with a small network: two containers on each of the first two, and two on the third.
type small struct {
	*cluster

	one, two, third *lab.Host
	args            []string
	a, b            *lab.Container // on the first and the second
	lost            []*lab.Container
}

func newSmall(t *testing.T, args ...string) small {
	t.Helper()
	s := small{args: append(args, shortLease...)}
	s.cluster = newCluster(t, 3, 1, s.args...)
	s.one, s.two, s.third = s.Nodes[0], s.Nodes[1], s.Nodes[2]
	s.network(s.one, "blue/small", "--subnet", small4)
	s.a, s.b = s.attach(s.one, "a"), s.attach(s.two, "b")
	s.lost = []*lab.Container{s.attach(s.third, "lost0"), s.attach(s.third, "lost1")}
	s.b.Echo(80)
	for _, e := range append(s.lost, s.b) {
		lab.Eventually(t, "a to reach "+e.ID, func() bool { return s.a.Pings(e.IP4, "-W1") })
	}
	s.settled()
	return s
}

func (s small) attach(h *lab.Host, id string) *lab.Container {
	s.t.Helper()
	return h.Attach(id, h.Conf("blue", "small"))
}

// held are the addresses of the blocks that etcd says a node has.
func (s small) held(h *lab.Host) []netip.Addr {
	s.t.Helper()
	net := vnet.Subnet{Prefix: netip.MustParsePrefix(small4), Gateway: netip.MustParsePrefix(small4).Addr().Next()}
	var addrs []netip.Addr
	for a := net.Prefix.Addr(); net.Prefix.Contains(a); a = a.Next() {
		if net.Assignable(a) == nil && s.holder("blue/small", a) == h.Name {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// fill attaches containers to two nodes until there are no more addresses, and returns all that the network's containers
// on them have.
func (s small) fill(hosts ...*lab.Host) map[netip.Addr]string {
	s.t.Helper()
	have := map[netip.Addr]string{s.a.IP4: s.a.ID, s.b.IP4: s.b.ID}
	for _, h := range hosts {
		for i := 0; ; i++ {
			c := h.Container(fmt.Sprintf("more%d-%s", i, h.Name))
			c.Conf = h.Conf("blue", "small")
			var answer lab.Answer
			lab.Eventually(s.t, "its node to have its lease", func() bool { answer = c.Do("ADD"); return answer.Code() != lab.CodeLater })
			if answer.Err == nil && i < smallSize {
				c.Learn(answer.Stdout)
				if other, ok := have[c.IP4]; ok {
					s.t.Errorf("%s and %s have %s", c.ID, other, c.IP4)
				}
				have[c.IP4] = c.ID
				continue
			}
			lab.Fails(s.t, answer, lab.CodeExhausted, "all blocks of subnet "+small4+" are held by nodes")
			break
		}
	}
	return have
}

// loses powers the third node off, and waits until the others have found out.
func (s small) loses() {
	s.t.Helper()
	l := begin(s.t, s.a, s.b)
	s.third.PowerOff()
	s.becomes(s.third, s.one, "off")
	s.settled(s.one, s.two)
	lost, silence := l.end()
	s.t.Logf("between the others %d datagrams are lost, nothing came for %s", lost, silence)
	for _, h := range []*lab.Host{s.one, s.two} {
		for _, e := range s.lost {
			if n := s.leading(h, "small", e); n > 0 {
				s.t.Errorf("%s has %d flows that lead to %s, on a node that is off", h.Name, n, e.ID)
			}
		}
	}
}

// leading is how many flows of a node lead to a container of blue's on another.
func (c *cluster) leading(h *lab.Host, network vnet.NetworkName, to *lab.Container) int {
	c.t.Helper()
	owner := pipeline.RemoteOwner(vnet.Remote{Tenant: "blue", Network: network, Node: vnet.NodeName(to.Name), ID: vnet.Attachment{Container: to.ID, IfName: to.IfName}.ID()})
	n := 0
	for _, f := range h.Flows() {
		if pipeline.OwnerOf(f.Cookie) == owner {
			n++
		}
	}
	return n
}

// returns powers it on again.
func (s small) returns() {
	s.t.Helper()
	s.third.PowerOn()
	s.restart(s.third, s.args...)
	s.joined(s.third)
	s.becomes(s.third, s.one, "runs")
}

// While a node is off, for no longer than its grace, nobody reaches what was on it, and nobody gets its addresses. When it is
// back they are its own.
func TestNodeThatIsOffKeepsItsAddresses(t *testing.T) {
	t.Parallel()
	s := newSmall(t, "--grace=1h")
	for _, e := range s.lost {
		if s.leading(s.one, "small", e) == 0 {
			t.Error("no flow leads to it: this test proves nothing")
		}
	}
	s.loses()
	kept := s.held(s.third)
	taken := s.fill(s.one, s.two)
	for _, a := range kept {
		if id, ok := taken[a]; ok {
			t.Errorf("%s has %s, which is of a block of the node that is off", id, a)
		}
	}
	if len(taken)+len(kept) != smallSize {
		t.Errorf("of %d addresses %d were taken, and %s keeps %v", smallSize, len(taken), s.third.Name, kept)
	}
	s.returns()
	lab.Eventually(t, "the third node's containers to have gone with it", func() bool { return len(s.records("endpoints/blue/small/"+s.third.Name+"/")) == 0 })
	for i := range kept {
		if c := s.attach(s.third, fmt.Sprintf("new%d", i)); taken[c.IP4] != "" {
			t.Errorf("%s and %s have %s", c.ID, taken[c.IP4], c.IP4)
		} else {
			lab.Eventually(t, "a to reach "+c.ID, func() bool { return s.a.Pings(c.IP4, "-W1") })
		}
	}
	s.settled()
}

// After its grace others have its addresses, and when it is back it has none.
func TestNodeThatIsOffLosesItsAddressesAfterItsGrace(t *testing.T) {
	t.Parallel()
	s := newSmall(t, "--grace=3s")
	s.loses()
	lab.Eventually(t, "the grace to end", func() bool { return s.state(s.third, s.one) == "gone" })
	s.settled(s.one, s.two)
	if taken := s.fill(s.one, s.two); len(taken) != smallSize {
		t.Errorf("of %d addresses %d could be had", smallSize, len(taken))
	}
	s.returns()
	s.settled()
	if kept := s.held(s.third); len(kept) > 0 {
		t.Errorf("it holds %v", kept)
	}
	s.fill(s.third)
}

// An operator need not wait for that; but of a node that runs nothing is taken.
func TestOperatorTakesANodeOutOfTheCluster(t *testing.T) {
	t.Parallel()
	s := newSmall(t, "--grace=1h")
	refuses := func(from, of *lab.Host) {
		t.Helper()
		out, err := from.Tenetctl("node", "del", of.Name)
		if err == nil || !strings.Contains(out, "node "+of.Name+" runs") || !strings.Contains(out, "hint: have it leave: tenetctl node del "+of.Name+" --drain") {
			t.Errorf("to take out %s, which runs: %v\n%s", of.Name, err, out)
		}
	}
	refuses(s.one, s.third)
	refuses(s.one, s.one)
	s.loses()
	out, err := s.one.Tenetctl("node", "del", s.third.Name, "--drain", "--timeout=8s") // which it cannot be asked
	if err == nil || !strings.Contains(out, "but is off") || s.state(s.third, s.two) != "off" {
		t.Errorf("to have %s leave, which is off: %v\n%s", s.third.Name, err, out)
	}
	s.ctl(s.one, "node", "del", s.third.Name)
	if state := s.state(s.third, s.two); state != "gone" {
		t.Errorf("it is %s", state)
	}
	s.settled(s.one, s.two)
	if taken := s.fill(s.one, s.two); len(taken) != smallSize {
		t.Errorf("of %d addresses %d could be had", smallSize, len(taken))
	}
}

// A node that nobody heard of for longer than its grace, though it ran on by itself, finds its addresses with others. Then
// theirs count: its containers that have one go, and nobody else is disturbed.
func TestNodeThatWasAwayForTooLongGivesWay(t *testing.T) {
	s := newSmall(t, "--grace=3s")
	s.CutFromEtcd(s.third)
	s.Partition(s.third, s.one)
	s.Partition(s.third, s.two)
	s.becomes(s.third, s.one, "off")
	s.becomes(s.third, s.one, "gone")
	s.lost[0].Reaches(s.lost[1].IP4)
	taken := s.fill(s.one, s.two)
	for _, e := range s.lost {
		if taken[e.IP4] == "" {
			t.Errorf("nobody has taken %s: this test proves nothing", e.IP4)
		}
	}
	unhurt(t, s.a, s.b, "a node comes back whose addresses others have", func(*live) {
		s.Heal()
		s.becomes(s.third, s.one, "runs")
		s.settled()
	})
	for _, e := range s.lost {
		if s.lost[0].Pings(e.IP4, "-W1") {
			t.Errorf("%s lives on with %s, which %s has", e.ID, e.IP4, taken[e.IP4])
		}
		e.Del()
	}
	s.settled()
}
