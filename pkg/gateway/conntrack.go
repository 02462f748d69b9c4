package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Forget deletes the connections that the host tracks from or to one of addrs,
// as they began or as they were translated, and says how many. A container that
// went needs it: another one with its address must not get what was the
// first's. Only the host's own zone is touched; the switch tracks in others.
func Forget(addrs ...netip.Addr) (int, error) {
	n, err := forget(addrs, func(c *netlink.ConntrackFlow) bool {
		return slices.Contains(addrs, addr(c.Forward.SrcIP)) ||
			slices.Contains(addrs, addr(c.Forward.DstIP)) ||
			slices.Contains(addrs, addr(c.Reverse.SrcIP))
	})
	if err != nil {
		return n, fmt.Errorf("forget connections of %v: %w", addrs, err)
	}
	return n, nil
}

// ForgetPort deletes the connections that the host tracks to a port of its own
// that has just been published, or is no more: a client of UDP that sends on
// would be led as before. Zero or unspecified, hostIP is every address. The
// ports of SCTP are not told; its connections are forgotten by the kernel
// within seconds of being refused.
func ForgetPort(protocol string, hostIP netip.Addr, port uint16) error {
	var families []netip.Addr
	if hostIP.IsValid() {
		families = append(families, hostIP)
	} else {
		families = append(families, netip.IPv4Unspecified(), netip.IPv6Unspecified())
	}
	_, err := forget(families, func(c *netlink.ConntrackFlow) bool {
		return c.Forward.Protocol == protocols[protocol] && c.Forward.DstPort == port &&
			(!hostIP.IsValid() || hostIP.IsUnspecified() || addr(c.Forward.DstIP) == hostIP)
	})
	if err != nil {
		return fmt.Errorf("forget connections to %s port %d: %w", protocol, port, err)
	}
	return nil
}

// forget deletes the connections, of the families of like, that match.
func forget(like []netip.Addr, match func(*netlink.ConntrackFlow) bool) (int, error) {
	// Nothing is tracked where nothing can be: then there is nobody to ask.
	count, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(count)) == "0" {
		return 0, nil
	}
	h, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, fmt.Errorf("open a netlink socket: %w", err)
	}
	defer h.Close()
	total := 0
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if !slices.ContainsFunc(like, func(a netip.Addr) bool { return (family == netlink.FAMILY_V4) == a.Is4() }) {
			continue
		}
		for try := 1; ; try++ {
			var n uint
			n, err = h.ConntrackDeleteFilters(netlink.ConntrackTable, netlink.InetFamily(family), inHostZone(match))
			total += int(n)
			if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
				break
			}
		}
		if err != nil {
			return total, fmt.Errorf("ctnetlink (CONFIG_NF_CT_NETLINK): %w", err)
		}
	}
	return total, nil
}

// inHostZone is a filter for netlink: a connection of the host's own zone that matches.
type inHostZone func(*netlink.ConntrackFlow) bool

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (match inHostZone) MatchConntrackFlow(c *netlink.ConntrackFlow) bool {
	return c.Zone == 0 && match(c)
}
