package node

import (
	"context"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The locks are taken in this order: an attachment's, the uplinks', the host's or the flows' (never
// both), the store's own.

// LockAttachment waits until nobody else works on the endpoint. Release it with the function returned.
func (n *Node) LockAttachment(ctx context.Context, id vnet.EndpointID) (func(), error) {
	return store.Lock(ctx, n.DataDir, attachmentLock(id))
}

// tryAttachment takes the endpoint's lock if nobody has it; nil if somebody does.
func (n *Node) tryAttachment(id vnet.EndpointID) (func(), error) {
	return store.TryLock(n.DataDir, attachmentLock(id))
}

func attachmentLock(id vnet.EndpointID) string { return "attachment " + string(id) }

// lockFlows waits until nobody else writes flows of the bridge.
func (n *Node) lockFlows(ctx context.Context, bridge string) (func(), error) {
	return store.Lock(ctx, n.DataDir, "flows of "+bridge)
}
