package store

import "github.com/tenet-cni/tenet/pkg/vnet"

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

// HasEndpoints reports whether an endpoint is in the network, on whatever bridge.
func HasEndpoints(tx Tx, r vnet.Ref) (bool, error) {
	n, err := count(tx, EndpointsOf(r))
	return n > 0, err
}
