package main

import (
	"context"
	"fmt"
	"time"
)

// Part scale is what a node of a cluster takes, and how that grows with the cluster.

// scaled is what was measured with so many other nodes.
type scaled struct {
	Nodes     int   `json:"nodes"`
	Networks  int   `json:"networks"`
	Endpoints int   `json:"endpoints"`
	Keys      int64 `json:"etcd_keys"`
	Flows     int   `json:"flows"`

	Empty  begun   `json:"start_empty"`   // tenetd with an empty data directory, nobody here
	Starts []begun `json:"starts"`        // with what it had, and everybody here
	Forgot []begun `json:"starts_forgot"` // the same, on a switch that has forgotten its flows

	First []sample `json:"first_add"` // in each network here
	Add   []sample `json:"add"`       // one more
	Del   []sample `json:"del"`

	FirstWork etcdWork `json:"etcd_first_add"`
	Work      etcdWork `json:"etcd_add_del"` // of one ADD and its DEL
	Idle      etcdWork `json:"etcd_idle_s"`  // a second when nothing happens

	Changes changes `json:"changes"`
}

// begun is how tenetd began: when it was so far, counted from before it was executed.
type begun struct {
	memory

	Mirrored float64 `json:"mirrored_ms"` // it has joined, and has what is declared and the nodes
	Flows    float64 `json:"flows_ms"`    // the switch has them all
}

func (b begun) took() float64 { return max(b.Mirrored, b.Flows) }

func measureScale(ctx context.Context, set settings, r *report, start time.Time) error {
	var sites []*site
	defer func() {
		for _, s := range sites {
			s.close()
		}
	}()
	for _, n := range set.Nodes {
		say("%s %d nodes: writing them", elapsed(start), n)
		s, err := newSite(ctx, set, n)
		if err != nil {
			return fmt.Errorf("%d nodes: %w", n, err)
		}
		sites = append(sites, s)
		r.Scale = append(r.Scale, s.found)
		for _, step := range []struct {
			name string
			do   func(context.Context) error
		}{
			{"tenetd begins", s.beginEmpty},
			{"the first ADDs", s.attachAll},
			{"tenetd begins again", s.beginAgain},
			{"changes", s.change},
		} {
			say("%s %d nodes: %s", elapsed(start), n, step.name)
			if err := step.do(ctx); err != nil {
				return fmt.Errorf("%d nodes: %s: %w; the log of tenetd ends\n%s", n, step.name, err, s.daemon.logTail())
			}
		}
	}
	if err := addInTurn(ctx, sites, set.Rounds, start); err != nil {
		return err
	}
	say("%s nothing happens", elapsed(start))
	return rest(ctx, sites)
}

// addInTurn measures an ADD and its DEL in each cluster in turn, a different one first each time.
func addInTurn(ctx context.Context, sites []*site, rounds int, start time.Time) error {
	work := make([]func() (etcdWork, error), len(sites))
	for i, s := range sites {
		if err := s.addOneMore(ctx, 0, func(_, _ []sample) {}); err != nil { // page cache and the like: thrown away
			return err
		}
		var err error
		if work[i], err = s.countWork(ctx, rounds); err != nil {
			return err
		}
	}
	for round := range rounds {
		say("%s ADDs: round %d of %d", elapsed(start), round+1, rounds)
		for i := range sites {
			s := sites[(round+i)%len(sites)]
			if err := s.addOneMore(ctx, round, func(adds, dels []sample) {
				s.found.Add, s.found.Del = append(s.found.Add, adds...), append(s.found.Del, dels...)
			}); err != nil {
				return fmt.Errorf("%d nodes: %w", s.found.Nodes, err)
			}
		}
	}
	time.Sleep(afterwards)
	for i, s := range sites {
		var err error
		if s.found.Work, err = work[i](); err != nil {
			return err
		}
	}
	return nil
}

// afterwards is how long tenetd may take to do what an ADD does not wait for.
const afterwards = time.Second

// rest measures what is asked of each etcd when nothing happens.
func rest(ctx context.Context, sites []*site) error {
	const seconds = 10
	work := make([]func() (etcdWork, error), len(sites))
	for i, s := range sites {
		var err error
		if work[i], err = s.countWork(ctx, seconds); err != nil {
			return err
		}
	}
	time.Sleep(seconds * time.Second)
	for i, s := range sites {
		var err error
		if s.found.Idle, err = work[i](); err != nil {
			return err
		}
	}
	return nil
}
