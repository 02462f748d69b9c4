package veth

import "testing"

func TestUnderlayMTU(t *testing.T) {
	const links = `
link add up0 mtu 1400 type veth peer name up1 mtu 1400
link add up2 mtu 9000 type veth peer name up3 mtu 9000
link set up0 up
link set up1 up
link set up2 up
link set up3 up
addr add 192.0.2.2/24 dev up0
addr add 198.51.100.2/24 dev up2
-6 addr add 2001:db8::2/64 dev up2 nodad
`
	for name, tt := range map[string]struct {
		routes string
		mtu    int
		link   string
	}{
		"no default route":   {"", 1500, ""},
		"only others":        {"route add 10.0.0.0/8 via 192.0.2.1", 1500, ""},
		"unreachable":        {"route add unreachable default metric 1", 1500, ""},
		"IPv4":               {"route add default via 192.0.2.1", 1400, "up0"},
		"IPv4 before IPv6":   {"route add default via 192.0.2.1\n-6 route add default via 2001:db8::1", 1400, "up0"},
		"IPv6 alone":         {"-6 route add default via 2001:db8::1", 9000, "up2"},
		"on-link":            {"route add default dev up2", 9000, "up2"},
		"least metric":       {"route add default via 192.0.2.1 metric 200\nroute add default via 198.51.100.1 metric 100", 9000, "up2"},
		"several next hops":  {"route add default nexthop via 198.51.100.1 nexthop via 192.0.2.1", 1400, "up0"},
		"MTU on the route":   {"route add default via 198.51.100.1 mtu 8000", 8000, "up2"},
		"not the main table": {"route add default via 192.0.2.1 table 77", 1500, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.runBatch(links + tt.routes)
			mtu, link, err := UnderlayMTU(ctx(t))
			if mtu != tt.mtu || link != tt.link || err != nil {
				t.Errorf("%d, %q, %v, want %d, %q", mtu, link, err, tt.mtu, tt.link)
			}
		})
	}
}
