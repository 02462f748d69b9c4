package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// driftView is what differed, or differs, on one bridge.
type driftView struct {
	Bridge  string `json:"bridge"`  // empty: all of them
	Missing bool   `json:"missing"` // there is no such bridge yet
	node.Drift
}

// viewDrift keeps lists from being null.
func viewDrift(bridge string, d node.Drift) driftView {
	d.Endpoints = append([]node.Orphan{}, d.Endpoints...)
	d.Ports = append([]string{}, d.Ports...)
	d.Links = append([]string{}, d.Links...)
	d.Unplugged = append([]vnet.EndpointID{}, d.Unplugged...)
	d.Meters = append([]uint32{}, d.Meters...)
	d.Host = append([]string{}, d.Host...)
	return driftView{Bridge: bridge, Drift: d}
}

func newSync(a *app) *cobra.Command {
	var before, after, dryRun bool
	cmd := &cobra.Command{
		Use: "sync", Short: "Make the switch agree with the store", Args: exactly(),
		Long: `sync makes the switch and the links of this node agree with its store, on the
node's bridge and on every other that an endpoint is on: it removes endpoints
whose ADD or DEL was cut short or whose container is gone, ports and links that
nobody knows, and flows that nobody wants; it plugs ports and writes flows that
are missing; it makes whole what is ours on the host: the link tenet-gw, routes,
rules, uplinks. What is right is not touched, and neither is an endpoint that an
ADD or DEL works on just now. It says what it did.

Around a restart of ovs-vswitchd (conf/systemd has the drop-in that does this):
--before-switch removes rows of ports whose link is gone, and asks ovs-vswitchd
to keep forwarding by what the kernel knows; --after-switch restores the flows,
takes that request back in any case, and then does what sync does.`,
		Example: "  tenetctl sync --dry-run\n  tenetctl sync",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if before && after || dryRun && (before || after) {
				return usagef(cmd, "sync: --before-switch, --after-switch and --dry-run exclude each other")
			}
			return a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				drifts := []driftView{}
				seen := func(d driftView, err error) {
					if err == nil || d.Count() > 0 { // what could not be looked at agrees with nothing
						drifts = append(drifts, d)
					}
				}
				var err error
				switch {
				case before:
					if err := n.EachBridge(ctx, func(n *node.Node) error { return n.BeforeSwitch(ctx) }); err != nil {
						return err
					}
					return a.print(drifts, func(io.Writer) {})
				case after:
					var d node.Drift
					d, err = n.AfterSwitch(ctx)
					seen(viewDrift("", d), err)
				default:
					err = n.EachBridge(ctx, func(n *node.Node) error {
						view, err := pass(ctx, n, dryRun)
						seen(view, err)
						return err
					})
				}
				if printErr := a.print(drifts, func(w io.Writer) { showDrifts(w, drifts, dryRun) }); err == nil {
					err = printErr
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&before, "before-switch", false, "prepare the start of ovs-vswitchd")
	cmd.Flags().BoolVar(&after, "after-switch", false, "restore what a restart of ovs-vswitchd lost")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what differs, and change nothing")
	return cmd
}

// pass makes one pass over a bridge, or says what it would do.
func pass(ctx context.Context, n *node.Node, dryRun bool) (driftView, error) {
	if !dryRun {
		d, err := n.Sync(ctx)
		return viewDrift(n.Bridge, d), err
	}
	d, err := n.Diff(ctx)
	view := viewDrift(n.Bridge, d)
	if errors.Is(err, vnet.ErrNotFound) {
		view.Missing, err = true, nil
	}
	return view, err
}

// showDrifts says what was repaired, or what would be.
func showDrifts(w io.Writer, drifts []driftView, dryRun bool) {
	for _, d := range drifts {
		where := ""
		if d.Bridge != "" {
			where = d.Bridge + ": "
		}
		if d.Missing {
			fmt.Fprintf(w, "%sthere is no such bridge yet: it would be made\n", where)
			continue
		}
		if d.Count() == 0 {
			fmt.Fprintf(w, "%severything agrees with the store\n", where)
			continue
		}
		would := ""
		if dryRun {
			would = "would be "
		}
		for _, e := range d.Endpoints {
			fmt.Fprintf(w, "%sendpoint %s %sremoved: %s\n", where, e.ID, would, e.Why)
		}
		for _, port := range d.Ports {
			fmt.Fprintf(w, "%sport %s %sremoved: no endpoint has it\n", where, port, would)
		}
		for _, link := range d.Links {
			fmt.Fprintf(w, "%slink %s %sremoved: no endpoint has it\n", where, link, would)
		}
		for _, id := range d.Unplugged {
			fmt.Fprintf(w, "%sendpoint %s %splugged in again\n", where, id, would)
		}
		if d.MissingFlows > 0 {
			fmt.Fprintf(w, "%s%s %swritten\n", where, plural(d.MissingFlows, "missing flow"), would)
		}
		if d.StrayFlows > 0 {
			fmt.Fprintf(w, "%s%s %sremoved\n", where, plural(d.StrayFlows, "stray flow"), would)
		}
		if len(d.Meters) > 0 {
			fmt.Fprintf(w, "%s%s %sset right\n", where, plural(len(d.Meters), "meter"), would)
		}
		for _, difference := range d.Host {
			fmt.Fprintf(w, "%son the host: %s\n", where, difference)
		}
	}
}
