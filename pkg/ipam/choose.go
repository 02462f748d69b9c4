package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// choose finds the addresses that r asks for. It writes nothing: half of them is of no use.
func choose(tx store.Tx, h holding, r Request) ([]choice, error) {
	var chosen []choice
	need := NeedBlocks{Network: h.network}
	for i, a := range r.Addrs {
		c, ours, err := requested(tx, h, r, a)
		switch {
		case err != nil:
			return nil, err
		case slices.Contains(r.Addrs[:i], a):
			return nil, vnet.Existsf("address %s is taken by %s itself: it asks for it twice", a, r.Holder)
		case ours:
			chosen = append(chosen, c)
		default:
			need.Addrs = append(need.Addrs, a)
		}
	}
	for _, is6 := range []bool{false, true} {
		subnets := slices.DeleteFunc(slices.Clone(r.Network.Subnets), func(s vnet.Subnet) bool { return s.Prefix.Addr().Is6() != is6 })
		if r.Foreign || len(subnets) == 0 || slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return a.Is6() == is6 }) {
			continue
		}
		c, found, err := first(tx, h, subnets)
		if err != nil {
			return nil, err
		}
		if found {
			chosen = append(chosen, c)
			continue
		}
		more := slices.DeleteFunc(slices.Clone(subnets), func(s vnet.Subnet) bool { return !h.hasMore(s) })
		if len(more) == 0 {
			return nil, vnet.WithHint(
				fmt.Errorf("network %s: subnet %s has no free address: %w", h.network, strings.Join(texts(prefixes(subnets)), ", "), vnet.ErrExhausted),
				"see who holds them: tenetctl endpoint list --network %s", h.network)
		}
		need.Subnets = append(need.Subnets, prefixes(more)...)
	}
	if len(need.Subnets)+len(need.Addrs) > 0 {
		return nil, vnet.WithHint(&need, "tenetd claims blocks for its node: see whether it runs and reaches the cluster")
	}
	return chosen, nil
}

// requested chooses an address by its name, if it is this node's to give.
func requested(tx store.Tx, h holding, r Request, a netip.Addr) (choice, bool, error) {
	subnet, ok := r.Network.SubnetOf(a)
	if !ok {
		return choice{}, false, vnet.Invalidf("address %s is in no subnet of network %s", a, h.network)
	}
	open := subnet
	if r.Foreign {
		open.Reserved = nil
	}
	if err := open.Assignable(a); err != nil {
		return choice{}, false, err
	}
	rec, err := store.Load[store.Address](tx, store.AddressKey(h.network, a))
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return choice{}, false, err
	}
	if rec.Owner != "" {
		return choice{}, false, vnet.Existsf("address %s is taken by %s", a, holder(tx, rec.Owner))
	}
	if subnet.Assignable(a) == nil && !h.gives(subnet, a) { // a reserved one no other node hands out either
		return choice{}, false, nil
	}
	c := choice{addr: a}
	if at, _ := h.poolOf(subnet, a); err == nil {
		c.queued = store.ReleasedKey(h.network, at, rec.Seq)
	}
	return c, true, nil
}

// first chooses an address of the first subnet that has one.
func first(tx store.Tx, h holding, subnets []vnet.Subnet) (choice, bool, error) {
	for _, s := range subnets {
		pools := h.pools(s)
		c, found, err := fresh(tx, h.network, s, pools)
		if err == nil && !found {
			c, found, err = oldest(tx, h.network, pools)
		}
		if err != nil || found {
			return c, found, err
		}
	}
	return choice{}, false, nil
}

func prefixes(subnets []vnet.Subnet) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range subnets {
		out = append(out, s.Prefix)
	}
	return out
}
