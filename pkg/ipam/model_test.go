package ipam_test

import (
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// model is what ipam promises, said as simply as can be: lists of addresses in memory.
type model struct {
	net     vnet.Network
	held    map[string][]netip.Addr // by owner
	touched map[netip.Addr]bool     // handed out at least once
	free    []netip.Addr            // released, the longest ago first
	blocks  map[netip.Prefix]store.BlockState
	member  bool
}

func newModel(n vnet.Network, member bool) *model {
	return &model{n, map[string][]netip.Addr{}, map[netip.Addr]bool{}, nil, map[netip.Prefix]store.BlockState{}, member}
}

func (m *model) holder(a netip.Addr) string {
	for owner, addrs := range m.held {
		if slices.Contains(addrs, a) {
			return owner
		}
	}
	return ""
}

// each visits the addresses of a subnet or block that endpoints may have.
func each(s vnet.Subnet, of netip.Prefix, visit func(netip.Addr)) {
	for a := of.Addr(); of.Contains(a); a = a.Next() {
		if s.Assignable(a) == nil {
			visit(a)
		}
	}
}

// gives reports whether a is among what the node may hand out.
func (m *model) gives(a netip.Addr) bool {
	s, _ := m.net.SubnetOf(a)
	return !m.member || m.blocks[s.BlockOf(a)] == store.Held
}

// pick takes the first fresh address of a family, subnet by subnet; where a subnet has none, its
// oldest released one.
func (m *model) pick(subnets []vnet.Subnet) (netip.Addr, bool) {
	for _, s := range subnets {
		var fresh []netip.Addr
		each(s, s.Prefix, func(a netip.Addr) {
			if !m.touched[a] && m.gives(a) {
				fresh = append(fresh, a)
			}
		})
		if len(fresh) > 0 {
			return fresh[0], true
		}
		if i := slices.IndexFunc(m.free, func(a netip.Addr) bool { return s.Prefix.Contains(a) && m.gives(a) }); i >= 0 {
			return m.free[i], true
		}
	}
	return netip.Addr{}, false
}

// more returns the subnets that have addresses which the node may not hand out, but could claim.
func (m *model) more(subnets []vnet.Subnet) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range subnets {
		has := false
		each(s, s.Prefix, func(a netip.Addr) { has = has || !m.gives(a) })
		if has {
			out = append(out, s.Prefix)
		}
	}
	return out
}

func (m *model) take(owner string, addrs ...netip.Addr) {
	for _, a := range addrs {
		m.held[owner] = append(m.held[owner], a)
		m.touched[a] = true
		m.free = slices.DeleteFunc(m.free, func(f netip.Addr) bool { return f == a })
	}
}

// allocate returns what owner should get, or what to say: a NeedBlocks, or the kind of error.
func (m *model) allocate(owner string, asked netip.Addr, foreign bool) ([]netip.Addr, error) {
	if held := m.held[owner]; held != nil {
		if asked.IsValid() && !slices.Contains(held, asked) {
			return nil, vnet.ErrExists
		}
		return held, nil
	}
	need := &ipam.NeedBlocks{Network: m.net.Ref()}
	var got []netip.Addr
	if asked.IsValid() {
		s, ok := m.net.SubnetOf(asked)
		open := s
		if foreign {
			open.Reserved = nil
		}
		switch {
		case !ok || open.Assignable(asked) != nil:
			return nil, vnet.ErrInvalid
		case m.holder(asked) != "":
			return nil, vnet.ErrExists
		case s.Assignable(asked) == nil && !m.gives(asked):
			need.Addrs = append(need.Addrs, asked)
		}
		got = append(got, asked)
	}
	for _, is6 := range []bool{false, true} {
		subnets := slices.DeleteFunc(slices.Clone(m.net.Subnets), func(s vnet.Subnet) bool { return s.Prefix.Addr().Is6() != is6 })
		if foreign || len(subnets) == 0 || asked.IsValid() && asked.Is6() == is6 {
			continue
		}
		a, ok := m.pick(subnets)
		if !ok && len(m.more(subnets)) == 0 {
			return nil, vnet.ErrExhausted
		}
		if !ok {
			need.Subnets = append(need.Subnets, m.more(subnets)...)
		}
		got = append(got, a)
	}
	if len(need.Subnets)+len(need.Addrs) > 0 {
		return nil, need
	}
	m.take(owner, got...)
	return got, nil
}

// forget makes a what it was before it was ever handed out.
func (m *model) forget(a netip.Addr) {
	delete(m.touched, a)
	m.free = slices.DeleteFunc(m.free, func(f netip.Addr) bool { return f == a })
}

func (m *model) release(owner string) {
	for _, a := range m.held[owner] {
		s, _ := m.net.SubnetOf(a)
		if m.member && m.blocks[s.BlockOf(a)] == "" || s.Assignable(a) != nil {
			m.forget(a)
		} else {
			m.free = append(m.free, a)
		}
	}
	delete(m.held, owner)
}

// drop takes a block away, whoever has addresses of it.
func (m *model) drop(block netip.Prefix) {
	delete(m.blocks, block)
	for a := block.Addr(); block.Contains(a); a = a.Next() {
		if m.holder(a) == "" {
			m.forget(a)
		}
	}
}
