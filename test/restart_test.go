package test

import (
	"os"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

const dropIn = "../conf/systemd/ovs-vswitchd.service.d/10-tenet.conf"

// pair is a host with two containers that reach each other, and its state.
func pair(t *testing.T) (*lab.Host, *lab.Container, *lab.Container, lab.Snapshot) {
	t.Helper()
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	a, b := h.Attach("a", conf), h.Attach("b", conf)
	a.Reaches(b.IP4)
	return h, a, b, h.Snapshot()
}

// restart is kill -9 of ovs-vswitchd, and what systemd does then.
func restart(t *testing.T, h *lab.Host) {
	t.Helper()
	h.KillVswitchd()
	h.ServiceStarts(dropIn)
}

func TestRestartOfTheSwitchRestoresTheFlowsAndReplugsNothing(t *testing.T) {
	h, a, b, before := pair(t)
	s := a.Stream(b)
	s.Flows()
	restart(t, h)
	s.Flows()
	lost, silence := s.Lost()
	t.Logf("%d datagrams lost, nothing for %s (datapath %s)", lost, silence, h.Datapath)
	if h.Datapath == "system" && lost > 0 {
		t.Error("the kernel's datapath goes on by itself: nothing may be lost")
	}
	lab.Same(t, before, h.Snapshot())
	for _, c := range []*lab.Container{a, b} {
		lab.Must(t, c.Do("CHECK").Failed())
	}
}

// The flag stops every bridge of the machine from getting new flows: it must go, whatever happens to ours.
func TestRestartLeavesNoFlagBehindIfTheSyncFails(t *testing.T) {
	for what, failing := range map[string]func(t *testing.T, h *lab.Host){
		"the store cannot be read": func(t *testing.T, h *lab.Host) {
			t.Helper()
			good, err := os.ReadFile(h.Store().Path())
			lab.Must(t, err)
			corrupt(h)
			if _, err := h.Tenetctl("sync", "--after-switch"); err == nil { // the drop-in's next line would clear the flag too
				t.Error("tenetctl does not say that it failed")
			}
			lab.Must(t, os.WriteFile(h.Store().Path(), good, 0o600))
		},
		"tenetctl is killed": func(t *testing.T, h *lab.Host) {
			t.Helper()
			bin := h.Bin
			h.Bin = t.TempDir() // as if it had never run
			if failed := h.DropIn(dropIn, "ExecStartPost"); len(failed) != 1 {
				t.Errorf("failed: %v", failed)
			}
			h.Bin = bin
		},
	} {
		t.Run(what, func(t *testing.T) {
			h, a, b, before := pair(t)
			h.KillVswitchd()
			h.DropIn(dropIn, "ExecStartPre")
			if !flagged(h) {
				t.Error("the flag is not set before the start")
			}
			h.StartVswitchd()
			failing(t, h)
			if flagged(h) {
				t.Error("the flag stands")
			}
			h.Sync()
			lab.Same(t, before, h.Snapshot())
			a.Reaches(b.IP4)
		})
	}
}

func flagged(h *lab.Host) bool {
	return strings.Contains(h.Sh("ovs-vsctl", "--no-wait", "get", "Open_vSwitch", ".", "other_config"), "flow-restore-wait")
}

func TestRestartWithoutTheDropInIsRepairedByTheNextADD(t *testing.T) {
	h, a, b, before := pair(t)
	h.KillVswitchd()
	h.StartVswitchd()
	if flows := h.Flows(); len(flows) > 0 {
		t.Fatalf("there are %d flows: this test proves nothing", len(flows))
	}
	lab.Fails(t, a.Do("CHECK"), lab.CodeConflict, "has not got this version's pipeline")
	lab.Fails(t, a.Do("STATUS"), 0)
	c := h.Attach("c", a.Conf)
	for _, to := range []*lab.Container{b, c} {
		a.Reaches(to.IP4)
		a.Reaches(to.IP6)
		lab.Must(t, to.Do("CHECK").Failed())
	}
	c.Del()
	lab.Same(t, before.Lasting(), h.Snapshot().Lasting())
}

// Containers that died while ovs-vswitchd was down leave nothing, and do not keep the others waiting.
func TestRestartForgetsContainersThatDiedMeanwhile(t *testing.T) {
	h, a, b, before := pair(t)
	gone := h.Attach("gone", a.Conf)
	h.KillVswitchd()
	gone.Sh("ip", "link", "del", "eth0")
	h.ServiceStarts(dropIn)
	lab.Same(t, before.Lasting(), h.Snapshot().Lasting())
	a.Reaches(b.IP4)
	gone.Del()
}

// ovsdb-server may go and come back: what stands is not touched.
func TestRestartOfTheDatabaseChangesNothing(t *testing.T) {
	h, a, b, before := pair(t)
	h.StopDB()
	lab.Fails(t, a.Do("ADD"), lab.CodeLater, "db.sock")
	if h.Datapath == "system" {
		a.Reaches(b.IP4) // the userspace datapath stands still: ovs-vswitchd's one thread waits for its database
	}
	h.StartDB()
	lab.Eventually(t, "ovs-vswitchd to find the database again", func() bool {
		_, err := h.Output("ovs-vsctl", "--timeout=5", "set", "Open_vSwitch", ".", "external_ids:again=1")
		return err == nil
	})
	a.Add()
	lab.Same(t, before, h.Snapshot())
	lab.Eventually(t, "packets to pass again", func() bool { return a.Pings(b.IP4) })
}
