package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A daemon is a running tenetd.
type daemon struct {
	cmd  *exec.Cmd
	log  string        // its path
	gone chan struct{} // closed when the process has been waited for
}

// startTenetd starts it on a node. It ends with this process at the latest.
func (w *world) startTenetd(args ...string) (*daemon, error) {
	d := &daemon{log: w.path("tenetd.log"), gone: make(chan struct{})}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()                                //nolint:errcheck // the child has its own
	d.cmd = exec.Command(w.bin()+"/tenetd", args...) //nolint:noctx // ended by stop
	d.cmd.Stderr, d.cmd.Env = log, os.Environ()      // GOGC and the like
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 2)
	go func() { // a death signal means the end of the thread that started the process: it must last as long
		defer close(d.gone)
		started <- w.ovsNode.do(func() error {
			if err := d.cmd.Start(); err != nil {
				return err
			}
			started <- nil
			_ = d.cmd.Wait() // its end is all that is asked for
			return nil
		})
	}()
	return d, <-started
}

// stop ends it in peace. Stopping none is no error.
func (d *daemon) stop() error {
	if d == nil {
		return nil
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // already gone is as good
	select {
	case <-d.gone:
		return nil
	case <-time.After(daemonPatience):
		_ = d.cmd.Process.Kill()
		<-d.gone
		return errors.New("tenetd does not stop")
	}
}

const daemonPatience = 30 * time.Second

// await polls until done, which may say that it cannot be.
func (d *daemon) await(ctx context.Context, what string, done func() (bool, error)) error {
	for end := time.Now().Add(daemonPatience); ; {
		ok, err := done()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", what, err)
		case ok:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("waited for %s in vain; the log of tenetd ends\n%s", what, d.logTail())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.gone:
			return fmt.Errorf("tenetd ended before %s; its log ends\n%s", what, d.logTail())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (d *daemon) logTail() string {
	if d == nil {
		return "(none runs)"
	}
	b, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

// memory is what a process has resident, and the most that it had, in MB.
type memory struct {
	RSS float64 `json:"rss_mb"`
	HWM float64 `json:"hwm_mb"`
}

func (d *daemon) memory() (memory, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return memory{}, err
	}
	var m memory
	for line := range strings.Lines(string(b)) { // proc_pid_status(5)
		for name, to := range map[string]*float64{"VmRSS:": &m.RSS, "VmHWM:": &m.HWM} {
			if text, ok := strings.CutPrefix(line, name); ok {
				kb, err := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(text), " kB"))
				if err != nil {
					return m, err
				}
				*to = float64(kb) / 1024
			}
		}
	}
	return m, nil
}

// cpu is what a process has used of the CPUs.
func cpu(pid int) (time.Duration, error) {
	var t unix.Timespec
	clock := int32(^pid<<3 | 2) // clock_getcpuclockid(3): glibc and musl make it so
	if err := unix.ClockGettime(clock, &t); err != nil {
		return 0, fmt.Errorf("CPU time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}
