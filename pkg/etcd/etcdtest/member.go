package etcdtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Every member has addresses of its own, so the ports can be those that everybody knows.
const (
	clientPort = "2379"
	peerPort   = "2380"
)

// A member is one etcd, running as a child, not detached, so that its end is always seen.
type member struct {
	name   string
	dir    string
	addrs  []string
	keeper *keeper
	cmd    *exec.Cmd
	gone   chan struct{} // closed when the process has been waited for
}

// place gives every member its namespace and addresses.
func (c *Cluster) place() {
	c.tb.Helper()
	for i := range c.options.members {
		netns := ""
		switch len(c.options.netns) {
		case 0:
		case 1:
			netns = c.options.netns[0]
		default:
			netns = c.options.netns[i]
		}
		k, err := newKeeper(netns)
		if err != nil {
			c.tb.Fatalf("etcdtest: %v", err)
		}
		m := &member{name: fmt.Sprintf("m%d", i), keeper: k}
		m.dir = filepath.Join(c.dir, m.name)
		c.members = append(c.members, m)
		switch {
		case len(c.options.listen) == 0:
			m.addrs = []string{c.freeAddress(k)}
		case c.options.members == 1:
			m.addrs = c.options.listen
		default:
			m.addrs = c.options.listen[i : i+1]
		}
	}
}

// freeAddress finds an address of the loopback that a member can have alone. On 127.0.0.1 another program could take
// a member's port while it is stopped.
func (c *Cluster) freeAddress(k *keeper) string {
	c.tb.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.%d.%d.%d", 1+rand.N(254), rand.N(256), 1+rand.N(254))
		if k.free(c.tb.Context(), net.JoinHostPort(addr, clientPort)) && k.free(c.tb.Context(), net.JoinHostPort(addr, peerPort)) {
			return addr
		}
	}
	c.tb.Fatal("etcdtest: no free address on the loopback; is it up?")
	return ""
}

// urls returns where clients reach a member.
func (c *Cluster) urls(m *member) []string {
	scheme := "http://"
	if c.options.tls {
		scheme = "https://"
	}
	var all []string
	for _, addr := range m.addrs {
		all = append(all, scheme+net.JoinHostPort(addr, clientPort))
	}
	return all
}

func (m *member) peerURL() string { return "http://" + net.JoinHostPort(m.addrs[0], peerPort) }

// launch starts a member's process.
func (c *Cluster) launch(m *member) {
	c.tb.Helper()
	log, err := os.OpenFile(m.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.tb.Fatalf("etcdtest: %v", err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	var peers []string
	for _, p := range c.members {
		peers = append(peers, p.name+"="+p.peerURL())
	}
	heartbeat := 50 // milliseconds; short, that tests are
	if len(c.members) == 1 {
		heartbeat = 10 // it hears nobody, and must not wait for others to be elected
	}
	urls := strings.Join(c.urls(m), ",")
	args := []string{
		"--name", m.name, "--data-dir", m.dir,
		"--listen-client-urls", urls, "--advertise-client-urls", urls,
		"--listen-peer-urls", m.peerURL(), "--initial-advertise-peer-urls", m.peerURL(),
		"--initial-cluster", strings.Join(peers, ","),
		"--initial-cluster-token", filepath.Base(c.dir),
		"--heartbeat-interval", strconv.Itoa(heartbeat), "--election-timeout", strconv.Itoa(10 * heartbeat),
		"--bcrypt-cost", "4", // the least there is
		"--logger", "zap", "--log-outputs", "stderr", "--log-level", "error",
	}
	if c.options.tls {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", c.CAFile, "--cert-file", c.path("server.crt"), "--key-file", c.path("server.key"))
	}
	m.cmd = exec.Command("etcd", args...)                                                                     //nolint:noctx // ended by signal
	m.cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "ETCD_") }) // each is a flag
	m.cmd.Stderr = log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := m.keeper.start(m.cmd); err != nil {
		c.tb.Fatalf("etcdtest: start %s: %v", m.name, err)
	}
	m.gone = make(chan struct{})
	go func(cmd *exec.Cmd, gone chan struct{}) {
		defer close(gone)
		_ = cmd.Wait() // its end is all that is asked for
	}(m.cmd, m.gone)
}

// ready waits until a member works and has a leader, and fails the test at once if it ends before.
func (c *Cluster) ready(m *member) {
	c.tb.Helper()
	Wait(c.tb, m.name+" to work", func() bool {
		if m.dead() {
			c.tb.Fatalf("etcdtest: %s ended; its log ends\n%s", m.name, m.logTail())
		}
		leader, _ := c.status(m)
		return leader != 0
	})
}

// status returns whom a member takes for the leader, 0 if for none or if it does not answer, and itself.
func (c *Cluster) status(m *member) (uint64, uint64) {
	ctx, cancel := context.WithTimeout(c.tb.Context(), time.Second)
	defer cancel()
	st, err := c.client.Status(ctx, c.urls(m)[0])
	if err != nil {
		return 0, 0
	}
	return st.Leader, st.Header.GetMemberId()
}

// Leader returns the number of the member that leads, and waits for there to be one.
func (c *Cluster) Leader() int {
	c.tb.Helper()
	at := -1
	Wait(c.tb, "a leader", func() bool {
		at = slices.IndexFunc(c.members, func(m *member) bool {
			if m.dead() {
				return false
			}
			leader, self := c.status(m)
			return leader != 0 && leader == self
		})
		return at >= 0
	})
	return at
}

// Start starts a member again on its data. It returns when the member works or, if too few run for it to, at once.
func (c *Cluster) Start(i int) {
	c.tb.Helper()
	m := c.members[i]
	if !m.dead() {
		c.tb.Fatalf("etcdtest: %s runs", m.name)
	}
	c.launch(m)
	running := 0
	for _, o := range c.members {
		if !o.dead() {
			running++
		}
	}
	if running > len(c.members)/2 {
		c.ready(m)
		if c.options.auth { // its old token is not known any more, and the client gets no new one from an etcd 3.4
			_ = c.client.Close()
			c.client = c.dial(root, rootPassword)
		}
	}
}

// Stop ends a member in peace and returns when it is gone; its data stay. Stopping a dead one is no error.
func (c *Cluster) Stop(i int) {
	c.tb.Helper()
	m := c.members[i]
	m.signal(syscall.SIGTERM)
	m.signal(syscall.SIGCONT)
	select {
	case <-m.gone:
	case <-time.After(patience):
		c.tb.Errorf("etcdtest: %s does not stop", m.name)
		m.kill()
	}
}

// Kill ends a member with SIGKILL and returns when it is gone; its data stay. Killing a dead one is no error.
func (c *Cluster) Kill(i int) { c.members[i].kill() }

// Pause stops a member's process with SIGSTOP and returns when it does nothing any more: its connections stand, and
// nobody answers.
func (c *Cluster) Pause(i int) {
	c.tb.Helper()
	m := c.members[i]
	m.signal(syscall.SIGSTOP)
	Wait(c.tb, m.name+" to pause", func() bool { return m.dead() || m.stopped() })
}

// stopped tells whether all threads of a member's process are in the state T of proc_pid_stat(5).
func (m *member) stopped() bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", m.cmd.Process.Pid))
	return err == nil && !slices.ContainsFunc(stats, func(path string) bool {
		stat, err := os.ReadFile(path)
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && !strings.HasPrefix(state, "T")
	})
}

// Continue ends a Pause.
func (c *Cluster) Continue(i int) { c.members[i].signal(syscall.SIGCONT) }

// Pid is the process id of a member, the last one's if it is dead.
func (c *Cluster) Pid(i int) int { return c.members[i].cmd.Process.Pid }

func (m *member) dead() bool {
	select {
	case <-m.gone:
		return true
	default:
		return false
	}
}

// signal sends a signal to a living member.
func (m *member) signal(s syscall.Signal) {
	_ = m.cmd.Process.Signal(s) // already gone is as good
}

func (m *member) kill() {
	if m.cmd == nil || m.gone == nil {
		return
	}
	m.signal(syscall.SIGKILL)
	<-m.gone
}

// end ends all members and removes every trace: it is the test's cleanup.
func (c *Cluster) end() {
	if c.client != nil {
		_ = c.client.Close()
	}
	for _, m := range c.members {
		m.kill()
		if c.tb.Failed() {
			c.tb.Logf("etcdtest: log of %s ends\n%s", m.name, m.logTail())
		}
		m.keeper.end()
	}
	if err := os.RemoveAll(c.dir); err != nil {
		c.tb.Errorf("etcdtest: %v", err)
	}
}

func (m *member) logTail() string {
	b, err := os.ReadFile(m.dir + ".log")
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "\n")
}

func (c *Cluster) path(name string) string { return filepath.Join(c.dir, name) }
