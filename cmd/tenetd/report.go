package main

import (
	"context"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// reports are a daemon's: one is made at a time, and does for all who ask soon, as it takes reading the counters of the
// switch's flows.
type reports struct {
	look        func() cluster.Report
	turn        chan struct{} // has room for one
	last        cluster.Report
	begun, made time.Time
}

// reportAge is how long a report does: a little less than a second, for those who want a new one each second.
const reportAge = 900 * time.Millisecond

// latest returns a report of no more than that age, or one that was made while the caller waited. One that was begun is made
// to its end, though who asked for it may have gone: it does for others.
func (r *reports) latest(ctx context.Context) (cluster.Report, error) {
	came := time.Now()
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return cluster.Report{}, vnet.OfKind(vnet.ErrUnavailable, context.Cause(ctx))
	}
	defer func() { <-r.turn }()
	if time.Since(r.begun) >= reportAge && r.made.Before(came) {
		r.begun = time.Now()
		r.last = r.look()
		r.made = time.Now()
	}
	return r.last, nil
}
