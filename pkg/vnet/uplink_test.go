package vnet_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestAnUplinksTrunkIsItsVLANsAndWhatHasNone(t *testing.T) {
	for _, c := range []struct {
		vlans []string
		trunk []int
	}{
		{nil, nil},
		{[]string{"7"}, []int{0, 7}},
		{[]string{"100-102", "7", "101-103"}, []int{0, 7, 100, 101, 102, 103}},
	} {
		list, err := vnet.ParseVLANs(c.vlans...)
		if err != nil {
			t.Fatal(err)
		}
		if got := (vnet.Uplink{VLANs: list}).Trunk(); !slices.Equal(got, c.trunk) {
			t.Errorf("%v: trunk %v, want %v", c.vlans, got, c.trunk)
		}
	}
}

func TestAnUplinksBridgeHasANameThatALinkCanHave(t *testing.T) {
	for name, good := range map[vnet.UplinkName]bool{"lan": true, "twelve-chars": true, "thirteen-char": false, "": false, "a/b": false} {
		_, err := vnet.Uplink{Name: name, NIC: "eth1"}.Normal()
		if good != (err == nil) || err != nil && !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if good && len(name.Bridge()) > 15 {
			t.Errorf("bridge %s", name.Bridge())
		}
	}
}
