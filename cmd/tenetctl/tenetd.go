package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/socket"
)

// askTenetd asks the tenetd at a socket how the node is doing. What does not answer it is a part of what it tells.
func (a *app) askTenetd(ctx context.Context, at string) (cluster.Report, error) {
	const patience = 10 * time.Second // it gives up on what does not answer before that
	ctx, cancel := context.WithTimeout(ctx, min(a.timeout, patience))
	defer cancel()
	var r cluster.Report
	err := socket.Call(ctx, at, socket.Request{Do: socket.Status}, &r)
	return r, err
}

// tenetd are the rows of a status on tenetd, and on the node's cluster if it is to be in one.
func (s statusView) tenetd() [][]any {
	r := s.Tenetd
	if r == nil {
		says := "does not run"
		if !errors.Is(s.unasked, fs.ErrNotExist) && !errors.Is(s.unasked, syscall.ECONNREFUSED) {
			says = "does not answer: " + oneLine(s.unasked.Error())
		}
		rows := [][]any{{"tenetd", says}}
		switch {
		case s.clustered && s.stranger:
			rows = append(rows, []any{"cluster", "none: this node has left it, or has not joined yet, as it does when its tenetd runs"})
		case s.clustered:
			rows = append(rows, []any{"cluster", "unknown without tenetd, which is to run on each of its nodes: systemctl status tenetd"})
		}
		return rows
	}
	rows := [][]any{
		{"tenetd", fmt.Sprintf("%s, runs since %s", r.Version, r.Work.Since.Local().Format(time.DateTime))},
		{"", fmt.Sprintf("%s, %s found, %s", plural(int(r.Work.Syncs.Count), "sync"), plural(int(r.Work.Differences()), "difference"), plural(int(r.Work.BundleErrors), "bundle error"))},
	}
	switch {
	case r.Cluster != nil:
		return append(rows, inCluster(*r.Cluster)...)
	case s.clustered:
		rows = append(rows, []any{"cluster", "tenetd began before its configuration named etcd: restart it"})
	}
	return rows
}

// inCluster are the rows on the node's cluster.
func inCluster(c cluster.Status) [][]any {
	state := fmt.Sprintf("node %s, joined, etcd answers, revision %d", c.Node, c.Revision)
	if c.Cut() != "" {
		state = fmt.Sprintf("node %s: %s", c.Node, oneLine(c.Cut()))
	}
	nodes := plural(c.Nodes, "node")
	if len(c.Silent) > 0 {
		nodes += ", silent: " + list(c.Silent)
	}
	if len(c.Off) > 0 {
		nodes += ", off: " + list(c.Off)
	}
	rows := [][]any{{"cluster", state}, {"", nodes}}
	if c.Denied != nil && c.Denied.Hint != "" {
		rows = append(rows, []any{"", "hint: " + oneLine(c.Denied.Hint)})
	}
	if c.Unpublished > 0 {
		rows = append(rows, []any{"", plural(c.Unpublished, "endpoint") + " here that others do not know"})
	}
	for _, conflict := range c.Conflicts {
		rows = append(rows, []any{"", conflict})
	}
	for _, what := range slices.Sorted(maps.Keys(c.Failures)) {
		rows = append(rows, []any{"", "cannot " + what + ": " + oneLine(c.Failures[what])})
	}
	return rows
}
