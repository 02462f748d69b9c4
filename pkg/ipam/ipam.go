// Package ipam decides which address an endpoint gets. It is pure but for the transaction it
// is handed: no clock, no I/O.
//
// A pool remembers how far the never-used addresses have been handed out; after them come the
// released ones, the least recently released first, so that an address rests as long as it can
// before somebody else has it. Releasing asks for the owner: a release that comes late, after
// the address went to another, changes nothing.
//
// A node on its own has one pool for each subnet. A cluster's node has one for each block that
// it holds, and takes from all of a subnet's together: see holding. Which blocks to claim, and
// when to give one back, others decide.
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
	// reserved ranges are open to it, in whatever block: no node hands them out by itself.
	Foreign bool
}

// Allocate returns the addresses of r.Owner, each with its subnet's length: the ones it has,
// if it asks again, else new ones. It writes nothing before it has found all of them.
//
// Errors: vnet.ErrExhausted names the subnets that are full, and carries a *NeedBlocks if
// claiming blocks would help; vnet.ErrExists says who holds a requested address, or that the
// owner holds others than it asks for; vnet.ErrInvalid if a requested address is in no subnet
// or is one that nobody may have.
func Allocate(tx store.Tx, r Request) ([]netip.Prefix, error) {
	key := store.LeaseKey(r.Owner)
	lease, err := store.Load[store.Lease](tx, key)
	switch {
	case err == nil:
		return again(lease, r)
	case !errors.Is(err, vnet.ErrNotFound):
		return nil, err
	}
	h, err := held(tx, r.Network.Ref())
	if err != nil {
		return nil, err
	}
	chosen, err := choose(tx, h, r)
	if err != nil {
		return nil, err
	}
	lease = store.Lease{Tenant: r.Network.Tenant, Network: r.Network.Name, Holder: r.Holder, CNINetwork: r.CNINetwork}
	for _, c := range chosen {
		if err := c.take(tx, h, r.Owner); err != nil {
			return nil, err
		}
		lease.Addrs = append(lease.Addrs, c.addr)
	}
	return withLength(r.Network, lease.Addrs), store.Save(tx, key, lease)
}

// again answers an owner that already holds addresses.
func again(lease store.Lease, r Request) ([]netip.Prefix, error) {
	if lease.Ref() != r.Network.Ref() {
		return nil, vnet.Existsf("%s already holds addresses of network %s", r.Holder, lease.Ref())
	}
	for _, a := range r.Addrs {
		if !slices.Contains(lease.Addrs, a) {
			return nil, vnet.Existsf("%s already holds %s, not %s", r.Holder, strings.Join(texts(lease.Addrs), " and "), a)
		}
	}
	return withLength(r.Network, lease.Addrs), nil
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

func texts[T fmt.Stringer](list []T) []string {
	var out []string
	for _, item := range list {
		out = append(out, item.String())
	}
	return out
}
