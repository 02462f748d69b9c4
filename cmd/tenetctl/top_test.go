package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
)

// dropped is a report at a second, of a tenetd that began at another.
func dropped(at, since int64, packets, lies, strays uint64) cluster.Report {
	return cluster.Report{Report: node.Report{
		At: time.Unix(at, 0), Work: node.Work{Since: time.Unix(since, 0)},
		Drops: []node.Dropped{
			{Drop: node.Drop{Reason: "stray", Packets: packets}, Total: strays},
			{Drop: node.Drop{Reason: "spoofed-mac", Packets: packets / 2}, Total: lies},
		},
	}}
}

// What is dropped the most per second comes first. A rate is known when tenetd has been asked twice; not across its restart.
func TestTopSortsByRate(t *testing.T) {
	first := dropped(10, 1, 100, 5, 50)
	view := top{last: first}
	for _, step := range []struct {
		what   string
		report cluster.Report
		err    error
		rows   []string // what drops, and its rate, in their order
	}{
		{"asked once", first, nil, []string{"stray -", "spoofed-mac -"}},
		{"asked twice", dropped(14, 1, 100, 25, 52), nil, []string{"spoofed-mac 5.0", "stray 0.5"}},
		{"told the same", dropped(14, 1, 100, 25, 52), nil, []string{"spoofed-mac 5.0", "stray 0.5"}},
		{"not told", cluster.Report{}, errors.New("it is away"), []string{"stray -", "spoofed-mac -"}},
		{"told by another", dropped(20, 19, 100, 0, 0), nil, []string{"stray -", "spoofed-mac -"}},
		{"and again", dropped(21, 19, 100, 1, 3), nil, []string{"stray 3.0", "spoofed-mac 1.0"}},
	} {
		view.look(step.report, step.err)
		var out bytes.Buffer
		view.show(&out)
		var rows []string
		for line := range strings.Lines(out.String()) {
			if f := strings.Fields(line); len(f) > 2 && (f[0] == "stray" || f[0] == "spoofed-mac") {
				rows = append(rows, f[0]+" "+f[1])
			}
		}
		if strings.Join(rows, ", ") != strings.Join(step.rows, ", ") || strings.Contains(out.String(), "it is away") != (step.err != nil) {
			t.Errorf("%s: %q, want %q\n%s", step.what, rows, step.rows, out.String())
		}
	}
}

// Until Ctrl-C top looks again and again, also past a tenetd that is away for a while.
func TestTopGoesOnUntilItIsStopped(t *testing.T) {
	at := filepath.Join(t.TempDir(), "sock")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	begin := func(answer func()) net.Listener {
		l, err := socket.Listen(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_ = socket.Serve(ctx, l, func(context.Context, socket.Request) (any, error) {
				answer()
				return dropped(1, 1, 2, 1, 1), nil
			})
		}()
		return l
	}
	var first net.Listener
	asked := 0
	first = begin(func() {
		if asked++; asked == 2 {
			first.Close()
			begin(stop)
		}
	})
	a := &app{streams: streams{out: &bytes.Buffer{}}, timeout: time.Minute}
	view := top{Config: node.Config{Socket: at}, last: dropped(1, 1, 2, 1, 1)}
	ended := make(chan error, 1)
	go func() { ended <- a.watch(ctx, &view, time.Millisecond) }()
	select {
	case err := <-ended:
		if out := a.out.(*bytes.Buffer).String(); err != nil || strings.Count(out, "NODE ") < 3 {
			t.Errorf("%v, after\n%s", err, out)
		}
	case <-time.After(20 * time.Second):
		t.Error("it does not end")
	}
}
