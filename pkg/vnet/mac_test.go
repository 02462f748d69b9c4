package vnet_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestMACsThatAreRefusedSayWhy(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "six hexadecimal pairs",
		"0a:58:0a:00:00":          "six hexadecimal pairs",
		"0a:58:0a:00:00:02:03:04": "six hexadecimal pairs", // EUI-64
		"0a:58:0a:00:00:0g":       "six hexadecimal pairs",
		"00:00:00:00:00:00":       "all zeros",
		"01:00:5e:00:00:01":       "multicast",
		"ff:ff:ff:ff:ff:ff":       "multicast",
		"0a:58:00:00:00:01":       "gateway's",
	} {
		if _, err := vnet.ParseMAC(text); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an ErrInvalid with %q", text, err, want)
		}
	}
}

func TestMACIsSpelledOneWay(t *testing.T) {
	for _, text := range []string{"0A:58:0A:00:00:02", "0a-58-0a-00-00-02", "0a58.0a00.0002"} {
		var m vnet.MAC
		if err := json.Unmarshal([]byte(`"`+text+`"`), &m); err != nil || m.String() != "0a:58:0a:00:00:02" {
			t.Errorf("%s: got %s, %v", text, m, err)
		}
	}
	var m vnet.MAC
	if err := json.Unmarshal([]byte(`"33:33:00:00:00:01"`), &m); !errors.Is(err, vnet.ErrInvalid) || m != (vnet.MAC{}) {
		t.Errorf("a multicast MAC was read from a record: %s, %v", m, err)
	}
}

// Golden: a MAC that changes with an upgrade would leave stale neighbour entries behind.
func TestSameAddressHasTheSameMACForEver(t *testing.T) {
	for _, test := range []struct{ addrs, want string }{
		{"10.0.0.2", "0a:58:0a:00:00:02"},
		{"fd00::2 10.0.0.2", "0a:58:0a:00:00:02"},
		{"fd00::2", "0a:59:ab:c6:0c:b7"},
		{"", "0a:59:00:00:00:00"},
	} {
		var addrs []netip.Addr
		for text := range strings.FieldsSeq(test.addrs) {
			addrs = append(addrs, netip.MustParseAddr(text))
		}
		m := vnet.MACFor(addrs)
		if m.String() != test.want {
			t.Errorf("%q: got %s, want %s", test.addrs, m, test.want)
		}
		if err := m.Validate(); err != nil {
			t.Errorf("%q: %v", test.addrs, err)
		}
	}
}

// RFC 4291, appendix A: the universal bit turned over, fffe in the middle.
func TestLinkLocalAddressOfAMAC(t *testing.T) {
	for mac, want := range map[vnet.MAC]string{
		{0x0a, 0x58, 0x0a, 0, 0, 2}:              "fe80::858:aff:fe00:2",
		{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}:     "fe80::3656:78ff:fe9a:bcde",
		vnet.RouterMAC:                           "fe80::858:ff:fe00:1",
		{0x02, 0x00, 0x00, 0x00, 0x00, 0x00 | 1}: "fe80::ff:fe00:1",
	} {
		if got := mac.LinkLocal(); got != netip.MustParseAddr(want) {
			t.Errorf("%s: got %s, want %s", mac, got, want)
		}
	}
}
