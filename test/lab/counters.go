package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
)

// Drops are the bridge's counters of dropped packets by the name of what was wrong.
type Drops map[string]uint64

// Drops reads the counters, up to the last packet.
func (h *Host) Drops() Drops {
	h.tb.Helper()
	// Hits of the datapath reach the flows when a revalidator has looked at them: let it be now.
	h.Sh("ovs-appctl", "revalidator/purge")
	drops := Drops{}
	for _, f := range h.Flows() {
		if k := pipeline.KindOf(f.Cookie); k.Drops() {
			drops[k.String()] += f.Packets
		}
	}
	return drops
}

// Flows returns what stands on the bridge.
func (h *Host) Flows() []openflow.FlowStats {
	h.tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(h.tb.Context()), Patience())
	defer cancel()
	c, err := openflow.Dial(ctx, h.Mgmt(Bridge))
	Must(h.tb, err)
	defer c.Close()
	flows, err := c.Flows(ctx, openflow.FlowFilter{})
	Must(h.tb, err)
	return flows
}

// What kernels send by themselves, containers' and the host's, and the bridge drops.
var noise = map[string]bool{"router-solicitation": true, "multicast-listener": true, "self-probe": true, "host-multicast": true}

// Counts waits until what is dropped under a name since before has grown to n, and fails the test if it grows beyond,
// or if anything else was dropped meanwhile, but for what the test says that others send.
func (h *Host) Counts(tb testing.TB, before Drops, name string, n uint64, others ...string) {
	tb.Helper()
	if _, known := before[name]; !known {
		tb.Fatalf("no flow drops under the name %s", name)
	}
	var now Drops
	if !Within(Patience(), func() bool { now = h.Drops(); return now[name] >= before[name]+n }) {
		tb.Errorf("%s counts %d more drops, want %d; all: %s", name, now[name]-before[name], n, now.since(before))
		return
	}
	for k := range now {
		want := before[k]
		if k == name {
			want += n
		} else if noise[k] || slices.Contains(others, k) {
			continue
		}
		if now[k] != want {
			tb.Errorf("%s counts %d more drops, want %d", k, now[k]-before[k], want-before[k])
		}
	}
}

func (d Drops) since(before Drops) string {
	var more []string
	for k, v := range d {
		if v != before[k] {
			more = append(more, fmt.Sprintf("%s +%d", k, v-before[k]))
		}
	}
	return strings.Join(more, ", ")
}
