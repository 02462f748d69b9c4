package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// change changes what is declared: in the node's store, or, in a cluster, in etcd, from where every node has it. Then
// it waits for this node to have it. chains says that it may be about chains or what they lead through.
func (a *app) change(ctx context.Context, n *node.Node, chains bool, write func(store.Tx) error) error {
	member, err := a.member(ctx, n)
	switch {
	case err != nil:
		return err
	case member:
		return a.changeCluster(ctx, n, write)
	case chains:
		return n.Rechain(ctx, write)
	}
	return n.Store.Update(ctx, write)
}

// member reports whether the node is one of a cluster. One that is to be, and has not joined yet, is one on its own: what is
// declared there it brings along.
func (a *app) member(ctx context.Context, n *node.Node) (bool, error) {
	if !n.Clustered() {
		return false, nil
	}
	member := false
	err := n.Store.View(ctx, func(tx store.Tx) error {
		_, member = store.Member(tx)
		return nil
	})
	if err == nil && !member {
		fmt.Fprintf(a.err, "tenetctl: this node has not joined its cluster: what is declared and deleted here it brings along when it does\n")
	}
	return member, err
}

// deleteNetwork deletes a network as change would, however many blocks of it nodes hold. What was cut short of that is finished.
func (a *app) deleteNetwork(ctx context.Context, n *node.Node, ref vnet.Ref) error {
	member, err := a.member(ctx, n)
	if err != nil {
		return err
	}
	if !member {
		return n.Store.Update(ctx, func(tx store.Tx) error { return store.DeleteNetwork(tx, ref) })
	}
	gone := a.changeCluster(ctx, n, func(tx store.Tx) error { return cluster.DeleteNetwork(tx, ref) })
	if gone != nil && !errors.Is(gone, vnet.ErrNotFound) {
		return gone
	}
	return withEtcd(n, func(s *etcd.Store) error {
		cleared, err := cluster.ClearNetwork(ctx, s, ref)
		if err != nil || cleared > 0 {
			return err
		}
		return gone
	})
}

func (a *app) changeCluster(ctx context.Context, n *node.Node, write func(store.Tx) error) error {
	var spreads []string
	var revision int64
	err := withEtcd(n, func(s *etcd.Store) error {
		var err error
		revision, err = s.Commit(ctx, func(tx store.Tx) error {
			t := spreading{tx, map[string][]byte{}}
			err := cluster.Planned(write)(t)
			spreads = t.prefixes()
			return err
		})
		return err
	})
	if err != nil || len(spreads) == 0 {
		return err
	}
	if err := socket.Call(ctx, n.Socket, socket.Request{Do: socket.Await, Revision: revision, Prefixes: spreads}, nil); err != nil {
		fmt.Fprintf(a.err, "tenetctl: it stands in the cluster, but this node does not have it yet: %s\n", oneLine(err.Error()))
		if hint := vnet.Hint(err); hint != "" {
			fmt.Fprintf(a.err, "hint: %s\n", hint)
		}
	}
	return nil
}

// withEtcd runs fn with the cluster's store.
func withEtcd(n *node.Node, fn func(*etcd.Store) error) error {
	s, err := etcd.Open(etcd.Config(n.Etcd))
	if err != nil {
		return err
	}
	defer s.Close()
	return fn(s)
}

// askEtcd reads what etcd has, unless that does not answer so soon.
func askEtcd(ctx context.Context, n *node.Node, patience time.Duration, read func(store.Tx) error) error {
	return withEtcd(n, func(s *etcd.Store) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		return s.View(ctx, read)
	})
}

// spreading notes what is written of what every node takes over.
type spreading struct {
	store.Tx

	before map[string][]byte // what was there, by key; nil: nothing
}

// Shared says that the records are a whole cluster's.
func (spreading) Shared() bool { return true }

func (t spreading) note(key string) {
	if _, noted := t.before[key]; !noted && cluster.Followed(key) != "" {
		t.before[key] = bytes.Clone(t.Get(key))
	}
}

func (t spreading) Put(key string, value []byte) error {
	t.note(key)
	return t.Tx.Put(key, value)
}

func (t spreading) Delete(key string) error {
	t.note(key)
	return t.Tx.Delete(key)
}

// prefixes are those under which something is not what it was: only of that etcd tells anybody.
func (t spreading) prefixes() []string {
	var all []string
	for key, before := range t.before {
		now := t.Get(key)
		if (now == nil) == (before == nil) && bytes.Equal(now, before) {
			continue
		}
		if p := cluster.Followed(key); !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	return all
}
