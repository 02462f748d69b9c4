package node

import (
	"context"
	"errors"
	"slices"
)

// EachBridge calls do for the node as it is on each of its bridges: the configured one, then
// those that endpoints name besides (a netconf may). It goes on past failures and returns them
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
			on = &Node{Config: config, Store: n.Store, Release: n.Release, sw: n.sw}
		}
		errs = append(errs, do(on))
	}
	return errors.Join(errs...)
}

// bridges returns the names of the node's bridges, the configured one first.
func (n *Node) bridges(ctx context.Context) ([]string, error) {
	bridges := []string{n.Bridge}
	endpoints, err := n.endpoints(ctx)
	for _, e := range endpoints {
		if e.Bridge != "" && !slices.Contains(bridges, e.Bridge) {
			bridges = append(bridges, e.Bridge)
		}
	}
	slices.Sort(bridges[1:])
	return bridges, err
}
