package main

import (
	"bytes"
	"context"
	"fmt"

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
	switch {
	case n.Clustered():
		return a.changeCluster(ctx, n, write)
	case chains:
		return n.Rechain(ctx, write)
	}
	return n.Store.Update(ctx, write)
}

func (a *app) changeCluster(ctx context.Context, n *node.Node, write func(store.Tx) error) error {
	s, err := etcd.Open(etcd.Config(n.Etcd))
	if err != nil {
		return err
	}
	defer s.Close()
	spreads := false // what was written is for all nodes to take over
	revision, err := s.Commit(ctx, cluster.Planned(func(tx store.Tx) error {
		spreads = false
		return write(spreading{tx, &spreads})
	}))
	if err != nil || !spreads {
		return err
	}
	if err := socket.Call(ctx, n.Socket, socket.Request{Do: socket.Await, Revision: revision}, nil); err != nil {
		fmt.Fprintf(a.err, "tenetctl: it stands in the cluster, but this node does not have it yet: %s\n", oneLine(err.Error()))
		if hint := vnet.Hint(err); hint != "" {
			fmt.Fprintf(a.err, "hint: %s\n", hint)
		}
	}
	return nil
}

// spreading notes whether anything is written that every node takes over.
type spreading struct {
	store.Tx

	does *bool
}

// Shared says that the records are a whole cluster's.
func (spreading) Shared() bool { return true }

func (t spreading) Put(key string, value []byte) error {
	*t.does = *t.does || cluster.Followed(key) && !bytes.Equal(t.Get(key), value)
	return t.Tx.Put(key, value)
}

func (t spreading) Delete(key string) error {
	*t.does = *t.does || cluster.Followed(key) && t.Get(key) != nil
	return t.Tx.Delete(key)
}
