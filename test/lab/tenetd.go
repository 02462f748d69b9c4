package lab

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
)

// A Daemon is a running tenetd.
type Daemon struct {
	h   *Host
	cmd *exec.Cmd
	log lockedBuffer
}

// Tenetd starts the node's daemon in the host's namespace. It ends with the test, and says all that it logged if that failed.
func (h *Host) Tenetd() *Daemon {
	h.tb.Helper()
	d := &Daemon{h: h}
	d.start()
	h.tb.Cleanup(func() {
		d.End(syscall.SIGKILL)
		if h.tb.Failed() {
			h.tb.Logf("tenetd's log:\n%s", d.Log())
		}
	})
	return d
}

func (d *Daemon) start() {
	d.h.tb.Helper()
	Must(d.h.tb, Inside(d.h.NetNS, func() error {
		d.cmd = exec.Command(filepath.Join(d.h.Bin, "tenetd"), "--data-dir="+d.h.DataDir, "--ovs-run-dir="+d.h.RunDir, "--bridge="+Bridge) //nolint:noctx // ended below
		d.cmd.Stderr = &d.log
		return d.cmd.Start()
	}))
	Eventually(d.h.tb, "tenetd to agree with the switch", func() bool { return bytes.Contains([]byte(d.Log()), []byte("the switch agrees")) })
}

// End sends a signal and waits for the end; it returns the exit code, -1 if a signal ended it.
func (d *Daemon) End(s syscall.Signal) int {
	if d.cmd.ProcessState == nil {
		_ = d.cmd.Process.Signal(s)
		_ = d.cmd.Wait()
	}
	return d.cmd.ProcessState.ExitCode()
}

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
