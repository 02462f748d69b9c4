package node

import (
	"context"
	"errors"
	"slices"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// EachBridge calls do for the node as it is on each of its bridges: the configured one, then
// those that endpoints and uplinks name besides (a netconf may). It goes on past failures and returns them
// joined; with a store that cannot be read it still does the configured one.
func (n *Node) EachBridge(ctx context.Context, do func(*Node) error) error {
	if _, err := n.dial(ctx); err != nil { // once, for all of them
		return err
	}
	bridges, err := n.bridges(ctx)
	errs := []error{err}
	for _, bridge := range bridges {
		on := n
		if bridge != n.Bridge {
			config := n.Config
			config.Bridge = bridge
			on = &Node{Config: config, Store: n.Store, Release: n.Release, Tally: n.Tally, sw: n.sw}
		}
		errs = append(errs, do(on))
	}
	return errors.Join(errs...)
}

// bridges returns the names of the node's bridges, the configured one first.
func (n *Node) bridges(ctx context.Context) ([]string, error) {
	bridges := []string{n.Bridge}
	also := func(bridge string) {
		if bridge != "" && !slices.Contains(bridges, bridge) {
			bridges = append(bridges, bridge)
		}
	}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			also(e.Bridge)
		}
		uplinks, err := store.All[vnet.Uplink](tx, store.Uplinks)
		for _, u := range uplinks {
			also(u.Bridge)
		}
		return err
	})
	slices.Sort(bridges[1:])
	return bridges, err
}
