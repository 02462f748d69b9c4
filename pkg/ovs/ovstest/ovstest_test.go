package ovstest_test

import (
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

func TestASwitchWorksAndLeavesNothing(t *testing.T) {
	var dir string
	var pid int
	t.Run("switch", func(t *testing.T) {
		s := ovstest.Start(t)
		dir, pid = s.RunDir, s.Pid()
		s.Run(t, "ovs-vsctl", "add-br", "br0", "--", "add-port", "br0", "p1")
		if _, err := os.Stat(s.Mgmt("br0")); err != nil {
			t.Error(err)
		}
		if got := s.Run(t, "ovs-ofctl", "dump-ports-desc", "br0"); !strings.Contains(got, "1(p1)") {
			t.Errorf("port p1 is not on the switch: %s", got)
		}
		if got := s.Run(t, "ovs-appctl", "version"); !strings.Contains(got, "ovs-vswitchd") {
			t.Error(got)
		}
	})
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("%s stands: %v", dir, err)
	}
	if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
		t.Errorf("ovs-vswitchd %d lives: %v", pid, err)
	}
}

func TestASwitchSurvivesBothDaemons(t *testing.T) {
	s := ovstest.Start(t)
	s.Run(t, "ovs-vsctl", "add-br", "br0")
	old := s.Pid()
	s.KillVswitchd()
	s.KillVswitchd()
	if err := syscall.Kill(old, 0); err != syscall.ESRCH {
		t.Fatalf("a killed ovs-vswitchd lives: %v", err)
	}
	s.StopDB()
	s.StartDB()
	s.StartVswitchd()
	if s.Pid() == old {
		t.Error("the pid did not change")
	}
	s.Run(t, "ovs-ofctl", "show", "br0")
}

func TestARealSwitchIsInANamespaceOfItsOwn(t *testing.T) {
	s := ovstest.Start(t, ovstest.Real())
	s.Run(t, "ip", "link", "add", "v0", "type", "veth", "peer", "v1")
	s.Run(t, "ovs-vsctl", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type="+s.Datapath, "--", "add-port", "br0", "v0")
	if got := s.Run(t, "ovs-vsctl", "get", "interface", "v0", "ofport"); got != "1" {
		t.Errorf("ofport of v0 is %s", got)
	}
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(s.Pid()) + "/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := os.Readlink(s.NetNS)
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if theirs != kept || theirs == ours {
		t.Errorf("ovs-vswitchd is in %s, NetNS is %s, the test in %s", theirs, kept, ours)
	}
	inside := ovstest.Start(t, ovstest.InNetNS(s.NetNS))
	inside.Run(t, "ip", "link", "show", "v1")
}
