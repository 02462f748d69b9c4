package node

import (
	"context"
	"sync"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Untold is what a node has recorded and its switch was not told, since it hung, failed, or did not run: to record it once
// more would find nothing that changes, and tell nothing. The zero Untold is none.
type Untold struct {
	mu    sync.Mutex
	some  bool
	zones []vnet.Zone // to be emptied before they are used
}

// Any reports whether there is anything.
func (u *Untold) Any() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.some
}

func (u *Untold) add(zones []vnet.Zone) {
	if u == nil { // whoever has recorded it tells it otherwise
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.some, u.zones = true, append(u.zones, zones...)
}

func (u *Untold) take() []vnet.Zone {
	u.mu.Lock()
	defer u.mu.Unlock()
	zones := u.zones
	u.some, u.zones = false, nil
	return zones
}

// told returns what has become of telling the switch what is recorded: nil where there is no switch that could be told.
// What it was not told is noted, with zones that were not emptied.
func (n *Node) told(err error, zones ...vnet.Zone) error {
	if err != nil {
		n.Untold.add(zones)
	}
	if absent(err) {
		return nil
	}
	return err
}

// TellUntold makes the switch agree with all that is recorded, as it was not told some of it. Like that it is no error if
// there is no switch, which then stays untold.
func (n *Node) TellUntold(ctx context.Context) error {
	zones := n.Untold.take()
	if err := n.emptyZones(ctx, zones...); err != nil {
		return n.told(err, zones...)
	}
	return n.told(n.eachOurs(ctx, func(n *Node) error {
		if _, err := n.connectAll(ctx, true); err != nil {
			return err
		}
		n.followHost(ctx)
		c, err := n.openflow(ctx, n.Bridge)
		if err != nil {
			return err
		}
		defer c.Close()
		return n.greetAll(ctx, c) // some may have moved
	}))
}
