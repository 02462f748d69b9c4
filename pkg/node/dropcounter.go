package node

import (
	"cmp"
	"maps"
	"slices"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
)

// Dropped is a Drop on all bridges together.
type Dropped struct {
	Drop // as the flows that stand count it

	// Total is what was dropped since tenetd looked first. Flows go with their endpoints, and begin anew with the switch; this
	// never falls.
	Total uint64 `json:"total"`
}

// dropCounter adds up the counters of flows that come and go.
type dropCounter struct {
	last  map[string]map[string]counted // by bridge and the flow's key: what was last read; nil: nothing yet
	total map[pipeline.Kind]uint64
}

type counted struct {
	kind    pipeline.Kind
	packets uint64
}

// read takes over all flows that drop, by bridge. What they have counted before the first reading is no part of the totals.
func (d *dropCounter) read(bridges map[string][]openflow.FlowStats) {
	first := d.last == nil
	if first {
		d.total = map[pipeline.Kind]uint64{}
	}
	now := make(map[string]map[string]counted, len(bridges))
	for bridge, flows := range bridges {
		now[bridge] = make(map[string]counted, len(flows))
		for _, f := range flows {
			key, c := f.Key(), counted{pipeline.KindOf(f.Cookie), f.Packets}
			if c.kind.Text() == "" { // of another version's pipeline
				continue
			}
			now[bridge][key] = c
			switch before := d.last[bridge][key]; {
			case first:
				d.total[c.kind] += 0 // it can be counted
			case before.kind == c.kind && before.packets <= c.packets:
				d.total[c.kind] += c.packets - before.packets
			default: // the flow is another one, or the switch was restarted
				d.total[c.kind] += c.packets
			}
		}
	}
	d.last = now
}

// list returns all reasons that there have been flows for, the largest first.
func (d *dropCounter) list() []Dropped {
	stand := map[pipeline.Kind]uint64{}
	for _, flows := range d.last {
		for _, c := range flows {
			stand[c.kind] += c.packets
		}
	}
	list := []Dropped{}
	for _, k := range slices.Sorted(maps.Keys(d.total)) {
		list = append(list, Dropped{Drop{k.String(), stand[k], k.Text()}, d.total[k]})
	}
	slices.SortStableFunc(list, func(a, b Dropped) int { return cmp.Compare(b.Packets, a.Packets) })
	return list
}
