package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"golang.org/x/sys/unix"
)

// A report is everything that a run found out: what is written as JSON.
type report struct {
	Machine    host         `json:"machine"`
	LoadBefore string       `json:"load_before"` // 1, 5 and 15 minutes
	LoadAfter  string       `json:"load_after"`
	Took       string       `json:"took"`
	Settings   settings     `json:"settings"`
	Targets    []target     `json:"targets"`
	Sizes      []*results   `json:"sizes,omitempty"`
	Sync       synced       `json:"sync,omitzero"`
	Traffic    []*traffic   `json:"traffic,omitempty"`
	ChainScale []chainScale `json:"chain_scale,omitempty"`
	Cluster    *clustered   `json:"cluster,omitempty"`
	Scale      []*scaled    `json:"scale,omitempty"`
}

// A host is the machine that was measured on.
type host struct {
	Kernel     string `json:"kernel"`
	CPU        string `json:"cpu"`
	Cores      int    `json:"cores"`
	Go         string `json:"go"`
	OVS        string `json:"ovs"`
	Datapath   string `json:"datapath"`
	FileSystem string `json:"file_system"` // of the databases
	Commit     string `json:"commit"`
}

func machine(ctx context.Context, dir string) host {
	h := host{Cores: runtime.NumCPU(), Go: runtime.Version(), Datapath: "netdev"}
	if os.Getenv("TENET_DATAPATH") == "system" {
		h.Datapath = "system"
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		h.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	ask := func(args ...string) string {
		out, err := exec.CommandContext(ctx, args[0], args[1:]...).Output()
		if err != nil {
			return "unknown"
		}
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return first
	}
	h.OVS = ask("/bin/sh", "-c", "PATH=$PATH:/usr/sbin ovs-vswitchd --version")
	h.FileSystem = ask("stat", "--file-system", "--format=%T", dir)
	h.Commit = ask("git", "describe", "--always", "--dirty")
	info, _ := os.ReadFile("/proc/cpuinfo") // names the CPU, or does not
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			h.CPU = strings.TrimSpace(value)
		}
	}
	return h
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(b)); err == nil && len(fields) > 3 {
		return strings.Join(fields[:3], " ")
	}
	return "unknown"
}

// quantile is the value that a share of the samples does not exceed; 0 without samples.
func quantile(values []float64, share float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	at := share * float64(len(sorted)-1)
	low := int(at)
	high := min(low+1, len(sorted)-1)
	return sorted[low] + (at-float64(low))*(sorted[high]-sorted[low])
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func p10(values []float64) float64 { return quantile(values, 0.1) }

func p90(values []float64) float64 { return quantile(values, 0.9) }

func each[T any](list []T, of func(T) float64) []float64 {
	values := make([]float64, len(list))
	for i, v := range list {
		values[i] = of(v)
	}
	return values
}

func walls(samples []sample) []float64 {
	return each(samples, func(s sample) float64 { return s.Wall })
}

func cpus(samples []sample) []float64 { return each(samples, func(s sample) float64 { return s.CPU }) }

func peaks(samples []sample) []float64 {
	return each(samples, func(s sample) float64 { return float64(s.PeakKB) / 1024 })
}

func part(samples []sample, name string) []float64 {
	return each(samples, func(s sample) float64 { return s.Parts[name] })
}

// own is the plugin's own part of ADD: what it took more than the floor of the same round.
func (r *results) own() []float64 {
	floor := r.Add[floorName]
	var own []float64
	for i, s := range r.Add[tenetName] {
		own = append(own, s.Wall-floor[i].Wall)
	}
	return own
}

// besides is what the steps of an ADD take together but for the port, which waits for ovs-vswitchd.
func (r *results) besides() []float64 {
	return each(r.Add[stepsName], func(s sample) float64 {
		sum := 0.0
		for name, took := range s.Parts {
			if name != "plug" {
				sum += took
			}
		}
		return sum
	})
}

// print writes the report's tables. Times are in milliseconds, the median and after it p10.
func (r *report) print(to io.Writer) {
	if len(r.Sizes) > 0 {
		r.printVerb(to, "ADD", func(at *results) map[string][]sample { return at.Add })
		r.printVerb(to, "DEL", func(at *results) map[string][]sample { return at.Del })
		if r.Settings.Parallel > 0 && r.Settings.Batches > 0 {
			r.printParallel(to)
		}
		r.printCost(to)
		r.printSteps(to)
		r.printSync(to)
	}
	if len(r.Traffic) > 0 {
		r.printTraffic(to)
	}
	if len(r.ChainScale) > 0 {
		r.printScale(to)
	}
	if r.Cluster != nil {
		r.Cluster.print(to)
	}
	if len(r.Scale) > 0 {
		r.printClusters(to)
	}
	t := newTable(to, "Targets")
	for _, goal := range r.Targets {
		t.AppendRow(table.Row{goal.Name, goal.Measured, goal.Verdict})
	}
	t.SetColumnConfigs([]table.ColumnConfig{{Number: 2, Align: text.AlignRight}})
	t.Render()
	m := r.Machine
	fmt.Fprintf(to, "\n%s, Linux %s, %s, %d cores, %s, datapath %s, databases on %s, tenet %s\nload %s before, %s after; took %s\n",
		m.OVS, m.Kernel, m.CPU, m.Cores, m.Go, m.Datapath, m.FileSystem, m.Commit, r.LoadBefore, r.LoadAfter, r.Took)
}

func newTable(to io.Writer, title string) table.Writer {
	t := table.NewWriter()
	t.SetOutputMirror(to)
	fmt.Fprintf(to, "\n%s\n", title)
	t.SetStyle(table.StyleLight)
	t.Style().Format.Header = text.FormatDefault
	var columns []table.ColumnConfig
	for i := range 12 {
		columns = append(columns, table.ColumnConfig{Number: i + 1, Align: text.AlignRight})
	}
	t.SetColumnConfigs(columns)
	return t
}

// spread is the median with p10 after it.
func spread(values []float64) string { return fmt.Sprintf("%.1f (%.1f)", median(values), p10(values)) }

func ratio(a, b []float64) string {
	if median(b) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", median(a)/median(b))
}

func (r *report) printVerb(to io.Writer, verb string, of func(*results) map[string][]sample) {
	t := newTable(to, verb+", ms: median (p10); ratios of medians")
	header := table.Row{"ports", "floor", "tenet", "bridge+host-local", "ovs-vsctl", "tenet/floor", "tenet/bridge", "tenet/ovs-vsctl"}
	if verb == "ADD" {
		header = append(header, "tenet-floor", "tenet started only")
	}
	t.AppendHeader(header)
	for _, at := range r.Sizes {
		samples := of(at)
		floor, tenet := walls(samples[floorName]), walls(samples[tenetName])
		bridge, script := walls(samples[bridgeName]), walls(samples[scriptName])
		row := table.Row{
			at.Ports, spread(floor), spread(tenet), spread(bridge), spread(script),
			ratio(tenet, floor), ratio(tenet, bridge), ratio(tenet, script),
		}
		if verb == "ADD" {
			row = append(row, spread(at.own()), spread(walls(samples[startName])))
		}
		t.AppendRow(row)
	}
	t.Render()
}

func (r *report) printParallel(to io.Writer) {
	t := newTable(to, fmt.Sprintf("%d at once: ADDs per second (the last's end counts), and ms of each: median (p10)", r.Settings.Parallel))
	t.AppendHeader(table.Row{"ports", "tenet/s", "bridge/s", "ovs-vsctl/s", "tenet", "bridge", "ovs-vsctl", "tenet DELs/s"})
	rate := func(batches []batch) string {
		return fmt.Sprintf("%.0f", median(each(batches, func(b batch) float64 { return float64(len(b.Samples)) / b.Took * 1000 })))
	}
	all := func(batches []batch) string {
		var samples []sample
		for _, b := range batches {
			samples = append(samples, b.Samples...)
		}
		return spread(walls(samples))
	}
	for _, at := range r.Sizes {
		tenet, bridge, script := at.ParallelAdd[tenetName], at.ParallelAdd[bridgeName], at.ParallelAdd[scriptName]
		t.AppendRow(table.Row{
			at.Ports, rate(tenet), rate(bridge), rate(script), all(tenet), all(bridge), all(script), rate(at.ParallelDel[tenetName]),
		})
	}
	t.Render()
}

func (r *report) printCost(to io.Writer) {
	t := newTable(to, "CPU of a call in ms, and its peak memory in MB (the meter's own 3 are the least that it can show)")
	t.AppendHeader(table.Row{"ports", "", "tenet ADD", "tenet DEL", "bridge ADD", "bridge DEL", "ovs-vsctl ADD", "ovs-vsctl DEL", "tenet started only"})
	for _, at := range r.Sizes {
		cpu, peak := table.Row{at.Ports, "CPU"}, table.Row{"", "peak"}
		for _, name := range []string{tenetName, bridgeName, scriptName} {
			for _, samples := range [][]sample{at.Add[name], at.Del[name]} {
				cpu, peak = append(cpu, spread(cpus(samples))), append(peak, spread(peaks(samples)))
			}
		}
		cpu, peak = append(cpu, spread(cpus(at.Add[startName]))), append(peak, spread(peaks(at.Add[startName])))
		t.AppendRows([]table.Row{cpu, peak})
	}
	t.Render()
}

func (r *report) printSteps(to io.Writer) {
	t := newTable(to, "tenet's ADD step by step (in a process that does nothing else), and the floor's parts, ms: median (p10)")
	header := table.Row{"ports"}
	for _, name := range stepNames() {
		header = append(header, name)
	}
	t.AppendHeader(append(header, "all but plug", "floor: veth", "floor: commit", "floor: wait"))
	for _, at := range r.Sizes {
		row := table.Row{at.Ports}
		for _, name := range stepNames() {
			row = append(row, spread(part(at.Add[stepsName], name)))
		}
		row = append(row, spread(at.besides()))
		for _, name := range []string{"veth", "commit", "wait"} {
			row = append(row, spread(part(at.Add[floorName], name)))
		}
		t.AppendRow(row)
	}
	t.Render()
}

func (r *report) printSync(to io.Writer) {
	t := newTable(to, "sync on a switch that has lost its flows, ms: median (p10)")
	t.AppendHeader(table.Row{"endpoints", "flows", "render", "the same, rows, links and flows looked at", "all, with the bundles sent", "peak MB"})
	t.AppendRow(table.Row{
		r.Sync.Endpoints, r.Sync.Flows, spread(r.Sync.Render), spread(r.Sync.Compare), spread(r.Sync.Sync),
		fmt.Sprintf("%.1f", float64(r.Sync.PeakKB)/1024),
	})
	t.Render()
}

func (r *report) printTraffic(to io.Writer) {
	t := newTable(to, "Traffic: median (p10–p90); ratios to another lane: of the medians, and the median of the rounds' ratios")
	t.AppendHeader(table.Row{"", "lane", "", "to", "ratio", "of rounds"})
	for _, of := range []struct {
		name, format string
		values       func(*traffic) []float64
	}{
		{"one stream, Gbit/s", "%.2f (%.2f–%.2f)", func(t *traffic) []float64 { return t.Throughput }},
		{"connections/s", "%.0f (%.0f–%.0f)", func(t *traffic) []float64 { return t.Connections }},
		{"round trip of a byte, µs", "%.0f (%.0f–%.0f)", func(t *traffic) []float64 { return t.RoundTrip }},
		{"CPU of ovs-vswitchd, ms/GB", "%.0f (%.0f–%.0f)", func(t *traffic) []float64 { return t.StreamCPU }},
		{"CPU of ovs-vswitchd, µs/connection", "%.0f (%.0f–%.0f)", func(t *traffic) []float64 { return t.ShortCPU }},
	} {
		for _, l := range r.Traffic {
			values := of.values(l)
			if len(values) == 0 {
				continue
			}
			row := table.Row{of.name, l.Lane, fmt.Sprintf(of.format, median(values), p10(values), p90(values))}
			if other := r.lane(l.Against); other != nil {
				row = append(row, l.Against, ratio(values, of.values(other)), fmt.Sprintf("%.2f", median(ratios(values, of.values(other)))))
			}
			t.AppendRow(row)
		}
	}
	t.Render()
	t = newTable(to, "What connections leave in the datapath")
	t.AppendHeader(table.Row{"lane", "connections", "flows", "tracked", "connections", "flows", "tracked"})
	for _, l := range r.Traffic {
		t.AppendRow(table.Row{l.Lane, l.Few.Connections, l.Few.Flows, l.Few.Tracked, l.Many.Connections, l.Many.Flows, l.Many.Tracked})
	}
	t.Render()
}

func (r *report) printScale(to io.Writer) {
	t := newTable(to, "Chains of four hops, each with a classifier of its own, ms")
	t.AppendHeader(table.Row{"chains", "flows", "flows of each", "render", "install on an empty switch", "nothing to do", "one chain changes"})
	for _, s := range r.ChainScale {
		t.AppendRow(table.Row{
			s.Chains, s.Flows, fmt.Sprintf("%.1f", float64(s.Flows)/float64(s.Chains)),
			fmt.Sprintf("%.0f", s.Render), fmt.Sprintf("%.0f", s.Install), fmt.Sprintf("%.0f", s.Nothing), fmt.Sprintf("%.0f", s.Change),
		})
	}
	t.Render()
}

// lane is what was measured of the lane of that name; nil if there is none.
func (r *report) lane(name string) *traffic {
	for _, t := range r.Traffic {
		if t.Lane == name {
			return t
		}
	}
	return nil
}

// ratios are a to b, round by round: what slowed the machine down for one round slowed both.
func ratios(a, b []float64) []float64 {
	values := make([]float64, len(a))
	for i := range a {
		values[i] = a[i] / b[i]
	}
	return values
}

func (r *report) write(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
