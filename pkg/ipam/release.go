package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

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
	h, err := held(tx, lease.Ref())
	if err != nil {
		return err
	}
	for _, a := range lease.Addrs {
		if err := releaseOne(tx, network, h, owner, a); err != nil {
			return err
		}
	}
	return tx.Delete(store.LeaseKey(owner))
}

// releaseOne puts a at the end of its pool's queue. vnet.ErrExists if another owner has it by
// now: a stale release is refused.
func releaseOne(tx store.Tx, n vnet.Network, h holding, owner vnet.EndpointID, a netip.Addr) error {
	key := store.AddressKey(n.Ref(), a)
	rec, err := store.Load[store.Address](tx, key)
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
	at, ours := h.poolOf(subnet, a)
	if !ours || subnet.Assignable(a) != nil { // a foreign plugin's, out of a reserved range: not for the next one who asks us
		return tx.Delete(key)
	}
	seq, err := h.countRelease(tx, at)
	if err != nil {
		return err
	}
	return errors.Join(
		store.Save(tx, key, store.Address{Seq: seq}),
		tx.Put(store.ReleasedKey(n.Ref(), at, seq), []byte(a.String())))
}

// countRelease returns the number of a release into the pool at a prefix.
func (h holding) countRelease(tx store.Tx, at netip.Prefix) (uint64, error) {
	if h.member {
		return store.CountRelease(tx, h.network)
	}
	p, err := loadPool(tx, h.network, at)
	if err != nil {
		return 0, err
	}
	p.Seq++
	return p.Seq, store.Save(tx, store.PoolKey(h.network, at), p)
}
