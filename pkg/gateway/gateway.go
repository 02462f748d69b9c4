// Package gateway is the host's side of the way out of a switch: the link on
// which the switch hands over what leaves it, with its address, routes and
// neighbour, and one nftables table that translates it and guards it. It knows
// the switch only as a link and tenants not at all.
//
// The switch has translated what comes out of the link to addresses of a
// transit range, one per family, that nothing else uses; the host translates
// it once more, to an address of its own. In the other direction an address of
// the range, an alias, stands for a container: the host alone may use it, and
// ports of the host are published to it.
//
// The calls are Ensure, Diff and Remove. A State is a description: nothing is
// kept between calls, and the kernel is asked each time. Everything happens in
// the caller's network namespace and needs root there. Callers that change
// things hold a lock of their own; without one nothing breaks, but one of two
// may undo the other's work.
//
// The table accepts and drops for itself only: where another firewall's table
// drops what is forwarded (docker and firewalld may), that stands.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// The kinds of error that a caller may want to tell apart, with errors.Is.
var (
	// ErrInvalid: the State describes something that cannot stand.
	ErrInvalid = errors.New("invalid gateway")
	// ErrExists: a prefix is routed elsewhere already.
	ErrExists = errors.New("already exists")
	// ErrNoLink: the link is not there. Others make it.
	ErrNoLink = errors.New("there is no such link")
	// ErrUnsupported: the kernel lacks something; the error says what.
	ErrUnsupported = errors.New("the kernel cannot do it")
)

// State says what should stand.
type State struct {
	// Link is the name of the link to the switch. It must exist.
	Link string
	// MAC is the link's hardware address, Peer that of the router behind it.
	MAC, Peer net.HardwareAddr
	// MTU is the link's, in bytes.
	MTU int
	// Nets are the transit ranges, at most one per family. That of IPv6 is left
	// out on a kernel or a link without IPv6, unless something else needs it.
	Nets []Net
	// Forward4 and Forward6 say that the host must forward packets. It is never
	// told to stop.
	Forward4, Forward6 bool
	// Routes are prefixes that are led to the link as they are.
	Routes []Route
	// Egress are transit addresses that leave the host with an address of their
	// own choice; the others are masqueraded.
	Egress []Egress
	// Masked are aliases of containers that know no way back but to the host:
	// who reaches them is translated to the host's own transit address.
	Masked []netip.Addr
	// Published are ports of the host that lead to a container.
	Published []Published
	// Tunnels are UDP ports at which the host and others like it receive
	// tunnels. Nothing behind the link sends there, whoever has it, and what the
	// host receives there leads to nothing behind the link.
	Tunnels []uint16
	// Kept are TCP services that nothing behind the link reaches.
	Kept []netip.AddrPort
	// Own are TCP ports of the host that nothing behind the link reaches.
	Own []uint16
}

// Net is the transit range of one family.
type Net struct {
	// Host is the host's address, with the length of the range.
	Host netip.Prefix
	// Via is the router behind the link, of the range.
	Via netip.Addr
}

// Route is a prefix behind the link.
type Route struct {
	Prefix netip.Prefix
	// MTU is that of the way there, if it is less than the link's; 0 is the link's.
	MTU int
}

// Egress is the address with which a transit address leaves the host.
type Egress struct {
	Transit, Address netip.Addr
}

// Published is a port of the host that leads to a container. A mapping of one
// address of the host wins over one of all.
type Published struct {
	Protocol string // "tcp", "udp" or "sctp"
	// HostIP is the host's address; zero: every one of the family of To, those
	// of loopback included (127.0.0.0/8 and ::1).
	HostIP   netip.Addr
	HostPort uint16
	To       netip.AddrPort
}

// Ensure makes the host agree with s. It can be called again at any time, also
// after it was interrupted, and changes only what differs. A prefix that the
// host routes elsewhere is ErrExists, and then all the rest is done.
func Ensure(ctx context.Context, s State) error {
	h, err := openHere()
	if err != nil {
		return fmt.Errorf("gateway %s: %w", s.Link, err)
	}
	defer h.Close()
	// What is read while the link is down or has no IPv6 is not all there is to
	// change: a second look finds what the first one's changes brought about.
	for range 2 {
		changes, err := plan(ctx, h, s)
		if err != nil {
			return err
		}
		if len(changes) == 0 {
			return nil
		}
		for _, c := range changes {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := c.do(); err != nil {
				return fmt.Errorf("gateway %s: %s: %w", s.Link, c.what, err)
			}
		}
	}
	return nil
}

// Diff says in words what Ensure would change; none if the host agrees with s.
// It changes nothing.
func Diff(ctx context.Context, s State) ([]string, error) {
	return DiffFor(ctx, s, func(netip.Prefix) bool { return true })
}

// DiffFor is Diff for one who does not answer for every route: of the prefixes
// that are led to the link, or were, it tells only those of which only says yes.
// What all share, the ranges too, it tells like Diff.
func DiffFor(ctx context.Context, s State, only func(netip.Prefix) bool) ([]string, error) {
	h, err := openHere()
	if err != nil {
		return nil, fmt.Errorf("gateway %s: %w", s.Link, err)
	}
	defer h.Close()
	changes, err := plan(ctx, h, s)
	if err != nil {
		return nil, err
	}
	var words []string
	for _, c := range changes {
		if !c.prefix.IsValid() || only(c.prefix) {
			words = append(words, c.differs...)
		}
	}
	return words, nil
}

// change is one thing to be done.
type change struct {
	what    string       // is done
	differs []string     // is the reason
	prefix  netip.Prefix // is of Routes, or was; zero if it is about something that all share
	do      func() error
}

// plan lists what must be done, in order: the table, which keeps neighbours of
// the host away from the range, comes before the ways into it, and the way to
// the first of Nets, by which Standing knows that all is done, comes last.
func plan(ctx context.Context, h *netlink.Handle, s State) ([]change, error) {
	wrong := func(err error) ([]change, error) { return nil, fmt.Errorf("gateway %s: %w", s.Link, err) }
	if err := s.validate(); err != nil {
		return wrong(err)
	}
	l, err := link(ctx, h, s.Link)
	if err == nil && l == nil {
		err = ErrNoLink
	}
	if err != nil {
		return wrong(err)
	}
	if s, err = s.withoutIPv6(); err != nil {
		return wrong(err)
	}

	changes, err := planTable(s)
	if err != nil {
		return wrong(err)
	}
	for _, part := range []func(context.Context, *netlink.Handle, State, netlink.Link) ([]change, error){planLink, planForwarding, planRoutes} {
		more, err := part(ctx, h, s, l)
		if err != nil {
			return wrong(err)
		}
		changes = append(changes, more...)
	}
	return changes, nil
}

// Remove takes away our table and our routes on the link. The link itself, and
// the address on it, are for whoever made it to remove. Nothing there is no error.
func Remove(ctx context.Context, link string) error {
	if err := removeRoutes(ctx, link); err != nil {
		return fmt.Errorf("remove gateway %s: %w", link, err)
	}
	if err := removeTable(); err != nil {
		return fmt.Errorf("remove gateway %s: %w", link, err)
	}
	return nil
}

// Standing tells whether the link is up, our table there, and the host's way to
// probe, an address of the first of Nets, by that link. It is cheap. Ensure lays
// that way last of all: an Ensure that was cut off before it does not stand. Of
// what somebody took away later it sees no more than these, and where it says no
// Ensure finds out why.
func Standing(name string, probe netip.Addr) bool {
	l, err := netlink.LinkByName(name) //nolint:forbidigo // an interrupted dump is a no
	if err != nil || !up(l) {
		return false
	}
	way, err := netlink.RouteGet(probe.AsSlice())
	if err != nil || len(way) != 1 || way[0].LinkIndex != l.Attrs().Index {
		return false
	}
	conn, err := nftables.New()
	if err != nil {
		return false
	}
	_, err = conn.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	return err == nil
}
