package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
)

// traffic is what was measured of a lane, in the order of measuring: what has the same index is of one round.
type traffic struct {
	Lane        string    `json:"lane"`
	Against     string    `json:"against,omitempty"`
	Throughput  []float64 `json:"gbit_per_s"`        // of one stream
	Connections []float64 `json:"connections_per_s"` // short ones
	StreamCPU   []float64 `json:"cpu_ms_per_gbyte"`  // of ovs-vswitchd
	ShortCPU    []float64 `json:"cpu_us_per_connection"`
	RoundTrip   []float64 `json:"round_trip_us"` // median of many on one connection
	Few         left      `json:"after_few"`
	Many        left      `json:"after_many"`
}

// left is what connections left in the datapath.
type left struct {
	Connections int `json:"connections"`
	Flows       int `json:"flows"`   // of IPv4
	Tracked     int `json:"tracked"` // conntrack's entries
}

const (
	streamFor       = time.Second
	sampled         = 2000 // connections of one sample
	tripsSampled    = 1000
	fewConnections  = 20
	manyConnections = 1000
)

// measureTraffic measures every lane in turn, a different one first each time.
func measureTraffic(ctx context.Context, w *world, r *report, start time.Time) error {
	lanes, err := w.lanes(ctx)
	if err != nil {
		return err
	}
	return w.measureLanes(ctx, r, lanes, start)
}

func (w *world) measureLanes(ctx context.Context, r *report, lanes []lane, start time.Time) error {
	first := len(r.Traffic)
	var err error
	for _, l := range lanes {
		say("%s %s: what connections leave", elapsed(start), l.name)
		t := &traffic{Lane: l.name, Against: l.against}
		r.Traffic = append(r.Traffic, t)
		if t.Few, err = w.leave(ctx, l, fewConnections); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		if t.Many, err = w.leave(ctx, l, manyConnections); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	for round := range w.TrafficRounds {
		say("%s traffic: round %d of %d", elapsed(start), round+1, w.TrafficRounds)
		for i := range lanes {
			at := (round + i) % len(lanes)
			if err := w.sample(ctx, lanes[at], r.Traffic[first+at]); err != nil {
				return fmt.Errorf("%s: %w", lanes[at].name, err)
			}
		}
	}
	return nil
}

func (w *world) sample(ctx context.Context, l lane, to *traffic) error {
	if err := l.enter(ctx); err != nil {
		return err
	}
	before, err := w.switchCPU()
	if err != nil {
		return err
	}
	stream, err := w.say(ctx, l, talk{Stream: streamFor})
	if err != nil {
		return err
	}
	between, err := w.switchCPU()
	if err != nil {
		return err
	}
	short, err := w.say(ctx, l, talk{Connections: sampled})
	if err != nil {
		return err
	}
	after, err := w.switchCPU()
	if err != nil {
		return err
	}
	if l.trips {
		trips, err := w.say(ctx, l, talk{Trips: tripsSampled})
		if err != nil {
			return err
		}
		to.RoundTrip = append(to.RoundTrip, float64(trips.Trip.Nanoseconds())/1000)
	}
	to.Throughput = append(to.Throughput, float64(stream.Bytes)*8/float64(stream.Took.Nanoseconds()))
	to.Connections = append(to.Connections, sampled/short.Took.Seconds())
	to.StreamCPU = append(to.StreamCPU, ms(between-before)/float64(stream.Bytes)*1e9)
	to.ShortCPU = append(to.ShortCPU, ms(after-between)*1000/sampled)
	return nil
}

func (l lane) enter(ctx context.Context) error {
	if l.prepare == nil {
		return nil
	}
	return l.prepare(ctx)
}

// switchCPU is what ovs-vswitchd has used of the CPUs: the userspace datapath is in it. It is less moved by what else
// the machine does than any time is.
func (w *world) switchCPU() (time.Duration, error) { return cpu(w.sw.Pid()) }

// leave opens connections where the datapath knows nothing, and counts what it knows then. A flow that nobody uses
// stays for ten seconds, in which the connections are long over.
func (w *world) leave(ctx context.Context, l lane, count int) (left, error) {
	if err := l.enter(ctx); err != nil {
		return left{}, err
	}
	for _, forget := range []string{"revalidator/purge", "dpctl/flush-conntrack"} {
		if _, err := ovs.Control(ctx, w.sw.RunDir, forget); err != nil {
			return left{}, err
		}
	}
	if _, err := w.say(ctx, l, talk{Connections: count}); err != nil {
		return left{}, err
	}
	flows, err := ovs.Control(ctx, w.sw.RunDir, "dpctl/dump-flows")
	if err != nil {
		return left{}, err
	}
	tracked, err := ovs.Control(ctx, w.sw.RunDir, "dpctl/dump-conntrack")
	// Of IPv4 only: what a container's kernel says by itself, ARP and IPv6, comes when it comes.
	return left{count, strings.Count(flows, "eth_type(0x0800)"), strings.Count(tracked, "\n")}, err
}

// say lets the lane's client talk.
func (w *world) say(ctx context.Context, l lane, t talk) (said, error) {
	var s said
	t.To = l.to
	outcomes, err := w.inside(ctx, l.client, order{Talk: &t})
	if err == nil {
		err = json.Unmarshal(outcomes[0].Stdout, &s)
	}
	return s, err
}
