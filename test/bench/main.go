// Command bench measures what tenet costs, in parts. `make bench` runs all but the last, `make bench-scale` that one. It
// needs root and Open vSwitch, for the last two parts etcd, too.
//
// Part add is ADD and DEL as a container runtime sees them: tenet, the reference plugins bridge with host-local, and a
// script around ovs-vsctl, in turn, in one run, on nodes of several sizes; with them the floor, which is what the kernel
// and Open vSwitch alone take.
//
// Part traffic is what containers then say to each other: throughput and connections per second through tenet and
// through a bridge that only switches, in turn, on one ovs-vswitchd; and what their connections leave in its datapath.
//
// Part chains is the same for service chains, against the same functions chained by hand with static flows; and what very
// many chains take.
//
// Part cluster is what containers of a cluster wait for: from an ADD to the first packet to another node and from one, and
// the ADD itself, with and without etcd, against that on a node of its own.
//
// Part scale is a node of a cluster: one that is real among ten, a hundred and a thousand that are records in a real
// etcd and nothing else. Each of the three has a switch, an etcd and a tenetd of its own, and they are measured in turn.
//
// Everything lives in network namespaces and a directory of its own. The namespaces have no names: they end with the
// process, however it ends.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// settings are what the flags say.
type settings struct {
	Parts         []string `json:"parts"`
	Sizes         []int    `json:"sizes"` // in ports that are there already, ascending
	Rounds        int      `json:"rounds"`
	Parallel      int      `json:"parallel"`
	Batches       int      `json:"batches"`
	TrafficRounds int      `json:"traffic_rounds"`

	Adds int `json:"adds"` // of part cluster, whose containers are waited for

	Nodes   []int         `json:"nodes"` // of the clusters, the real one not counted, ascending
	Starts  int           `json:"starts"`
	Changes time.Duration `json:"changes_ns"`

	Output string `json:"-"`
	Dir    string `json:"dir"`

	bin string // where the programs are
}

// The parts' names.
const (
	addPart     = "add"
	trafficPart = "traffic"
	chainsPart  = "chains"
	clusterPart = "cluster"
	scalePart   = "scale"
)

// A measurement is a part: it is taken by itself, and adds to the report.
type measurement struct {
	name    string
	measure func(context.Context, settings, *report, time.Time) error
}

func parts() []measurement {
	return []measurement{
		{addPart, inWorld(measureAdd)},
		{trafficPart, inWorld(measureTraffic)},
		{chainsPart, inWorld(measureChains)},
		{clusterPart, measureCluster},
		{scalePart, measureScale},
	}
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == insideArg {
		exit(inside())
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	s, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, s)
	}
	if err != nil && ctx.Err() != nil {
		err = errors.New("interrupted; everything was taken down") // what was killed for it says no more
	}
	exit(err)
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func parse(args []string) (settings, error) {
	var s settings
	var chosen, sizes, nodes string
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&chosen, "part", addPart+","+trafficPart+","+chainsPart+","+clusterPart, "`parts` to measure; there is "+scalePart+", too")
	f.StringVar(&sizes, "sizes", "0,100,500,1000", "`ports` that the bridges have already")
	f.IntVar(&s.Rounds, "n", 20, "`rounds` at each size; in each, every subject is measured once")
	f.IntVar(&s.Parallel, "parallel", 20, "`ADDs` at once; 0 measures none")
	f.IntVar(&s.Batches, "batches", 1, "`times` that so many at once are measured")
	f.IntVar(&s.TrafficRounds, "t", 12, "`rounds` of traffic; in each, every lane is measured once")
	f.IntVar(&s.Adds, "adds", 100, "`ADDs` of part cluster whose containers are waited for, and as many that wait for others")
	f.StringVar(&nodes, "nodes", "10,100,1000", "`nodes` of the clusters of part scale")
	f.IntVar(&s.Starts, "starts", 5, "`times` that tenetd is started in each of them")
	f.DurationVar(&s.Changes, "changes", 15*time.Second, "how long each of them changes")
	f.StringVar(&s.Output, "o", "bench.json", "`file` for every sample and the summary; empty: none")
	f.StringVar(&s.Dir, "dir", os.TempDir(), "`directory` for databases and programs; its file system is part of what is measured")
	if err := f.Parse(args); err != nil {
		return s, err
	}
	for name := range strings.SplitSeq(chosen, ",") {
		if !slices.ContainsFunc(parts(), func(m measurement) bool { return m.name == name }) {
			return s, fmt.Errorf("-part %s: %q is none of %s", chosen, name, strings.Join([]string{addPart, trafficPart, chainsPart, clusterPart, scalePart}, ", "))
		}
		s.Parts = append(s.Parts, name)
	}
	var err error
	if s.Sizes, err = numbers(sizes, 0); err != nil {
		return s, fmt.Errorf("-sizes %s: %w", sizes, err)
	}
	if s.Nodes, err = numbers(nodes, 1); err != nil {
		return s, fmt.Errorf("-nodes %s: %w", nodes, err)
	}
	if most := s.Nodes[len(s.Nodes)-1]; most > mostNodes {
		return s, fmt.Errorf("-nodes %s: %d at most, which is how many blocks a network has", nodes, mostNodes)
	}
	const linuxPorts = 1023 // BR_MAX_PORTS less the one that is no number
	if most := s.Sizes[len(s.Sizes)-1] + max(s.Parallel, 1); most > linuxPorts {
		return s, fmt.Errorf("%d ports: the Linux bridge of the comparison takes %d", most, linuxPorts)
	}
	if s.Rounds < 1 || s.TrafficRounds < 1 || s.Adds < 1 || s.Starts < 1 || s.Parallel < 0 || s.Batches < 0 || s.Changes < time.Second {
		return s, errors.New("-n, -t, -adds and -starts must be 1 or more, -parallel and -batches not negative, -changes a second or more")
	}
	return s, nil
}

// numbers reads a list of numbers that are not less than the least, and sorts it.
func numbers(list string, least int) ([]int, error) {
	var all []int
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < least {
			return nil, fmt.Errorf("%q is not a number of %d or more", text, least)
		}
		all = append(all, n)
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

func run(ctx context.Context, s settings) error {
	r := &report{Settings: s, Machine: machine(ctx, s.Dir), LoadBefore: load()}
	start := time.Now()
	var err error
	if s.bin, err = os.MkdirTemp(s.Dir, "tenet-bench-bin"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(s.bin) }()
	say("building the programs")
	if err := programs(ctx, s.bin); err != nil {
		return err
	}
	for _, p := range parts() {
		if !slices.Contains(s.Parts, p.name) {
			continue
		}
		if err := p.measure(ctx, s, r, start); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	r.LoadAfter, r.Took = load(), time.Since(start).Round(time.Second).String()
	r.judge()
	r.print(os.Stdout)
	if s.Output == "" {
		return nil
	}
	return r.write(s.Output)
}

// inWorld gives a part a world of its own: none finds what another left.
func inWorld(measure func(context.Context, *world, *report, time.Time) error) func(context.Context, settings, *report, time.Time) error {
	return func(ctx context.Context, s settings, r *report, start time.Time) error {
		w, err := newWorld(ctx, s)
		if err != nil {
			return err
		}
		defer w.close()
		return measure(ctx, w, r, start)
	}
}

func measureAdd(ctx context.Context, w *world, r *report, start time.Time) error {
	subjects := w.subjects()
	for _, size := range w.Sizes {
		say("%s %d ports: laying them", elapsed(start), size)
		if err := w.populate(ctx, size); err != nil {
			return fmt.Errorf("populate %d ports: %w", size, err)
		}
		at := newResults(size)
		if err := w.rounds(ctx, at, subjects, start); err != nil {
			return fmt.Errorf("%d ports: %w", size, err)
		}
		r.Sizes = append(r.Sizes, at)
	}
	say("%s sync of %d endpoints", elapsed(start), w.populated)
	var err error
	if r.Sync, err = w.sync(ctx, syncRuns); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// say tells how far it is; results go to standard output.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...) }

func elapsed(start time.Time) string {
	d := time.Since(start).Round(time.Second)
	return fmt.Sprintf("%02d:%02d", int(d.Minutes()), int(d.Seconds())%60)
}
