package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
)

// A Daemon is a running tenetd.
type Daemon struct {
	h   *Host
	cmd *exec.Cmd
	log lockedBuffer
}

// Tenetd starts the node's daemon in the host's namespace and waits until it agrees with the switch. It ends with the
// test, and says all that it logged if that failed.
func (h *Host) Tenetd() *Daemon {
	h.tb.Helper()
	d := h.BeginTenetd()
	d.Logs("the switch agrees")
	return d
}

// BeginTenetd starts the daemon, as Tenetd does, and waits for nothing.
func (h *Host) BeginTenetd(args ...string) *Daemon {
	h.tb.Helper()
	d := &Daemon{h: h}
	Must(h.tb, Inside(h.NetNS, func() error {
		d.cmd = exec.Command(filepath.Join(h.Bin, "tenetd"), append(append(h.told(), "--log-level=debug"), args...)...) //nolint:noctx // ended below
		d.cmd.Stderr = &d.log
		return d.cmd.Start()
	}))
	h.machine.daemons = append(h.machine.daemons, d)
	h.tb.Cleanup(func() {
		d.End(syscall.SIGKILL)
		if h.tb.Failed() {
			h.tb.Logf("tenetd's log:\n%s", d.Log())
		}
	})
	return d
}

// Logs waits until it has logged these words.
func (d *Daemon) Logs(words string) {
	d.h.tb.Helper()
	Eventually(d.h.tb, "tenetd to log "+words, func() bool { return strings.Contains(d.Log(), words) })
}

// End sends a signal and waits for the end; it returns the exit code, -1 if a signal ended it.
func (d *Daemon) End(s syscall.Signal) int {
	if d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Signal(s)
		_ = d.cmd.Wait()
	}
	return d.cmd.ProcessState.ExitCode()
}

// Ends waits until it has ended by itself, and returns the exit code.
func (d *Daemon) Ends() int {
	d.h.tb.Helper()
	late := time.AfterFunc(Patience(), d.Kill)
	_ = d.cmd.Wait()
	if !late.Stop() {
		d.h.tb.Fatal("tenetd does not end")
	}
	return d.cmd.ProcessState.ExitCode()
}

// Sleeps runs something while tenetd does nothing, and has no lock that others wait for.
func (d *Daemon) Sleeps(while func()) {
	d.h.tb.Helper()
	var locks []func()
	for _, name := range []string{"flows of " + Bridge, "store"} {
		unlock, err := store.Lock(d.h.tb.Context(), d.h.DataDir, name)
		Must(d.h.tb, err)
		locks = append(locks, unlock)
	}
	Must(d.h.tb, d.cmd.Process.Signal(syscall.SIGSTOP))
	defer func() { Must(d.h.tb, d.cmd.Process.Signal(syscall.SIGCONT)) }()
	Eventually(d.h.tb, "tenetd to stop", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", d.cmd.Process.Pid))
		Must(d.h.tb, err)
		return !slices.ContainsFunc(threads, func(path string) bool {
			status, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(status), "\nState:\tT")
		})
	})
	for _, unlock := range locks {
		unlock()
	}
	while()
}

// Kill kills it, if it does not end by another signal that End waits for.
func (d *Daemon) Kill() { _ = d.cmd.Process.Kill() }

// Log is what it has logged.
func (d *Daemon) Log() string { return d.log.String() }

// lockedBuffer may be written while it is read.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Terminate ends tenetd as systemd does: it must go by itself, and soon.
func (d *Daemon) Terminate() {
	d.h.tb.Helper()
	ended := make(chan int, 1)
	go func() { ended <- d.End(syscall.SIGTERM) }()
	select {
	case code := <-ended:
		if code != 0 {
			d.h.tb.Errorf("tenetd ends with %d", code)
		}
	case <-time.After(Stretch(5 * time.Second)):
		d.h.tb.Error("tenetd does not end")
		d.Kill()
		<-ended
	}
}
