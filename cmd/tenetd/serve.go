package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// serve keeps the node's switch in step, and the node in its cluster, if it is of one, until ctx ends or one of both cannot go on.
func serve(ctx context.Context, config node.Config, options cluster.Options, log *slog.Logger) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	n := node.Open(config, cni.DelegateDel)
	defer n.Close()
	n.Tally = node.NewTally()
	d := &daemon{Config: config, tally: n.Tally, log: log}
	if !config.Clustered() {
		return n.RunWith(ctx, log, func(ctx context.Context) { d.open(ctx)(ctx) })
	}
	agent, err := cluster.New(config, options, cni.DelegateDel, log)
	if err != nil {
		return err
	}
	agent.Tally = n.Tally
	d.agent.Store(agent)
	n.Changed = func() { d.agent.Load().Kick() }
	ended := make(chan error, 1)
	if err := n.RunWith(ctx, log, func(ctx context.Context) {
		var doors sync.WaitGroup
		keep := d.open(ctx)
		doors.Go(func() { keep(ctx) })
		err := d.member(ctx)
		stop()
		doors.Wait()
		ended <- err
	}); err != nil {
		return err // another tenetd runs
	}
	return <-ended
}

// member is the node's part in its cluster, by one agent after the other, until ctx ends or the cluster does not want it.
func (d *daemon) member(ctx context.Context) error {
	for {
		agent := d.agent.Load()
		err := agent.Run(ctx)
		if !errors.Is(err, cluster.ErrAnew) {
			return err
		}
		for {
			next, failed := agent.Anew(err)
			if failed == nil {
				d.agent.Store(next)
				break
			}
			d.log.Error("begin anew with the cluster", "error", failed, "hint", vnet.Hint(failed)) // such as that a file is being written
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(time.Second):
			}
		}
	}
}

// daemon is what others see of a running tenetd.
type daemon struct {
	node.Config

	agent atomic.Pointer[cluster.Agent] // nil: the node is one on its own
	tally *node.Tally
	log   *slog.Logger
}

// answer does what another program of this node asks for.
func (d *daemon) answer(ctx context.Context, r socket.Request, reports *reports) (any, error) {
	switch r.Do {
	case socket.Status:
		return reports.latest(ctx)
	case socket.Publish, socket.Need, socket.Declare, socket.Await, socket.CatchUp:
		agent := d.agent.Load()
		if agent == nil {
			return nil, vnet.WithHint(vnet.Invalidf("request %s: this node is one on its own, by the configuration that its tenetd was started with", r.Do),
				`"etcd": {"endpoints": […]} makes it one of a cluster; then restart tenetd`)
		}
		return agent.Answer(ctx, r)
	}
	return nil, vnet.Invalidf("request %q: this tenetd does not know it", r.Do)
}

// open opens the daemon's doors, its socket and that of HTTP, and returns what keeps them open until its own context ends.
// This process is the node's only tenetd.
func (d *daemon) open(ctx context.Context) func(context.Context) {
	reports := &reports{look: func() cluster.Report { return d.report(ctx) }, turn: make(chan struct{}, 1)}
	doors := []*door{{
		name: "socket", at: d.Socket, log: d.log, again: time.Second, listen: d.listen,
		serve: func(ctx context.Context, l net.Listener) error {
			return socket.Serve(ctx, l, func(ctx context.Context, r socket.Request) (any, error) { return d.answer(ctx, r, reports) })
		},
	}}
	if d.Metrics != "off" {
		doors = append(doors, &door{name: "metrics", at: d.Metrics, log: d.log, again: 5 * time.Second, listen: listenTCP, serve: d.serveHTTP(reports)})
	}
	for _, each := range doors {
		each.open(ctx)
	}
	return func(ctx context.Context) {
		var all sync.WaitGroup
		for _, each := range doors {
			all.Go(func() { each.keep(ctx) })
		}
		all.Wait()
	}
}

// listen opens the socket, unless it is another node's whose tenetd answers.
func (d *daemon) listen(ctx context.Context, path string) (net.Listener, error) {
	const soon = time.Second
	ask, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	if conn, err := (&net.Dialer{}).DialContext(ask, "unix", path); err == nil {
		_ = conn.Close()
		return nil, vnet.WithHint(vnet.Existsf("%s is another tenetd's", path), `set "socket" in the configuration of one of them`)
	}
	return socket.Listen(ctx, path)
}

// report says how the node is doing.
func (d *daemon) report(ctx context.Context) cluster.Report {
	n := node.Open(d.Config, cni.DelegateDel)
	defer n.Close()
	n.Tally = d.tally
	r := cluster.Report{Version: version, Report: n.Report(ctx)}
	if agent := d.agent.Load(); agent != nil {
		const soon = 2 * time.Second
		ctx, cancel := context.WithTimeout(ctx, soon)
		defer cancel()
		status := agent.Status(ctx)
		r.Cluster = &status
	}
	return r
}
