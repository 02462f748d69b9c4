package vnet_test

import (
	"errors"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

func mapping(t *testing.T, hostIP string, port int, protocol string) vnet.PortMapping {
	t.Helper()
	m, err := vnet.ParsePortMapping(hostIP, port, 80, protocol)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMappingsOverlapWhereOnePacketCouldBeMeantForBoth(t *testing.T) {
	for _, tc := range []struct {
		ip1, ip2     string
		port2        int
		proto2       string
		want         bool
		circumstance string
	}{
		{"", "", 8080, "tcp", true, "the same"},
		{"", "", 8081, "tcp", false, "another port"},
		{"", "", 8080, "udp", false, "another protocol"},
		{"192.0.2.1", "192.0.2.2", 8080, "tcp", false, "two addresses"},
		{"192.0.2.1", "::ffff:192.0.2.1", 8080, "tcp", true, "the same address, mapped into IPv6"},
		{"192.0.2.1", "", 8080, "tcp", true, "all addresses"},
		{"192.0.2.1", "0.0.0.0", 8080, "tcp", true, "all of the family"},
		{"192.0.2.1", "::", 8080, "tcp", false, "all of the other family"},
	} {
		a, b := mapping(t, tc.ip1, 8080, ""), mapping(t, tc.ip2, tc.port2, tc.proto2)
		if a.Overlaps(b) != tc.want || b.Overlaps(a) != tc.want {
			t.Errorf("%s: %s and %s overlap: %v", tc.circumstance, a, b, a.Overlaps(b))
		}
	}
}

func TestMappingsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, tc := range []struct {
		ip         string
		host, port int
		protocol   string
	}{
		{"", 0, 80, "tcp"},
		{"", -1, 80, "tcp"},
		{"", 65536, 80, "tcp"},
		{"", 80, 0, "tcp"},
		{"", 80, 65536, "tcp"},
		{"", 80, 80, "icmp"},
		{"host", 80, 80, "tcp"},
		{"fe80::1%eth0", 80, 80, "tcp"},
		{"224.0.0.1", 80, 80, "tcp"},
	} {
		if m, err := vnet.ParsePortMapping(tc.ip, tc.host, tc.port, tc.protocol); !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("%+v: got %v, %v", tc, m, err)
		}
	}
}

func TestLimitsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, l := range []vnet.Limit{{Burst: 8}, {Rate: 7_999}, {Rate: 1e12 + 1}} {
		for _, b := range []vnet.Bandwidth{{Ingress: l}, {Egress: l}} {
			if _, err := b.Normal(); !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("%+v: %v", b, err)
			}
		}
	}
	for _, l := range []vnet.Limit{{}, {Rate: 8_000}, {Rate: 1e12, Burst: 1}} {
		if _, err := (vnet.Bandwidth{Ingress: l, Egress: l}).Normal(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
