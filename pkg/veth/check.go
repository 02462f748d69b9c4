package veth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Check compares the cable that stands with c and says each difference in
// words; none if all is as Lay left it. What others have added to the
// container's end, addresses and routes, is no difference. A namespace that is
// gone is not a difference but an error: ErrNetNS.
func Check(ctx context.Context, c Cable) ([]string, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	e, err := openEnds(c.NetNS)
	if err != nil {
		return nil, fmt.Errorf("check %s to %s: %w", c.Host, c.Container, err)
	}
	defer e.close()
	host, err := link(ctx, e.here, c.Host)
	if err != nil {
		return nil, fmt.Errorf("check %s: %w", c.Host, err)
	}
	end, err := link(ctx, e.there, c.Container)
	if err != nil {
		return nil, fmt.Errorf("check %s: in %s: %w", c.Container, c.NetNS, err)
	}

	var diffs differences
	diffs.host(c, host)
	if host != nil {
		if err := diffs.deafness(c, host); err != nil {
			return nil, fmt.Errorf("check %s: %w", c.Host, err)
		}
	}
	diffs.container(c, end, host)
	if end != nil {
		if err := diffs.addressing(ctx, e.there, c, end); err != nil {
			return nil, fmt.Errorf("check %s: in %s: %w", c.Container, c.NetNS, err)
		}
		if err := inside(e.ns, func() error { return diffs.offload(c) }); err != nil {
			return nil, fmt.Errorf("check %s: in %s: %w", c.Container, c.NetNS, err)
		}
	}
	return diffs, nil
}

// differences collects sentences.
type differences []string

func (d *differences) add(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// host compares the host's end.
func (d *differences) host(c Cable, l netlink.Link) {
	if l == nil {
		d.add("there is no link %s", c.Host)
		return
	}
	d.link(c.Host, l, c)
	if want := HostMAC(c.Host); !bytes.Equal(l.Attrs().HardwareAddr, want) {
		d.add("%s has the hardware address %v, not %v", c.Host, l.Attrs().HardwareAddr, want)
	}
	if l.Attrs().Alias != c.Alias {
		d.add("%s has the alias %q, not %q", c.Host, l.Attrs().Alias, c.Alias)
	}
}

// container compares the container's end, and that it is the end of this cable.
func (d *differences) container(c Cable, l, host netlink.Link) {
	if l == nil {
		d.add("there is no link %s in the container", c.Container)
		return
	}
	d.link(c.Container, l, c)
	if host != nil && (l.Attrs().ParentIndex != host.Attrs().Index || host.Attrs().ParentIndex != l.Attrs().Index) {
		d.add("%s is not the other end of %s", c.Container, c.Host)
	}
	if !bytes.Equal(l.Attrs().HardwareAddr, c.MAC) {
		d.add("%s has the hardware address %v, not %v", c.Container, l.Attrs().HardwareAddr, c.MAC)
	}
}

// link compares what the two ends have in common.
func (d *differences) link(name string, l netlink.Link, c Cable) {
	if l.Type() != "veth" {
		d.add("%s is a link of kind %s, not veth", name, l.Type())
	}
	if !up(l) {
		d.add("%s is down", name)
	}
	if l.Attrs().MTU != c.mtu() {
		d.add("%s has an MTU of %d, not %d", name, l.Attrs().MTU, c.mtu())
	}
}

// deafness compares what keeps the host's stack off its end. Any rp_filter will
// do: systemd-sysctl sets its own when a link appears. See dressHost.
func (d *differences) deafness(c Cable, host netlink.Link) error {
	for _, s := range []struct{ family, key, want string }{
		{"ipv6", "disable_ipv6", "1"}, {"ipv4", "rp_filter", "1 or 2"}, {"ipv4", "arp_ignore", "8"},
	} {
		got, err := readSysctl(s.family, c.Host, s.key)
		if s.family == "ipv6" && errors.Is(err, fs.ErrNotExist) {
			continue // no IPv6 in this kernel, or not on such a small MTU
		}
		if err != nil {
			return err
		}
		if !slices.Contains(strings.Split(s.want, " or "), got) {
			d.add("%s has %s=%s, not %s: the host's stack may answer the container", c.Host, s.key, got, s.want)
		}
	}
	if !c.Userspace {
		return nil
	}
	n, known, err := deafCount(host.Attrs().Index)
	if err == nil && known && n == 0 {
		d.add("%s has lost the program that keeps its frames from the host's stack", c.Host)
	}
	return err
}

// addressing compares addresses and routes of the container's end.
func (d *differences) addressing(ctx context.Context, h *netlink.Handle, c Cable, l netlink.Link) error {
	have, err := addresses(ctx, h, l)
	if err != nil {
		return err
	}
	for _, want := range c.addrs() {
		i := slices.IndexFunc(have, func(a netlink.Addr) bool { return prefix(a.IPNet) == want })
		switch {
		case i < 0:
			d.add("%s does not have the address %v", c.Container, want)
		case have[i].Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0:
			d.add("%s cannot use the address %v, it is tentative", c.Container, want)
		}
	}
	standing := map[int][]netlink.Route{}
	for _, want := range c.Routes {
		f := family(want.Dst.Addr())
		if _, asked := standing[f]; !asked {
			if standing[f], err = routes(ctx, h, l, f); err != nil {
				return err
			}
		}
		if !hasRoute(standing[f], want) {
			d.add("%s does not have the route %v", c.Container, want)
		}
	}
	return nil
}

// offload compares the offloads, in the container's namespace.
func (d *differences) offload(c Cable) error {
	if !c.Userspace {
		return nil
	}
	on, err := offloaded(c.Container)
	if len(on) > 0 {
		d.add("%s hands on unfinished frames (%s), and a userspace switch does not finish them", c.Container, strings.Join(on, ", "))
	}
	return err
}
