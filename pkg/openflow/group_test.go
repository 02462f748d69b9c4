package openflow_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

// everyGroup has each type of group, and buckets with everything that a bucket can have. Groups 1 and 0xffffff00 are
// those that everyFlow names.
func everyGroup() []openflow.GroupConfig {
	type actions = []openflow.Action
	set, tagged := openflow.SetField(openflow.Reg7.Bits(3, 8, 24)), openflow.SetField(openflow.VLANTCI.Is(0x1064))
	return []openflow.GroupConfig{
		{ID: 0},
		{ID: 1, Type: openflow.GroupSelect, Buckets: []openflow.Bucket{
			{Weight: 100, Actions: actions{set, openflow.SetField(openflow.Reg0.Is(0)), openflow.Resubmit(80)}},
			{Weight: 1, Actions: actions{openflow.Output(1)}},
			{Weight: 0, Actions: actions{openflow.Group(77)}},
			{Weight: 65535, WatchPort: 1, Actions: actions{openflow.MoveBits(openflow.Reg7, 8, openflow.Reg6, 0, 24)}},
			{Weight: 2, WatchPort: 7, WatchGroup: 2},
		}},
		{ID: 2, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{
			{WatchPort: 1, Actions: actions{openflow.Output(1)}},
			{WatchGroup: 1, Actions: actions{openflow.SetField(openflow.EthDst.Is(1)), openflow.Group(1)}},
			{WatchPort: 2, WatchGroup: 0xffffff00, Actions: actions{openflow.InPortAction()}},
		}},
		{ID: 3, Buckets: []openflow.Bucket{
			{Actions: actions{openflow.PopVLAN(), openflow.PushVLAN(), openflow.DecTTL(), tagged, openflow.Output(openflow.PortLocal)}},
			{Actions: actions{openflow.CT{Commit: true, Zone: 3, Table: 4, Exec: actions{
				openflow.SetField(openflow.CTLabel.Bits(1, 64, 24)), openflow.Move(openflow.Reg7, openflow.CTMark),
			}}}},
			{},
		}},
		{ID: 4, Type: openflow.GroupSelect},
		{ID: 0xffffff00, Type: openflow.GroupFastFailover},
	}
}

func putAll(groups []openflow.GroupConfig) []openflow.Change {
	var changes []openflow.Change
	for _, g := range groups {
		changes = append(changes, openflow.PutGroup(g))
	}
	return changes
}

func (b bridge) groups(t testing.TB) []openflow.GroupConfig {
	t.Helper()
	groups, err := b.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(groups, func(a, b openflow.GroupConfig) int { return int(a.ID) - int(b.ID) })
	return groups
}

// dumpGroups is what ovs-ofctl says of the groups, sorted.
func (b bridge) dumpGroups(t testing.TB) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(b.ofctl(t, "--no-names", "dump-groups", "br0")) {
		if strings.HasPrefix(line, " group_id=") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	slices.Sort(lines)
	return lines
}

func groupTexts(groups []openflow.GroupConfig) []string {
	var lines []string
	for _, g := range groups {
		lines = append(lines, g.String())
	}
	slices.Sort(lines)
	return lines
}

func TestEveryGroupArrivesAsOfctlPrintsIt(t *testing.T) {
	b := newBridge(t)
	groups := everyGroup()
	b.commit(t, putAll(groups)...)
	if diff := cmp.Diff(groupTexts(groups), b.dumpGroups(t)); diff != "" {
		t.Errorf("sent (-) and what ovs-ofctl dumps (+):\n%s", diff)
	}
	if diff := cmp.Diff(groupTexts(groups), groupTexts(b.groups(t))); diff != "" {
		t.Errorf("sent (-) and read back (+):\n%s", diff)
	}
	sameBodies(t, groups, b.groups(t))
	b.commit(t, putAll(groups)...)
	sameBodies(t, groups, b.groups(t))
}

func sameBodies(t *testing.T, want, got []openflow.GroupConfig) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%d groups instead of %d", len(got), len(want))
	}
	for i := range want {
		if want[i].ID != got[i].ID || want[i].Body() != got[i].Body() {
			t.Errorf("%s differs from %s", want[i], got[i])
		}
	}
}

func TestOfctlTakesEveryGroupsStringAndItArrives(t *testing.T) {
	b := newBridge(t)
	groups := everyGroup()
	for _, g := range groups {
		b.ofctl(t, "add-group", "br0", g.String())
	}
	sameBodies(t, groups, b.groups(t))
}

func TestGroupsThatDifferHaveDifferentBodies(t *testing.T) {
	seen := map[string]string{}
	for _, g := range []openflow.GroupConfig{
		{},
		{Type: openflow.GroupSelect},
		{Type: openflow.GroupFastFailover},
		{Buckets: []openflow.Bucket{{}}},
		{Buckets: []openflow.Bucket{{}, {}}},
		{Buckets: []openflow.Bucket{{WatchPort: 1}}},
		{Buckets: []openflow.Bucket{{WatchGroup: 1}}},
		{Buckets: []openflow.Bucket{{Actions: []openflow.Action{openflow.Output(1)}}}},
		{Buckets: []openflow.Bucket{{Actions: []openflow.Action{openflow.GotoTable(1)}}}},
		{Type: openflow.GroupSelect, Buckets: []openflow.Bucket{{}}},
		{Type: openflow.GroupSelect, Buckets: []openflow.Bucket{{Weight: 1}}},
		{Unknown: []byte{0}},
	} {
		if other, ok := seen[g.Body()]; ok {
			t.Errorf("%s is as good as %s", g, other)
		}
		seen[g.Body()] = g.String()
		h := g
		h.ID = 7
		if g.Unknown == nil && len(g.Buckets) == 0 && h.Body() != g.Body() {
			t.Errorf("the number counts in %s", g)
		}
	}
}

func TestAGroupIsReplacedAndItsFlowsStay(t *testing.T) {
	b := newBridge(t)
	flow := openflow.Flow{Table: 1, Cookie: 5, Actions: []openflow.Action{openflow.Group(7), openflow.Output(1)}}
	put := func(g openflow.GroupConfig) {
		t.Helper()
		b.commit(t, openflow.PutGroup(g))
		sameBodies(t, []openflow.GroupConfig{g}, b.groups(t))
	}
	put(openflow.GroupConfig{ID: 7})
	b.commit(t, openflow.AddFlow(flow))
	for _, g := range everyGroup() {
		g.ID = 7
		put(g)
	}
	put(openflow.GroupConfig{ID: 7, Buckets: []openflow.Bucket{{}}})
	if diff := cmp.Diff(texts([]openflow.Flow{flow}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("before (-) and after (+):\n%s", diff)
	}
}

func TestAFlowNeedsItsGroupAndGoesWithIt(t *testing.T) {
	b := newBridge(t)
	group := openflow.GroupConfig{ID: 7, Type: openflow.GroupSelect}
	other := openflow.GroupConfig{ID: 8, Buckets: []openflow.Bucket{{Actions: []openflow.Action{openflow.Group(7)}}}}
	grouped := openflow.Flow{Table: 1, Actions: []openflow.Action{openflow.Output(1), openflow.Group(8), openflow.Group(7)}}
	free := openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.Group(8)}}

	err := b.Commit(t.Context(), []openflow.Change{openflow.PutGroup(other), openflow.AddFlow(free), openflow.AddFlow(grouped)})
	want := "add flow table=1, priority=0 actions=output:1,group:8,group:7: openflow error OFPBAC_BAD_OUT_GROUP (type 2, code 9)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, ok := errors.AsType[*openflow.Error](err); !ok {
		t.Errorf("%T is no *openflow.Error", err)
	}
	if got := append(b.flows(t, openflow.FlowFilter{}), b.dumpGroups(t)...); got != nil {
		t.Errorf("left of what was refused: %q", got)
	}
	err = b.Commit(t.Context(), []openflow.Change{openflow.PutGroup(other), openflow.AddFlow(grouped), openflow.PutGroup(group)})
	if err == nil || err.Error() != want {
		t.Errorf("the group behind the flow: got %v", err)
	}

	b.commit(t, openflow.PutGroup(other), openflow.AddFlow(free), openflow.PutGroup(group), openflow.AddFlow(grouped))
	if diff := cmp.Diff(texts([]openflow.Flow{free, grouped}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("wanted (-) and there (+):\n%s", diff)
	}
	b.commit(t, openflow.DeleteGroup(7), openflow.DeleteGroup(7), openflow.DeleteGroup(99))
	if diff := cmp.Diff(texts([]openflow.Flow{free}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("wanted (-) and left without the group (+):\n%s", diff)
	}
	sameBodies(t, []openflow.GroupConfig{other}, b.groups(t))

	// What a flow is replaced by, before or after the deletion, does not go.
	b.commit(t, openflow.PutGroup(group), openflow.AddFlow(grouped))
	bare := openflow.Flow{Table: 1, Cookie: 1}
	b.commit(t, openflow.AddFlow(bare), openflow.DeleteGroup(7))
	if diff := cmp.Diff(texts([]openflow.Flow{bare, free}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("wanted (-) and left (+):\n%s", diff)
	}
	b.commit(t, openflow.PutGroup(group), openflow.AddFlow(grouped))
	b.commit(t, openflow.DeleteGroup(7), openflow.PutGroup(group), openflow.AddFlow(grouped), openflow.DeleteGroup(8), openflow.AddFlow(bare))
	if diff := cmp.Diff(texts([]openflow.Flow{bare}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("wanted (-) and left (+):\n%s", diff)
	}
	sameBodies(t, []openflow.GroupConfig{group}, b.groups(t))
}

func TestARefusedChangeLeavesGroupsAndFlowsAsTheyWere(t *testing.T) {
	for name, test := range map[string]struct {
		bad  openflow.Change
		want string
	}{
		"a flow": {
			openflow.AddFlow(openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.Group(99)}}),
			"add flow table=2, priority=0 actions=group:99: openflow error OFPBAC_BAD_OUT_GROUP (type 2, code 9)",
		},
		"a failover without a watch": {
			openflow.PutGroup(openflow.GroupConfig{ID: 9, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{{}}}),
			"put group group_id=9,type=ff,bucket=bucket_id:0,actions=drop: openflow error OFPGMFC_INVALID_GROUP (type 6, code 1)",
		},
		"a watch of a bucket that is always taken": {
			openflow.PutGroup(openflow.GroupConfig{ID: 9, Buckets: []openflow.Bucket{{WatchPort: 1}}}),
			"put group group_id=9,type=all,bucket=bucket_id:0,watch_port:1,actions=drop: openflow error OFPGMFC_WATCH_UNSUPPORTED (type 6, code 6)",
		},
		"a field that cannot be set": {
			openflow.PutGroup(openflow.GroupConfig{ID: 9, Buckets: []openflow.Bucket{
				{Actions: []openflow.Action{openflow.SetField(openflow.CTMark.Is(1))}},
			}}),
			"put group group_id=9,type=all,bucket=bucket_id:0,actions=set_field:0x1->ct_mark: openflow error OFPBAC_BAD_SET_ARGUMENT (type 2, code 15)",
		},
		"a port that cannot be": {
			openflow.PutGroup(openflow.GroupConfig{ID: 9, Buckets: []openflow.Bucket{{Actions: []openflow.Action{openflow.Output(0xfffffff0)}}}}),
			"put group group_id=9,type=all,bucket=bucket_id:0,actions=output:4294967280: openflow error OFPBAC_BAD_OUT_PORT (type 2, code 4)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBridge(t)
			groups := []openflow.GroupConfig{{ID: 1, Type: openflow.GroupSelect}, {ID: 2}}
			flow := openflow.Flow{Table: 5, Cookie: 1, Actions: []openflow.Action{openflow.Group(1)}}
			b.commit(t, append(putAll(groups), openflow.AddFlow(flow))...)
			err := b.Commit(t.Context(), []openflow.Change{
				openflow.PutGroup(openflow.GroupConfig{ID: 3}), openflow.PutGroup(openflow.GroupConfig{ID: 2, Type: openflow.GroupSelect}),
				openflow.DeleteGroup(1), test.bad, openflow.PutGroup(openflow.GroupConfig{ID: 4}),
			})
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if _, ok := errors.AsType[*openflow.Error](err); !ok {
				t.Errorf("%T is no *openflow.Error", err)
			}
			sameBodies(t, groups, b.groups(t))
			if diff := cmp.Diff(texts([]openflow.Flow{flow}), b.flows(t, openflow.FlowFilter{})); diff != "" {
				t.Errorf("before (-) and after (+):\n%s", diff)
			}
			b.commit(t, openflow.DeleteGroup(2)) // the connection is as good as before
		})
	}
}

// foreignGroups have parts that this package does not know.
var foreignGroups = []string{
	"type=select,bucket=actions=output:1",
	"type=select,selection_method=hash,fields(ip_src),bucket=actions=output:1",
	"type=select,selection_method=dp_hash,selection_method_param=1,bucket=actions=output:1",
	"type=indirect,bucket=actions=output:1",
	"type=all,bucket=bucket_id:5,actions=output:1",
	"type=all,bucket=actions=output:1,output:2",
	"type=all,bucket=actions=output:1,set_field:1->reg0",
	"type=all,bucket=actions=note:01",
	"type=all,bucket=actions=set_field:1->reg8",
}

func TestForeignGroupsAreSeenAndCanBeReplacedAndDeleted(t *testing.T) {
	b := newBridge(t)
	for i, foreign := range foreignGroups {
		b.ofctl(t, "add-group", "br0", "group_id=7,"+foreign)
		got := b.groups(t)
		if len(got) != 1 || got[0].ID != 7 || got[0].Unknown == nil || !strings.HasPrefix(got[0].String(), "group_id=7,unknown(") {
			t.Fatalf("%s looks like ours: %v", foreign, got)
		}
		if err := b.Commit(t.Context(), putAll(got)); err == nil || !strings.Contains(err.Error(), "a foreign group cannot be sent") {
			t.Errorf("put a foreign group: %v", err)
		}
		if i%2 == 0 {
			ours := []openflow.GroupConfig{{ID: 7}}
			b.commit(t, putAll(ours)...)
			sameBodies(t, ours, b.groups(t))
		}
		b.commit(t, openflow.DeleteGroup(7))
		if left := b.dumpGroups(t); left != nil {
			t.Errorf("left: %q", left)
		}
	}
}

func TestWhatIsNoGroupIsRefusedBeforeItIsSent(t *testing.T) {
	b := newBridge(t)
	bucket := func(typ openflow.GroupType, bu openflow.Bucket) openflow.Change {
		return openflow.PutGroup(openflow.GroupConfig{ID: 5, Type: typ, Buckets: []openflow.Bucket{{}, bu}})
	}
	does := func(actions ...openflow.Action) openflow.Change {
		return bucket(openflow.GroupAll, openflow.Bucket{Actions: actions})
	}
	many := make([]openflow.Bucket, 9000)
	long := make([]openflow.Action, 9000)
	for i := range long {
		long[i] = openflow.SetField(openflow.Reg0.Is(1))
	}
	set := openflow.SetField(openflow.Reg0.Is(1))
	for want, changes := range map[string][]openflow.Change{
		"a group has a number up to 0xffffff00": {openflow.DeleteGroup(0xffffff01), openflow.DeleteGroup(0xfffffffc), openflow.DeleteGroup(0xffffffff), openflow.PutGroup(openflow.GroupConfig{ID: 0xfffffffc})},
		"no such type of group":                 {openflow.PutGroup(openflow.GroupConfig{Type: 2}), openflow.PutGroup(openflow.GroupConfig{Type: 4})},
		"type all has no weight":                {bucket(openflow.GroupAll, openflow.Bucket{Weight: 1})},
		"type ff has no weight":                 {bucket(openflow.GroupFastFailover, openflow.Bucket{Weight: 1, WatchPort: 1})},
		"bucket 1: goto_table:3 is not for":     {does(openflow.GotoTable(3))},
		"is not for buckets":                    {does(openflow.Note(nil)), does(openflow.Meter(1)), does(openflow.OutputReg(openflow.Reg0)), does(openflow.Unknown{})},
		"comes too late":                        {does(openflow.Output(1), openflow.Output(1)), does(openflow.Resubmit(1), set), does(set, openflow.DecTTL()), does(openflow.DecTTL(), openflow.DecTTL()), does(openflow.Output(1), openflow.Group(1)), does(openflow.PushVLAN(), openflow.PopVLAN())},
		"reg0: 0x0000000100000000 does not fit": {does(openflow.SetField(openflow.Reg0.Is(1 << 32)))},
		"longer than OpenFlow allows":           {openflow.PutGroup(openflow.GroupConfig{Buckets: many}), does(long...)},
	} {
		for _, ch := range changes {
			err := b.Commit(t.Context(), []openflow.Change{openflow.PutGroup(openflow.GroupConfig{ID: 1}), ch})
			if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), ch.String()+": ") {
				t.Errorf("got %.300v, want …%s…", err, want)
			}
		}
	}
	if got := b.dumpGroups(t); got != nil {
		t.Errorf("on the switch: %q", got)
	}
}

// TestABucketDoesItsActionsAndTheNextActionKnowsNothingOfThem asks the switch where packets go.
func TestABucketDoesItsActionsAndTheNextActionKnowsNothingOfThem(t *testing.T) {
	b := newBridge(t)
	out := func(port uint32) []openflow.Action { return []openflow.Action{openflow.Output(port)} }
	b.commit(t,
		openflow.PutGroup(openflow.GroupConfig{ID: 1, Buckets: []openflow.Bucket{
			{Actions: []openflow.Action{openflow.SetField(openflow.Reg0.Is(5)), openflow.Move(openflow.Reg0, openflow.Reg1), openflow.SetField(openflow.Reg0.Is(6)), openflow.Resubmit(10)}},
			{Actions: []openflow.Action{openflow.Group(99)}},
			{Actions: []openflow.Action{openflow.Group(2)}},
		}}),
		openflow.PutGroup(openflow.GroupConfig{ID: 2, Buckets: []openflow.Bucket{{Actions: out(2)}}}),
		openflow.AddFlow(openflow.Flow{Actions: []openflow.Action{openflow.Group(1), openflow.Resubmit(20)}}),
		openflow.AddFlow(openflow.Flow{Table: 10, Match: openflow.Match{openflow.Reg0.Is(6), openflow.Reg1.Is(5)}, Actions: out(1)}),
		openflow.AddFlow(openflow.Flow{Table: 20, Match: openflow.Match{openflow.Reg0.Is(0)}, Actions: out(3)}),
	)
	trace := b.Run(t, "ovs-appctl", "ofproto/trace", "br0", "in_port=LOCAL,tcp")
	for _, want := range []string{
		"10. reg0=0x6,reg1=0x5, priority 0\n", "output to nonexistent group 99\n", "group:2\n", "20. reg0=0, priority 0\n",
	} {
		if !strings.Contains(trace, want) {
			t.Errorf("no %q in %s", want, trace)
		}
	}
}

func TestFailoverTakesTheFirstBucketThatLives(t *testing.T) {
	b := newBridge(t)
	mark := func(n uint64) []openflow.Action {
		return []openflow.Action{openflow.SetField(openflow.Reg0.Is(n)), openflow.Resubmit(10)}
	}
	const missing = 7
	b.commit(t,
		openflow.PutGroup(openflow.GroupConfig{ID: 1, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{
			{WatchPort: missing, Actions: mark(1)},
			{WatchGroup: 2, Actions: mark(2)},
			{WatchPort: 1, WatchGroup: 2, Actions: mark(3)},
			{WatchGroup: 3, Actions: mark(4)},
		}}),
		openflow.PutGroup(openflow.GroupConfig{ID: 2, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{{WatchPort: missing}}}),
		openflow.PutGroup(openflow.GroupConfig{ID: 3, Buckets: []openflow.Bucket{{}}}),
		openflow.AddFlow(openflow.Flow{Actions: []openflow.Action{openflow.Group(1)}}),
	)
	for state, want := range map[string]string{"up": "using bucket 2\n", "down": "using bucket 3\n"} {
		b.Run(t, "ovs-appctl", "netdev-dummy/set-admin-state", "p1", state)
		ovstest.Wait(t, "the switch to see that p1 is "+state, func() bool {
			return strings.Contains(b.Run(t, "ovs-appctl", "ofproto/trace", "br0", "in_port=LOCAL,tcp"), want)
		})
	}
}

// TestConnectionsAreSharedOutByWeight asks the switch for the bucket of many connections.
func TestConnectionsAreSharedOutByWeight(t *testing.T) {
	b := newBridge(t)
	b.Run(t, "ovs-vsctl", "add-port", "br0", "p2", "--", "set", "interface", "p2", "ofport_request=2")
	b.commit(t,
		openflow.PutGroup(openflow.GroupConfig{ID: 1, Type: openflow.GroupSelect, Buckets: []openflow.Bucket{
			{Weight: 3, Actions: []openflow.Action{openflow.SetField(openflow.Reg0.Is(1)), openflow.Resubmit(10)}},
			{Weight: 1, Actions: []openflow.Action{openflow.SetField(openflow.Reg0.Is(2)), openflow.Resubmit(10)}},
			{Weight: 0, Actions: []openflow.Action{openflow.SetField(openflow.Reg0.Is(3)), openflow.Resubmit(10)}},
		}}),
		openflow.AddFlow(openflow.Flow{Actions: []openflow.Action{openflow.Group(1)}}),
		openflow.AddFlow(openflow.Flow{Table: 10, Match: openflow.Match{openflow.Reg0.Is(1)}}),
		openflow.AddFlow(openflow.Flow{Table: 10, Match: openflow.Match{openflow.Reg0.Is(2)}}),
		openflow.AddFlow(openflow.Flow{Table: 10, Match: openflow.Match{openflow.Reg0.Is(3)}}),
	)
	for port := range 64 {
		b.Run(t, "ovs-appctl", "netdev-dummy/receive", "p1", fmt.Sprintf("in_port(1),eth(src=0a:00:00:00:00:01,dst=0a:00:00:00:00:02),"+
			"eth_type(0x0800),ipv4(src=10.0.0.1,dst=10.0.0.2,proto=17,tos=0,ttl=64,frag=no),udp(src=%d,dst=53)", 1000+port))
	}
	var got [3]uint64
	ovstest.Wait(t, "the packets to be counted", func() bool {
		table := uint8(10)
		stats, err := b.Flows(t.Context(), openflow.FlowFilter{Table: &table})
		if err != nil {
			t.Fatal(err)
		}
		got = [3]uint64{}
		for _, f := range stats {
			got[f.Match[0].Value[3]-1] = f.Packets
		}
		return got[0]+got[1]+got[2] == 64
	})
	if got[0] <= got[1] || got[1] == 0 || got[2] != 0 {
		t.Errorf("shared out %d", got)
	}
}

// TestWhateverIsInARefusedBundleTheSwitchUndoesIt refuses random bundles at their end, when all before is done.
func TestWhateverIsInARefusedBundleTheSwitchUndoesIt(t *testing.T) {
	b := newBridge(t)
	random := rand.New(rand.NewPCG(1, 2))
	id := func() uint32 { return random.Uint32N(4) }
	bad := openflow.AddFlow(openflow.Flow{Actions: []openflow.Action{openflow.Group(99)}})
	for range 100 {
		groups := everyGroup()
		var changes []openflow.Change
		for range random.IntN(8) {
			g := groups[random.IntN(len(groups))]
			g.ID = id()
			flow := openflow.Flow{Table: uint8(id())}
			for range id() {
				flow.Actions = append(flow.Actions, openflow.Group(id()))
			}
			changes = append(changes, []openflow.Change{
				openflow.PutGroup(g), openflow.AddFlow(flow), openflow.DeleteGroup(g.ID), openflow.DeleteFlow(flow),
				openflow.DeleteCookie(0, 0), openflow.PutGroup(g),
			}[random.IntN(6)])
		}
		groupsBefore, flowsBefore := b.groups(t), b.flows(t, openflow.FlowFilter{})
		err := b.Commit(t.Context(), append(changes, bad))
		if _, ok := errors.AsType[*openflow.Error](err); !ok {
			t.Fatalf("%v: %v", changes, err)
		}
		sameBodies(t, groupsBefore, b.groups(t))
		if diff := cmp.Diff(flowsBefore, b.flows(t, openflow.FlowFilter{})); diff != "" {
			t.Fatalf("before (-) and after (+) %v:\n%s", changes, diff)
		}
		if err := b.Commit(t.Context(), changes); err != nil {
			if _, ok := errors.AsType[*openflow.Error](err); !ok {
				t.Fatalf("%v: %v", changes, err)
			}
		}
	}
}
