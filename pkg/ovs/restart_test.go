package ovs_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

func TestPluggingIntoADeadSwitchEndsInTimeAndCanBeUndone(t *testing.T) {
	sw, s := bridged(t)
	sw.KillVswitchd()
	_, err := s.Plug(within(t, enough), "br0", ovs.Port{Name: "p1", Owner: "me"})
	want(t, err, ovs.ErrUnavailable, "plug p1 into br0", "in the database", "ovs-vswitchd did not apply")
	if p, err := s.Port(t.Context(), "br0", "p1"); err != nil || p.OFPort != 0 {
		t.Errorf("%+v, %v", p, err)
	}
	if err := s.Unplug(t.Context(), "br0", "p1"); err != nil {
		t.Fatal(err)
	}
	_, err = s.Plug(within(t, enough), "br0", ovs.Port{Name: "p1", Owner: "me"})
	want(t, err, ovs.ErrUnavailable, "plug p1 into br0", "earlier changes")
	_, err = s.Port(t.Context(), "br0", "p1")
	want(t, err, ovs.ErrNotFound)
	sw.StartVswitchd()
	plug(t, s, ovs.Port{Name: "p1", Owner: "me"})
}

func TestPluggingIntoAStuckSwitchEndsWithItsContext(t *testing.T) {
	sw, s := bridged(t)
	if err := syscall.Kill(sw.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error)
	go func() {
		_, err := s.Plug(ctx, "br0", ovs.Port{Name: "p1", Owner: "me"})
		got <- err
	}()
	ovstest.Wait(t, "the row", func() bool {
		_, err := s.Port(t.Context(), "br0", "p1")
		return err == nil
	})
	cancel()
	err := <-got
	want(t, err, ovs.ErrUnavailable, "plug p1 into br0")
	want(t, err, context.Canceled)
	want(t, s.Alive(within(t, soon), "br0"), ovs.ErrUnavailable, sw.Mgmt("br0"))
	if err := syscall.Kill(sw.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := s.AwaitBridge(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
}

func TestAStuckDatabaseEndsWithTheContext(t *testing.T) {
	sw, s := bridged(t)
	pid := sw.PidOf("ovsdb-server")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// More than a socket's buffer holds, so that writing blocks as well.
	_, err := s.Plug(within(t, soon), "br0", ovs.Port{Name: "p1", Owner: strings.Repeat("x", 1<<20)})
	want(t, err, ovs.ErrUnavailable, "plug p1 into br0", sw.Socket())
	_, err = s.Bridge(within(t, soon), strings.Repeat("x", 1<<20))
	want(t, err, ovs.ErrUnavailable, sw.Socket())
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if _, err := dial(t, sw).Bridge(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
}

func TestPortsKeepTheirNumbersOverARestart(t *testing.T) {
	sw, s := bridged(t)
	plug(t, s, ovs.Port{Name: "asked", Owner: "me", OFPortRequest: 42})
	n := plug(t, s, ovs.Port{Name: "given", Owner: "me"})
	sw.KillVswitchd()
	want(t, s.Alive(t.Context(), "br0"), ovs.ErrUnavailable, sw.Mgmt("br0"), "connection refused")
	sw.StartVswitchd()
	if err := s.AwaitBridge(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
	for name, num := range map[string]int{"asked": 42, "given": n} {
		if p, err := s.Port(t.Context(), "br0", name); err != nil || p.OFPort != num {
			t.Errorf("%s had %d: %+v, %v", name, num, p, err)
		}
	}
}

func TestRestoreWaitIsSetWhileTheSwitchIsDeadAndClearedAfter(t *testing.T) {
	sw, s := bridged(t)
	plug(t, s, ovs.Port{Name: "p1", Owner: "me"})
	waits := func() bool {
		st, err := s.State(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.RestoreWait
	}
	sw.KillVswitchd()
	for range 2 {
		if err := s.SetRestoreWait(within(t, time.Minute), true); err != nil || !waits() {
			t.Fatalf("set: %v, %v", waits(), err)
		}
	}
	sw.StartVswitchd()
	// Everything works while it waits: bridges, ports, and the order of changes.
	ensure(t, s, sw)
	if err := s.AwaitBridge(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
	plug(t, s, ovs.Port{Name: "p1", Owner: "me"})
	for range 2 {
		if err := s.SetRestoreWait(t.Context(), false); err != nil || waits() {
			t.Fatalf("cleared: %v, %v", !waits(), err)
		}
	}
	if st, err := s.State(t.Context()); err != nil || !st.Applied || len(st.DatapathTypes) == 0 {
		t.Errorf("%+v, %v", st, err)
	}
	sw.KillVswitchd()
	want(t, s.SetRestoreWait(within(t, soon), false), ovs.ErrUnavailable, "clear flow-restore-wait")
	if waits() {
		t.Error("the flag stands")
	}
}

func TestSomethingElseOnTheManagementSocketIsNotAlive(t *testing.T) {
	sw, s := bridged(t)
	l, err := net.Listen("unix", sw.Mgmt("br1"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 hello, this is mail\r\n"))
			c.Close()
		}
	}()
	want(t, s.Alive(t.Context(), "br1"), ovs.ErrUnavailable, sw.Mgmt("br1"), "no OpenFlow HELLO")
	want(t, s.Alive(t.Context(), "br2"), ovs.ErrUnavailable, sw.Mgmt("br2"), "no such file")
}

func TestALinkRebornUnderItsNameHears(t *testing.T) {
	sw, s := bridged(t, ovstest.Real())
	sw.Run(t, "ovs-ofctl", "add-flow", "br0", "actions=normal")
	// The far end of each veth is in a namespace of its own, as a container's is.
	netns := func(name string) string { return fmt.Sprintf("tenet-%d-%s", os.Getpid(), name) }
	for _, name := range []string{"ca", "cb"} {
		ns := netns(name)
		sw.Run(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { _, _ = sw.Output("ip", "netns", "del", ns) })
	}
	cable := func(name, addr string) {
		t.Helper()
		ns := netns(name)
		sw.Run(t, "ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", "netns", ns)
		sw.Run(t, "ip", "link", "set", name, "up")
		mac := "0a:58:c0:00:02:0" + addr[len(addr)-1:] // the address's, as tenet does: neighbours need not learn anew
		sw.Run(t, "ip", "-n", ns, "link", "set", "eth0", "address", mac)
		sw.Run(t, "ip", "-n", ns, "addr", "add", addr+"/24", "dev", "eth0")
		sw.Run(t, "ip", "-n", ns, "link", "set", "eth0", "up")
	}
	hears := func() bool {
		_, err := sw.Output("ip", "netns", "exec", netns("ca"), "ping", "-c", "1", "-W", "1", "192.0.2.2")
		return err == nil
	}
	cable("ca", "192.0.2.1")
	cable("cb", "192.0.2.2")
	plug(t, s, ovs.Port{Name: "ca", Owner: "me", OFPortRequest: 1})
	plug(t, s, ovs.Port{Name: "cb", Owner: "me", OFPortRequest: 2})
	ovstest.Wait(t, "the first link to hear", hears)

	// The row stays, the link is another.
	sw.Run(t, "ip", "link", "del", "cb")
	cable("cb", "192.0.2.2")
	plug(t, s, ovs.Port{Name: "cb", Owner: "me", OFPortRequest: 2})
	ovstest.Wait(t, "the second link to hear", hears)

	// The row goes and comes while ovs-vswitchd is busy: it must not take the two for one.
	if err := syscall.Kill(sw.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := s.Unplug(t.Context(), "br0", "cb"); err != nil {
		t.Fatal(err)
	}
	sw.Run(t, "ip", "link", "del", "cb")
	cable("cb", "192.0.2.2")
	got := make(chan error)
	go func() {
		_, err := s.Plug(t.Context(), "br0", ovs.Port{Name: "cb", Owner: "me", OFPortRequest: 2})
		got <- err
	}()
	if err := syscall.Kill(sw.Pid(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	ovstest.Wait(t, "the third link to hear", hears)
}
