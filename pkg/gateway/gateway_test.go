package gateway

import (
	"net/netip"
	"testing"
)

// What leaves the range has an address of the host, and finds back.
func TestMasquerade(t *testing.T) {
	w := newWorld(t)
	w.in(w.outside, func() { w.serve("tcp", ":80", "outside"); w.serve("udp", ":53", "outside") })
	w.ensure(state())
	w.in(w.inside, func() {
		w.answer("TCP", w.ask("tcp", "", "192.0.2.9:80"), "outside 192.0.2.1")
		w.answer("UDP", w.ask("udp", "", "192.0.2.9:53"), "outside 192.0.2.1")
		w.answer("IPv6", w.ask("tcp", "", "[2001:db8::9]:80"), "outside 2001:db8::1")
	})

	s := state()
	for transit, address := range map[string]string{"169.254.64.10": "192.0.2.7", "fd74:656e:6574::10": "2001:db8::7"} {
		s.Egress = append(s.Egress, Egress{Transit: netip.MustParseAddr(transit), Address: netip.MustParseAddr(address)})
	}
	w.ensure(s)
	w.in(w.inside, func() {
		w.answer("a fixed address", w.ask("tcp", "", "192.0.2.9:80"), "outside 192.0.2.7")
		w.answer("another's", w.ask("tcp", "169.254.64.11", "192.0.2.9:80"), "outside 192.0.2.1")
		w.answer("a fixed IPv6 address", w.ask("tcp", "", "[2001:db8::9]:80"), "outside 2001:db8::7")
	})
}
