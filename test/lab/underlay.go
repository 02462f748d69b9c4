package lab

import (
	"fmt"
	"net/netip"
)

// A node's NIC, and the bridge that has the NIC as a port and the node's addresses as its own, where the datapath is
// OVS's userspace one: its tunnels look for their way among bridges. The kernel's tunnels need no such bridge.
const (
	nic = "under0"
	phy = "br-phy"
)

// Underlay is the link that has the node's addresses on the underlay.
func (h *Host) Underlay() string {
	if h.Datapath == "netdev" {
		return phy
	}
	return nic
}

// VTEP is the node's address on the underlay. The zero value if it is on none.
func (h *Host) VTEP() netip.Addr { return h.machine.vtep }

// VTEP6 is VTEP in IPv6.
func (h *Host) VTEP6() netip.Addr { return h.machine.vtep6 }

// Readdress gives the node another address on the underlay instead of the one that it has in that family. Its
// configuration file stays as it is.
func (h *Host) Readdress(a netip.Addr) {
	h.tb.Helper()
	old, network := &h.machine.vtep, underlay4
	if a.Is6() {
		old, network = &h.machine.vtep6, underlay6
	}
	if !network.Contains(a) {
		h.tb.Fatalf("%s is not in the underlay's %s", a, network)
	}
	ip(h.tb, h.NetNS, fmt.Sprintf("address del %s/%d dev %s", *old, network.Bits(), h.Underlay()), addressed(h.Underlay(), a))
	*old = a
}

// Wire is the node with its NIC, to capture what comes in there: also what is in tunnels.
func (h *Host) Wire() *Container {
	h.tb.Helper()
	return h.On(nic)
}

// Narrow gives the node's NIC a smaller MTU than the fabric has: nothing longer leaves by it, nor comes in.
func (h *Host) Narrow(mtu int) {
	h.tb.Helper()
	ip(h.tb, h.NetNS, fmt.Sprintf("link set %s mtu %d", nic, mtu))
	if h.Underlay() == phy {
		h.Sh("ovs-vsctl", "set", "interface", phy, fmt.Sprintf("mtu_request=%d", mtu))
	}
}

// wire lays the cable between the node and the fabric.
func (h *Host) wire() {
	h.tb.Helper()
	m := h.machine
	m.fabric.plug(h.Name, h.NetNS, nic, underlayMAC(m.number))
	if h.Datapath != "netdev" {
		return
	}
	// ovs-vswitchd reads what comes in by the NIC before the kernel does, and the kernel, which has the address too, by
	// br-phy, must not answer it again. And it takes packets as they are: with the checksum that the sender's kernel
	// leaves to the NIC, the fabric's own would not be believed.
	nft(h.tb, h.NetNS, "add table netdev nic; add chain netdev nic in { type filter hook ingress device "+nic+" priority 0; policy drop; }")
	_, err := RunIn(h.tb, m.fabric.NetNS, "ethtool", "-K", h.Name, "tx", "off")
	Must(h.tb, err)
}

// bridge makes br-phy, where it is needed. Its rows are in the database from then on.
func (h *Host) bridge() {
	h.tb.Helper()
	if h.Datapath != "netdev" {
		return
	}
	h.Sh("ovs-vsctl", "add-br", phy,
		"--", "set", "bridge", phy, "datapath_type=netdev", "fail_mode=standalone", "other_config:hwaddr="+underlayMAC(h.machine.number),
		"--", "set", "interface", phy, fmt.Sprintf("mtu_request=%d", h.machine.fabric.mtu),
		"--", "add-port", phy, nic)
}

// address puts the node's addresses where they belong.
func (h *Host) address() {
	h.tb.Helper()
	ip(h.tb, h.NetNS, addressed(h.Underlay(), h.VTEP()), addressed(h.Underlay(), h.VTEP6()), fmt.Sprintf("link set %s up", h.Underlay()))
}
