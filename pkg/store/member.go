package store

import (
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Member returns the name under which the store's node is one of a cluster, false if it is on its own. The addresses
// of a member's networks are shared with others: those of the blocks that it holds are all that it hands out.
func Member(tx Tx) (vnet.NodeName, bool) {
	node := tx.Get(memberKey)
	return vnet.NodeName(node), node != nil
}

// JoinCluster makes the store that of a cluster's node; again under the same name it changes nothing. vnet.ErrExists
// if it is a member under another name: what it holds in the cluster is held by that.
func JoinCluster(tx Tx, node vnet.NodeName) error {
	if node == "" {
		return vnet.Invalidf("a cluster's node must have a name")
	}
	if as, ok := Member(tx); ok && as != node {
		return vnet.WithHint(vnet.Existsf("this node is %s in its cluster, not %s", as, node), "go by the old name, or leave the cluster first")
	}
	return tx.Put(memberKey, []byte(node))
}

// LeaveCluster makes the store that of a node on its own. vnet.ErrExists while it has a block: what is free in it would
// be forgotten, and stay claimed.
func LeaveCluster(tx Tx) error {
	held := ""
	err := tx.Range(Blocks, func(key string, _ []byte) error {
		held = strings.TrimPrefix(key, Blocks)
		return ErrStop
	})
	if err != nil {
		return err
	}
	if held != "" {
		return vnet.Existsf("this node still holds block %s", held)
	}
	return tx.Delete(memberKey)
}

const identityKey = "meta/identity"

// Identity returns what tells this node from every other that may have its name; it is made if there is none.
func Identity(tx Tx, create func() (string, error)) (string, error) {
	if id := tx.Get(identityKey); id != nil {
		return string(id), nil
	}
	id, err := create()
	if err != nil {
		return "", err
	}
	return id, tx.Put(identityKey, []byte(id))
}

// HasAddresses reports whether an address of the network is in use on this node.
func HasAddresses(tx Tx, r vnet.Ref) (bool, error) {
	n, err := count(tx, addressesOf(r))
	return n > 0, err
}

// HasEndpoints reports whether an endpoint is in the network, on whatever bridge.
func HasEndpoints(tx Tx, r vnet.Ref) (bool, error) {
	n, err := count(tx, EndpointsOf(r))
	return n > 0, err
}
