package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What a node of a cluster does not know or have by itself its tenetd gets from there. Who has networks and
// addresses already asks nobody.

// askTimeout bounds what an ADD waits for tenetd to get what it cannot do without; publishTimeout what it can.
const (
	askTimeout     = 10 * time.Second
	publishTimeout = time.Second
)

// undeclared is a network that a cluster's node has been asked to declare.
type undeclared struct{ net vnet.Network }

func (u undeclared) Error() string { return fmt.Sprintf("network %s is not declared", u.net.Ref()) }

// Declare declares a network, or, on a node of a cluster that does not know it, says so to Asking.
func Declare(tx store.Tx, net vnet.Network) (vnet.Network, error) {
	if _, member := store.Member(tx); member {
		if _, err := store.Network(tx, net.Ref()); errors.Is(err, vnet.ErrNotFound) {
			return net, undeclared{net}
		}
	}
	return store.DeclareNetwork(tx, net)
}

// Asking runs do, and runs it again when tenetd has got from the cluster what do said is missing: a network, or room for
// addresses.
func (n *Node) Asking(ctx context.Context, do func() error) error {
	const tries = 32 // what tenetd has got for one ADD another may take
	behind := n.Clustered()
	for try := 1; ; try++ {
		err := do()
		if err == nil {
			return nil
		}
		if errors.Is(err, vnet.ErrNotFound) && behind { // what was declared elsewhere a moment ago may be on its way
			behind = false
			if n.catchUp(ctx) == nil {
				continue
			}
		}
		again, err := n.obtain(ctx, err)
		if !again || try == tries {
			return err
		}
	}
}

// obtain asks the node's tenetd for what err says is missing, and reports whether there is any use in another try.
func (n *Node) obtain(ctx context.Context, err error) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if u, ok := errors.AsType[undeclared](err); ok {
		asked := socket.Call(ctx, n.Socket, socket.Request{Do: socket.Declare, Network: &u.net}, nil)
		return asked == nil, cmp.Or(asked, err)
	}
	need, ok := errors.AsType[*ipam.NeedBlocks](err)
	if !ok {
		return false, err
	}
	asked := socket.Call(ctx, n.Socket, socket.Request{Do: socket.Need, Ref: &need.Network, Subnets: need.Subnets, Addrs: need.Addrs}, nil)
	if asked != nil {
		asked = vnet.WithHint(fmt.Errorf("network %s: this node has no address left of its own: %w", need.Network, asked), "%s", vnet.Hint(asked))
	}
	return asked == nil, cmp.Or(asked, err)
}

// catchUp waits until this node has all that is declared in the cluster now.
func (n *Node) catchUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return socket.Call(ctx, n.Socket, socket.Request{Do: socket.CatchUp}, nil)
}

// Publish has the other nodes of the cluster told that the endpoint is here, or that it has gone, and waits a moment for
// it. An error says that it will be done later: the endpoint is none the worse on its own node.
func (n *Node) Publish(ctx context.Context, id vnet.EndpointID) error {
	if !n.Clustered() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	return socket.Call(ctx, n.Socket, socket.Request{Do: socket.Publish, Endpoint: id}, nil)
}
