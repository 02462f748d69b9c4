package lab

import (
	"fmt"
	"net/netip"
	"testing"
)

// The underlay's networks: RFC 5737 and RFC 3849 keep them for such use.
var (
	underlay4 = netip.MustParsePrefix("192.0.2.0/24")
	underlay6 = netip.MustParsePrefix("2001:db8:0:2::/64")
)

// A Fabric is what lies between the nodes of a Fleet: a network namespace with a Linux bridge, fabric0, which has a
// port of each node's name, and itself the addresses 192.0.2.1 to .3 and 2001:db8:0:2::1 to ::3.
type Fabric struct {
	NetNS string // path

	tb  testing.TB
	mtu int
}

func newFabric(tb testing.TB, opts ...FleetOption) *Fabric {
	tb.Helper()
	f := &Fabric{NetNS: newNetNS(tb, "fabric"), tb: tb, mtu: 1500}
	for _, opt := range opts {
		opt(f)
	}
	// Its own MAC, or it would take another with each port that it gets.
	commands := []string{
		fmt.Sprintf("link add fabric0 address %s mtu %d type bridge stp_state 0 mcast_snooping 0", underlayMAC(0), f.mtu),
		"link set fabric0 up",
	}
	for n := 1; n <= members; n++ {
		v4, v6 := addresses(n)
		commands = append(commands, addressed("fabric0", v4), addressed("fabric0", v6))
	}
	ip(tb, f.NetNS, commands...)
	nft(tb, f.NetNS, `add table bridge faults
		add set bridge faults parted { type ifname . ifname; }
		add set bridge faults cut { type ifname; }
		add set bridge faults lost { type ipv4_addr; }
		add chain bridge faults between { type filter hook forward priority 0; }
		add chain bridge faults to { type filter hook input priority 0; }
		add chain bridge faults from { type filter hook output priority 0; }
		add rule bridge faults between iifname . oifname @parted drop
		add rule bridge faults to iifname @cut drop
		add rule bridge faults from oifname @cut drop
		add rule bridge faults to ip daddr @lost drop
		add rule bridge faults from ip saddr @lost drop`)
	return f
}

// plug gives the fabric a port, and the namespace at path the link at the other end of its cable.
func (f *Fabric) plug(port, path, link, mac string) {
	f.tb.Helper()
	ip(f.tb, f.NetNS,
		fmt.Sprintf("link add %s mtu %d type veth peer name %s address %s mtu %[2]d netns %[5]s", port, f.mtu, link, mac, path),
		fmt.Sprintf("link set %s master fabric0 up", port))
	ip(f.tb, path, fmt.Sprintf("link set %s up", link))
}

// part drops everything between two ports.
func (f *Fabric) part(a, b string) {
	f.tb.Helper()
	nft(f.tb, f.NetNS, fmt.Sprintf("add element bridge faults parted { %q . %q, %[2]q . %[1]q }", a, b))
}

// cut drops everything between a port and the fabric's own addresses.
func (f *Fabric) cut(port string) {
	f.tb.Helper()
	nft(f.tb, f.NetNS, fmt.Sprintf("add element bridge faults cut { %q }", port))
}

// lose drops everything between all ports and one of the fabric's own addresses.
func (f *Fabric) lose(own netip.Addr) {
	f.tb.Helper()
	nft(f.tb, f.NetNS, fmt.Sprintf("add element bridge faults lost { %s }", own))
}

// heal ends what part, cut and lose did.
func (f *Fabric) heal() {
	f.tb.Helper()
	nft(f.tb, f.NetNS, "flush set bridge faults parted\nflush set bridge faults cut\nflush set bridge faults lost")
}

// addresses are the two with a number on the underlay: those of 11 are 192.0.2.11 and 2001:db8:0:2::11.
func addresses(n int) (netip.Addr, netip.Addr) {
	return netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", n)), netip.MustParseAddr(fmt.Sprintf("2001:db8:0:2::%d", n))
}

// addressed is the command that gives a link of the underlay an address. Nobody else has it: nothing waits to find out.
func addressed(link string, a netip.Addr) string {
	bits := underlay4.Bits()
	if a.Is6() {
		bits = underlay6.Bits()
	}
	return fmt.Sprintf("address add %s/%d dev %s nodad", a, bits, link)
}

// underlayMAC is the address of a node's NIC, or, for 0, the fabric's.
func underlayMAC(n int) string { return fmt.Sprintf("02:00:c0:00:02:%02x", n) }
