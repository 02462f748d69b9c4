// Package ipam decides which address an endpoint gets. It is pure but for the transaction it
// is handed: no clock, no I/O.
//
// A subnet's pool remembers how far the never-used addresses have been handed out; after them
// come the released ones, the least recently released first, so that an address rests as long
// as it can before somebody else has it. Releasing asks for the owner: a release that comes
// late, after the address went to another, changes nothing.
//
// A node of a cluster hands out addresses of the blocks that it holds alone (block.go): each of
// them is a pool of its own then, where on a node on its own the whole subnet is one.
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

// Request asks for addresses of a network: one of each family the network has, or those in
// Addrs and one of each family that Addrs does not cover.
type Request struct {
	Network    vnet.Network
	Owner      vnet.EndpointID
	Holder     vnet.Attachment
	CNINetwork string
	Addrs      []netip.Addr
	// Foreign says that another IPAM plugin chose Addrs: they are all that is taken, and
	// reserved ranges are open to it.
	Foreign bool
}

// pool is the allocation record of one subnet, or of a block of it.
type pool struct {
	Next netip.Addr `json:"next,omitzero"`  // all before it were handed out; zero: none was yet
	Done bool       `json:"done,omitempty"` // all were handed out
	Seq  uint64     `json:"seq"`            // counts releases; the subnet's does
}

// address is the record of one address that was handed out at least once.
type address struct {
	Owner vnet.EndpointID `json:"owner,omitempty"` // empty: released
	Seq   uint64          `json:"seq,omitempty"`   // its place in the queue of released addresses
}

// Allocate returns the addresses of r.Owner, each with its subnet's length: the ones it has,
// if it asks again, else new ones.
//
// Errors: vnet.ErrExhausted names the subnets that are full, and is a *NeedBlocksError on a node of a cluster, which may get
// more; vnet.ErrExists says who holds a requested address, or that the owner holds others than it asks for;
// vnet.ErrInvalid if a requested address is in no subnet or is one that nobody may have.
func Allocate(tx store.Tx, r Request) ([]netip.Prefix, error) {
	key := store.LeaseKey(r.Owner)
	lease, err := store.Load[store.Lease](tx, key)
	switch {
	case err == nil:
		return again(lease, r)
	case !errors.Is(err, vnet.ErrNotFound):
		return nil, err
	}
	lease = store.Lease{Tenant: r.Network.Tenant, Network: r.Network.Name, Holder: r.Holder, CNINetwork: r.CNINetwork}
	lacks := &NeedBlocksError{Network: r.Network.Ref()}
	for _, a := range r.Addrs {
		if err := lacks.note(takeRequested(tx, r, a)); err != nil {
			return nil, err
		}
		lease.Addrs = append(lease.Addrs, a)
	}
	for _, is6 := range []bool{false, true} {
		subnets := slices.DeleteFunc(slices.Clone(r.Network.Subnets), func(s vnet.Subnet) bool { return s.Prefix.Addr().Is6() != is6 })
		if r.Foreign || len(subnets) == 0 || slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return a.Is6() == is6 }) {
			continue
		}
		a, err := takeAny(tx, r, subnets)
		if err := lacks.note(err); err != nil {
			return nil, err
		}
		lease.Addrs = append(lease.Addrs, a)
	}
	if lacks.any() {
		return nil, lacks
	}
	return withLength(r.Network, lease.Addrs), store.Save(tx, key, lease)
}

// Release gives back everything that owner holds. It is no error if that is nothing.
func Release(tx store.Tx, owner vnet.EndpointID) error {
	lease, err := store.Load[store.Lease](tx, store.LeaseKey(owner))
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	network, err := store.Network(tx, lease.Ref())
	if err != nil {
		return err
	}
	for _, a := range lease.Addrs {
		if err := releaseOne(tx, network, owner, a); err != nil {
			return err
		}
	}
	return tx.Delete(store.LeaseKey(owner))
}

// again answers an owner that already holds addresses.
func again(lease store.Lease, r Request) ([]netip.Prefix, error) {
	if lease.Ref() != r.Network.Ref() {
		return nil, vnet.Existsf("%s already holds addresses of network %s", r.Holder, lease.Ref())
	}
	for _, a := range r.Addrs {
		if !slices.Contains(lease.Addrs, a) {
			return nil, vnet.Existsf("%s already holds %s, not %s", r.Holder, join(lease.Addrs, " and "), a)
		}
	}
	return withLength(r.Network, lease.Addrs), nil
}

func takeRequested(tx store.Tx, r Request, a netip.Addr) error {
	subnet, ok := r.Network.SubnetOf(a)
	if !ok {
		return vnet.Invalidf("address %s is in no subnet of network %s", a, r.Network.Ref())
	}
	if r.Foreign {
		subnet.Reserved = nil
	}
	if err := subnet.Assignable(a); err != nil {
		return err
	}
	part, err := partOf(tx, r.Network.Ref(), subnet, a)
	if err != nil {
		return err
	}
	key := store.AddressKey(r.Network.Ref(), a)
	rec, err := store.Load[address](tx, key)
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return err
	}
	if rec.Owner != "" {
		return vnet.Existsf("address %s is taken by %s", a, holder(tx, rec.Owner))
	}
	if err == nil { // it waits in the queue of released addresses
		if err := tx.Delete(store.ReleasedKey(r.Network.Ref(), part, rec.Seq)); err != nil {
			return err
		}
	}
	return store.Save(tx, key, address{Owner: r.Owner})
}

// takeAny hands out an address of the first subnet that has one.
func takeAny(tx store.Tx, r Request, subnets []vnet.Subnet) (netip.Addr, error) {
	var full []netip.Prefix
	for _, s := range subnets {
		parts, err := partsOf(tx, r.Network.Ref(), s)
		if err != nil {
			return netip.Addr{}, err
		}
		a, err := fresh(tx, r, s, parts)
		if err == nil && !a.IsValid() {
			a, err = oldest(tx, r, s, parts)
		}
		if err != nil || a.IsValid() {
			return a, err
		}
		full = append(full, s.Prefix)
	}
	if _, member := store.Member(tx); member {
		return netip.Addr{}, &NeedBlocksError{Network: r.Network.Ref(), Subnets: full}
	}
	return netip.Addr{}, vnet.WithHint(
		fmt.Errorf("network %s: subnet %s has no free address: %w", r.Network.Ref(), join(full, ", "), vnet.ErrExhausted),
		"see who holds them: tenetctl endpoint list --network %s", r.Network.Ref())
}

// fresh returns the next address of the parts that was never handed out, zero if there is none.
func fresh(tx store.Tx, r Request, s vnet.Subnet, parts []netip.Prefix) (netip.Addr, error) {
	for _, part := range parts {
		a, err := freshIn(tx, r, s, part)
		if err != nil || a.IsValid() {
			return a, err
		}
	}
	return netip.Addr{}, nil
}

func freshIn(tx store.Tx, r Request, s vnet.Subnet, part netip.Prefix) (netip.Addr, error) {
	ref := r.Network.Ref()
	p, err := loadPool(tx, ref, part)
	if err != nil || p.Done {
		return netip.Addr{}, err
	}
	if !p.Next.IsValid() {
		p.Next = part.Addr()
	}
	a := s.Next(p.Next)
	for part.Contains(a) && tx.Get(store.AddressKey(ref, a)) != nil { // somebody asked for it by name
		a = s.Next(a.Next())
	}
	if !part.Contains(a) {
		a = netip.Addr{}
	}
	p.Next, p.Done = a, !a.IsValid()
	if a.IsValid() {
		p.Next = a.Next()
		p.Done = !part.Contains(p.Next)
		if err := store.Save(tx, store.AddressKey(ref, a), address{Owner: r.Owner}); err != nil {
			return netip.Addr{}, err
		}
	}
	return a, store.Save(tx, store.PoolKey(ref, part), p)
}

// oldest returns the address of the parts that was released longest ago, zero if there is none.
func oldest(tx store.Tx, r Request, s vnet.Subnet, parts []netip.Prefix) (netip.Addr, error) {
	ref := r.Network.Ref()
	var a netip.Addr
	key, turn := "", ""
	for _, part := range parts {
		err := tx.Range(store.ReleasedOf(ref, part), func(k string, v []byte) error {
			at := strings.TrimPrefix(k, store.ReleasedOf(ref, part))
			if key != "" && at >= turn {
				return store.ErrStop
			}
			first, err := netip.ParseAddr(string(v))
			if err != nil || !s.Prefix.Contains(first) {
				return fmt.Errorf("record %s: %q: %w", k, v, vnet.ErrCorrupt)
			}
			a, key, turn = first, k, at
			return store.ErrStop
		})
		if err != nil {
			return netip.Addr{}, err
		}
	}
	if key == "" {
		return netip.Addr{}, nil
	}
	rec, err := store.Load[address](tx, store.AddressKey(ref, a))
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return netip.Addr{}, err
	}
	if err != nil || rec.Owner != "" {
		return netip.Addr{}, fmt.Errorf("record %s: %s was not released: %w", key, a, vnet.ErrCorrupt)
	}
	if err := tx.Delete(key); err != nil {
		return netip.Addr{}, err
	}
	return a, store.Save(tx, store.AddressKey(ref, a), address{Owner: r.Owner})
}

// releaseOne puts a at the end of its subnet's queue. vnet.ErrExists if another owner has it by
// now: a stale release is refused.
func releaseOne(tx store.Tx, n vnet.Network, owner vnet.EndpointID, a netip.Addr) error {
	key := store.AddressKey(n.Ref(), a)
	rec, err := store.Load[address](tx, key)
	if errors.Is(err, vnet.ErrNotFound) || err == nil && rec.Owner == "" {
		return nil
	}
	if err != nil {
		return err
	}
	if rec.Owner != owner {
		return vnet.Existsf("release of %s by %s refused: it belongs to %s now", a, owner, holder(tx, rec.Owner))
	}
	subnet, ok := n.SubnetOf(a)
	if !ok {
		return fmt.Errorf("record %s: in no subnet of %s: %w", key, n.Ref(), vnet.ErrCorrupt)
	}
	if subnet.Assignable(a) != nil { // a foreign plugin's, out of a reserved range: not for the next one who asks us
		return tx.Delete(key)
	}
	part, err := partOf(tx, n.Ref(), subnet, a)
	if errors.As(err, new(*NeedBlocksError)) { // its block is another node's by now
		return tx.Delete(key)
	}
	if err != nil {
		return err
	}
	p, err := loadPool(tx, n.Ref(), subnet.Prefix)
	if err != nil {
		return err
	}
	p.Seq++
	return errors.Join(
		store.Save(tx, key, address{Seq: p.Seq}),
		tx.Put(store.ReleasedKey(n.Ref(), part, p.Seq), []byte(a.String())),
		store.Save(tx, store.PoolKey(n.Ref(), subnet.Prefix), p))
}

func loadPool(tx store.Tx, ref vnet.Ref, prefix netip.Prefix) (pool, error) {
	p, err := store.Load[pool](tx, store.PoolKey(ref, prefix))
	if errors.Is(err, vnet.ErrNotFound) {
		return pool{}, nil
	}
	return p, err
}

// holder says in words who an owner is.
func holder(tx store.Tx, owner vnet.EndpointID) string {
	lease, err := store.Load[store.Lease](tx, store.LeaseKey(owner))
	if err != nil {
		return string(owner)
	}
	return fmt.Sprintf("%s (%s)", lease.Holder, owner)
}

func withLength(n vnet.Network, addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		if s, ok := n.SubnetOf(a); ok {
			out = append(out, netip.PrefixFrom(a, s.Prefix.Bits()))
		}
	}
	return out
}

// join says several things in one breath.
func join[T fmt.Stringer](all []T, between string) string {
	var texts []string
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, between)
}
