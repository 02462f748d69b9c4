package ovstest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// A process is a daemon that runs as a child, not detached, so that its end is always seen.
type process struct {
	name string
	cmd  *exec.Cmd
	gone chan struct{} // closed when the process has been waited for
}

// KillVswitchd kills ovs-vswitchd with SIGKILL and returns when the process is gone. Its pid file and sockets stay
// behind, as after a crash. Killing a dead one is no error.
func (s *Switch) KillVswitchd() { s.vswitchd.kill() }

// StopDB kills ovsdb-server and returns when the process is gone; the database stays.
func (s *Switch) StopDB() { s.db.kill() }

// StartDB starts ovsdb-server on the database and returns when its socket answers.
func (s *Switch) StartDB() {
	s.tb.Helper()
	s.db = s.start("ovsdb-server", s.path("conf.db"), "--remote=punix:"+s.Socket())
	s.ready(s.db, func() bool { return listening(s.Socket()) })
}

// StartVswitchd starts ovs-vswitchd and returns when it has applied the database: bridges and ports that are in it
// work. While ovsdb-server is stopped it cannot, and only the control socket is waited for.
func (s *Switch) StartVswitchd() {
	s.tb.Helper()
	s.awaitUptime()
	args := []string{"unix:" + s.Socket()}
	switch {
	case s.dummy:
		args = append(args, "--enable-dummy=override", "--disable-system")
	case s.Datapath == "netdev":
		args = append(args, "--disable-system")
	}
	s.vswitchd = s.start("ovs-vswitchd", args...)
	ctl := s.path(fmt.Sprintf("ovs-vswitchd.%d.ctl", s.Pid()))
	s.ready(s.vswitchd, func() bool { return listening(ctl) })
	if listening(s.Socket()) {
		// ovs-vsctl returns when cur_cfg has caught up with next_cfg. The pid in the row makes it a change.
		s.mustOutput("ovs-vsctl", "--timeout=50", "set", "Open_vSwitch", ".", fmt.Sprintf("external_ids:ovstest=%d", s.Pid()))
	}
}

// awaitUptime waits for the monotonic clock to pass 10 s: an ovs-vswitchd 3.1 that starts before counts no CPUs, starts
// no handler threads and forwards nothing. Only emulated guests are that young.
func (s *Switch) awaitUptime() {
	s.tb.Helper()
	Wait(s.tb, "the machine to be up for 10 seconds", func() bool {
		b, err := os.ReadFile("/proc/uptime")
		if err != nil {
			return true
		}
		up, err := strconv.ParseFloat(strings.Fields(string(b))[0], 64)
		return err != nil || up > 11
	})
}

// start starts a daemon of Open vSwitch in the foreground with the files of the run directory.
func (s *Switch) start(name string, args ...string) *process {
	s.tb.Helper()
	path, err := program(name)
	if err != nil {
		s.tb.Fatalf("ovstest: %v", err)
	}
	args = append(args, "--no-chdir", "--pidfile="+s.path(name+".pid"), "--log-file="+s.path(name+".log"), "-vconsole:off")
	p := &process{name: name, cmd: exec.Command(path, args...), gone: make(chan struct{})} //nolint:noctx // ended by kill
	p.cmd.Env = s.Env()
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.keeper.start(p.cmd); err != nil {
		s.tb.Fatalf("ovstest: start %s: %v", name, err)
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait() // its end is all that is asked for
	}()
	return p
}

// ready waits until a daemon works, and fails the test at once if it ends before.
func (s *Switch) ready(p *process, cond func() bool) {
	s.tb.Helper()
	ok := until(func() bool { return p.dead() || cond() })
	if !ok || p.dead() {
		s.tb.Fatalf("ovstest: %s did not come up; its log ends\n%s", p.name, s.logTail(p.name))
	}
}

func (p *process) dead() bool {
	select {
	case <-p.gone:
		return true
	default:
		return false
	}
}

func (p *process) kill() {
	if p == nil {
		return
	}
	_ = p.cmd.Process.Kill() // already gone is as good
	<-p.gone
}

// end ends both daemons and removes every trace: it is the test's cleanup.
func (s *Switch) end() {
	if s.Datapath == "system" && s.vswitchd != nil && !s.vswitchd.dead() {
		_, _ = s.Output("ovs-appctl", "--timeout=20", "exit", "--cleanup") // else the kernel keeps the datapath
	}
	s.vswitchd.kill()
	s.db.kill()
	s.keeper.end()
	if s.tb.Failed() {
		for _, name := range []string{"ovsdb-server", "ovs-vswitchd"} {
			s.tb.Logf("ovstest: log of %s ends\n%s", name, s.logTail(name))
		}
	}
	if err := os.RemoveAll(s.RunDir); err != nil {
		s.tb.Errorf("ovstest: %v", err)
	}
}

func (s *Switch) logTail(name string) string {
	b, err := os.ReadFile(s.path(name + ".log"))
	if err != nil {
		return err.Error()
	}
	lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(string(b)), "\n"), func(line string) bool {
		return strings.Contains(line, "Datapath supports") || strings.Contains(line, "PMD") // said at every start
	})
	return strings.Join(lines[max(0, len(lines)-30):], "\n")
}

func listening(socket string) bool {
	c, err := net.Dial("unix", socket) //nolint:noctx // a Unix socket connects or refuses at once
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
