package uplink

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// struct ifaddrmsg of include/uapi/linux/if_addr.h.
const (
	ifaPrefixLen = 1
	ifaFlags     = 2
	ifaIndex     = 4
	ifaSize      = 8
	ifaProto     = 11 // IFA_PROTO
)

// forever is INFINITY_LIFE_TIME.
const forever = 0xffffffff

// An address is a message of type RTM_NEWADDR.
type address struct{ message }

func decodeAddress(b []byte) (address, error) {
	m, err := decode(b, ifaSize)
	return address{m}, err
}

func (a address) index() int { return int(native.Uint32(a.head[ifaIndex:])) }

func (a address) prefix() netip.Prefix {
	ip := a.addr(unix.IFA_LOCAL) // IPv6 has it only with a peer
	if !ip.IsValid() {
		ip = a.addr(unix.IFA_ADDRESS)
	}
	return netip.PrefixFrom(ip, int(a.head[ifaPrefixLen]))
}

func (a address) String() string {
	s := a.prefix().String()
	if peer := a.addr(unix.IFA_ADDRESS); peer != a.prefix().Addr() {
		s = fmt.Sprintf("%s peer %s/%d", a.prefix().Addr(), peer, a.head[ifaPrefixLen])
	}
	return s
}

func (a address) flags() uint32 { return a.number(unix.IFA_FLAGS) | uint32(a.head[ifaFlags]) }

// moves: a link-local address is of its own link, one that another machine has is no use on any.
func (a address) moves() bool {
	ip := a.prefix().Addr()
	return (ip.Is4() || !ip.IsLinkLocalUnicast()) && a.flags()&unix.IFA_F_DADFAILED == 0
}

// on is the address as it is given to another link, late seconds after it was read; false if its lifetime is over.
// What the kernel made a temporary address becomes one that just has its lifetime: connections use it.
func (a address) on(from, to place, late int64) (address, bool) {
	m := a.without(unix.IFA_CACHEINFO)
	native.PutUint32(m.head[ifaIndex:], uint32(to.index))
	// All that a user may set: inet6_rtm_newaddr of net/ipv6/addrconf.c, rtm_to_ifaddr of net/ipv4/devinet.c.
	const settable6 = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
	const settable4 = unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
	flags := a.flags() & settable4
	if a.family() == unix.AF_INET6 {
		flags = a.flags() & settable6
	}
	m = address{m}.flagged(flags).message
	if label := strings.TrimRight(string(a.get(unix.IFA_LABEL)), "\x00"); label != "" {
		if rest, ok := strings.CutPrefix(label, from.name); ok && len(to.name+rest) < unix.IFNAMSIZ {
			label = to.name + rest
		} else if ok {
			label = to.name
		}
		m = m.with(unix.IFA_LABEL, append([]byte(label), 0))
	}
	if life := a.get(unix.IFA_CACHEINFO); len(life) >= 8 {
		preferred, alive := left(native.Uint32(life), late)
		if !alive {
			preferred = 0
		}
		valid, alive := left(native.Uint32(life[4:]), late)
		if !alive {
			return a, false
		}
		// struct ifa_cacheinfo; the times of its making are the kernel's.
		m = m.with(unix.IFA_CACHEINFO, append(append(word(preferred), word(valid)...), make([]byte, 8)...))
	}
	return address{m}, true
}

// left is what is left of a lifetime in seconds; false: nothing.
func left(seconds uint32, late int64) (uint32, bool) {
	if seconds == forever {
		return seconds, true
	}
	rest := max(int64(seconds)-max(late, 0), 0)
	return uint32(rest), rest > 0
}

func (a address) flagged(flags uint32) address {
	m := a.with(unix.IFA_FLAGS, word(flags))
	m.head[ifaFlags] = byte(flags)
	return address{m}
}

// unprobed is the address without duplicate address detection.
func (a address) unprobed() address { return a.flagged(a.flags() | unix.IFA_F_NODAD) }

// same compares all but lifetimes, which go by, and who gave the address, which the kernel does not change.
func (a address) same(o address) bool {
	return a.without(unix.IFA_CACHEINFO, ifaProto).same(o.without(unix.IFA_CACHEINFO, ifaProto))
}
