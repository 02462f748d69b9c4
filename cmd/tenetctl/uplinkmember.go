package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// In a cluster an uplink is declared in etcd, where it says which nodes have a NIC on it. It is there before the node has it, and
// until the node has it no more.

// patience is how long etcd is waited for beside what is done to the node.
const patience = 5 * time.Second

// addUplink adds it to the node; false: it stood there.
func (a *app) addUplink(ctx context.Context, n *node.Node, u vnet.Uplink, force bool) (bool, error) {
	member, err := a.member(ctx, n)
	if err != nil {
		return false, err
	}
	if !member {
		_, made, err := n.AddUplink(ctx, u, force)
		return made, err
	}
	declare := func(tx store.Tx) error { _, err := store.DeclareUplink(tx, u, n.Name); return err }
	if err := a.changeCluster(ctx, n, declare); err != nil {
		return false, err
	}
	_, made, err := n.AddUplink(ctx, u, force)
	if err == nil {
		return made, nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	has, failed := hasUplink(last, n, u.Name)
	if failed == nil && !has {
		failed = a.forgetUplink(last, n, u.Name)
	}
	return made, errors.Join(err, failed)
}

// delUplink deletes an uplink of the node. A cluster's etcd is asked first, so that nothing is changed while it does not answer.
// What was cut short between the two is finished, and what no node has a NIC on is forgotten.
func (a *app) delUplink(ctx context.Context, n *node.Node, name vnet.UplinkName) error {
	member, err := a.member(ctx, n)
	if err != nil {
		return err
	}
	if !member {
		return n.DelUplink(ctx, name)
	}
	forgettable := errors.New("not asked")
	if err := askEtcd(ctx, n, patience, func(tx store.Tx) error {
		forgettable = mayForget(tx, name, n.Name)
		return nil
	}); err != nil {
		return fmt.Errorf("uplink %s stays as it is: %w", name, err)
	}
	has, err := hasUplink(ctx, n, name)
	switch {
	case err != nil:
		return err
	case has:
		err = n.DelUplink(ctx, name)
	default:
		err = forgettable
	}
	if err != nil {
		return err
	}
	if err := a.forgetUplink(ctx, n, name); err != nil {
		return vnet.WithHint(fmt.Errorf("this node has no uplink %s any more, but the cluster does not know yet: %w", name, err), "run it once more; where tenetd runs, it sees to that, too")
	}
	return nil
}

// mayForget fails if there is nothing that a node without a NIC on the uplink could have etcd forget.
func mayForget(tx store.Tx, name vnet.UplinkName, node vnet.NodeName) error {
	if _, err := store.Uplink(tx, name); err != nil {
		return err
	}
	nodes, err := store.UplinkNodes(tx, name)
	if err != nil || slices.Contains(nodes, node) {
		return err
	}
	if len(nodes) > 0 {
		return vnet.WithHint(vnet.NotFoundf("uplink %s is not on this node but on %s", name, list(nodes)), "run this there")
	}
	networks, err := store.UplinkNetworks(tx, name)
	if err != nil || len(networks) == 0 {
		return err
	}
	return vnet.WithHint(vnet.Existsf("uplink %s still carries network %s", name, networks[0]), "delete it first: tenetctl network del %s", networks[0])
}

func (a *app) forgetUplink(ctx context.Context, n *node.Node, name vnet.UplinkName) error {
	return a.changeCluster(ctx, n, func(tx store.Tx) error { return store.ForgetUplink(tx, name, n.Name) })
}

// hasUplink reports whether the node itself has a NIC on it, or is about to give that back.
func hasUplink(ctx context.Context, n *node.Node, name vnet.UplinkName) (bool, error) {
	var missing error
	err := n.Store.View(ctx, func(tx store.Tx) error { _, missing = store.Uplink(tx, name); return nil })
	if err == nil && !errors.Is(missing, vnet.ErrNotFound) {
		err = missing
	}
	return err == nil && missing == nil, err
}
