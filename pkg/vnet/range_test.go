package vnet_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestRangeTexts(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{"10.0.0.2-10.0.0.9", "10.0.0.2-10.0.0.9"},
		{" 10.0.0.2 - 10.0.0.9 ", "10.0.0.2-10.0.0.9"},
		{"10.0.0.2", "10.0.0.2"},
		{"10.0.0.2-10.0.0.2", "10.0.0.2"},
		{"10.0.0.8/29", "10.0.0.8-10.0.0.15"},
		{"10.0.0.9/29", "10.0.0.8-10.0.0.15"},
		{"10.0.0.9/32", "10.0.0.9"},
		{"0.0.0.0/0", "0.0.0.0-255.255.255.255"},
		{"fd00::/65", "fd00::-fd00::7fff:ffff:ffff:ffff"},
		{"fd00::1-fd00::2", "fd00::1-fd00::2"},
		{"", ""},
		{"-", ""},
		{"10.0.0.2-", ""},
		{"-10.0.0.2", ""},
		{"10.0.0.9-10.0.0.2", ""},
		{"10.0.0.1-fd00::1", ""},
		{"10.0.0.1-10.0.0.2-10.0.0.3", ""},
		{"fe80::1%eth0", ""},
		{"10.0.0.0/33", ""},
		{"ten", ""},
	} {
		var r vnet.Range
		err := r.UnmarshalText([]byte(test.text))
		if test.want == "" {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("%q: got %v, %v, want an ErrInvalid", test.text, r, err)
			}
			continue
		}
		if err != nil || r.String() != test.want {
			t.Errorf("%q: got %v, %v, want %s", test.text, r, err, test.want)
		}
	}
}

func TestRangeContainsItsEndsAndNothingOfTheOtherFamily(t *testing.T) {
	var r vnet.Range
	if err := r.UnmarshalText([]byte("10.0.0.2-10.0.0.4")); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"10.0.0.1": false, "10.0.0.2": true, "10.0.0.3": true, "10.0.0.4": true, "10.0.0.5": false, "::ffff:10.0.0.3": false, "fd00::3": false,
	} {
		if got := r.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: got %v", addr, got)
		}
	}
}

func FuzzRange(f *testing.F) {
	for _, seed := range []string{"10.0.0.2-10.0.0.9", "10.0.0.8/29", "fd00::/65", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::ffff:10.0.0.0/120", "1.1.1.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r, again vnet.Range
		if err := r.UnmarshalText([]byte(text)); err != nil {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Fatalf("%q: %v is of no kind", text, err)
			}
			return
		}
		if !r.Contains(r.First) || !r.Contains(r.Last) || r.Last.Less(r.First) {
			t.Fatalf("%q is %v, which does not hold its ends", text, r)
		}
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Fatalf("%q is %v, which is read back as %v: %v", text, r, again, err)
		}
	})
}
