package lab

import (
	"fmt"
	"strings"
	"syscall"
)

// PowerOff is the node's sudden end: its cable is dead, and then all its daemons are. What its kernel has stays, though
// nobody can tell from outside, until PowerOn.
func (h *Host) PowerOff() {
	h.tb.Helper()
	if f := h.machine.fabric; f != nil {
		ip(h.tb, f.NetNS, fmt.Sprintf("link set %s down", h.Name)) // first, or the kernel says good-bye for them
	}
	for _, d := range h.machine.daemons {
		d.Kill()
	}
	h.KillVswitchd()
	h.StopDB()
	for _, d := range h.machine.daemons {
		d.End(syscall.SIGKILL)
	}
	h.machine.daemons = nil
}

// PowerOn is a boot after PowerOff: files are as they were; links, also those of the node's containers, filters and
// connections are gone; the switch has started, tenetd has not. The boot's id, which is the machine's, stays the same.
func (h *Host) PowerOn() {
	h.tb.Helper()
	_, _ = h.Output("ovs-dpctl", "del-dp", "ovs-system") // there is none with the userspace datapath
	for line := range strings.Lines(h.Sh("ip", "-brief", "link")) {
		link, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		_, _ = h.Output("ip", "link", "del", link) // some went with others, some are the kernel's own
	}
	nft(h.tb, h.NetNS, "flush ruleset")
	h.Sh("conntrack", "-F")
	if h.machine.fabric != nil {
		h.wire()
	}
	h.StartDB()
	h.StartVswitchd()
	if h.machine.fabric != nil {
		h.address()
	}
}
