package test

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestFiftyContainersStartAndStopAtOnce(t *testing.T) {
	const many = 50
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	h.Attach("first", conf).Del()
	before := h.Snapshot().Lasting()
	containers := make([]*lab.Container, many)
	for i := range containers {
		containers[i] = h.Container(fmt.Sprintf("c%d", i))
		containers[i].Conf = conf
	}
	atOnce := func(verb string) []lab.Answer {
		answers := make([]lab.Answer, many)
		var all sync.WaitGroup
		for i, c := range containers {
			all.Go(func() {
				a, err := h.Exec(c.Call(verb))
				if err != nil {
					t.Errorf("%s: %v", verb, err)
				} else if err := a.Failed(); err != nil {
					t.Errorf("%s: %v", verb, err)
				}
				answers[i] = a
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
		return answers
	}
	addresses, macs, ports := map[netip.Addr]bool{}, map[string]bool{}, map[string]bool{}
	for i, a := range atOnce("ADD") {
		c := containers[i]
		c.Learn(a.Stdout)
		addresses[c.IP4], addresses[c.IP6] = true, true
		macs[c.MAC.String()], ports[c.OFPort()] = true, true
	}
	if len(addresses) != 2*many || len(macs) != many || len(ports) != many {
		t.Errorf("%d addresses, %d MACs, %d port numbers for %d containers", len(addresses), len(macs), len(ports), many)
	}
	for i, c := range containers {
		c.Reaches(containers[(i+1)%many].IP4)
	}
	lab.Must(t, containers[0].Do("CHECK").Failed())
	atOnce("DEL")
	lab.Same(t, before, h.Snapshot().Lasting())
}

// A runtime that has lost count may run ADD and DEL of one attachment at the same time. One comes last, and what it
// leaves is whole: attached with all that belongs to it, or nothing.
func TestADDAndDELOfOneAttachmentAtOnceEndInOneCleanState(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	h.Attach("first", conf).Del()
	before := h.Snapshot().Lasting()
	c := h.Container("c")
	c.Conf = conf
	attached, detached := 0, 0
	for range 8 {
		var both sync.WaitGroup
		for _, verb := range []string{"ADD", "DEL", "ADD", "DEL"} {
			both.Go(func() {
				a, err := h.Exec(c.Call(verb))
				if err != nil {
					t.Errorf("%s: %v", verb, err)
				} else if err := a.Failed(); err != nil {
					t.Errorf("%s: %v", verb, err)
				}
			})
		}
		both.Wait()
		if a := c.Do("CHECK"); a.Failed() == nil {
			attached++
			c.Del()
		} else {
			detached++
			lab.Fails(t, a, lab.CodeConflict, "there is no record of it")
		}
		lab.Same(t, before, h.Snapshot().Lasting())
	}
	t.Logf("attached in the end %d times, detached %d times", attached, detached)
}
