package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// planLink compares the link itself: its settings, and what is on it. All that
// keeps it quiet comes before it is set up.
func planLink(ctx context.Context, h *netlink.Handle, s State, l netlink.Link) ([]change, error) {
	var changes []change
	add := func(what, differs string, do func() error) {
		changes = append(changes, change{what: what, differs: []string{differs}, do: do})
	}
	name, a := s.Link, l.Attrs()
	if !bytes.Equal(a.HardwareAddr, s.MAC) {
		add(fmt.Sprintf("set the hardware address %v", s.MAC),
			fmt.Sprintf("%s has the hardware address %v, not %v", name, a.HardwareAddr, s.MAC),
			func() error { return h.LinkSetHardwareAddr(l, s.MAC) })
	}
	if a.MTU != s.MTU {
		add(fmt.Sprintf("set an MTU of %d", s.MTU),
			fmt.Sprintf("%s has an MTU of %d, not %d", name, a.MTU, s.MTU),
			func() error { return h.LinkSetMTU(l, s.MTU) })
	}
	settings, err := planSysctls(linkSysctls(s))
	if errors.Is(err, fs.ErrNotExist) && a.MTU < minMTU6 {
		// IPv6's settings come with an MTU that is enough for it.
		settings, err = planSysctls(slices.DeleteFunc(linkSysctls(s), func(c sysctl) bool { return c.family == "ipv6" }))
	}
	if err != nil {
		return nil, err
	}
	changes = append(changes, settings...)
	if !up(l) {
		add("set it up", name+" is down", func() error { return h.LinkSetUp(l) })
	}

	have, err := addresses(ctx, h, l)
	if err != nil {
		return nil, err
	}
	known, err := neighbours(ctx, h, l)
	if err != nil {
		return nil, err
	}
	for _, n := range s.Nets {
		host := n.Host.Addr()
		want := &netlink.Addr{IPNet: ipNet(n.single()), Flags: unix.IFA_F_NODAD | unix.IFA_F_NOPREFIXROUTE}
		if host.Is4() {
			want.Flags, want.Scope = 0, unix.RT_SCOPE_LINK // not to be the source of what leaves by other links
		}
		if !slices.ContainsFunc(have, func(a netlink.Addr) bool {
			return prefix(a.IPNet) == n.single() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0
		}) {
			add(fmt.Sprintf("add the address %v", host), fmt.Sprintf("%s does not have the address %v", name, host),
				func() error { return h.AddrReplace(l, want) })
		}
		if !slices.ContainsFunc(known, func(k netlink.Neigh) bool {
			return addr(k.IP) == n.Via && k.State == unix.NUD_PERMANENT && bytes.Equal(k.HardwareAddr, s.Peer)
		}) {
			neigh := &netlink.Neigh{
				LinkIndex: a.Index, Family: family(n.Via), State: unix.NUD_PERMANENT,
				IP: n.Via.AsSlice(), HardwareAddr: s.Peer,
			}
			add(fmt.Sprintf("enter the neighbour %v", n.Via), fmt.Sprintf("%s does not know that %v is at %v", name, n.Via, s.Peer),
				func() error { return h.NeighSet(neigh) })
		}
	}
	return changes, nil
}

// linkSysctls are the settings of the link. Those of "all" are the host's:
// where they are stricter than the link's, they stand.
func linkSysctls(s State) []sysctl {
	localnet := "0" // whether 127.0.0.0/8 may come and go by the link, as what is published to it does
	for _, p := range s.Published {
		if p.To.Addr().Is4() {
			localnet = "1"
		}
	}
	var set []sysctl
	for _, n := range s.Nets {
		if n.Via.Is4() {
			set = append(set,
				sysctl{"ipv4", s.Link, "rp_filter", "2"}, // replies come from addresses that are routed elsewhere
				sysctl{"ipv4", s.Link, "send_redirects", "0"},
				sysctl{"ipv4", s.Link, "accept_redirects", "0"},
				sysctl{"ipv4", s.Link, "arp_ignore", "8"}, // nobody needs to ask
				sysctl{"ipv4", s.Link, "route_localnet", localnet})
			continue
		}
		set = append(set,
			sysctl{"ipv6", s.Link, "addr_gen_mode", "1"}, // none: without a link-local address nothing is solicited
			sysctl{"ipv6", s.Link, "accept_ra", "0"},
			sysctl{"ipv6", s.Link, "accept_redirects", "0"},
			sysctl{"ipv6", s.Link, "disable_ipv6", "0"})
	}
	return set
}

// planForwarding lets the host forward; the table, which guards what is
// forwarded, stands by then.
func planForwarding(_ context.Context, _ *netlink.Handle, s State, _ netlink.Link) ([]change, error) {
	var changes []change
	if s.Forward4 {
		on, err := planSysctls([]sysctl{{"ipv4", "all", "forwarding", "1"}}) // which is ip_forward
		if err != nil {
			return nil, err
		}
		changes = on
	}
	if s.Forward6 {
		on, err := planSysctls([]sysctl{{"ipv6", "all", "forwarding", "1"}})
		if err != nil {
			return nil, err
		}
		if len(on) > 0 {
			changes = append(changes, change{
				what: "keep links heeding router advertisements",
				do:   keepHeeding,
			})
		}
		changes = append(changes, on...)
	}
	return changes, nil
}
