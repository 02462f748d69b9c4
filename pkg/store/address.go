package store

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Lease records which addresses of a network an owner holds, and for whom.
type Lease struct {
	Tenant     vnet.TenantName  `json:"tenant"`
	Network    vnet.NetworkName `json:"network"`
	Holder     vnet.Attachment  `json:"holder"`
	CNINetwork string           `json:"cniNetwork"`
	Addrs      []netip.Addr     `json:"addrs"`
}

// Ref returns the network the addresses are of.
func (l Lease) Ref() vnet.Ref { return vnet.Ref{Tenant: l.Tenant, Network: l.Network} }

// Address records an address that is in use, or that rests after it was.
type Address struct {
	Owner vnet.EndpointID `json:"owner,omitempty"` // empty: released
	Seq   uint64          `json:"seq,omitempty"`   // its place in the queue of released addresses
}

// AddrsInUse returns the network's addresses that have an owner.
func AddrsInUse(tx Tx, r vnet.Ref) ([]netip.Addr, error) {
	var used []netip.Addr
	err := tx.Range(addressesOf(r), func(key string, value []byte) error {
		rec, err := decode[Address](key, value)
		if err != nil || rec.Owner == "" {
			return err
		}
		a, err := netip.ParseAddr(strings.TrimPrefix(key, addressesOf(r)))
		if err != nil {
			return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
		}
		used = append(used, a)
		return nil
	})
	return used, err
}

// CountRelease returns how many releases into the network's blocks there were, with one more: which of two was
// earlier is known whatever their blocks.
func CountRelease(tx Tx, r vnet.Ref) (uint64, error) {
	n, err := Load[uint64](tx, releasesKey(r))
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return 0, err
	}
	return n + 1, Save(tx, releasesKey(r), n+1)
}

// HasSubnetPool reports whether addresses of the network were handed out by a node on its own, of a subnet as a whole.
func HasSubnetPool(tx Tx, n vnet.Network) bool {
	return slices.ContainsFunc(n.Subnets, func(s vnet.Subnet) bool { return tx.Get(PoolKey(n.Ref(), s.Prefix)) != nil })
}

// DeletePool removes the pool of a subnet or block, its queue of released addresses and their records: each is as if it
// had never been handed out. What is in use stays with who has it.
func DeletePool(tx Tx, r vnet.Ref, p netip.Prefix) error {
	gone := []string{PoolKey(r, p)}
	err := tx.Range(ReleasedOf(r, p), func(key string, value []byte) error {
		gone = append(gone, key)
		a, err := netip.ParseAddr(string(value))
		if err != nil || !p.Contains(a) {
			return fmt.Errorf("record %s: %q: %w", key, value, vnet.ErrCorrupt)
		}
		rec, err := Load[Address](tx, AddressKey(r, a))
		if err == nil && rec.Owner == "" {
			gone = append(gone, AddressKey(r, a))
		}
		if errors.Is(err, vnet.ErrNotFound) {
			return nil
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, key := range gone {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}
