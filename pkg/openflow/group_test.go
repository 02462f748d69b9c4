package openflow_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/openflow"
)

// everyGroup has each type, and each thing that a bucket can have; a group comes before those that name it.
func everyGroup() []openflow.GroupConfig {
	reg7 := openflow.SetField(openflow.Reg7.Is(0x101))
	return []openflow.GroupConfig{
		{ID: 0x2000000, Type: openflow.GroupAll, Buckets: []openflow.Bucket{{}}},
		{ID: 7, Type: openflow.GroupAll, Buckets: []openflow.Bucket{{ID: 1, Actions: []openflow.Action{openflow.Output(1)}}, {ID: 2, Actions: []openflow.Action{openflow.InPortAction()}}}},
		{ID: 8, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{
			{ID: 0, WatchPort: 1, Actions: []openflow.Action{openflow.Group(7)}},
			{ID: 1, WatchGroup: 0x2000000, Actions: []openflow.Action{reg7, openflow.Resubmit(32)}},
		}},
		{ID: 9, Type: openflow.GroupSelect, Buckets: []openflow.Bucket{
			{ID: 0, Weight: 1, WatchPort: 1, Actions: []openflow.Action{reg7, openflow.Resubmit(32)}},
			{ID: 1, Weight: 65535, Actions: []openflow.Action{openflow.SetField(openflow.Reg7.Is(0x201)), openflow.Resubmit(32)}},
			{ID: 2, Weight: 0, WatchPort: 1, WatchGroup: 7},
		}},
	}
}

func putAll(groups []openflow.GroupConfig) []openflow.Change {
	var changes []openflow.Change
	for _, g := range groups {
		changes = append(changes, openflow.PutGroup(g))
	}
	return changes
}

func (b bridge) groups(t testing.TB) map[uint32]string {
	t.Helper()
	groups, err := b.Groups(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[uint32]string{}
	for _, g := range groups {
		all[g.ID] = g.Body()
	}
	return all
}

func bodies(groups []openflow.GroupConfig) map[uint32]string {
	all := map[uint32]string{}
	for _, g := range groups {
		all[g.ID] = g.Body()
	}
	return all
}

func TestGroupsArriveAndAreReadBack(t *testing.T) {
	b := newBridge(t)
	b.commit(t, putAll(everyGroup())...)
	if diff := cmp.Diff(bodies(everyGroup()), b.groups(t)); diff != "" {
		t.Errorf("put (-) and read back (+):\n%s", diff)
	}
	var want []string
	for _, g := range everyGroup() {
		want = append(want, g.String())
	}
	var got []string
	for line := range strings.Lines(b.ofctl(t, "--no-names", "dump-groups", "br0")) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "group_id") {
			got = append(got, line)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("we say (-), ovs-ofctl says (+):\n%s", diff)
	}
	changed := openflow.GroupConfig{ID: 9, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{{WatchPort: 1, Actions: []openflow.Action{openflow.Output(1)}}}}
	b.commit(t, openflow.PutGroup(changed), openflow.DeleteGroup(8), openflow.DeleteGroup(77))
	if got := b.groups(t); len(got) != 3 || got[9] != changed.Body() {
		t.Errorf("after a change and a deletion: %v", got)
	}
}

// Groups and flows are one bundle: all of it or nothing, in their order.
func TestGroupsAndFlowsChangeTogether(t *testing.T) {
	b := newBridge(t)
	group := openflow.GroupConfig{ID: 5, Type: openflow.GroupAll, Buckets: []openflow.Bucket{{Actions: []openflow.Action{openflow.Output(1)}}}}
	flow := openflow.Flow{Table: 1, Actions: []openflow.Action{openflow.Group(5)}}
	missing := openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.Group(6)}}
	err := b.Commit(t.Context(), []openflow.Change{openflow.PutGroup(group), openflow.AddFlow(flow), openflow.AddFlow(missing)})
	if refused, ok := errors.AsType[*openflow.Error](err); !ok || !strings.Contains(err.Error(), missing.String()) {
		t.Errorf("a flow of a group that is missing: %v (%v)", err, refused)
	}
	if groups, flows := b.groups(t), b.flows(t, openflow.FlowFilter{}); len(groups) > 0 || len(flows) > 0 {
		t.Errorf("of the refused bundle stands %v %q", groups, flows)
	}
	b.commit(t, openflow.PutGroup(group), openflow.AddFlow(flow))
	if got := b.flows(t, openflow.FlowFilter{}); len(got) != 1 || got[0] != flow.String() {
		t.Errorf("flows %q", got)
	}
	bad := openflow.GroupConfig{ID: 6, Type: openflow.GroupFastFailover, Buckets: []openflow.Bucket{{}}}
	if err := b.Commit(t.Context(), []openflow.Change{openflow.PutGroup(bad)}); err == nil || !strings.Contains(err.Error(), bad.String()) {
		t.Errorf("a fast-failover bucket that watches nothing: %v", err)
	}
	b.commit(t, openflow.DeleteGroup(5))
	if flows := b.flows(t, openflow.FlowFilter{}); len(flows) > 0 {
		t.Errorf("a group leaves its flows behind: %q", flows)
	}
}

// What others made is seen, differs from ours, and can be deleted.
func TestForeignGroupsDifferFromOurs(t *testing.T) {
	b := newBridge(t)
	for _, text := range []string{
		"group_id=9,type=select,bucket=bucket_id:0,weight:1,actions=output:1",
		"group_id=10,type=select,selection_method=hash,fields(ip_src),bucket=bucket_id:0,weight:1,actions=output:1",
		"group_id=11,type=indirect,bucket=bucket_id:0,actions=set_queue:1",
	} {
		b.ofctl(t, "add-group", "br0", text)
	}
	groups, err := b.Groups(t.Context())
	if err != nil || len(groups) != 3 {
		t.Fatal(groups, err)
	}
	for _, g := range groups {
		ours := openflow.GroupConfig{ID: g.ID, Type: g.Type, Buckets: []openflow.Bucket{{Weight: 1, Actions: []openflow.Action{openflow.Output(1)}}}}
		if g.Body() == ours.Body() {
			t.Errorf("group %d looks like ours", g.ID)
		}
		b.commit(t, openflow.DeleteGroup(g.ID))
	}
	if left := b.groups(t); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
