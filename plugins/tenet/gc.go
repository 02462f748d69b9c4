package main

import (
	"context"
	"errors"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
)

// gc removes what the runtime of this network does not list any more, and has a foreign IPAM
// plugin do the same.
func gc(ctx context.Context, n *node.Node, r *cni.Request) error {
	return errors.Join(n.Collect(ctx, r.Name, r.Attachments()), r.DelegateVerb(ctx, "GC"))
}
