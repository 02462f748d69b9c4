package ovs_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs"
)

func TestControlTracesAPacket(t *testing.T) {
	sw, s := bridged(t)
	plug(t, s, ovs.Port{Name: "p1", Owner: "me", OFPortRequest: 1})
	plug(t, s, ovs.Port{Name: "p2", Owner: "me", OFPortRequest: 2})
	sw.Run(t, "ovs-ofctl", "add-flow", "br0", "in_port=1,actions=output:2")
	out, err := ovs.Control(t.Context(), sw.RunDir, "ofproto/trace", "br0", "in_port=1,arp")
	if err != nil || !strings.Contains(out, "output:2") {
		t.Errorf("%s, %v", out, err)
	}
	if v, err := ovs.Version(t.Context(), sw.RunDir); err != nil || strings.Count(v, ".") < 2 {
		t.Errorf("version %q, %v", v, err)
	}
}

func TestControlTellsTheSwitchsRefusal(t *testing.T) {
	sw, _ := bridged(t)
	_, err := ovs.Control(t.Context(), sw.RunDir, "ofproto/trace", "nobridge", "arp")
	if err == nil || errors.Is(err, ovs.ErrUnavailable) || !strings.Contains(err.Error(), "ofproto/trace") {
		t.Errorf("%v", err)
	}
	_, err = ovs.Control(t.Context(), sw.RunDir, "no/such-command")
	if err == nil || !strings.Contains(err.Error(), `"no/such-command" is not a valid command`) {
		t.Errorf("%v", err)
	}
}

func TestControlOfASwitchThatDoesNotRunIsUnavailable(t *testing.T) {
	sw, _ := bridged(t)
	if err := syscall.Kill(sw.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	_, err := ovs.Control(within(t, soon), sw.RunDir, "version")
	want(t, err, ovs.ErrUnavailable, "does not answer")
	sw.KillVswitchd()
	_, err = ovs.Control(t.Context(), sw.RunDir, "version")
	want(t, err, ovs.ErrUnavailable, "connection refused", sw.RunDir)
	pid := filepath.Join(sw.RunDir, "ovs-vswitchd.pid")
	if err := os.WriteFile(pid, []byte("nonsense\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = ovs.Control(t.Context(), sw.RunDir, "version")
	want(t, err, ovs.ErrUnavailable, pid)
	if err := os.Remove(pid); err != nil {
		t.Fatal(err)
	}
	_, err = ovs.Control(t.Context(), sw.RunDir, "version")
	want(t, err, ovs.ErrUnavailable, "not running", pid)
}
