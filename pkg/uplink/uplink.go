// Package uplink moves what the host has on one link to another: from a NIC to the bridge that the NIC becomes a port
// of, and back. It knows no tenant and no switch.
//
// A move is three steps, each of which may be repeated, and each of which leaves a host that is on the network: Address
// makes the addresses at the destination, Route turns the routes there, one replacement each, and Strip takes what is
// left from the source. For a moment an address is on both links, which harms nothing: Linux answers for an address on
// whatever link it is asked. Between Address and Route is the time to plug the NIC in or out.
//
// Addresses and routes are kept as the kernel's own messages, so that nothing gets lost that no library knows: labels,
// metrics, lifetimes, protocols, preferences. Link-local IPv6 addresses and the routes of multicast stay: every link has
// its own. Policy rules and permanent neighbours that name the link are not moved.
package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrNotFound is for a link that is not there.
var ErrNotFound = errors.New("no such link")

// A State is what the host has on a link.
type State struct {
	Link      string  `json:"link"`
	Index     int     `json:"index"`
	Clock     int64   `json:"clock"` // when it was read, in seconds since boot: lifetimes count from there
	Addresses []Entry `json:"addresses"`
	Routes    []Entry `json:"routes"`
}

// An Entry is one address or route.
type Entry struct {
	Text    string `json:"text"`    // for people
	Message []byte `json:"message"` // the kernel's, rtnetlink(7), without the netlink header
}

// Read reads what the host has on the link. ErrNotFound if there is none.
func Read(ctx context.Context, link string) (State, error) {
	l, err := find(ctx, link)
	if err != nil {
		return State{}, err
	}
	return read(ctx, l)
}

func read(ctx context.Context, l netlink.Link) (State, error) {
	at := placeOf(l)
	s := State{Link: at.name, Index: at.index, Clock: clock()}
	addresses, err := dump(ctx, unix.RTM_GETADDR, unix.RTM_NEWADDR)
	if err != nil {
		return s, fmt.Errorf("addresses of %s: %w", at.name, err)
	}
	for _, m := range addresses {
		if a := (address{m}); a.index() == at.index && a.moves() {
			s.Addresses = append(s.Addresses, Entry{a.String(), m.encode()})
		}
	}
	routes, err := allRoutes(ctx)
	if err != nil {
		return s, fmt.Errorf("routes of %s: %w", at.name, err)
	}
	for _, r := range routes {
		if r.uses(at.index) {
			s.Routes = append(s.Routes, Entry{r.String(), r.encode()})
		}
	}
	return s, nil
}

// Empty reports whether the host has nothing there.
func (s State) Empty() bool { return len(s.Addresses)+len(s.Routes) == 0 }

// HasDefault reports whether a default route leads through the link.
func (s State) HasDefault() bool {
	for _, e := range s.Routes {
		if m, err := decodeRoute(e.Message); err == nil && m.head[rtmDstLen] == 0 && m.head[rtmType] == unix.RTN_UNICAST {
			return true
		}
	}
	return false
}

// With returns s with those of o's addresses and routes that it lacks, on s's link.
func (s State) With(o State) (State, error) {
	to, late := place{s.Link, s.Index}, s.Clock-o.Clock
	had, err := s.on(to, 0)
	if err != nil {
		return s, err
	}
	more, err := o.on(to, late)
	if err != nil {
		return s, err
	}
	for _, a := range more.addresses {
		if !had.hasAddress(a) {
			s.Addresses = append(s.Addresses, Entry{a.String(), a.encode()})
		}
	}
	for _, r := range more.routes {
		if !had.hasRoute(r) {
			s.Routes = append(s.Routes, Entry{r.String(), r.encode()})
		}
	}
	return s, nil
}

// Missing says which of s's addresses and routes the link does not have.
func (s State) Missing(ctx context.Context, link string) ([]string, error) {
	l, err := find(ctx, link)
	if err != nil {
		return nil, err
	}
	want, err := s.on(placeOf(l), clock()-s.Clock)
	if err != nil {
		return nil, err
	}
	have, err := standing(ctx, l)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, a := range want.addresses {
		if !have.hasAddress(a) {
			missing = append(missing, "address "+a.String())
		}
	}
	for _, r := range want.routes {
		if !have.hasRoute(r) {
			missing = append(missing, "route "+r.String())
		}
	}
	return missing, nil
}

// Address sets the link up and gives it s's addresses, with the lifetimes that are left of theirs; those that have run
// out are passed over, and so are those that the link has. IPv6 addresses are not probed for again.
func (s State) Address(ctx context.Context, link string) error {
	l, err := find(ctx, link)
	if err != nil {
		return err
	}
	if l.Attrs().Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(l); err != nil {
			return fmt.Errorf("set %s up: %w", link, err)
		}
	}
	want, err := s.on(placeOf(l), clock()-s.Clock)
	if err != nil {
		return err
	}
	have, err := standing(ctx, l)
	if err != nil {
		return err
	}
	for _, a := range want.addresses {
		if err := ctx.Err(); err != nil {
			return err
		}
		if have.hasAddress(a) {
			continue
		}
		if a.family() == unix.AF_INET6 {
			// What was unique on the NIC is so on its bridge. The second message takes the mark away again.
			if err := send(unix.RTM_NEWADDR, unix.NLM_F_CREATE, a.unprobed().encode()); err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("give %s to %s: %w", a, link, err)
			}
		}
		if err := send(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.encode()); err != nil {
			return fmt.Errorf("give %s to %s: %w", a, link, err)
		}
	}
	return nil
}

// Route leads s's routes, of all tables but the local one, through the link instead of through the one that s was read
// from, which keeps none. The link must be up and have s's addresses. Other links' routes to the same stay, also of the same metric.
func (s State) Route(ctx context.Context, link string) error {
	l, err := find(ctx, link)
	if err != nil {
		return err
	}
	to := placeOf(l)
	want, err := s.on(to, clock()-s.Clock)
	if err != nil {
		return err
	}
	for _, r := range gatewaysLast(want.routes) {
		all, err := allRoutes(ctx) // anew each time: each address and route may bring others
		if err != nil {
			return fmt.Errorf("routes: %w", err)
		}
		flags, done := r.flags(all, s.Index, to.index)
		if done {
			continue
		}
		if err := send(unix.RTM_NEWROUTE, flags, r.encode()); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("lead route %s through %s: %w", r, link, err)
		}
	}
	if s.Link == link {
		return nil
	}
	// Those left are the kernel's for the source's addresses: they would lead to a link that nobody is behind.
	_, err = unroute(ctx, s.Link)
	return err
}

// Strip takes everything of the host from the link. A link that is not there has nothing.
func Strip(ctx context.Context, link string) error {
	has, err := unroute(ctx, link)
	if err != nil {
		return err
	}
	for _, a := range has.addresses {
		// With its first address IPv4 may take the others of a prefix away.
		if err := send(unix.RTM_DELADDR, 0, a.encode()); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take %s from %s: %w", a, link, err)
		}
	}
	return nil
}

// unroute takes the routes from a link and returns what it had.
func unroute(ctx context.Context, link string) (things, error) {
	s, err := Read(ctx, link)
	if errors.Is(err, ErrNotFound) {
		return things{}, nil
	}
	if err != nil {
		return things{}, err
	}
	has, err := s.on(place{s.Link, s.Index}, 0)
	if err != nil {
		return has, err
	}
	for _, r := range has.routes {
		if err := send(unix.RTM_DELROUTE, 0, r.encode()); err != nil && !errors.Is(err, unix.ESRCH) {
			return has, fmt.Errorf("take route %s from %s: %w", r, link, err)
		}
	}
	return has, nil
}

// things are addresses and routes as they are sent to the kernel, for one link.
type things struct {
	addresses []address
	routes    []route
}

// on is s as it should be on another link, late seconds after it was read.
func (s State) on(to place, late int64) (things, error) {
	var t things
	from := place{s.Link, s.Index}
	for _, e := range s.Addresses {
		a, err := decodeAddress(e.Message)
		if err != nil {
			return t, fmt.Errorf("address %s: %w", e.Text, err)
		}
		if a, alive := a.on(from, to, late); alive {
			t.addresses = append(t.addresses, a)
		}
	}
	for _, e := range s.Routes {
		r, err := decodeRoute(e.Message)
		if err != nil {
			return t, fmt.Errorf("route %s: %w", e.Text, err)
		}
		if r, alive := r.on(from, to, late); alive {
			t.routes = append(t.routes, r)
		}
	}
	return t, nil
}

// standing is what the link has now.
func standing(ctx context.Context, l netlink.Link) (things, error) {
	s, err := read(ctx, l)
	if err != nil {
		return things{}, err
	}
	return s.on(placeOf(l), 0)
}

func (t things) hasAddress(a address) bool {
	for _, o := range t.addresses {
		if o.same(a) {
			return true
		}
	}
	return false
}

func (t things) hasRoute(r route) bool {
	for _, o := range t.routes {
		if o.same(r) {
			return true
		}
	}
	return false
}

// clock is the time since boot in seconds, with sleep.
func clock() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) // Linux has this clock
	return t.Sec
}
