package node

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What is missing or different is sent, what nobody wants is deleted first, and what stands is
// left alone with its counters.
func TestOnlyTheDifferenceIsSent(t *testing.T) {
	flow := func(priority uint16, port uint64, actions ...openflow.Action) openflow.Flow {
		return openflow.Flow{Table: 1, Priority: priority, Cookie: 7, Match: openflow.Match{openflow.InPort.Is(port)}, Actions: actions}
	}
	stands, changed, missing, stray := flow(1, 1), flow(1, 2, openflow.GotoTable(5)), flow(1, 3), flow(9, 4)
	group := func(id uint32, port uint32) openflow.GroupConfig {
		return openflow.GroupConfig{ID: id, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{{WatchPort: port}}}
	}
	ch, d := difference(rendered{flows: []openflow.Flow{stands, changed, missing}, groups: []openflow.GroupConfig{group(1, 1), group(2, 2), group(3, 3)}},
		[]openflow.FlowStats{{Flow: stands, Packets: 5}, {Flow: flow(1, 2)}, {Flow: stray}},
		[]openflow.GroupConfig{group(1, 1), group(2, 9), group(4, 4)})
	var got []string
	for _, c := range slices.Concat(ch.groups, ch.strays, adds(ch.adds), ch.last) {
		got = append(got, c.String())
	}
	want := []string{
		openflow.PutGroup(group(2, 2)).String(), openflow.PutGroup(group(3, 3)).String(), openflow.DeleteFlow(stray).String(), openflow.AddFlow(changed).String(), openflow.AddFlow(missing).String(),
		openflow.DeleteGroup(4).String(),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if d.MissingFlows != 2 || d.StrayFlows != 1 || len(d.Groups) != 3 || d.Count() != 6 {
		t.Errorf("drift %+v, want 2 missing and 1 stray, and 3 groups", d)
	}
}

// Only what is certainly nobody's is an orphan: never what somebody works on, nor what was made
// in another namespace, whose links cannot be seen from here.
func TestWhatIsNobodys(t *testing.T) {
	const (
		now     = "boot-2 net:[1]"
		earlier = "boot-1 net:[1]"
		inside  = "boot-2 net:[2]"
	)
	endpoint := func(container string, state vnet.State, boot string) vnet.Endpoint {
		at := vnet.Attachment{Container: container, IfName: "eth0"}
		return vnet.Endpoint{Attachment: at, ID: at.ID(), State: state, Boot: boot}
	}
	lives, pending, leaving := endpoint("lives", vnet.Ready, now), endpoint("pending", vnet.Pending, now), endpoint("leaving", vnet.Leaving, now)
	gone, rebooted, elsewhere := endpoint("gone", vnet.Ready, now), endpoint("rebooted", vnet.Ready, earlier), endpoint("elsewhere", vnet.Ready, inside)
	busy, deaf := endpoint("busy", vnet.Pending, now), endpoint("deaf", vnet.Ready, now)
	s := sight{
		here:      now,
		endpoints: []vnet.Endpoint{lives, pending, leaving, gone, rebooted, elsewhere, busy, deaf},
		busy:      map[vnet.EndpointID]bool{busy.ID: true},
		rows: map[string]ovs.Port{
			lives.ID.Port(): {OFPort: 5}, elsewhere.ID.Port(): {OFPort: 6}, deaf.ID.Port(): {OFPort: -1}, "tstranded": {OFPort: 7},
		},
		links: map[string]bool{lives.ID.Port(): true, deaf.ID.Port(): true, "tleft": true},
	}
	got := s.drift()
	want := Drift{
		Endpoints: []Orphan{
			{pending.ID, "its ADD was cut short", pending},
			{leaving.ID, "its DEL was cut short", leaving},
			{gone.ID, "its link is gone", gone},
			{rebooted.ID, "it is of an earlier boot", rebooted},
		},
		Ports: []string{"tstranded"}, Links: []string{"tleft"}, Unplugged: []vnet.EndpointID{deaf.ID},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(Orphan{}), cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
