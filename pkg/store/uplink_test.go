package store_test

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// uplink declares an uplink in a transaction of its own.
func uplink(t *testing.T, s store.Store, name vnet.UplinkName, nic string, vlans ...string) (vnet.Uplink, error) {
	t.Helper()
	list, err := vnet.ParseVLANs(vlans...)
	if err != nil {
		t.Fatal(err)
	}
	var u vnet.Uplink
	err = s.Update(t.Context(), func(tx store.Tx) error {
		var err error
		u, err = store.DeclareUplink(tx, vnet.Uplink{Name: name, NIC: nic, VLANs: list, Bridge: "br-tenet"}, "")
		return err
	})
	return u, err
}

func TestEachUplinkHasANumberOfItsOwnThatItKeeps(t *testing.T) {
	s := empty(t)
	numbers := map[vnet.UplinkName]int{}
	for _, name := range []vnet.UplinkName{"lan", "dmz", "lan"} {
		u, err := uplink(t, s, name, "nic-"+string(name), "100-199")
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := numbers[name]; ok && old != u.OFPort {
			t.Errorf("declared again it has number %d, not %d", u.OFPort, old)
		}
		numbers[name] = u.OFPort
	}
	if numbers["lan"] != vnet.FirstUplinkPort || numbers["dmz"] != vnet.FirstUplinkPort+1 {
		t.Errorf("numbers %v", numbers)
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error { return store.DeleteUplink(tx, "lan") }); err != nil {
		t.Fatal(err)
	}
	if u, err := uplink(t, s, "wan", "eth9"); err != nil || u.OFPort != vnet.FirstUplinkPort {
		t.Errorf("a number that was given back is not used again: %+v, %v", u, err)
	}
}

func TestAnUplinkThatDiffersIsRefused(t *testing.T) {
	s := empty(t)
	if _, err := uplink(t, s, "lan", "eth1", "7"); err != nil {
		t.Fatal(err)
	}
	for what, declare := range map[string]func() (vnet.Uplink, error){
		"another NIC":       func() (vnet.Uplink, error) { return uplink(t, s, "lan", "eth2", "7") },
		"other VLANs":       func() (vnet.Uplink, error) { return uplink(t, s, "lan", "eth1", "8") },
		"another's NIC":     func() (vnet.Uplink, error) { return uplink(t, s, "dmz", "eth1") },
		"more VLANs for it": func() (vnet.Uplink, error) { return uplink(t, s, "lan", "eth1") },
	} {
		if u, err := declare(); !errors.Is(err, vnet.ErrExists) {
			t.Errorf("%s: %+v, %v", what, u, err)
		}
	}
}

func TestAnUplinkGoesOnlyWithoutNetworksAndNoneComesMeanwhile(t *testing.T) {
	s := empty(t)
	if _, err := uplink(t, s, "lan", "eth1", "7"); err != nil {
		t.Fatal(err)
	}
	const onWire = `{"tenant":"blue","name":"wire","subnets":[{"prefix":"10.0.0.0/24"}],"provider":{"uplink":"lan","vlan":7}}`
	if _, err := declare(t, s, onWire); err != nil {
		t.Fatal(err)
	}
	leave := func(tx store.Tx) error {
		_, err := store.LeaveUplink(tx, "lan")
		return err
	}
	gone := func(tx store.Tx) error { return store.DeleteUplink(tx, "lan") }
	for _, do := range []func(store.Tx) error{leave, gone} {
		if err := s.Update(t.Context(), do); !errors.Is(err, vnet.ErrExists) {
			t.Errorf("with a network on it: %v", err)
		}
	}
	if err := s.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(store.DeleteNetwork(tx, vnet.Ref{Tenant: "blue", Network: "wire"}), leave(tx))
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := declare(t, s, onWire); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("a network came to an uplink that leaves: %v", err)
	}
	if u, err := uplink(t, s, "lan", "eth1", "7"); err != nil || u.Leaving {
		t.Fatalf("its removal is not called off: %+v, %v", u, err)
	}
	if _, err := declare(t, s, onWire); err != nil {
		t.Error(err)
	}
}

// A cluster's uplink stands while a node has a NIC on it or a network is on it. One that comes after its networks has their VLANs.
func TestAClustersUplinkGoesWithItsLastUser(t *testing.T) {
	s := empty(t)
	vlans := func(text string) vnet.VLANs {
		list, err := vnet.ParseVLANs(text)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	lan := vnet.Uplink{Name: "lan", NIC: "eth1", VLANs: vlans("100-199")}
	net := vnet.Network{Tenant: "blue", Name: "office", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}, Provider: vnet.Provider{Uplink: "lan", VLAN: 100}}
	stands := func(tx store.Tx, want bool, when string) {
		t.Helper()
		if _, err := store.Uplink(tx, "lan"); errors.Is(err, vnet.ErrNotFound) == want {
			t.Errorf("%s: %v", when, err)
		}
	}
	update(t, s, func(tx store.Tx) error {
		tx = shared{tx}
		if _, err := store.DeclareNetwork(tx, net); !errors.Is(err, vnet.ErrNotFound) {
			t.Errorf("a network comes before its uplink: %v", err)
		}
		if err := store.BringNetwork(tx, net); err != nil {
			return err
		}
		if _, err := store.DeclareUplink(tx, vnet.Uplink{Name: "lan", NIC: "eth1", VLANs: vlans("7")}, "n1"); !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("an uplink comes that lacks a VLAN in use: %v", err)
		}
		for _, node := range []vnet.NodeName{"n2", "n1", "n2"} {
			if _, err := store.DeclareUplink(tx, lan, node); err != nil {
				return err
			}
		}
		if nodes, err := store.UplinkNodes(tx, "lan"); err != nil || !slices.Equal(nodes, []vnet.NodeName{"n1", "n2"}) {
			t.Errorf("it is on %v, %v", nodes, err)
		}
		err := errors.Join(store.KeepUplinks(tx, "n1"), store.KeepUplinks(tx, "n2", "lan"))
		stands(tx, true, "with a node")
		err = errors.Join(err, store.ForgetUplink(tx, "lan", "n2"))
		stands(tx, true, "with a network")
		err = errors.Join(err, store.DeleteNetwork(tx, net.Ref()), store.ForgetUplink(tx, "lan", "n3"))
		stands(tx, false, "with nobody")
		return err
	})
}
