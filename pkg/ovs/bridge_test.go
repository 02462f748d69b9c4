package ovs_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

func TestABridgeIsSecureSpeaksOpenFlow15AndIsReadyAtOnce(t *testing.T) {
	sw := ovstest.Start(t)
	s := dial(t, sw)
	spec := ovs.BridgeSpec{Name: "br0", Owner: "node1", ExternalIDs: map[string]string{"zone": "7"}}
	b, err := s.EnsureBridge(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Alive(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
	sw.Run(t, "ovs-ofctl", "-O", "OpenFlow15", "show", "br0")
	if flows := sw.Run(t, "ovs-ofctl", "dump-flows", "br0"); strings.Contains(flows, "NORMAL") {
		t.Errorf("it forwards by itself: %s", flows)
	}
	if b.Name != "br0" || b.Owner != "node1" || b.FailMode != "secure" || b.ExternalIDs["zone"] != "7" || !b.Applied {
		t.Errorf("%+v", b)
	}
	again, err := s.Bridge(t.Context(), "br0")
	if err != nil || again.Owner != b.Owner || again.Datapath != b.Datapath {
		t.Errorf("read back: %+v, %v", again, err)
	}
	if ports, err := s.Ports(t.Context(), "br0"); err != nil || len(ports) != 0 {
		t.Errorf("its own port counts: %v, %v", ports, err)
	}
}

func TestEnsuringABridgeAgainKeepsItAndMendsIt(t *testing.T) {
	sw, s := bridged(t)
	uuid := sw.Run(t, "ovs-vsctl", "get", "bridge", "br0", "_uuid")
	cfg := sw.Run(t, "ovs-vsctl", "get", "open", ".", "next_cfg")
	ensure(t, s, sw)
	if now := sw.Run(t, "ovs-vsctl", "get", "open", ".", "next_cfg"); now != cfg {
		t.Errorf("an unneeded change: next_cfg went from %s to %s", cfg, now)
	}
	sw.Run(t, "ovs-vsctl", "set", "bridge", "br0", "fail_mode=standalone", "external_ids:other=stays")
	ensure(t, s, sw)
	if now := sw.Run(t, "ovs-vsctl", "get", "bridge", "br0", "_uuid"); now != uuid {
		t.Error("the bridge was made anew")
	}
	b, err := s.Bridge(t.Context(), "br0")
	if err != nil || b.FailMode != "secure" || b.ExternalIDs["other"] != "stays" {
		t.Errorf("%+v, %v", b, err)
	}
}

func TestEightProcessesMakeOneBridge(t *testing.T) {
	sw := ovstest.Start(t)
	var wg sync.WaitGroup
	for range 8 {
		s := dial(t, sw)
		wg.Go(func() {
			b, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "node1"})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Alive(t.Context(), b.Name); err != nil {
				t.Errorf("returned too early: %v", err)
			}
		})
	}
	wg.Wait()
	if got := sw.Run(t, "ovs-vsctl", "list-br"); got != "br0" {
		t.Errorf("bridges: %q", got)
	}
}

func TestAForeignBridgeIsNotTouched(t *testing.T) {
	sw := ovstest.Start(t)
	sw.Run(t, "ovs-vsctl", "add-br", "br0")
	before := sw.Run(t, "ovs-vsctl", "list", "bridge", "br0")
	s := dial(t, sw)
	_, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "node1"})
	want(t, err, ovs.ErrNotOurs, "bridge br0")
	_, err = s.Plug(t.Context(), "br0", ovs.Port{Name: "p1", Owner: "me"})
	want(t, err, ovs.ErrNotOurs, "plug p1 into br0")
	want(t, s.RemoveBridge(t.Context(), "br0"), ovs.ErrNotOurs)
	if after := sw.Run(t, "ovs-vsctl", "list", "bridge", "br0"); after != before {
		t.Errorf("the row changed from\n%s\nto\n%s", before, after)
	}
}

func TestABridgeOfAnotherOwnerIsNotTaken(t *testing.T) {
	sw := ovstest.Start(t)
	s := dial(t, sw)
	ensure(t, s, sw)
	before := sw.Run(t, "ovs-vsctl", "list", "bridge", "br0")
	_, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "another"})
	want(t, err, ovs.ErrNotOurs, "bridge br0")
	if after := sw.Run(t, "ovs-vsctl", "list", "bridge", "br0"); after != before {
		t.Errorf("the row changed from\n%s\nto\n%s", before, after)
	}
}

func TestAStandaloneBridgeForwardsByItselfUnderTheMACAskedFor(t *testing.T) {
	sw := ovstest.Start(t)
	s := dial(t, sw)
	for _, mac := range []string{"02:00:00:00:00:01", "02:00:00:00:00:02"} { // made so, then mended
		b, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "me", Datapath: sw.Datapath, Standalone: true, HWAddr: mac})
		if err != nil {
			t.Fatal(err)
		}
		if !b.Standalone || b.FailMode != "standalone" || b.HWAddr != mac || len(b.ExternalIDs) != 0 {
			t.Errorf("%+v", b)
		}
		if got := sw.Run(t, "ovs-ofctl", "show", "br0"); !strings.Contains(got, mac) {
			t.Errorf("its local link has another MAC: %s", got)
		}
		if flows := sw.Run(t, "ovs-ofctl", "dump-flows", "br0"); !strings.Contains(flows, "NORMAL") {
			t.Errorf("it forwards nothing: %s", flows)
		}
		sw.Run(t, "ovs-vsctl", "set-fail-mode", "br0", "secure")
	}
}

func TestABridgeNeverChangesItsShape(t *testing.T) {
	sw, s := bridged(t)
	if _, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br1", Owner: "test", Datapath: sw.Datapath, Standalone: true}); err != nil {
		t.Fatal(err)
	}
	sw.Run(t, "ovs-vsctl", "set-fail-mode", "br0", "standalone") // which does not make it one that was meant so
	before := sw.Run(t, "ovs-vsctl", "list", "bridge")
	_, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "test", Standalone: true})
	want(t, err, ovs.ErrNotOurs, "bridge br0", "something else")
	_, err = s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br1", Owner: "test"})
	want(t, err, ovs.ErrNotOurs, "bridge br1", "something else")
	if after := sw.Run(t, "ovs-vsctl", "list", "bridge"); after != before {
		t.Errorf("the rows changed from\n%s\nto\n%s", before, after)
	}
}

func TestTheBridgeThatHasALinkIsFound(t *testing.T) {
	sw, s := bridged(t)
	sw.Run(t, "ovs-vsctl", "add-br", "br1", "--", "add-port", "br1", "p1", "--", "add-bond", "br1", "bond", "slave1", "slave2")
	for link, bridge := range map[string]string{"p1": "br1", "slave2": "br1", "br0": "br0", "nonesuch": ""} {
		if got, err := s.BridgeWith(t.Context(), link); err != nil || got != bridge {
			t.Errorf("%s is in %q, want %q, %v", link, got, bridge, err)
		}
	}
}

func TestABridgeWithoutItsDatapathIsRefused(t *testing.T) {
	sw := ovstest.Start(t, ovstest.Real())
	_, err := dial(t, sw).EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "node1", Datapath: "nonesuch"})
	want(t, err, ovs.ErrDevice, "bridge br0", "nonesuch")
}

func TestTheDatapathIsChosenByWhatThereIs(t *testing.T) {
	sw := ovstest.Start(t, ovstest.Real())
	b, err := dial(t, sw).EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "node1"})
	if err != nil {
		t.Fatal(err)
	}
	if b.Datapath != sw.Datapath {
		t.Errorf("datapath %s, this switch can %s", b.Datapath, sw.Datapath)
	}
}

func TestABridgeForADeadVswitchdIsUnavailableInTime(t *testing.T) {
	sw := ovstest.Start(t)
	s := dial(t, sw)
	sw.KillVswitchd()
	_, err := s.EnsureBridge(within(t, enough), ovs.BridgeSpec{Name: "br0", Owner: "test"})
	want(t, err, ovs.ErrUnavailable, "bridge br0", "ovs-vswitchd did not apply")
	sw.StartVswitchd()
	ensure(t, s, sw)
}

func TestARemovedBridgeIsGone(t *testing.T) {
	_, s := bridged(t)
	plug(t, s, ovs.Port{Name: "p1", Owner: "me"})
	for range 2 {
		if err := s.RemoveBridge(t.Context(), "br0"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := s.Bridge(t.Context(), "br0")
	want(t, err, ovs.ErrNotFound, "br0")
	_, err = s.Ports(t.Context(), "br0")
	want(t, err, ovs.ErrNotFound, "br0")
}
