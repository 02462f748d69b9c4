package gateway

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is our table, of the family inet.
const tableName = "tenet"

// protocols are those whose ports can be published, and their numbers.
var protocols = map[string]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP, "sctp": unix.IPPROTO_SCTP}

// table is what the kernel's table should be.
type table struct {
	*nftables.Table
	sets   []*set
	chains []*chain
}

// set is a set or a map with its elements.
type set struct {
	*nftables.Set
	elements []element
}

type element struct {
	nftables.SetElement
	words string
}

// chain is a chain with its rules. The comment of a rule says what it is for
// where the rule does not.
type chain struct {
	*nftables.Chain
	rules []rule
}

type rule struct {
	comment string
	exprs   []expr.Any
}

// newTable renders s.
//
// The chains, by the way of a packet. guard drops what comes in by another link
// with an address of the range, which no neighbour of the host has any business
// with, and what comes by any link for an address of loopback: the kernel looks
// for such packets only after publish has led them to what is published on
// loopback alone. It keeps what comes out of the link from tunnels and from the
// services that are kept, here, where packets in fragments are whole again: the
// switch sees no port in these. And what the host receives for a tunnel is not
// tracked, or a container that leaves by a tunnel's port for another node's
// would be given what that node sends. publish, for packets that come in and for the host's own,
// translates what is for the host to what is published. forward and input let
// pass what is known, and drop what is new and for the range: aliases are for
// the host, and route_localnet is not to let what is behind the link at the
// host's loopback.
// leave translates what comes from the range and leaves the host; enter, within
// it, what goes into the link and must come back by the host: from loopback,
// to containers that know no other way, and between two routed prefixes if the
// address asked for was another (their answer would not pass the host).
func newTable(s State) *table {
	t := &table{Table: &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}}
	guard := t.base("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw)
	published := t.chain("publish")
	prerouting := t.base("prerouting", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest)
	output := t.base("output", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest)
	forward := t.base("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter)
	input := t.base("input", nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter)
	enter := t.chain("enter")
	leave := t.base("leave", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource)

	in, out := comes(expr.CmpOpEq, s.Link), goes(expr.CmpOpEq, s.Link)
	for _, port := range s.Tunnels {
		guard.add("no container sends to a tunnel", in, toPort(unix.IPPROTO_UDP, port), drop())
		guard.add("nor has what comes for one", toPort(unix.IPPROTO_UDP, port), toHost(), notrack())
	}
	for _, k := range s.Kept {
		guard.add("kept from containers", in, within(destination, netip.PrefixFrom(k.Addr(), k.Addr().BitLen())), toPort(unix.IPPROTO_TCP, k.Port()), drop())
	}
	for _, port := range s.Own {
		guard.add("the host's own", in, toHost(), toPort(unix.IPPROTO_TCP, port), drop())
	}
	prerouting.add("", toHost(), jump(published.Name))
	output.add("", toHost(), jump(published.Name))
	forward.add("published, or a service of the host", out, translated(), accept())
	forward.add("", out, known(), accept())
	input.add("", in, known(), accept())
	leave.add("", out, jump(enter.Name))
	leave.add("", goes(expr.CmpOpEq, "lo"), accept())

	for _, n := range s.Nets {
		like, rng, host := n.Via, n.rng(), n.Host.Addr()
		loopback := netip.MustParsePrefix("127.0.0.0/8")
		if like.Is6() {
			loopback = netip.MustParsePrefix("::1/128")
		}
		elsewhere := exprs(comes(expr.CmpOpNeq, s.Link), comes(expr.CmpOpNeq, "lo"))
		guard.add("", elsewhere, within(source, rng), drop())
		guard.add("", elsewhere, within(destination, rng), drop())
		guard.add("loopback is for the host alone", comes(expr.CmpOpNeq, "lo"), within(destination, loopback), drop())

		one, every := t.ports(s, like)
		published.add("", publish(one, like, true))
		published.add("", publish(every, like, false))

		forward.add("aliases are for the host alone", out, within(destination, rng), drop())
		input.add("loopback is not for containers", in, within(destination, loopback), drop())
		input.add("", in, within(destination, rng), drop())

		masked, routed := t.masked(s, like), t.routed(s, like)
		enter.add("they know no other way back", oneOf(destination, masked, like), leaveAs(host))
		enter.add("", within(source, loopback), leaveAs(host))
		enter.add("the answer would not pass the host", translated(), oneOf(source, routed, like), oneOf(destination, routed, like), leaveAs(host))
		leave.add("", goes(expr.CmpOpNeq, s.Link), within(source, rng), leaveBy(t.egress(s, like), like))
		leave.add("", goes(expr.CmpOpNeq, s.Link), within(source, rng), masquerade())
	}
	return t
}

// base adds a chain that packets pass.
func (t *table) base(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority) *chain {
	c := t.chain(name)
	pass := nftables.ChainPolicyAccept
	c.Type, c.Hooknum, c.Priority, c.Policy = kind, hook, priority, &pass
	return c
}

// chain adds a chain that is jumped to.
func (t *table) chain(name string) *chain {
	c := &chain{Chain: &nftables.Chain{Name: name, Table: t.Table}}
	t.chains = append(t.chains, c)
	return c
}

func (c *chain) add(comment string, parts ...[]expr.Any) {
	c.rules = append(c.rules, rule{comment: comment, exprs: exprs(parts...)})
}

// set adds an empty set, one per family: its name ends in the family.
func (t *table) set(name string, like netip.Addr, key nftables.SetDatatype) *set {
	if like.Is4() {
		name += "4"
	} else {
		name += "6"
	}
	// Numbered here: the library's own numbers are not safe for two at once.
	s := &set{Set: &nftables.Set{Table: t.Table, ID: uint32(len(t.sets) + 1), Name: name, KeyType: key}}
	t.sets = append(t.sets, s)
	return s
}

// mapping adds an empty map.
func (t *table) mapping(name string, like netip.Addr, key, data nftables.SetDatatype) *set {
	s := t.set(name, like, key)
	s.IsMap, s.DataType = true, data
	return s
}

func (s *set) add(words string, key, val []byte) {
	s.elements = append(s.elements, element{nftables.SetElement{Key: key, Val: val}, words})
}

// masked is the set of aliases that are reached with the host's own address.
func (t *table) masked(s State, like netip.Addr) *set {
	set := t.set("masked", like, typeOf(like))
	seen := map[netip.Addr]bool{}
	for _, a := range s.Masked {
		if a.Is4() == like.Is4() && !seen[a] {
			seen[a] = true
			set.add(a.String(), a.AsSlice(), nil)
		}
	}
	return set
}

// routed is the set of prefixes that are led to the link.
func (t *table) routed(s State, like netip.Addr) *set {
	set := t.set("routed", like, typeOf(like))
	set.Interval = true
	for _, r := range s.Routes {
		if r.Prefix.Addr().Is4() != like.Is4() {
			continue
		}
		set.add(r.Prefix.String(), r.Prefix.Addr().AsSlice(), nil)
		// The end of an interval is the first address that is not in it; an
		// interval to the last address of all has none.
		if next := last(r.Prefix).Next(); next.IsValid() {
			set.elements = append(set.elements, element{nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true}, "the end of " + r.Prefix.String()})
		}
	}
	return set
}

// last is the last address of p.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// egress is the map of transit addresses to those with which they leave.
func (t *table) egress(s State, like netip.Addr) *set {
	set := t.mapping("egress", like, typeOf(like), typeOf(like))
	for _, e := range s.Egress {
		if e.Transit.Is4() == like.Is4() {
			set.add(fmt.Sprintf("%v as %v", e.Transit, e.Address), e.Transit.AsSlice(), e.Address.AsSlice())
		}
	}
	return set
}

// ports are the maps of what is published at one address of the host, and at
// every one.
func (t *table) ports(s State, like netip.Addr) (one, every *set) { //nolint:nonamedreturns // which is which
	addr, proto, port := typeOf(like), nftables.TypeInetProto, nftables.TypeInetService
	to := concat(addr, port)
	one = t.mapping("host_ports", like, concat(addr, proto, port), to)
	every = t.mapping("ports", like, concat(proto, port), to)
	for _, p := range s.Published {
		if p.To.Addr().Is4() != like.Is4() {
			continue
		}
		key := append(word(protocols[p.Protocol]), word(byte(p.HostPort>>8), byte(p.HostPort))...)
		val := append(p.To.Addr().AsSlice(), word(byte(p.To.Port()>>8), byte(p.To.Port()))...)
		if p.HostIP.IsValid() {
			one.add(p.String(), append(p.HostIP.AsSlice(), key...), val)
		} else {
			every.add(p.String(), key, val)
		}
	}
	return one, every
}

// concat is the concatenation of a few types; that of many is none.
func concat(types ...nftables.SetDatatype) nftables.SetDatatype {
	t, _ := nftables.ConcatSetType(types...)
	return t
}

// word is b in the 4 bytes that each part of a concatenation fills.
func word(b ...byte) []byte { return append(slices.Clone(b), make([]byte, 4-len(b))...) }
