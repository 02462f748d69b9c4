package node

import (
	"context"
	"errors"

	"github.com/tenet-cni/tenet/pkg/ovs"
)

// Missing is something that an ADD would need and that is not there.
type Missing struct {
	What string
	Err  error
	// Stops: what runs already may be cut off too, not only what is to be added.
	Stops bool
}

// Missing looks for what an ADD would need: the switch's database, ovs-vswitchd, the bridge (it
// may be made yet), the store. It changes nothing.
func (n *Node) Missing(ctx context.Context) []Missing {
	return append(n.storeMissing(ctx), n.switchMissing(ctx)...)
}

func (n *Node) storeMissing(ctx context.Context) []Missing {
	if err := n.Writable(ctx); err != nil {
		return []Missing{{What: "store", Err: err}}
	}
	return nil
}

func (n *Node) switchMissing(ctx context.Context) []Missing {
	var missing []Missing
	note := func(what string, err error, stops bool) {
		if err != nil {
			missing = append(missing, Missing{what, err, stops})
		}
	}
	sw, err := n.dial(ctx)
	if err != nil {
		note("OVSDB socket", err, false)
		return missing
	}
	b, err := sw.Bridge(ctx, n.Bridge)
	switch {
	case errors.Is(err, ovs.ErrNotFound):
		_, err := ovs.Control(ctx, n.OVSRunDir, "version")
		note("ovs-vswitchd", kind(err), false)
	case err != nil:
		note("bridge "+n.Bridge, kind(err), false)
	case n.owns(b) != nil:
		note("bridge "+n.Bridge, n.owns(b), false)
	default:
		note("management socket of "+n.Bridge, kind(sw.Alive(ctx, n.Bridge)), true)
	}
	return missing
}
