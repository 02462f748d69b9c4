package vnet_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestPortsOfFunctionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, tc := range []struct {
		port vnet.FunctionPort
		want string // empty: it makes sense
	}{
		{vnet.FunctionPort{Group: "fw", Port: "ingress"}, ""},
		{vnet.FunctionPort{Group: "fw", Port: "both", Weight: 100}, ""},
		{vnet.FunctionPort{Port: "egress"}, "group is missing"},
		{vnet.FunctionPort{Group: "red/fw", Port: "egress"}, `group "red/fw"`},
		{vnet.FunctionPort{Group: "fw"}, `port "": must be ingress, egress or both`},
		{vnet.FunctionPort{Group: "fw", Port: "Ingress"}, `port "Ingress"`},
		{vnet.FunctionPort{Group: "fw", Port: "both", Weight: -1}, "weight -1: must be 1 to 100"},
		{vnet.FunctionPort{Group: "fw", Port: "both", Weight: 101}, "weight 101: must be 1 to 100"},
	} {
		got, err := tc.port.Normal()
		if tc.want == "" {
			if err != nil || got.Weight != max(1, tc.port.Weight) {
				t.Errorf("%+v: got %+v, %v", tc.port, got, err)
			}
			continue
		}
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want an ErrInvalid with %q", tc.port, err, tc.want)
		}
	}
}

func TestAnInstanceIsWholeWithBothItsPorts(t *testing.T) {
	port := func(role vnet.PortRole, weight int) vnet.FunctionPort {
		return vnet.FunctionPort{Group: "fw", Port: role, Weight: weight}
	}
	in, out := vnet.EndpointID("in"), vnet.EndpointID("out")
	none := vnet.Instance{Tenant: "blue", Group: "fw", Container: "c1"}

	half, err := none.With(in, port(vnet.Ingress, 2))
	if err != nil || half.Whole() || half.Ingress != in {
		t.Fatalf("with its ingress it is %+v, %v", half, err)
	}
	if again, err := half.With(in, port(vnet.Ingress, 2)); err != nil || again != half {
		t.Errorf("the same port again: %+v, %v", again, err)
	}
	whole, err := half.With(out, port(vnet.Egress, 1))
	if err != nil || !whole.Whole() || whole.Weight != 2 {
		t.Fatalf("with both it is %+v, %v, want the higher weight", whole, err)
	}
	for _, tc := range []struct {
		instance vnet.Instance
		role     vnet.PortRole
		want     string
	}{
		{half, vnet.Ingress, "its ingress port"},
		{half, vnet.Both, "its ingress port"},
		{whole, vnet.Egress, "its egress port"},
		{whole.Without(in), vnet.Both, "its egress port"},
	} {
		got, err := tc.instance.With("another", port(tc.role, 1))
		if !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "container c1 has "+tc.want+" in group fw already") || tc.instance.Ingress == "another" {
			t.Errorf("%s, once more: got %+v, %v", tc.role, got, err)
		}
	}

	if left := whole.Without(in); left.Ingress != "" || left.Egress != out || left.Whole() {
		t.Errorf("without its ingress it is %+v", left)
	}
	if left := whole.Without("another"); left != whole {
		t.Errorf("without a port that it has not it is %+v", left)
	}
	one, err := none.With(in, port(vnet.Both, 1))
	if err != nil || !one.Whole() || one.Ingress != one.Egress {
		t.Fatalf("with one port for both it is %+v, %v", one, err)
	}
	if left := one.Without(in); left.Ingress != "" || left.Egress != "" {
		t.Errorf("without its only port it is %+v", left)
	}
}
