package test

import (
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// A network may have IPv6 only, and small prefixes are used to the last address.
func TestAnIPv6OnlyNetwork(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "six", "fd00:6::/64")
	a, b := h.Attach("a", conf), h.Attach("b", conf)
	if a.IP4.IsValid() {
		t.Errorf("the container got %s", a.IP4)
	}
	a.Reaches(b.IP6)
	lab.Must(t, a.Do("CHECK").Failed())
	pair := h.Conf("blue", "pair", "10.7.0.0/31")
	c, d := h.Attach("c", pair), h.Attach("d", pair)
	c.Reaches(d.IP4)
	if full := h.Container("e"); true {
		full.Conf = pair
		if code := full.Do("ADD").Code(); code != 100 {
			t.Errorf("a third container in a /31: code %d, want 100", code)
		}
	}
}

// A container may have an interface in several networks, of several tenants: each works, the
// default route stays with the first, and taking the second away leaves the first alone.
func TestAContainerInTwoNetworks(t *testing.T) {
	h := lab.NewHost(t)
	first := h.Attach("c", h.Conf("blue", "web", "10.0.0.0/24"))
	second := *first
	second.IfName, second.Conf = "eth1", h.Conf("red", "db", "10.9.0.0/24")
	second.Add()
	blue, red := h.Attach("blue", first.Conf), h.Attach("red", second.Conf)
	first.Reaches(blue.IP4)
	second.Reaches(red.IP4)
	if routes := first.Sh("ip", "route", "show", "default"); strings.Count(routes, "default") != 1 || !strings.Contains(routes, "10.0.0.1") {
		t.Errorf("default routes:\n%s", routes)
	}
	if len(second.Result.Routes) != 0 {
		t.Errorf("the second result tells of the routes %v, which are not there", second.Result.Routes)
	}
	lab.Must(t, first.Do("CHECK").Failed())
	lab.Must(t, second.Do("CHECK").Failed())
	second.Del()
	first.Reaches(blue.IP4)
	lab.Must(t, first.Do("CHECK").Failed())
}

// One store may have endpoints on several bridges; a sync leaves those of each where they are,
// and another store is refused the bridge.
func TestSeveralBridges(t *testing.T) {
	h := lab.NewHost(t)
	one := h.Conf("blue", "web", "10.0.0.0/24")
	two := h.Conf("red", "web", "10.0.0.0/24").With("bridge", "br-two")
	a, b, c, d := h.Attach("a", one), h.Attach("b", one), h.Attach("c", two), h.Attach("d", two)
	before := h.Snapshot()
	h.Sync()
	lab.Same(t, before, h.Snapshot())
	a.Reaches(b.IP4)
	c.Reaches(d.IP4)
	e := h.Container("e")
	e.Conf = one.With("dataDir", t.TempDir())
	if answer := e.Do("ADD"); answer.Code() != 101 || !strings.Contains(string(answer.Stdout), h.DataDir) {
		t.Errorf("ADD with another store on the same bridge: code %d, %s", answer.Code(), answer.Stdout)
	}
}
