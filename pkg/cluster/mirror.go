package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// declared are the prefixes that every node has as etcd has them, in the order in which one may name the other.
var declared = []string{store.Tenants, store.Networks, store.Groups, store.Chains}

// mirror keeps what the node has of the cluster's records as they are in etcd, until ctx ends.
func (a *Agent) mirror(ctx context.Context) {
	for ctx.Err() == nil {
		err := a.etcd.Mirror(ctx, append([]string{Nodes, alive}, declared...), a.connection, a.apply)
		if ctx.Err() == nil {
			a.log.Error("follow the cluster", "error", err)
			pause(ctx)
		}
	}
}

// connection notes whether etcd answers.
func (a *Agent) connection(up bool) {
	a.mu.Lock()
	was := a.connected
	a.connected = up
	a.mu.Unlock()
	if was != up {
		if up {
			a.log.Info("etcd answers")
		} else {
			a.log.Warn("etcd does not answer: the node goes on with what it has")
		}
	}
}

// apply takes over what has changed in etcd. What fails is tried again with everything, since Mirror begins anew.
func (a *Agent) apply(ctx context.Context, whole bool, events []etcd.Event, revision int64) error {
	a.order.Lock()
	defer a.order.Unlock()
	changes := latest(events)
	if err := a.declare(ctx, whole, changes); err != nil {
		return err
	}
	if err := a.applyNodes(ctx, whole, changes); err != nil {
		return err
	}
	a.mu.Lock()
	a.revision = revision
	close(a.moved)
	a.moved = make(chan struct{})
	a.mu.Unlock()
	return nil
}

// latest is what each key has come to.
func latest(events []etcd.Event) map[string][]byte {
	last := make(map[string][]byte, len(events))
	for _, e := range events {
		last[e.Key] = e.Value
	}
	return last
}

// declare writes what is declared into the node's store: what others name first, and what names others goes first.
func (a *Agent) declare(ctx context.Context, whole bool, changes map[string][]byte) error {
	concerns := whole
	for key := range changes {
		concerns = concerns || slices.ContainsFunc(declared, func(p string) bool { return strings.HasPrefix(key, p) })
	}
	if !concerns {
		return nil
	}
	return a.fresh(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Declared(ctx, func(tx store.Tx) error {
			gone := changes
			if whole {
				var err error
				if gone, err = vanished(tx, changes); err != nil {
					return err
				}
			}
			for _, prefix := range slices.Backward(declared) {
				for key, value := range gone {
					if value == nil && strings.HasPrefix(key, prefix) {
						if err := a.forget(tx, key); err != nil {
							return err
						}
					}
				}
			}
			for _, prefix := range declared {
				for key, value := range changes {
					if value != nil && strings.HasPrefix(key, prefix) {
						if err := a.learn(tx, key, value); err != nil {
							return err
						}
					}
				}
			}
			return nil
		})
	})
}

// vanished are the declared records of the node's store that etcd has no more.
func vanished(tx store.Tx, stand map[string][]byte) (map[string][]byte, error) {
	gone := map[string][]byte{}
	for _, prefix := range declared {
		err := tx.Range(prefix, func(key string, _ []byte) error {
			if _, ok := stand[key]; !ok {
				gone[key] = nil
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}

// learn takes over a record. Fields that a newer tenet has added stay in etcd.
func (a *Agent) learn(tx store.Tx, key string, value []byte) error {
	switch {
	case strings.HasPrefix(key, store.Tenants):
		return learn(tx, key, value, func(t vnet.Tenant) error { return t.Name.Validate() })
	case strings.HasPrefix(key, store.Networks):
		return learn(tx, key, value, func(n vnet.Network) error { _, err := n.Normal(); return err })
	case strings.HasPrefix(key, store.Groups):
		return learn(tx, key, value, func(g vnet.Group) error { _, err := g.Normal(); return err })
	}
	return learn(tx, key, value, func(c vnet.Chain) error { _, err := c.Normal(); return err })
}

func learn[T any](tx store.Tx, key string, value []byte, valid func(T) error) error {
	var record T
	err := json.Unmarshal(value, &record)
	if err == nil {
		err = valid(record)
	}
	if err != nil {
		return errors.Join(errRecord(key), err)
	}
	return store.Save(tx, key, record)
}

// forget removes a record that etcd has no more. A network that an endpoint here still is in stays until that goes.
func (a *Agent) forget(tx store.Tx, key string) error {
	names := strings.Split(key, "/")
	if !strings.HasPrefix(key, store.Networks) || len(names) != 3 {
		return tx.Delete(key)
	}
	r := vnet.Ref{Tenant: vnet.TenantName(names[1]), Network: vnet.NetworkName(names[2])}
	err := store.DeleteNetwork(tx, r)
	switch {
	case errors.Is(err, vnet.ErrExists):
		a.log.Warn("a network was deleted that somebody here is in", "network", r, "error", err)
		return nil
	case errors.Is(err, vnet.ErrNotFound):
		return nil
	}
	return err
}

func errRecord(key string) error {
	return vnet.OfKind(vnet.ErrCorrupt, errors.New("record "+key+" of etcd"))
}
