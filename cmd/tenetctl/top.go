package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func newTop(a *app) *cobra.Command {
	once, interval := false, time.Second
	cmd := &cobra.Command{
		Use: "top", Short: "Watch what the node does: drops per second, functions, etcd", Args: exactly(),
		Long: `top shows, again and again until Ctrl-C, what tenetd says of this node: whether
etcd answers, at which revision, and for how long the node may be behind; endpoints,
blocks of addresses, syncs with how long the last one took, differences found, and
bundles of flows that failed; what is dropped, the most per second first; functions by
state; networks by endpoints. Prometheus is told the same. It needs a tenetd that runs; tenetctl status does not.

With --once, or -o json or yaml, it prints what there is now and ends: rates take two
looks. PACKETS are counted since the flows were written, as in tenetctl status.
--timeout is for each look.`,
		Example: "  tenetctl top\n  tenetctl top --interval 5s\n  tenetctl top --once\n  tenetctl top -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval < time.Second {
				return usagef(cmd, "interval %s: must be 1s or more", interval)
			}
			config, err := a.configuration()
			if err != nil {
				return err
			}
			r, err := a.askTenetd(cmd.Context(), config.Socket)
			if err != nil {
				return err
			}
			t := top{Config: config, last: r}
			if once || a.output != "table" {
				return a.print(r, t.show)
			}
			return a.watch(cmd.Context(), &t, interval)
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "print one sample, and end")
	cmd.Flags().DurationVar(&interval, "interval", interval, "how long to wait between two looks")
	return cmd
}

// top is what is watched: the last report, and what it says beside the one before.
type top struct {
	node.Config

	last  cluster.Report
	rates map[string]float64 // of drops per second, by reason; nil: not known yet
	err   error              // why the last look failed
}

// watch shows t and looks again until ctx ends. In a terminal each view takes the last one's place.
func (a *app) watch(ctx context.Context, t *top, interval time.Duration) error {
	screen := screenOf(a.out)
	next := time.NewTicker(interval)
	defer next.Stop()
	for ctx.Err() == nil {
		var view bytes.Buffer
		t.show(&view)
		if err := screen.show(view.String()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-next.C:
		}
		if r, err := a.askTenetd(ctx, t.Socket); ctx.Err() == nil {
			t.look(r, err)
		}
	}
	return nil
}

// look takes over another report.
func (t *top) look(r cluster.Report, err error) {
	if t.err = err; err != nil {
		t.rates = nil
		return
	}
	if past := r.At.Sub(t.last.At).Seconds(); past > 0 { // else it is the same
		t.rates = nil
		if r.Work.Since.Equal(t.last.Work.Since) { // else it is another tenetd's, which counts anew
			t.rates = map[string]float64{}
			for _, d := range r.Drops {
				t.rates[d.Reason] = float64(d.Total) / past
			}
			for _, d := range t.last.Drops {
				t.rates[d.Reason] -= float64(d.Total) / past
			}
		}
	}
	t.last = r
}

func (t *top) show(w io.Writer) {
	t.showNode(w)
	t.showTrouble(w)
	t.showDrops(w)
	t.showFunctions(w)
	t.showNetworks(w)
}

// part writes a table after an empty line, if it has any rows.
func part(w io.Writer, headings []any, rows [][]any) {
	if len(rows) > 0 {
		fmt.Fprintln(w)
		columns(w, headings, rows)
	}
}

func (t *top) showNode(w io.Writer) {
	r := t.last
	name, state, etcd, revision, lag := t.Name, "well", "-", "-", "-"
	if len(r.Problems) > 0 {
		state = "unwell"
	}
	if c := r.Cluster; c != nil {
		name, etcd, revision, lag = c.Node, "up", strconv.FormatInt(c.Revision, 10), seconds(c.Lag)
		if !c.Connected {
			etcd = "away"
		}
	}
	var endpoints, blocks uint64
	for _, c := range r.Endpoints {
		endpoints += uint64(c.Endpoints)
	}
	for _, c := range r.Blocks {
		blocks += uint64(c.Blocks)
	}
	columns(w, []any{"NODE", "STATE", "ETCD", "REVISION", "LAG", "ENDPOINTS", "BLOCKS", "SYNCS", "DRIFT", "ERRORS"}, [][]any{{
		name, state, etcd, revision, lag, endpoints, blocks, fmt.Sprintf("%d (%s)", r.Work.Syncs.Count, seconds(r.Work.Syncs.Last)), r.Work.Differences(), r.Work.BundleErrors,
	}})
}

// showTrouble says what is wrong, if anything is.
func (t *top) showTrouble(w io.Writer) {
	var lines []string
	if t.err != nil {
		lines = append(lines, fmt.Sprintf("problem: %s; this is of %s", oneLine(t.err.Error()), t.last.At.Local().Format(time.TimeOnly)))
	}
	for _, p := range t.last.Problems {
		lines = append(lines, fmt.Sprintf("problem: %s: %s", p.What, p.Error))
	}
	if c := t.last.Cluster; c != nil && c.Cut() != "" {
		lines = append(lines, oneLine(c.Cut()))
	}
	if len(lines) > 0 {
		fmt.Fprintf(w, "\n%s\n", strings.Join(lines, "\n"))
	}
}

// showDrops shows what is dropped, the most per second first.
func (t *top) showDrops(w io.Writer) {
	drops := slices.DeleteFunc(slices.Clone(t.last.Drops), func(d node.Dropped) bool { return d.Packets+d.Total == 0 })
	slices.SortStableFunc(drops, func(a, b node.Dropped) int {
		return cmp.Or(cmp.Compare(t.rates[b.Reason], t.rates[a.Reason]), cmp.Compare(b.Packets, a.Packets))
	})
	var rows [][]any
	for _, d := range drops {
		rate := "-"
		if t.rates != nil {
			rate = fmt.Sprintf("%.1f", t.rates[d.Reason])
		}
		rows = append(rows, []any{d.Reason, fmt.Sprintf("%10s", rate), d.Packets, d.Text})
	}
	part(w, []any{"DROPPED", "PER SECOND", "PACKETS", "BECAUSE"}, rows)
}

func (t *top) showFunctions(w io.Writer) {
	var rows [][]any
	for _, f := range t.last.Functions {
		rows = append(rows, []any{vnet.GroupRef{Tenant: f.Tenant, Group: f.Group}, f.State, uint64(f.Instances)})
	}
	part(w, []any{"FUNCTIONS OF", "STATE", "INSTANCES"}, rows)
}

// showNetworks shows the networks that have endpoints or blocks here, those with the most endpoints first.
func (t *top) showNetworks(w io.Writer) {
	type network struct{ endpoints, blocks uint64 }
	all := map[vnet.Ref]network{}
	for _, c := range t.last.Endpoints {
		r := vnet.Ref{Tenant: c.Tenant, Network: c.Network}
		all[r] = network{uint64(c.Endpoints), all[r].blocks}
	}
	for _, c := range t.last.Blocks {
		r := vnet.Ref{Tenant: c.Tenant, Network: c.Network}
		all[r] = network{all[r].endpoints, all[r].blocks + uint64(c.Blocks)}
	}
	refs := slices.SortedFunc(maps.Keys(all), func(a, b vnet.Ref) int {
		return cmp.Or(cmp.Compare(all[b].endpoints, all[a].endpoints), cmp.Compare(a.String(), b.String()))
	})
	var rows [][]any
	for _, r := range refs {
		rows = append(rows, []any{r, all[r].endpoints, all[r].blocks})
	}
	part(w, []any{"NETWORK", "ENDPOINTS", "BLOCKS"}, rows)
}

// seconds writes a time as people read it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	if d < time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// screen is where views are shown.
type screen struct {
	io.Writer

	fd    int // of a terminal, or -1
	shown bool
}

func screenOf(w io.Writer) *screen {
	s := &screen{Writer: w, fd: -1}
	if f, ok := w.(*os.File); ok {
		if _, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil {
			s.fd = int(f.Fd())
		}
	}
	return s
}

// Control sequences of ECMA-48, which terminals understand.
const (
	home        = "\x1b[H"
	clearToEnd  = "\x1b[J" // of the screen
	clearToLine = "\x1b[K" // the rest of the line
)

// show shows a view in the place of the last one, as much of it as there is room for; where there is no terminal, after it.
func (s *screen) show(view string) error {
	var b strings.Builder
	lines := strings.Split(strings.TrimSuffix(view, "\n"), "\n")
	if s.fd >= 0 {
		if size, err := unix.IoctlGetWinsize(s.fd, unix.TIOCGWINSZ); err == nil && size.Row > 1 && size.Col > 0 {
			lines = lines[:min(len(lines), int(size.Row)-1)]
			for i, line := range lines {
				if r := []rune(line); len(r) > int(size.Col) {
					lines[i] = string(r[:size.Col])
				}
			}
		}
		b.WriteString(home)
		for _, line := range lines {
			b.WriteString(line + clearToLine + "\n")
		}
		b.WriteString(clearToEnd)
	} else {
		if s.shown {
			b.WriteString("\n")
		}
		b.WriteString(view)
	}
	s.shown = true
	_, err := io.WriteString(s.Writer, b.String())
	return err
}
