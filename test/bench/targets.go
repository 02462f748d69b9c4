package main

import (
	"fmt"
	"strconv"
)

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
	ofNormal     = 0.95 // of the throughput, the median of the rounds' ratios
	ofHand       = 0.9  // of the same functions chained by hand
	ofPlain      = 0.95 // of what a tenant without chains has
	scaleOf      = 1000 // chains
	scaleIn      = 2000.0

	// Of two nodes of a cluster.

	answeredIn = 50.0 // ms after an ADD, 99 of 100: as soon as a change anywhere is to be on the switch
	ofAlone    = 1.25 // an ADD, of one on a node of its own

	// Of a node of the largest cluster.

	startIn      = 10_000.0 // ms
	memoryMB     = 200.0
	changeIn     = 50.0 // ms, 99 of 100
	ofSmallest   = 1.1  // an ADD, of one in the smallest cluster: what a run can tell
	workSmallest = 0.5  // requests to etcd for an ADD and its DEL that there may be more
)

func (r *report) judge() {
	if len(r.Sizes) > 0 {
		r.judgeAdd()
	}
	if r.lane(normalLane) != nil {
		r.judgeTraffic()
	}
	if len(r.ChainScale) > 0 {
		r.judgeChains()
	}
	if r.Cluster != nil {
		r.judgeCluster(r.Cluster)
	}
	if len(r.Scale) > 0 {
		r.judgeScale()
	}
	for _, t := range r.Traffic {
		if t.Against != "" {
			name := fmt.Sprintf("%s: datapath flows of %d connections as of %d", t.Lane, t.Many.Connections, t.Few.Connections)
			r.noMore(name, t.Many.Flows, t.Few.Flows+hashed(t.Lane))
		}
	}
}

// hashed is how many flows more there may be with more connections: those for slots of a group's hash that the first few
// did not fall into.
func hashed(lane string) int {
	if lane == sharedLane {
		return 64
	}
	return 0
}

func (r *report) judgeChains() {
	for _, hops := range chainHops {
		led, hand := r.lane(chainLane(hops)), r.lane(handLane(hops))
		r.atLeast(fmt.Sprintf("one stream through %d hops, of that by hand", hops), median(ratios(led.Throughput, hand.Throughput)), ofHand)
		r.atLeast(fmt.Sprintf("round trips through %d hops, of those by hand", hops), median(ratios(hand.RoundTrip, led.RoundTrip)), ofHand)
	}
	r.atLeast("one stream beside a chain, of that without", median(ratios(r.lane(besideLane).Throughput, r.lane(tenetLane).Throughput)), ofPlain)
	r.noMore("connections tracked beside a chain", r.lane(besideLane).Many.Tracked, 0)
	for _, s := range r.ChainScale {
		if s.Chains == scaleOf {
			r.atMost(fmt.Sprintf("%d chains of 4 hops rendered and installed", s.Chains), s.Install, scaleIn, "ms")
		}
	}
}

func (r *report) judgeCluster(c *clustered) {
	r.atMost("a new container is reached from another node, p99", quantile(c.Reached, 0.99), answeredIn, "ms")
	r.atMost("it reaches one there, p99", quantile(c.Reaches, 0.99), answeredIn, "ms")
	r.asMuch("ADD on a node of a cluster, of that alone", median(ratios(walls(c.WithEtcd.Member), walls(c.WithEtcd.Alone))), ofAlone)
	r.asMuch("the same without etcd", median(ratios(walls(c.Without.Member), walls(c.Without.Alone))), ofAlone)
}

func (r *report) judgeScale() {
	least, most := r.Scale[0], r.Scale[len(r.Scale)-1]
	in := fmt.Sprintf("%d nodes: ", most.Nodes)
	r.atMost(in+"tenetd starts with nothing", most.Empty.took(), startIn, "ms")
	r.atMost(in+"tenetd starts with what it had", median(each(most.Starts, begun.took)), startIn, "ms")
	r.atMost(in+"tenetd starts on a switch without its flows", median(each(most.Forgot, begun.took)), startIn, "ms")
	r.atMost(in+"its memory at its most", most.mostMB(), memoryMB, "MB")
	r.atMost(in+fmt.Sprintf("change to flow at %d changes/s, p99", changesPerSecond), quantile(most.Changes.Took, 0.99), changeIn, "ms")
	r.noMore(in+"changes that the switch was never seen to have", most.Changes.Unseen, 0)
	if least == most {
		return
	}
	than := fmt.Sprintf(", of that at %d", least.Nodes)
	for _, of := range []struct {
		name   string
		values func(*scaled) []float64
	}{
		{"ADD", func(s *scaled) []float64 { return walls(s.Add) }},
		{"CPU of an ADD", func(s *scaled) []float64 { return cpus(s.Add) }},
	} {
		r.asMuch(in+of.name+than, median(ratios(of.values(most), of.values(least))), ofSmallest)
	}
	r.asMuch(in+fmt.Sprintf("requests to etcd for an ADD and its DEL, as at %d and %.1f", least.Nodes, workSmallest),
		most.Work.Requests, least.Work.Requests+workSmallest)
}

func (r *report) judgeAdd() {
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

// judgeTraffic: conntrack is for who asked for something that needs it, which a network without a way out has not.
func (r *report) judgeTraffic() {
	inside, normal := r.lane(tenetLane), r.lane(normalLane)
	r.atLeast("one stream through tenet, of NORMAL's", median(ratios(inside.Throughput, normal.Throughput)), ofNormal)
	r.noMore("connections tracked in a network without a way out", inside.Many.Tracked, 0)
}

func (r *report) noMore(name string, counted, limit int) {
	r.target(name, fmt.Sprintf("%d of %d", counted, limit), counted <= limit, strconv.Itoa(counted-limit))
}

func (r *report) atMost(name string, measured, limit float64, unit string) {
	r.target(name, fmt.Sprintf("%.1f of %.1f %s", measured, limit, unit), measured <= limit, fmt.Sprintf("%.1f %s", measured-limit, unit))
}

func (r *report) atLeast(name string, measured, limit float64) {
	r.target(name, fmt.Sprintf("%.3f of %.3f", measured, limit), measured >= limit, fmt.Sprintf("%.3f", limit-measured))
}

func (r *report) asMuch(name string, measured, limit float64) {
	r.target(name, fmt.Sprintf("%.2f of %.2f", measured, limit), measured <= limit, fmt.Sprintf("%.2f", measured-limit))
}

func (r *report) target(name, measured string, holds bool, by string) {
	goal := target{Name: name, Measured: measured, Holds: holds, Verdict: "holds"}
	if !holds {
		goal.Verdict = "missed by " + by
	}
	r.Targets = append(r.Targets, goal)
}
