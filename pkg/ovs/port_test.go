package ovs_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

func TestAPluggedPortHasItsNumberAndSaysWhoseItIs(t *testing.T) {
	sw, s := bridged(t)
	p := ovs.Port{Name: "p1", Owner: "me", OFPortRequest: 77, ExternalIDs: map[string]string{"zone": "1000"}}
	if n := plug(t, s, p); n != 77 {
		t.Errorf("ofport %d", n)
	}
	if got := sw.Run(t, "ovs-ofctl", "show", "br0"); !strings.Contains(got, "77(p1)") {
		t.Errorf("not on the switch: %s", got)
	}
	got, err := s.Port(t.Context(), "br0", "p1")
	if err != nil || got.OFPort != 77 || got.OFPortRequest != 77 || got.Owner != "me" || got.ExternalIDs["zone"] != "1000" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, table := range []string{"port", "interface"} {
		if got := sw.Run(t, "ovs-vsctl", "get", table, "p1", "external_ids:tenet"); got != "me" {
			t.Errorf("the %s row belongs to %s", table, got)
		}
	}
	list, err := s.Ports(t.Context(), "br0")
	if err != nil || len(list) != 1 || list[0].Name != "p1" || list[0].OFPort != 77 {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestAnUnpluggedPortIsGoneAndUnpluggingItAgainIsFine(t *testing.T) {
	sw, s := bridged(t)
	plug(t, s, ovs.Port{Name: "p1", Owner: "me"})
	for range 2 {
		if err := s.Unplug(t.Context(), "br0", "p1"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Unplug(t.Context(), "nobridge", "p1"); err != nil {
		t.Fatal(err)
	}
	_, err := s.Port(t.Context(), "br0", "p1")
	want(t, err, ovs.ErrNotFound, "port p1 of br0")
	for _, table := range []string{"port", "interface"} {
		if got := sw.Run(t, "ovs-vsctl", "--bare", "--columns=name", "list", table); got != "br0" {
			t.Errorf("rows of table %s: %q", table, got)
		}
	}
}

func TestPluggingAgainMakesANewRow(t *testing.T) {
	sw, s := bridged(t)
	p := ovs.Port{Name: "p1", Owner: "me", OFPortRequest: 5}
	plug(t, s, p)
	old := sw.Run(t, "ovs-vsctl", "get", "interface", "p1", "_uuid")
	if n := plug(t, s, p); n != 5 {
		t.Errorf("ofport %d", n)
	}
	if now := sw.Run(t, "ovs-vsctl", "get", "interface", "p1", "_uuid"); now == old {
		t.Error("the row was reused")
	}
}

func TestAPortThatIsNotOursIsNotTouched(t *testing.T) {
	sw, s := bridged(t)
	if _, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br1", Owner: "test", Datapath: sw.Datapath}); err != nil {
		t.Fatal(err)
	}
	sw.Run(t, "ovs-vsctl", "add-port", "br0", "foreign", "--", "add-bond", "br0", "bond", "slave1", "slave2")
	plug(t, s, ovs.Port{Name: "theirs", Owner: "them"})
	if _, err := s.Plug(t.Context(), "br1", ovs.Port{Name: "elsewhere", Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	before := sw.Run(t, "ovs-vsctl", "--columns=_uuid,name,interfaces,external_ids", "list", "port")
	for name, says := range map[string]string{
		"foreign": "a port of that name exists", "theirs": "belongs to them", "elsewhere": "another bridge", "slave1": "another port",
		"br0": "belongs to test", "br1": "another bridge",
	} {
		_, err := s.Plug(t.Context(), "br0", ovs.Port{Name: name, Owner: "me"})
		want(t, err, ovs.ErrNotOurs, "plug "+name+" into br0", says)
	}
	want(t, s.Unplug(t.Context(), "br0", "foreign"), ovs.ErrNotOurs, "unplug foreign from br0")
	want(t, s.Unplug(t.Context(), "br0", "br0"), ovs.ErrNotOurs)
	if err := s.Unplug(t.Context(), "br0", "elsewhere"); err != nil {
		t.Error(err)
	}
	if err := s.UnplugAll(t.Context(), "br0", []string{"foreign", "elsewhere", "bond", "br0", "nonesuch"}); err != nil {
		t.Error(err)
	}
	_, err := s.Port(t.Context(), "br0", "foreign")
	want(t, err, ovs.ErrNotOurs)
	if after := sw.Run(t, "ovs-vsctl", "--columns=_uuid,name,interfaces,external_ids", "list", "port"); after != before {
		t.Errorf("the rows changed from\n%s\nto\n%s", before, after)
	}
	if list, err := s.Ports(t.Context(), "br0"); err != nil || len(list) != 1 || list[0].Name != "theirs" {
		t.Errorf("ours in br0: %+v, %v", list, err)
	}
}

func TestPluggingIntoNoBridgeWritesNothing(t *testing.T) {
	sw, s := bridged(t)
	_, err := s.Plug(t.Context(), "nobridge", ovs.Port{Name: "p1", Owner: "me"})
	want(t, err, ovs.ErrNotFound, "plug p1 into nobridge")
	if got := sw.Run(t, "ovs-vsctl", "--bare", "--columns=name", "list", "interface"); got != "br0" {
		t.Errorf("interfaces: %q", got)
	}
}

func TestAMissingLinkIsToldInTheSwitchsWords(t *testing.T) {
	_, s := bridged(t, ovstest.Real())
	_, err := s.Plug(t.Context(), "br0", ovs.Port{Name: "nolink", Owner: "me"})
	want(t, err, ovs.ErrDevice, "plug nolink into br0", "No such device")
	p, err := s.Port(t.Context(), "br0", "nolink")
	if err != nil || p.OFPort != -1 || p.Error == "" {
		t.Errorf("%+v, %v", p, err)
	}
	if err := s.Unplug(t.Context(), "br0", "nolink"); err != nil {
		t.Error(err)
	}
}

func TestManyPortsAtOnceOverTwoConnections(t *testing.T) {
	sw, s := bridged(t)
	both := []*ovs.Switch{s, dial(t, sw)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]string{}
	for i := range 40 {
		name := fmt.Sprintf("p%d", i)
		wg.Go(func() {
			n, err := both[i%2].Plug(t.Context(), "br0", ovs.Port{Name: name, Owner: "owner of " + name})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other, taken := seen[n]; taken {
				t.Errorf("%s and %s both have number %d", name, other, n)
			}
			seen[n] = name
		})
	}
	wg.Wait()
	list, err := s.Ports(t.Context(), "br0")
	if err != nil || len(list) != 40 {
		t.Fatalf("%d ports, %v", len(list), err)
	}
	for _, p := range list {
		if seen[p.OFPort] != p.Name || p.Owner != "owner of "+p.Name {
			t.Errorf("%+v", p)
		}
	}
	for i, p := range list {
		wg.Go(func() {
			if err := both[i%2].Unplug(t.Context(), "br0", p.Name); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if list, err := s.Ports(t.Context(), "br0"); err != nil || len(list) != 0 {
		t.Errorf("left: %v, %v", list, err)
	}
}

func TestTheSamePortPluggedByManyIsOnePort(t *testing.T) {
	sw, s := bridged(t)
	both := []*ovs.Switch{s, dial(t, sw)}
	var wg sync.WaitGroup
	var mu sync.Mutex
	good := 0
	for i := range 8 {
		wg.Go(func() {
			_, err := both[i%2].Plug(t.Context(), "br0", ovs.Port{Name: "p1", Owner: "me", OFPortRequest: 9})
			if err != nil && !errors.Is(err, ovs.ErrNotFound) { // who was overtaken is told that its row has gone
				t.Error(err)
			}
			if err == nil {
				mu.Lock()
				good++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	list, err := s.Ports(t.Context(), "br0")
	if err != nil || len(list) != 1 || list[0].OFPort != 9 || good == 0 {
		t.Errorf("%+v, %v, %d succeeded", list, err, good)
	}
}

func TestATunnelThatStandsIsLeftAlone(t *testing.T) {
	sw, s := bridged(t)
	tun := ovs.Port{
		Name: "vx", Owner: "node1", Type: "vxlan", OFPortRequest: 1,
		Options: map[string]string{"remote_ip": "flow", "key": "flow"},
	}
	uuid := func() string { return sw.Run(t, "ovs-vsctl", "get", "interface", "vx", "_uuid") }
	var before string
	for i := range 2 {
		if n, err := s.EnsurePort(t.Context(), "br0", tun); err != nil || n != 1 {
			t.Fatalf("%d, %v", n, err)
		}
		if i == 0 {
			before = uuid()
		}
	}
	if uuid() != before {
		t.Error("an unchanged tunnel was made anew")
	}
	tun.Options["dst_port"] = "8472"
	if n, err := s.EnsurePort(t.Context(), "br0", tun); err != nil || n != 1 {
		t.Fatalf("%d, %v", n, err)
	}
	if p, err := s.Port(t.Context(), "br0", "vx"); err != nil || p.Options["dst_port"] != "8472" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestAnInternalPortHasTheMTUAskedFor(t *testing.T) {
	sw, s := bridged(t, ovstest.Real())
	for _, mtu := range []int{1400, 1300} {
		p := ovs.Port{Name: "in0", Owner: "me", Type: "internal", OFPortRequest: 7, MTURequest: mtu}
		if n, err := s.EnsurePort(t.Context(), "br0", p); err != nil || n != 7 {
			t.Fatalf("%d, %v", n, err)
		}
		if got, err := s.Port(t.Context(), "br0", "in0"); err != nil || got.MTURequest != mtu {
			t.Errorf("%+v, %v", got, err)
		}
		ovstest.Wait(t, "the link's MTU", func() bool {
			return strings.Contains(sw.Run(t, "ip", "link", "show", "in0"), fmt.Sprintf("mtu %d ", mtu))
		})
	}
}

func TestTwoBridgesAreJoinedByATrunkOfSomeVLANs(t *testing.T) {
	sw, s := bridged(t)
	if _, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br1", Owner: "test", Datapath: sw.Datapath}); err != nil {
		t.Fatal(err)
	}
	ends := map[string]ovs.Port{
		"br0": {Name: "to-br1", Owner: "me", Type: "patch", OFPortRequest: 0x100, Options: map[string]string{"peer": "to-br0"}},
		"br1": {Name: "to-br0", Owner: "me", Type: "patch", Trunks: []int{102, 0, 101, 101}, Options: map[string]string{"peer": "to-br1"}},
	}
	var before string
	for range 2 { // the second time nothing is made anew
		for bridge, p := range ends {
			if n, err := s.EnsurePort(t.Context(), bridge, p); err != nil || p.OFPortRequest != 0 && n != p.OFPortRequest {
				t.Fatalf("%d, %v", n, err)
			}
		}
		rows := sw.Run(t, "ovs-vsctl", "--columns=_uuid,name,trunks", "list", "port")
		if before != "" && rows != before {
			t.Errorf("the rows changed from\n%s\nto\n%s", before, rows)
		}
		before = rows
	}
	if got := sw.Run(t, "ovs-vsctl", "get", "port", "to-br0", "trunks"); got != "[0, 101, 102]" {
		t.Errorf("trunks %s", got)
	}
	trunk := ends["br1"]
	trunk.Trunks = nil
	if _, err := s.EnsurePort(t.Context(), "br1", trunk); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Ports(t.Context(), "br1"); err != nil || len(list) != 1 || len(list[0].Trunks) != 0 {
		t.Errorf("still a trunk of some: %+v, %v", list, err)
	}
}

func TestPortsAreUnpluggedTogetherOrOneByOne(t *testing.T) {
	sw, s := bridged(t)
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		plug(t, s, ovs.Port{Name: n, Owner: "me"})
	}
	if err := s.UnplugEach(t.Context(), "br0", []string{"a", "nonesuch", "b"}); err != nil {
		t.Fatal(err)
	}
	if got := sw.Run(t, "ovs-ofctl", "show", "br0"); strings.Contains(got, "(a)") || strings.Contains(got, "(b)") {
		t.Errorf("returned before the switch had done it: %s", got)
	}
	if err := syscall.Kill(sw.Pid(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	want(t, s.UnplugEach(within(t, soon), "br0", []string{"c"}), ovs.ErrUnavailable, "unplug c from br0")
	sw.KillVswitchd()
	if err := s.UnplugAll(t.Context(), "br0", []string{"c", "d", "nonesuch"}); err != nil {
		t.Fatal(err)
	}
	list, err := s.Ports(t.Context(), "br0")
	if err != nil || len(list) != 1 || list[0].Name != "e" {
		t.Errorf("%+v, %v", list, err)
	}
}
