package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A sample is one call. Wall is from before fork to after wait (the floor's is of the process itself), CPU user and
// system time, and PeakKB the most memory that was resident, both from wait4(2), children that were waited for included.
type sample struct {
	Wall   float64            `json:"wall_ms"`
	CPU    float64            `json:"cpu_ms,omitempty"`
	PeakKB int64              `json:"peak_kb,omitempty"`
	Parts  map[string]float64 `json:"parts_ms,omitempty"`
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// command and outcome are those of the meter.
type command struct {
	Args, Env []string
	Stdin     []byte
}

type outcome struct {
	Wall, CPU      time.Duration
	PeakKB         int64
	Stdout, Stderr []byte
	Error          string
}

func (o outcome) sample() sample { return sample{Wall: ms(o.Wall), CPU: ms(o.CPU), PeakKB: o.PeakKB} }

// measure executes commands at once on a node. One that fails is an error.
func (w *world) measure(ctx context.Context, node namespace, commands []command) ([]outcome, error) {
	request, err := json.Marshal(commands)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, w.bin()+"/meter")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(request), &stdout, &stderr
	// A group of its own, so that Ctrl-C reaches it only from here, and then all that it has started.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if err := node.do(cmd.Run); err != nil {
		return nil, fmt.Errorf("meter: %w: %s", errors.Join(ctx.Err(), err), stderr.String())
	}
	var outcomes []outcome
	if err := json.Unmarshal(stdout.Bytes(), &outcomes); err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	for i, o := range outcomes {
		if o.Error != "" {
			return nil, fmt.Errorf("%s: %s: %s%s", strings.Join(commands[i].Args, " "), o.Error, o.Stdout, o.Stderr)
		}
	}
	return outcomes, nil
}

// results are what was measured with so many ports on the bridges, by subject and in the order of measuring: the
// samples of one round have the same index.
type results struct {
	Ports       int                 `json:"ports"`
	Add         map[string][]sample `json:"add"`
	Del         map[string][]sample `json:"del"`
	ParallelAdd map[string][]batch  `json:"parallel_add"`
	ParallelDel map[string][]batch  `json:"parallel_del"`
}

// A batch is many calls at once; Took is from the first's start to the last's end, but for the meter's own start.
type batch struct {
	Took    float64  `json:"took_ms"`
	Samples []sample `json:"samples"`
}

func newResults(ports int) *results {
	return &results{
		Ports: ports, Add: map[string][]sample{}, Del: map[string][]sample{},
		ParallelAdd: map[string][]batch{}, ParallelDel: map[string][]batch{},
	}
}

// rounds measures every subject in turn, a different one first each time. Between two calls ovs-vswitchd comes to rest.
func (w *world) rounds(ctx context.Context, to *results, subjects []subject, start time.Time) error {
	warm := newResults(to.Ports) // page cache, directories, the first IPAM files: thrown away
	for _, s := range subjects {
		if err := w.single(ctx, warm, s); err != nil {
			return err
		}
	}
	for round := range w.Rounds {
		say("%s %d ports: round %d of %d", elapsed(start), to.Ports, round+1, w.Rounds)
		for i := range subjects {
			if err := w.single(ctx, to, subjects[(round+i)%len(subjects)]); err != nil {
				return err
			}
		}
	}
	if w.Parallel == 0 {
		return nil
	}
	for n := range w.Batches {
		say("%s %d ports: %d at once, %d of %d", elapsed(start), to.Ports, w.Parallel, n+1, w.Batches)
		for i := range subjects {
			if s := subjects[(n+i)%len(subjects)]; s.parallel {
				if err := w.batch(ctx, to, s); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// single measures one ADD and its DEL.
func (w *world) single(ctx context.Context, to *results, s subject) error {
	return w.measured(ctx, s, 1, func(adds, dels []sample) {
		to.Add[s.name] = append(to.Add[s.name], adds...)
		if s.del != nil {
			to.Del[s.name] = append(to.Del[s.name], dels...)
		}
	})
}

// batch measures many ADDs at once, and then their DELs.
func (w *world) batch(ctx context.Context, to *results, s subject) error {
	return w.measured(ctx, s, w.Parallel, func(adds, dels []sample) {
		to.ParallelAdd[s.name] = append(to.ParallelAdd[s.name], newBatch(adds))
		to.ParallelDel[s.name] = append(to.ParallelDel[s.name], newBatch(dels))
	})
}

func (w *world) measured(ctx context.Context, s subject, count int, keep func(adds, dels []sample)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	list := make([]*attachment, count)
	for i := range list {
		w.calls++
		list[i] = &attachment{id: strconv.Itoa(w.calls), number: 256 + w.calls, ns: w.containers[i]}
	}
	adds, err := s.add(ctx, list)
	if err != nil {
		return fmt.Errorf("%s: ADD: %w", s.name, err)
	}
	if err := w.db.settle(); err != nil {
		return err
	}
	if s.del == nil {
		keep(adds, nil)
		return nil
	}
	dels, err := s.del(ctx, list)
	if err != nil {
		return fmt.Errorf("%s: DEL: %w", s.name, err)
	}
	keep(adds, dels)
	return w.db.settle()
}

// newBatch: all begin together, so the slowest is the whole.
func newBatch(samples []sample) batch {
	b := batch{Samples: samples}
	for _, s := range samples {
		b.Took = max(b.Took, s.Wall)
	}
	return b
}
