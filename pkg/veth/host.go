package veth

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/vishvananda/netlink"
)

// dressHost keeps the host's own network stack off its end of the cable and
// then brings it up. It tells whether the stack is deaf altogether.
//
// The stack sees the frames until the switch has plugged the link in, and with
// a userspace switch for good. Four settings make it ignore them:
//
//   - disable_ipv6: no IPv6 is received, and the host sends no router
//     solicitations or multicast listener reports to the container;
//   - rp_filter: on a link without an address, strict or loose, no source has a
//     way back, so every unicast IPv4 packet is dropped, forwarded or not;
//   - arp_ignore=8: no ARP question is answered;
//   - forwarding=0: a second lock on the same door. It opens by itself when
//     somebody switches net.ipv4.ip_forward on, so nothing rests on it.
func dressHost(ctx context.Context, h *netlink.Handle, host netlink.Link, c Cable) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if _, err := os.Stat(sysctlPath("ipv6", c.Host, "")); err == nil {
		if err := setSysctls("ipv6", []sysctl{{c.Host, "disable_ipv6", "1"}}); err != nil {
			return false, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for IPv6 on %s: %w", c.Host, err)
	}
	err := setSysctls("ipv4", []sysctl{{c.Host, "rp_filter", "1"}, {c.Host, "arp_ignore", "8"}, {c.Host, "forwarding", "0"}})
	if err != nil {
		return false, err
	}
	if c.Alias != "" {
		// No link event as long as the link is down, one if it is up.
		if err := h.LinkSetAlias(host, c.Alias); err != nil {
			return false, fmt.Errorf("set the alias of %s: %w", c.Host, err)
		}
	}
	deaf := false
	if c.Userspace {
		if deaf, err = deafen(host.Attrs().Index); err != nil {
			return false, fmt.Errorf("keep the frames of %s from the stack: %w", c.Host, err)
		}
	}
	if err := h.LinkSetUp(host); err != nil {
		return false, fmt.Errorf("set %s up: %w", c.Host, err)
	}
	return deaf, nil
}
