package uplink

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// struct rtmsg of include/uapi/linux/rtnetlink.h.
const (
	rtmDstLen   = 1
	rtmSrcLen   = 2
	rtmTOS      = 3
	rtmProtocol = 5
	rtmType     = 7
	rtmFlags    = 8
	rtmSize     = 12
)

// struct rtnexthop: length, flags, hops, index.
const (
	hopFlags = 2
	hopIndex = 4
	hopSize  = 8
)

// rtaNHID is RTA_NH_ID: the route uses a nexthop object. The kernel spells it out besides.
const rtaNHID = 30

// A route is a message of type RTM_NEWROUTE.
type route struct{ message }

func decodeRoute(b []byte) (route, error) {
	m, err := decode(b, rtmSize)
	return route{m}, err
}

// moves: the kernel's own routes stay: those of the local table, and to its own link-local and multicast addresses.
func (r route) moves() bool {
	dst := r.addr(unix.RTA_DST)
	own := r.head[rtmProtocol] == unix.RTPROT_KERNEL && dst.Is6() && (dst.IsLinkLocalUnicast() || dst.IsMulticast())
	return r.number(unix.RTA_TABLE) != unix.RT_TABLE_LOCAL && !own
}

// uses reports whether the route leads through the link, at least by one of several ways.
func (r route) uses(index int) bool {
	if int(r.number(unix.RTA_OIF)) == index {
		return true
	}
	found := false
	r.hops(func(hop []byte) { found = found || int(native.Uint32(hop[hopIndex:])) == index })
	return found
}

// hops calls visit for each of several ways; it may change them.
func (r route) hops(visit func(hop []byte)) {
	for b := r.get(unix.RTA_MULTIPATH); len(b) >= hopSize; {
		n := int(native.Uint16(b))
		if n < hopSize || n > len(b) {
			return
		}
		visit(b[:n])
		b = b[min(len(b), (n+unix.RTNH_ALIGNTO-1)&^(unix.RTNH_ALIGNTO-1)):]
	}
}

// on is the route through another link, late seconds after it was read; false if its lifetime is over.
func (r route) on(from, to place, late int64) (route, bool) {
	// What is left out is the kernel's bookkeeping.
	m := route{r.without(unix.RTA_CACHEINFO, unix.RTA_IIF, rtaNHID, unix.RTA_PAD)}
	native.PutUint32(m.head[rtmFlags:], native.Uint32(m.head[rtmFlags:])&unix.RTNH_F_ONLINK)
	if int(m.number(unix.RTA_OIF)) == from.index {
		m.message = m.with(unix.RTA_OIF, word(uint32(to.index)))
	}
	if several := m.get(unix.RTA_MULTIPATH); several != nil {
		m.message = m.with(unix.RTA_MULTIPATH, slices.Clone(several))
		m.hops(func(hop []byte) {
			hop[hopFlags] &= unix.RTNH_F_ONLINK
			if int(native.Uint32(hop[hopIndex:])) == from.index {
				native.PutUint32(hop[hopIndex:], uint32(to.index))
			}
		})
	}
	// struct rta_cacheinfo counts in ticks of USER_HZ, RTA_EXPIRES in seconds.
	const expires, ticks = 8, 100
	life := r.number(unix.RTA_EXPIRES)
	if info := r.get(unix.RTA_CACHEINFO); len(info) >= expires+4 {
		if t := int32(native.Uint32(info[expires:])); t > 0 {
			life = max(uint32(t)/ticks, 1)
		}
	}
	if life != 0 {
		rest, alive := left(life, late)
		if !alive {
			return r, false
		}
		m.message = m.with(unix.RTA_EXPIRES, word(rest))
	}
	return m, true
}

// same compares all but the lifetime.
func (r route) same(o route) bool {
	return r.without(unix.RTA_EXPIRES).same(o.without(unix.RTA_EXPIRES))
}

// rivals reports whether both lead to the same with the same metric: one can replace the other.
func (r route) rivals(o route) bool {
	return r.family() == o.family() && r.head[rtmDstLen] == o.head[rtmDstLen] && r.head[rtmSrcLen] == o.head[rtmSrcLen] &&
		r.head[rtmTOS] == o.head[rtmTOS] && r.addr(unix.RTA_DST) == o.addr(unix.RTA_DST) && r.addr(unix.RTA_SRC) == o.addr(unix.RTA_SRC) &&
		r.number(unix.RTA_TABLE) == o.number(unix.RTA_TABLE) && r.number(unix.RTA_PRIORITY) == o.number(unix.RTA_PRIORITY)
}

// flags says how the route is to be written where all the others stand, so that it takes the place of one of the links
// from and to, but never another's; true if it stands.
func (r route) flags(all []route, from, to int) (int, bool) {
	var rivals []route
	for _, o := range all {
		if r.rivals(o) {
			rivals = append(rivals, o)
		}
	}
	ours := func(o route) bool { return o.uses(from) || o.uses(to) }
	others := func(o route) bool { return !ours(o) }
	here := place{index: to}
	switch {
	case slices.ContainsFunc(rivals, func(o route) bool { o, _ = o.on(here, here, 0); return o.same(r) }):
		return 0, true
	case len(rivals) == 0:
		return unix.NLM_F_CREATE | unix.NLM_F_EXCL, false
	case !slices.ContainsFunc(rivals, others), r.family() == unix.AF_INET && ours(rivals[0]): // IPv4 replaces the first
		return unix.NLM_F_CREATE | unix.NLM_F_REPLACE, false
	}
	return unix.NLM_F_CREATE | unix.NLM_F_APPEND, false
}

// gatewaysLast puts routes on the link before those that need them.
func gatewaysLast(routes []route) []route {
	needs := func(r route) int {
		if r.get(unix.RTA_GATEWAY) != nil || r.get(unix.RTA_VIA) != nil || r.get(unix.RTA_MULTIPATH) != nil {
			return 1
		}
		return 0
	}
	return slices.SortedStableFunc(slices.Values(routes), func(a, b route) int { return needs(a) - needs(b) })
}

func (r route) String() string {
	s := "default"
	if dst := r.addr(unix.RTA_DST); dst.IsValid() {
		s = netip.PrefixFrom(dst, int(r.head[rtmDstLen])).String()
	} else if r.family() == unix.AF_INET6 {
		s = "default (IPv6)"
	}
	if via := r.addr(unix.RTA_GATEWAY); via.IsValid() {
		s += " via " + via.String()
	}
	if r.get(unix.RTA_MULTIPATH) != nil {
		s += " by several ways"
	}
	if t := r.number(unix.RTA_TABLE); t != unix.RT_TABLE_MAIN {
		s += fmt.Sprintf(" table %d", t)
	}
	if metric := r.number(unix.RTA_PRIORITY); metric != 0 {
		s += fmt.Sprintf(" metric %d", metric)
	}
	return s
}
