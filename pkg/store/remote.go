package store

import (
	"errors"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Overlay is what makes the store's node one of a cluster, as the switch has to know it.
type Overlay struct {
	vnet.Peer
	Bridge string           `json:"bridge"`         // that the tunnels are on
	Etcd   []netip.AddrPort `json:"etcd,omitempty"` // which containers are kept from
	// LeastMTU is the smallest of the other nodes' underlays: as many as there are, an ADD reads no more than this. 0: there are none.
	LeastMTU int `json:"leastMTU,omitempty"`
}

// FindOverlay returns the node's own part of the overlay, vnet.ErrNotFound if it is a node on its own.
func FindOverlay(tx Tx) (Overlay, error) {
	o, err := Load[Overlay](tx, overlayKey)
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.NotFoundf("this node is in no cluster")
	}
	return o, err
}

// PutOverlay writes it.
func PutOverlay(tx Tx, o Overlay) error { return Save(tx, overlayKey, o) }

// DeleteOverlay makes the node one on its own, without peers and remotes.
func DeleteOverlay(tx Tx) error {
	for _, prefix := range []string{PeersPrefix, Remotes} {
		if err := deleteAll(tx, prefix); err != nil {
			return err
		}
	}
	return tx.Delete(overlayKey)
}

// ForgetDeclared removes what is declared, with all that is recorded of it, where nothing of it is in use.
func ForgetDeclared(tx Tx) error {
	for _, prefix := range []string{Paths, Elsewhere, Chains, Groups} {
		if err := deleteAll(tx, prefix); err != nil {
			return err
		}
	}
	networks, err := All[vnet.Network](tx, Networks)
	if err != nil {
		return err
	}
	for _, n := range networks {
		if err := DeleteNetwork(tx, n.Ref()); err != nil {
			return err
		}
	}
	return deleteAll(tx, Tenants)
}

func deleteAll(tx Tx, prefix string) error {
	var keys []string
	err := tx.Range(prefix, func(key string, _ []byte) error {
		keys = append(keys, key)
		return nil
	})
	for _, key := range keys {
		err = errors.Join(err, tx.Delete(key))
	}
	return err
}

// Peers are the cluster's other nodes.
func Peers(tx Tx) ([]vnet.Peer, error) { return All[vnet.Peer](tx, PeersPrefix) }

// FindPeer returns another node, vnet.ErrNotFound if there is none of that name.
func FindPeer(tx Tx, n vnet.NodeName) (vnet.Peer, error) { return Load[vnet.Peer](tx, peerKey(n)) }

// PutPeer writes another node.
func PutPeer(tx Tx, p vnet.Peer) error { return Save(tx, peerKey(p.Name), p) }

// DeletePeer removes another node.
func DeletePeer(tx Tx, n vnet.NodeName) error { return tx.Delete(peerKey(n)) }

// PutRemote writes an endpoint of another node.
func PutRemote(tx Tx, r vnet.Remote) error { return Save(tx, RemoteKey(r.Ref(), r.Node, r.ID), r) }

// DeleteRemote removes an endpoint of another node.
func DeleteRemote(tx Tx, r vnet.Remote) error { return tx.Delete(RemoteKey(r.Ref(), r.Node, r.ID)) }

// HasRemote reports whether an endpoint of another node is in the network.
func HasRemote(tx Tx, r vnet.Ref) (bool, error) {
	has := false
	err := tx.Range(RemotesOf(r), func(string, []byte) error { has = true; return ErrStop })
	return has, err
}
