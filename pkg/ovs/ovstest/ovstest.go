// Package ovstest starts a private Open vSwitch for a test: a real ovsdb-server and a real ovs-vswitchd in a
// directory of their own, ended and removed when the test ends.
//
// By default the switch runs on OVS's dummy datapath and needs no privilege: any device name is accepted and no packet
// leaves the process. With Real it works on real links, in a network namespace of its own.
//
// A machine without Open vSwitch (or, for Real, without root) skips the test, unless the environment variable
// TENET_REQUIRE names "ovs" (or "netns"): then the test fails, so that a skip cannot pass for a run.
package ovstest

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait of this package. It is long because emulated guests are slow; nothing waits it out
// unless it is broken.
const patience = 60 * time.Second

// maxRunDir keeps the sockets in a run directory shorter than sun_path, 108 bytes in unix(7): the longest is
// "ovs-vswitchd.<pid>.ctl" or a bridge's "<15 bytes>.mgmt".
const maxRunDir = 108 - 30

// A Switch is one private Open vSwitch. Its methods may be called from any goroutine but, as they may fail the test,
// those that take a testing.TB only from the test's own.
type Switch struct {
	// RunDir holds the sockets, pid files, logs and the database: what a package calls the OVS run directory.
	RunDir string
	// Datapath is the datapath_type that bridges of this switch should have: "netdev" (also on the dummy, which
	// stands in for it), or "system" for the kernel's.
	Datapath string
	// NetNS is the path of the network namespace that the switch lives in. It stays valid until the test ends, also
	// while ovs-vswitchd is dead.
	NetNS string

	tb       testing.TB
	dummy    bool
	keeper   *keeper
	db       *process
	vswitchd *process
}

// An Option changes what Start starts.
type Option func(*options)

type options struct {
	real  bool
	netns string
}

// Real makes the switch work on real links instead of dummies: on OVS's userspace datapath, or on the kernel's if the
// environment variable TENET_DATAPATH is "system" (see Switch.Datapath). It lives in a fresh network namespace, with
// the loopback up, so that names of links and bridges are the test's own. It needs root.
func Real() Option { return func(o *options) { o.real = true } }

// InNetNS is Real in the network namespace at path (as /run/netns/NAME or /proc/PID/ns/net) instead of a fresh one.
func InNetNS(path string) Option {
	return func(o *options) { o.real, o.netns = true, path }
}

// Start starts a switch and returns when it works. It has no bridge. tb's cleanup ends it; if the test failed, the
// logs of both daemons are shown.
func Start(tb testing.TB, opts ...Option) *Switch {
	tb.Helper()
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	require(tb, o)
	s := &Switch{tb: tb, Datapath: "netdev", dummy: !o.real}
	if o.real && os.Getenv("TENET_DATAPATH") == "system" {
		s.Datapath = "system"
	}
	s.RunDir = runDir(tb)
	k, err := newKeeper(o)
	if err != nil {
		tb.Fatalf("ovstest: %v", err)
	}
	s.keeper, s.NetNS = k, k.netns
	tb.Cleanup(s.end)
	s.mustOutput("ovsdb-tool", "create", s.path("conf.db"), schema(tb))
	s.StartDB()
	s.mustOutput("ovs-vsctl", "--timeout=30", "--no-wait", "init")
	s.StartVswitchd()
	return s
}

// Socket is the path of the database's socket.
func (s *Switch) Socket() string { return s.path("db.sock") }

// Mgmt is the path of a bridge's OpenFlow management socket.
func (s *Switch) Mgmt(bridge string) string { return s.path(bridge + ".mgmt") }

// Pid is the process id of ovs-vswitchd: the last one's, if it is dead.
func (s *Switch) Pid() int { return s.vswitchd.cmd.Process.Pid }

// PidOf is the process id of "ovs-vswitchd" or "ovsdb-server", the last one's if it is dead. A test may stop and
// continue the process.
func (s *Switch) PidOf(daemon string) int {
	if daemon == s.db.name {
		return s.db.cmd.Process.Pid
	}
	return s.Pid()
}

// Env is the environment under which the programs of Open vSwitch (ovs-vsctl, ovs-ofctl, ovs-appctl) talk to this
// switch: the process's own and OVS_RUNDIR with its kin.
func (s *Switch) Env() []string {
	return append(os.Environ(), "OVS_RUNDIR="+s.RunDir, "OVS_LOGDIR="+s.RunDir, "OVS_DBDIR="+s.RunDir)
}

// Run runs a program against the switch, in the switch's network namespace, and returns its standard output without
// surrounding space. Any failure fails the test. "ovs-vsctl", "ovs-ofctl" and "ovs-appctl" need no option to find it.
func (s *Switch) Run(tb testing.TB, args ...string) string {
	tb.Helper()
	out, err := s.Output(args...)
	if err != nil {
		tb.Fatalf("ovstest: %v", err)
	}
	return out
}

// Output is Run for a program that may fail; the error has its standard error in it.
func (s *Switch) Output(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.tb.Context()), patience)
	defer cancel()
	return s.keeper.output(ctx, s.Env(), args...)
}

// Wait calls cond every few milliseconds until it is true, and fails the test, saying what was waited for, if that
// does not happen in a minute. It is what tests use instead of sleeping.
func Wait(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !until(cond) {
		tb.Fatalf("waited for %s in vain", what)
	}
}

func until(cond func() bool) bool {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if cond() {
			return true
		}
	}
	return false
}

func (s *Switch) path(name string) string { return filepath.Join(s.RunDir, name) }

func (s *Switch) mustOutput(args ...string) {
	s.tb.Helper()
	if _, err := s.Output(args...); err != nil {
		s.tb.Fatalf("ovstest: %v", err)
	}
}

// require skips or fails the test when the machine lacks what it needs.
func require(tb testing.TB, o options) {
	tb.Helper()
	missing := func(need, why string) {
		tb.Helper()
		for r := range strings.SplitSeq(os.Getenv("TENET_REQUIRE"), ",") {
			if strings.TrimSpace(r) == need {
				tb.Fatalf("%s, and TENET_REQUIRE has %q", why, need)
			}
		}
		tb.Skip(why)
	}
	for _, p := range []string{"ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl"} {
		if _, err := program(p); err != nil {
			missing("ovs", p+" is not installed")
		}
	}
	if o.real && os.Geteuid() != 0 {
		missing("netns", "real links and network namespaces need root")
	}
	if o.real && !canUnshare() {
		missing("netns", "this machine refuses a new network namespace")
	}
}

// program finds a program also where daemons live, for users whose PATH has no sbin.
func program(name string) (string, error) {
	p, err := exec.LookPath(name)
	if err == nil {
		return p, nil
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin"} {
		if q, e := exec.LookPath(filepath.Join(dir, name)); e == nil {
			return q, nil
		}
	}
	return "", err
}

func schema(tb testing.TB) string {
	tb.Helper()
	for _, p := range []string{
		"/usr/share/openvswitch/vswitch.ovsschema", "/usr/local/share/openvswitch/vswitch.ovsschema",
	} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	tb.Fatal("ovstest: vswitch.ovsschema is in no share/openvswitch")
	return ""
}

// runDir makes a short directory: a test's own TempDir is often too long for the path of a Unix socket.
func runDir(tb testing.TB) string {
	tb.Helper()
	parent := ""
	if len(os.TempDir()) > maxRunDir-len("/tenet-ovs1234567890") {
		parent = "/tmp"
	}
	dir, err := os.MkdirTemp(parent, "tenet-ovs") //nolint:usetesting // see above
	if err != nil {
		tb.Fatalf("ovstest: %v", err)
	}
	return dir
}
