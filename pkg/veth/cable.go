// Package veth lays cables: a veth pair with one end in the caller's network
// namespace, for a switch to plug in, and the other in a container's, with its
// addresses, routes and offloads. It knows switches and tenants only by name.
//
// The calls are Lay, Check and Remove; List and Exists find what was laid.
// A Cable is a description: nothing is kept between calls, and the kernel is
// asked each time. Everything needs root in both namespaces.
package veth

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// The kinds of error that a caller may want to tell apart, with errors.Is.
var (
	// ErrInvalid: the Cable describes something that cannot stand.
	ErrInvalid = errors.New("invalid cable")
	// ErrExists: a link name, an address or a route is taken by something else.
	ErrExists = errors.New("already exists")
	// ErrNetNS: the path is not a network namespace to lay a cable into. If
	// nothing is there at all, the error is fs.ErrNotExist as well.
	ErrNetNS = errors.New("not a usable network namespace")
	// ErrNoIPv6: IPv6 is asked for and the kernel has none.
	ErrNoIPv6 = errors.New("the kernel has no IPv6")
)

// DefaultMTU is what a Cable without an MTU gets, and what UnderlayMTU answers
// where there is no default route.
const DefaultMTU = 1500

// minMTU6 is the least MTU on which the kernel runs IPv6 (RFC 8200 section 5);
// below it the link silently has none.
const minMTU6 = 1280

// Cable says what should stand.
type Cable struct {
	// Host is the link name of the end in the caller's namespace, Container
	// that of the end in NetNS. At most 15 bytes each.
	Host, Container string
	// NetNS is the path of the container's network namespace.
	NetNS string
	// MAC is the hardware address of the container's end. The host's end has
	// HostMAC(Host), which no frame ever bears.
	MAC net.HardwareAddr
	// MTU is that of both ends, in bytes. 0 is DefaultMTU.
	MTU int
	// Addrs go on the container's end, each an address with the length of
	// its subnet. /32 and /128 are fine.
	Addrs []netip.Prefix
	// Routes go through the container's end, into the main table.
	Routes []Route
	// Userspace says that the switch takes its frames from the host's end
	// through a packet socket, as Open vSwitch's netdev datapath does. Then
	// checksums and segmentation are left to the container's kernel, because
	// nothing later fills them in, and the host's own network stack, which
	// sees every frame as well, is made deaf (see Laid.Deaf).
	Userspace bool
	// Alias is written on the host's end (ifalias, at most 255 bytes), so that
	// a stray link can be traced to its owner with List. May be empty.
	Alias string
}

// Route is one route of the container's end.
type Route struct {
	Dst netip.Prefix
	// Via is the gateway, in or out of the addresses' subnets. The zero Addr
	// means that Dst is on the link itself.
	Via netip.Addr
	// IfFree leaves the route out where another link has one to Dst: a
	// container's second interface does not take its default route.
	IfFree bool
}

// String is the route as iproute2 writes it, without its device.
func (r Route) String() string {
	dst := r.Dst.String()
	if r.Dst.Bits() == 0 {
		dst = "default"
	}
	if !r.Via.IsValid() {
		return dst
	}
	return dst + " via " + r.Via.String()
}

// HostMAC is the hardware address of the host's end called host. It is set
// when the link is made and always the same: udev then leaves it alone (it
// replaces a random one, which is one more link event), and it need not be
// stored.
func HostMAC(host string) net.HardwareAddr {
	sum := sha256.Sum256([]byte("veth host end " + host))
	mac := net.HardwareAddr(slices.Clone(sum[:6]))
	mac[0] = mac[0]&^0x01 | 0x02 // unicast, locally administered
	return mac
}

// mtu is the MTU that both ends get.
func (c Cable) mtu() int {
	if c.MTU == 0 {
		return DefaultMTU
	}
	return c.MTU
}

// ipv6 tells whether the cable carries any IPv6.
func (c Cable) ipv6() bool {
	return slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// addrs are the addresses that the container's end gets: those asked for and,
// if there is IPv6 among them, the link-local one that the kernel would have
// made. It is added by hand because the kernel's own goes through duplicate
// address detection first, and is unusable for a second or more.
func (c Cable) addrs() []netip.Prefix {
	if !c.ipv6() {
		return c.Addrs
	}
	ll := linkLocal(c.MAC)
	if slices.Contains(c.Addrs, ll) {
		return c.Addrs
	}
	return append([]netip.Prefix{ll}, c.Addrs...)
}

// linkLocal is the IPv6 link-local address with an EUI-64 interface identifier
// made from mac (RFC 4291 section 2.5.6 and appendix A).
func linkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0: 0xfe, 1: 0x80, 8: mac[0] ^ 0x02, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// onLink tells whether the kernel finds via by the subnets of the addresses.
// A /32 or /128 has no neighbours.
func (c Cable) onLink(via netip.Addr) bool {
	return slices.ContainsFunc(c.addrs(), func(p netip.Prefix) bool {
		return !p.IsSingleIP() && p.Masked().Contains(via)
	})
}

// validate says what of the cable cannot stand, before anything is made.
func (c Cable) validate() error {
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
	}
	for _, name := range []string{c.Host, c.Container} {
		if !validName(name) {
			return bad("%q is not a link name (1 to %d bytes, no spaces, slashes or colons)", name, unix.IFNAMSIZ-1)
		}
	}
	if len(c.MAC) != 6 || c.MAC[0]&0x01 != 0 {
		return bad("%q is not the hardware address of one Ethernet station", c.MAC)
	}
	if m := c.mtu(); m < 68 || m > 65535 { // RFC 791 section 3.2; veth's max_mtu
		return bad("an MTU of %d is not between 68 and 65535", m)
	}
	if c.ipv6() && c.mtu() < minMTU6 {
		return bad("IPv6 needs an MTU of %d or more, not %d", minMTU6, c.mtu())
	}
	if len(c.Alias) > 255 || strings.ContainsRune(c.Alias, 0) { // IFALIASZ-1
		return bad("an alias of %d bytes; 255 are allowed, none of them zero", len(c.Alias))
	}
	for i, p := range c.Addrs {
		switch {
		case !p.IsValid() || p.Addr().Is4In6() || p.Addr().Zone() != "":
			return bad("address %v is not an address with its prefix length", p)
		case p.Addr().IsUnspecified() || p.Addr().IsMulticast():
			return bad("address %v is not one that an interface can have", p)
		case slices.ContainsFunc(c.Addrs[:i], func(q netip.Prefix) bool { return q.Addr() == p.Addr() }):
			return bad("address %v is given twice", p.Addr())
		}
	}
	for _, r := range c.Routes {
		switch {
		case !r.Dst.IsValid() || r.Dst.Addr().Is4In6():
			return bad("route %v has no destination", r)
		case r.Via.IsValid() && r.Via.Is4() != r.Dst.Addr().Is4():
			return bad("route %v mixes address families", r)
		case r.Via.IsValid() && (r.Via.IsUnspecified() || r.Via.IsMulticast() || r.Via.Zone() != ""):
			return bad("route %v has a gateway that no station can have", r)
		case slices.ContainsFunc(c.addrs(), func(p netip.Prefix) bool { return p.Addr() == r.Via }):
			return bad("route %v goes through the link's own address", r)
		case !slices.ContainsFunc(c.Addrs, func(p netip.Prefix) bool { return p.Addr().Is4() == r.Dst.Addr().Is4() }):
			return bad("route %v without an address of its family", r)
		}
	}
	return nil
}

// validName follows dev_valid_name and sysctl_dev_name_is_allowed in the
// kernel: "all" and "default" would be written through to every link.
func validName(name string) bool {
	switch name {
	case "", ".", "..", "all", "default":
		return false
	}
	return len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/:% \t\n\v\f\r\x00")
}
