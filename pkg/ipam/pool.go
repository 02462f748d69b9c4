package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// pool is the allocation record of one subnet, or of one block of it.
type pool struct {
	Next netip.Addr `json:"next,omitzero"`  // all before it were handed out; zero: none was yet
	Done bool       `json:"done,omitempty"` // all were handed out
	Seq  uint64     `json:"seq"`            // counts releases into a subnet; for blocks, see store.CountRelease
}

func loadPool(tx store.Tx, network vnet.Ref, at netip.Prefix) (pool, error) {
	p, err := store.Load[pool](tx, store.PoolKey(network, at))
	if errors.Is(err, vnet.ErrNotFound) {
		return pool{}, nil
	}
	return p, err
}

// choice is an address that can be handed out, and what is to be written then.
type choice struct {
	addr    netip.Addr
	queued  string // the key by which it waits among the released ones, empty if it does not
	poolKey string // of the pool that it is the next of, empty if it is of none
	pool    pool   // with it handed out
}

func (c choice) take(tx store.Tx, h holding, owner vnet.EndpointID) error {
	if c.queued != "" {
		if err := tx.Delete(c.queued); err != nil {
			return err
		}
	}
	if c.poolKey != "" {
		if err := store.Save(tx, c.poolKey, c.pool); err != nil {
			return err
		}
	}
	return store.Save(tx, store.AddressKey(h.network, c.addr), store.Address{Owner: owner})
}

// fresh chooses the first address of s that was never handed out, of the pools that stand for it, in their order.
func fresh(tx store.Tx, network vnet.Ref, s vnet.Subnet, pools []netip.Prefix) (choice, bool, error) {
	for _, at := range pools {
		p, err := loadPool(tx, network, at)
		if err != nil {
			return choice{}, false, err
		}
		if p.Done {
			continue
		}
		if !p.Next.IsValid() {
			p.Next = at.Addr()
		}
		a := s.Next(p.Next)
		for at.Contains(a) && tx.Get(store.AddressKey(network, a)) != nil { // somebody asked for it by name
			a = s.Next(a.Next())
		}
		if !at.Contains(a) {
			continue
		}
		if p.Next = s.Next(a.Next()); !at.Contains(p.Next) {
			p.Next, p.Done = netip.Addr{}, true
		}
		return choice{addr: a, poolKey: store.PoolKey(network, at), pool: p}, true, nil
	}
	return choice{}, false, nil
}

// oldest chooses the address that was released longest ago, into any of the pools.
func oldest(tx store.Tx, network vnet.Ref, pools []netip.Prefix) (choice, bool, error) {
	var c choice
	var since string
	for _, at := range pools {
		queue := store.ReleasedOf(network, at)
		err := tx.Range(queue, func(key string, value []byte) error {
			seq := strings.TrimPrefix(key, queue)
			if since != "" && since <= seq {
				return store.ErrStop
			}
			a, err := netip.ParseAddr(string(value))
			if err != nil || !at.Contains(a) {
				return fmt.Errorf("record %s: %q: %w", key, value, vnet.ErrCorrupt)
			}
			c, since = choice{addr: a, queued: key}, seq
			return store.ErrStop
		})
		if err != nil {
			return choice{}, false, err
		}
	}
	if since == "" {
		return choice{}, false, nil
	}
	rec, err := store.Load[store.Address](tx, store.AddressKey(network, c.addr))
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return choice{}, false, err
	}
	if err != nil || rec.Owner != "" {
		return choice{}, false, fmt.Errorf("record %s: %s was not released: %w", c.queued, c.addr, vnet.ErrCorrupt)
	}
	return c, true, nil
}
