package node

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
)

// A sum of drops only grows, whatever becomes of the flows that count them, and nothing is counted twice.
func TestDropsAreCountedOnce(t *testing.T) {
	flow := func(priority uint16, k pipeline.Kind, packets uint64) openflow.FlowStats {
		return openflow.FlowStats{Flow: openflow.Flow{Priority: priority, Cookie: uint64(k) << 48}, Packets: packets}
	}
	var d dropCounter
	for _, step := range []struct {
		what         string
		flows        []openflow.FlowStats
		stand, total uint64
	}{
		{"what was before is no part of it", []openflow.FlowStats{flow(1, pipeline.SpoofedMAC, 5)}, 5, 0},
		{"what comes is", []openflow.FlowStats{flow(1, pipeline.SpoofedMAC, 7)}, 7, 2},
		{"also at another flow", []openflow.FlowStats{flow(1, pipeline.SpoofedMAC, 7), flow(2, pipeline.SpoofedMAC, 3)}, 10, 5},
		{"a flow goes", []openflow.FlowStats{flow(2, pipeline.SpoofedMAC, 4)}, 4, 6},
		{"the switch begins anew", []openflow.FlowStats{flow(2, pipeline.SpoofedMAC, 1)}, 1, 7},
		{"its flow counts for another reason", []openflow.FlowStats{flow(2, pipeline.SpoofedIPv4, 9)}, 0, 7},
		{"another version's flows have no name", []openflow.FlowStats{flow(2, 0xff, 1)}, 0, 7},
		{"the bridge goes", nil, 0, 7},
	} {
		d.read(map[string][]openflow.FlowStats{"br": step.flows})
		found := false
		for _, got := range d.list() {
			if got.Reason == "spoofed-mac" {
				found = true
				if got.Packets != step.stand || got.Total != step.total {
					t.Errorf("%s: %d packets and %d in all, want %d and %d", step.what, got.Packets, got.Total, step.stand, step.total)
				}
			}
		}
		if !found {
			t.Errorf("%s: it is not counted", step.what)
		}
	}
}

func TestTallyOfWork(t *testing.T) {
	tally := NewTally()
	tally.synced(time.Now().Add(-200*time.Millisecond), nil)
	tally.synced(time.Now(), errors.New("it failed"))
	tally.found(Drift{MissingFlows: 3, Links: []string{"a"}})
	tally.found(Drift{MissingFlows: 1})
	tally.sent(nil)
	tally.sent(errors.New("refused"))
	tally.sent(context.Canceled)
	tally.restored()
	w := tally.Work()
	if w.Syncs.Count != 1 || w.Syncs.Last < 0.2 || w.Syncs.Seconds != w.Syncs.Last {
		t.Errorf("%+v, want the one sync that worked", w.Syncs)
	}
	for i, b := range w.Syncs.Within {
		if in := w.Syncs.Last <= b.Seconds; in != (b.Count == 1) || i > 0 && b.Seconds <= w.Syncs.Within[i-1].Seconds {
			t.Errorf("%+v, of one that took %g", w.Syncs.Within, w.Syncs.Last)
		}
	}
	if w.Drift["missing-flows"] != 4 || w.Drift["links"] != 1 || w.Differences() != 5 {
		t.Errorf("drift %v", w.Drift)
	}
	if w.BundleErrors != 1 || w.Restores != 1 {
		t.Errorf("%d bundle errors and %d restores, want one of each", w.BundleErrors, w.Restores)
	}
	var nobodys *Tally
	nobodys.found(Drift{MissingFlows: 1}) // who counts nothing does not fail
	if w := nobodys.Work(); w.Differences() != 0 {
		t.Errorf("%+v", w)
	}
}
