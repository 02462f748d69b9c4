package lab

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Outside makes a machine on a wire of its own with the host: link is its end of the wire's in the host's namespace,
// wire the first three bytes of the wire's IPv4 addresses. The host has .1, the machine, whose default route leads
// there, .9; in IPv6 they are 2001:db8:NET::1 and ::9, with the last byte for NET.
func (h *Host) Outside(id, link, wire string) *Container {
	h.tb.Helper()
	c := h.Container(id)
	n := wire[strings.LastIndexByte(wire, '.')+1:]
	v6 := "2001:db8:" + n + "::"
	h.Sh("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", c.Path)
	for _, args := range []string{
		"link set " + link + " up", "address add " + wire + ".1/24 dev " + link, "address add " + v6 + "1/64 dev " + link + " nodad",
	} {
		h.Sh(append([]string{"ip"}, strings.Fields(args)...)...)
	}
	for _, args := range []string{
		"link set eth0 up", "address add " + wire + ".9/24 dev eth0", "address add " + v6 + "9/64 dev eth0 nodad",
		"route add default via " + wire + ".1", "route add default via " + v6 + "1",
	} {
		c.Sh(append([]string{"ip"}, strings.Fields(args)...)...)
	}
	c.IP4, c.IP6 = netip.MustParseAddr(wire+".9"), netip.MustParseAddr(v6+"9")
	return c
}

// Beyond makes a machine behind one that Outside made, which becomes a router. The wire between the two carries packets
// of mtu bytes, and the machine claims to take any: it is for the router to tell. It has 198.51.100.9 and .10, in IPv6
// 2001:db8:ff::9 and ::10.
func (h *Host) Beyond(router *Container, id string, mtu int) *Container {
	h.tb.Helper()
	c := h.Container(id)
	router.Sh("ip", "link", "add", "far0", "mtu", strconv.Itoa(mtu), "type", "veth", "peer", "name", "eth0", "mtu", strconv.Itoa(mtu), "netns", c.Path)
	router.Sh("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	for _, args := range []string{"link set far0 up", "address add 198.51.100.1/24 dev far0", "address add 2001:db8:ff::1/64 dev far0 nodad"} {
		router.Sh(append([]string{"ip"}, strings.Fields(args)...)...)
	}
	for _, args := range []string{
		"link set eth0 up", "address add 198.51.100.9/24 dev eth0", "address add 2001:db8:ff::9/64 dev eth0 nodad",
		"address add 198.51.100.10/24 dev eth0", "address add 2001:db8:ff::10/64 dev eth0 nodad",
		"route add default via 198.51.100.1 advmss 1460", "route add default via 2001:db8:ff::1 advmss 1440",
	} {
		c.Sh(append([]string{"ip"}, strings.Fields(args)...)...)
	}
	c.IP4, c.IP6 = netip.MustParseAddr("198.51.100.9"), netip.MustParseAddr("2001:db8:ff::9")
	return c
}

// On is the host with one of its links, to capture what comes in there.
func (h *Host) On(link string) *Container {
	h.tb.Helper()
	c := h.Itself()
	c.IfName = link
	return c
}

// Stranger makes a machine on the underlay that is none of the nodes: it has 192.0.2.99 and 2001:db8:0:2::99.
func (f *Fleet) Stranger() *Container {
	f.Fabric.tb.Helper()
	const number = 99
	c := f.Nodes[0].Container("stranger")
	f.Fabric.plug(c.ID, c.Path, c.IfName, underlayMAC(number))
	c.IP4, c.IP6 = addresses(number)
	ip(c.tb, c.Path, addressed(c.IfName, c.IP4), addressed(c.IfName, c.IP6))
	return c
}

// LinkMAC is the address that its link has now.
func (c *Container) LinkMAC() vnet.MAC {
	c.tb.Helper()
	var m vnet.MAC
	c.In(func() error {
		l, err := net.InterfaceByName(c.IfName)
		if err != nil {
			return err
		}
		m, err = vnet.ParseMAC(l.HardwareAddr.String())
		return err
	})
	return m
}

// Itself is the host as somebody to talk from and to: what runs "in the container" runs in the host's namespace.
func (h *Host) Itself() *Container {
	h.tb.Helper()
	return &Container{Host: h, tb: h.tb, ID: "host", Path: h.NetNS}
}

// Alias is the address by which the host reaches the container's address a, as the store has it.
func (c *Container) Alias(a netip.Addr) netip.Addr {
	c.tb.Helper()
	var e vnet.Endpoint
	Must(c.tb, c.Store().View(c.tb.Context(), func(tx store.Tx) error {
		var err error
		e, err = store.Endpoint(tx, vnet.Attachment{Container: c.ID, IfName: c.IfName}.ID())
		return err
	}))
	for _, alias := range e.Aliases() {
		if alias.Addr == a {
			return alias.Alias
		}
	}
	c.tb.Fatalf("%s has no alias for %s", c.ID, a)
	return netip.Addr{}
}
