package main

import (
	"context"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
)

// del detaches the container. It needs no more than the attachment's name: neither CNI_NETNS
// nor a prevResult, and it is content with what is gone already.
func del(ctx context.Context, n *node.Node, r *cni.Request) error {
	id := attachment(r).ID()
	unlock, err := n.LockAttachment(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()
	if err := n.Remove(ctx, id); err != nil {
		return err
	}
	_ = tell(ctx, n, id) // of a network that is no more nobody has to be told
	return nil
}
