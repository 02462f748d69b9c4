package main

import "fmt"

// A target is what was to be reached, and whether it was.
type target struct {
	Name     string `json:"name"`
	Measured string `json:"measured"`
	Holds    bool   `json:"holds"`
	Verdict  string `json:"verdict"`
}

// What is to be reached. All are of medians but the peak, which is the most of all calls.
const (
	floorFactor  = 1.5
	floorExtra   = 8.0 // ms
	fasterUpTo   = 100 // ports
	growth       = 2.0 // ms that the plugin's own part may differ from the smallest size to the largest: what a run can tell
	peakMB       = 16.0
	syncOf       = 1000 // endpoints
	syncDuration = 1000.0
)

func (r *report) judge() {
	peak := 0.0
	for _, at := range r.Sizes {
		tenet := median(walls(at.Add[tenetName]))
		r.atMost(fmt.Sprintf("%d ports: ADD ≤ 1.5 × floor + 8 ms", at.Ports), tenet, floorFactor*median(walls(at.Add[floorName]))+floorExtra, "ms")
		if at.Ports <= fasterUpTo {
			r.atMost(fmt.Sprintf("%d ports: ADD faster than bridge + host-local", at.Ports), tenet, median(walls(at.Add[bridgeName])), "ms")
		}
		for _, samples := range [][]sample{at.Add[tenetName], at.Del[tenetName]} {
			peak = max(peak, quantile(peaks(samples), 1))
		}
		for _, b := range at.ParallelAdd[tenetName] {
			peak = max(peak, quantile(peaks(b.Samples), 1))
		}
	}
	if first, last := r.Sizes[0], r.Sizes[len(r.Sizes)-1]; first != last {
		r.atMost(fmt.Sprintf("own part (steps but plug) at %d ports as at %d, give or take 2 ms", last.Ports, first.Ports),
			median(last.besides()), median(first.besides())+growth, "ms")
	}
	r.atMost("peak memory of any call", peak, peakMB, "MB")
	name := fmt.Sprintf("sync of %d endpoints", r.Sync.Endpoints)
	if r.Sync.Endpoints < syncOf {
		name += fmt.Sprintf(" (too few: the target is for %d)", syncOf)
	}
	r.atMost(name, median(r.Sync.Sync), syncDuration, "ms")
}

func (r *report) atMost(name string, measured, limit float64, unit string) {
	goal := target{Name: name, Measured: fmt.Sprintf("%.1f of %.1f %s", measured, limit, unit), Holds: measured <= limit, Verdict: "holds"}
	if !goal.Holds {
		goal.Verdict = fmt.Sprintf("missed by %.1f %s", measured-limit, unit)
	}
	r.Targets = append(r.Targets, goal)
}
