// Command meter executes commands at once and reports the time, CPU and peak memory of each.
//
// It is a program of its own because of its size. The kernel counts into a child's ru_maxrss what its parent had when
// it forked: Go forks by CLONE_VM, and execve(2) takes over the old memory's high-water mark (fs/exec.c, exec_mmap).
// Executed from the benchmark itself every plugin would seem to need the benchmark's memory. This one's own is the
// least that it can report.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// command and outcome are those of the benchmark's measure.go.
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

func main() {
	var commands []command
	if err := json.NewDecoder(os.Stdin).Decode(&commands); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	outcomes := make([]outcome, len(commands))
	var all sync.WaitGroup
	for i, c := range commands {
		all.Go(func() { outcomes[i] = measure(c) })
	}
	all.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(outcomes); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// measure executes c as libcni does: its input from and its output to pipes.
func measure(c command) outcome {
	var stdout, stderr bytes.Buffer
	cmd := exec.Command(c.Args[0], c.Args[1:]...) //nolint:noctx // the benchmark kills the whole process group
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = c.Env, bytes.NewReader(c.Stdin), &stdout, &stderr
	start := time.Now()
	err := cmd.Run()
	o := outcome{Wall: time.Since(start), Stdout: stdout.Bytes(), Stderr: stderr.Bytes()}
	if err != nil {
		o.Error = err.Error()
	}
	if p := cmd.ProcessState; p != nil {
		o.CPU = p.UserTime() + p.SystemTime() // with those of its own children that it has waited for
		if usage, ok := p.SysUsage().(*syscall.Rusage); ok {
			o.PeakKB = usage.Maxrss // in kB on Linux, getrusage(2); the largest of it and those children
		}
	}
	return o
}
