package main

import (
	"context"
	"log/slog"
	"net"
	"time"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A door is where others ask tenetd. That it cannot be opened stops nothing else: it is tried again now and then.
type door struct {
	name, at string
	listen   func(ctx context.Context, at string) (net.Listener, error)
	serve    func(context.Context, net.Listener) error // closes it, when ctx ends
	again    time.Duration
	log      *slog.Logger

	l      net.Listener // nil: it is shut
	failed string       // why, as it was logged
}

// open tries to open it.
func (d *door) open(ctx context.Context) {
	if ctx.Err() != nil {
		return
	}
	l, err := d.listen(ctx, d.at)
	if err != nil {
		d.complain(ctx, err)
		return
	}
	d.l, d.failed = l, ""
	d.log.Info("listens", "door", d.name, "at", l.Addr().String())
}

// keep keeps it open until ctx ends.
func (d *door) keep(ctx context.Context) {
	for {
		if d.l != nil {
			err := d.serve(ctx, d.l)
			_ = d.l.Close()
			d.l = nil
			d.complain(ctx, err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(d.again):
		}
		d.open(ctx)
	}
}

func (d *door) complain(ctx context.Context, err error) {
	if err == nil || ctx.Err() != nil || d.failed == err.Error() {
		return
	}
	d.failed = err.Error()
	d.log.Error("cannot listen", "door", d.name, "at", d.at, "error", err, "hint", vnet.Hint(err))
}

func listenTCP(ctx context.Context, at string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp", at)
}
