package vnet_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// subnet makes a declared subnet: prefix, gateway ("" for none given) and reserved ranges.
func subnet(t testing.TB, prefix, gateway string, reserved ...string) vnet.Subnet {
	t.Helper()
	s := vnet.Subnet{Prefix: netip.MustParsePrefix(prefix)}
	if gateway != "" {
		s.Gateway = netip.MustParseAddr(gateway)
	}
	for _, text := range reserved {
		var r vnet.Range
		if err := r.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		s.Reserved = append(s.Reserved, r)
	}
	return s
}

// normal is subnet after Normal.
func normal(t testing.TB, prefix, gateway string, reserved ...string) vnet.Subnet {
	t.Helper()
	s, err := subnet(t, prefix, gateway, reserved...).Normal()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestGatewayIsTheFirstAddressUnlessThereIsNoRoom(t *testing.T) {
	for _, test := range []struct{ prefix, gateway, want string }{
		{"10.0.0.0/24", "", "10.0.0.1"},
		{"10.0.0.0/24", "10.0.0.254", "10.0.0.254"},
		{"10.0.0.0/30", "", "10.0.0.1"},
		{"10.0.0.0/31", "", "invalid IP"},
		{"10.0.0.0/31", "10.0.0.0", "10.0.0.0"},
		{"10.0.0.7/32", "", "invalid IP"},
		{"fd00::/64", "", "fd00::1"},
		{"fd00::/126", "", "fd00::1"},
		{"fd00::/127", "", "invalid IP"},
		{"fd00::7/128", "", "invalid IP"},
	} {
		if got := normal(t, test.prefix, test.gateway).Gateway.String(); got != test.want {
			t.Errorf("%s, gateway %q: got %s, want %s", test.prefix, test.gateway, got, test.want)
		}
	}
}

func TestSubnetsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, test := range []struct {
		subnet vnet.Subnet
		want   string
	}{
		{vnet.Subnet{}, "without a prefix"},
		{subnet(t, "10.0.0.1/24", ""), "did you mean 10.0.0.0/24"},
		{subnet(t, "fd00::1/64", ""), "did you mean fd00::/64"},
		{subnet(t, "::ffff:10.0.0.0/120", ""), "neither an IPv4 nor an IPv6"},
		{subnet(t, "0.0.0.0/0", ""), "no endpoint can have"},
		{subnet(t, "::/0", ""), "no endpoint can have"},
		{subnet(t, "0.0.0.0/24", ""), "no endpoint can have"},
		{subnet(t, "127.0.0.0/16", ""), "no endpoint can have"},
		{subnet(t, "126.0.0.0/7", ""), "127.0.0.0/8"},
		{subnet(t, "169.254.64.0/18", ""), "no endpoint can have"},
		{subnet(t, "239.0.0.0/24", ""), "no endpoint can have"},
		{subnet(t, "255.255.255.254/31", ""), "no endpoint can have"},
		{subnet(t, "::/64", ""), "no endpoint can have"},
		{subnet(t, "fe80::/64", ""), "no endpoint can have"},
		{subnet(t, "fe00::/8", ""), "fe80::/10"},
		{subnet(t, "ff02::/64", ""), "no endpoint can have"},
		{subnet(t, "10.0.0.0/24", "10.0.1.1"), "gateway 10.0.1.1 is outside"},
		{subnet(t, "10.0.0.0/24", "fd00::1"), "gateway fd00::1 is outside"},
		{subnet(t, "10.0.0.0/24", "::ffff:10.0.0.1"), "is outside"},
		{subnet(t, "10.0.0.0/24", "10.0.0.0"), "network or broadcast"},
		{subnet(t, "10.0.0.0/24", "10.0.0.255"), "network or broadcast"},
		{subnet(t, "fd00::/64", "fd00::"), "network or broadcast"},
		{subnet(t, "10.0.0.0/24", "", "10.0.0.250-10.0.1.5"), "reserved range 10.0.0.250-10.0.1.5 is outside"},
		{subnet(t, "10.0.0.0/24", "", "fd00::/64"), "is outside"},
	} {
		_, err := test.subnet.Normal()
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: got %v, want an ErrInvalid with %q", test.subnet, err, test.want)
		}
	}
}

// all returns every address that Next gives, in order.
func all(s vnet.Subnet) []string {
	var got []string
	for a := s.Next(s.Prefix.Addr()); a.IsValid(); a = s.Next(a.Next()) {
		got = append(got, a.String())
	}
	return got
}

func TestEveryAddressThatMayBeHandedOutAndNoOther(t *testing.T) {
	for _, test := range []struct {
		subnet vnet.Subnet
		want   string
	}{
		{normal(t, "10.0.0.0/29", ""), "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
		{normal(t, "10.0.0.0/29", "10.0.0.6"), "10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5"},
		{normal(t, "10.0.0.0/29", "", "10.0.0.3-10.0.0.5"), "10.0.0.2 10.0.0.6"},
		{normal(t, "10.0.0.0/29", "", "10.0.0.2-10.0.0.4", "10.0.0.4", "10.0.0.6"), "10.0.0.5"},
		{normal(t, "10.0.0.0/29", "", "10.0.0.0/29"), ""},
		{normal(t, "10.0.0.0/30", ""), "10.0.0.2"},
		{normal(t, "10.0.0.0/31", ""), "10.0.0.0 10.0.0.1"},
		{normal(t, "10.0.0.0/31", "10.0.0.0"), "10.0.0.1"},
		{normal(t, "10.0.0.7/32", ""), "10.0.0.7"},
		{normal(t, "10.0.0.7/32", "10.0.0.7"), ""},
		{normal(t, "fd00::/126", ""), "fd00::2 fd00::3"},
		{normal(t, "fd00::/127", ""), "fd00:: fd00::1"},
		{normal(t, "fd00::7/128", ""), "fd00::7"},
	} {
		if diff := cmp.Diff(strings.Fields(test.want), all(test.subnet), cmp.Transformer("empty", func(s []string) string { return strings.Join(s, " ") })); diff != "" {
			t.Errorf("%v (-want +got):\n%s", test.subnet, diff)
		}
	}
}

func TestAddressesThatNobodyMayHaveSayWhy(t *testing.T) {
	s := normal(t, "10.0.0.0/24", "", "10.0.0.8/29")
	for addr, want := range map[string]string{
		"10.0.0.0": "network", "10.0.0.255": "broadcast", "10.0.0.1": "gateway", "10.0.0.9": "reserved range 10.0.0.8-10.0.0.15",
		"10.0.1.2": "outside", "::ffff:10.0.0.2": "outside", "fd00::2": "outside",
	} {
		if err := s.Assignable(netip.MustParseAddr(addr)); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an ErrInvalid with %q", addr, err, want)
		}
	}
	if err := s.Assignable(netip.MustParseAddr("10.0.0.2")); err != nil {
		t.Error(err)
	}
}

// A step over 2^63 reserved addresses one by one would never end.
func TestHalfOfAnIPv6SubnetReservedIsSteppedOverAtOnce(t *testing.T) {
	s := normal(t, "fd00::/64", "", "fd00::/65", "fd00::8000:0:0:0-fd00::8000:0:0:ff")
	if got, want := s.Next(s.Prefix.Addr()), netip.MustParseAddr("fd00::8000:0:0:100"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	s = normal(t, "fd00::/64", "", "fd00::/64")
	if got := s.Next(s.Prefix.Addr()); got.IsValid() {
		t.Errorf("got %s of a subnet that is reserved as a whole", got)
	}
}

func TestNothingComesAfterTheLastAddress(t *testing.T) {
	s := vnet.Subnet{Prefix: netip.MustParsePrefix("255.255.255.254/31")} // the end of all IPv4
	last := netip.MustParseAddr("255.255.255.255")
	if got := s.Next(last); got != last {
		t.Fatalf("got %s, want %s", got, last)
	}
	if got := s.Next(last.Next()); got.IsValid() {
		t.Errorf("after the last address came %s", got)
	}
}
