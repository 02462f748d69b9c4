package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// statusView is the state of the node.
type statusView struct {
	Bridges []bridgeStatus `json:"bridges"` // the configured one first
	Store   storeStatus    `json:"store"`
	Pools   []poolStatus   `json:"pools"`
	// Tenetd is what tenetd says, also of the node's cluster; null: it does not run, or does not answer.
	Tenetd   *cluster.Report `json:"tenetd"`
	Problems []problem       `json:"problems"` // what an ADD would miss

	clustered bool  // the node is to be one of a cluster
	stranger  bool  // it has not joined, or has left
	unasked   error // why tenetd said nothing
}

// bridgeStatus is what the switch says of one bridge.
type bridgeStatus struct {
	node.Switch
	Drift *node.Drift `json:"drift"` // null: it could not be found out
	Drops []node.Drop `json:"drops"`
}

type storeStatus struct {
	Path      string `json:"path"`
	Bytes     int64  `json:"bytes"`
	Tenants   int    `json:"tenants"`
	Networks  int    `json:"networks"`
	Endpoints int    `json:"endpoints"`
	Addresses int    `json:"addresses"` // in use
}

type poolStatus struct {
	Network string `json:"network"`
	node.Usage
}

type problem struct {
	What  string `json:"what"`
	Error string `json:"error"`
	Hint  string `json:"hint"`
	Stops bool   `json:"stops"` // what runs already may be cut off too
}

// errUnwell ends a status that has told what is wrong.
var errUnwell = errors.New("not everything works")

func newStatus(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the switch, the store, tenetd and the cluster are doing", Args: exactly(),
		Long: `status shows the switch and its bridges, the store and what it holds, how the
switch differs from the store (tenetctl sync repairs that), how far the address
pools are used, and what was dropped and why. Drops are counted since the flows
were written. tenetd, if it runs, says what it has done and, on a node of a cluster,
whether etcd answers, which nodes are away, and what others could not be told.

It fails if the next ADD would: if the store or Open vSwitch cannot be used. What
it could find out is shown in any case.`,
		Example: "  tenetctl status\n  tenetctl status -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				s := a.look(ctx, n)
				if err := a.print(s, func(w io.Writer) { showStatus(w, s) }); err != nil {
					return err
				}
				if len(s.Problems) > 0 {
					return vnet.WithHint(errUnwell, "%s", firstHint(s.Problems))
				}
				return nil
			})
		},
	}
}

// firstHint is one of many: there is one line for it.
func firstHint(problems []problem) string {
	for _, p := range problems {
		if p.Hint != "" {
			return p.Hint
		}
	}
	return "see the problems above"
}

// look finds out what it can, and lists what it cannot.
func (a *app) look(ctx context.Context, n *node.Node) statusView {
	s := statusView{Bridges: []bridgeStatus{}, Pools: []poolStatus{}, Problems: []problem{}}
	note := func(what string, err error, stops bool) {
		s.Problems = append(s.Problems, problem{what, oneLine(err.Error()), hintFor(err), stops})
	}
	for _, m := range n.Missing(ctx) {
		note(m.What, m.Err, m.Stops)
	}
	if err := s.lookAtStore(ctx, n); err != nil && len(s.Problems) == 0 {
		note("store", err, false)
	}
	s.clustered = n.Clustered()
	if r, err := a.askTenetd(ctx, n.Socket); err == nil {
		s.Tenetd = &r
	} else {
		s.unasked = err
	}
	err := n.EachBridge(ctx, func(n *node.Node) error {
		b := bridgeStatus{Drops: []node.Drop{}}
		var err error
		b.Switch, err = n.Switch(ctx)
		if err == nil && b.Datapath != "" {
			var d node.Drift
			if d, err = n.Diff(ctx); err == nil {
				d = viewDrift(n.Bridge, d).Drift
				b.Drift = &d
				b.Drops, err = n.Drops(ctx)
			}
		}
		s.Bridges = append(s.Bridges, b)
		return err
	})
	if err != nil && len(s.Problems) == 0 {
		note("switch", err, false)
	}
	return s
}

func (s *statusView) lookAtStore(ctx context.Context, n *node.Node) error {
	s.Store.Path = n.Store.Path()
	if st, err := os.Stat(s.Store.Path); err == nil {
		s.Store.Bytes = st.Size()
	}
	return n.Store.View(ctx, func(tx store.Tx) error {
		_, member := store.Member(tx)
		s.stranger = !member
		tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
		if err != nil {
			return err
		}
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		if err != nil {
			return err
		}
		leases, err := store.All[store.Lease](tx, store.Leases)
		if err != nil {
			return err
		}
		networks, err := store.All[vnet.Network](tx, store.Networks)
		if err != nil {
			return err
		}
		s.Store.Tenants, s.Store.Networks, s.Store.Endpoints = len(tenants), len(networks), len(endpoints)
		for _, l := range leases {
			s.Store.Addresses += len(l.Addrs)
		}
		for _, net := range networks {
			usage, err := node.PoolUsage(tx, net)
			if err != nil {
				return err
			}
			for _, u := range usage {
				s.Pools = append(s.Pools, poolStatus{net.Ref().String(), u})
			}
		}
		return nil
	})
}

func showStatus(w io.Writer, s statusView) {
	var rows [][]any
	for i, b := range s.Bridges {
		if i == 0 && b.Version != "" {
			rows = append(rows, []any{"switch", "Open vSwitch " + b.Version + ", running"})
		}
		if i == 0 && b.RestoreWait {
			rows = append(rows, []any{"", "waits for its flows (flow-restore-wait): tenetctl sync --after-switch"})
		}
		switch {
		case b.Datapath == "" && b.Version != "" && s.Store.Endpoints > 0 && i == 0:
			rows = append(rows, []any{"bridge", fmt.Sprintf("%s is gone, with %s recorded: tenetctl sync", b.Bridge, plural(s.Store.Endpoints, "endpoint"))})
		case b.Datapath == "" && b.Version != "":
			rows = append(rows, []any{"bridge", b.Bridge + ", to be made by the first ADD"})
		case b.Datapath != "":
			rows = append(rows, []any{"bridge", fmt.Sprintf("%s, datapath %s, %s", b.Bridge, b.Datapath, plural(b.Ports, "port"))})
		}
		if b.Drift != nil {
			agrees := "agrees with the store"
			if c := b.Drift.Count(); c > 0 {
				agrees = plural(c, "difference") + " from the store: tenetctl sync --dry-run"
			}
			rows = append(rows, []any{"", agrees})
		}
	}
	size := fmt.Sprintf("%d KiB", s.Store.Bytes/1024)
	if s.Store.Bytes == 0 {
		size = "not there yet"
	}
	rows = append(rows,
		[]any{"store", s.Store.Path + ", " + size},
		[]any{"", fmt.Sprintf("%s, %s, %s", plural(s.Store.Tenants, "tenant"), plural(s.Store.Networks, "network"), plural(s.Store.Endpoints, "endpoint"))},
		[]any{"", fmt.Sprintf("addresses in use: %d", s.Store.Addresses)})
	rows = append(rows, s.tenetd()...)
	columns(w, nil, rows)
	if len(s.Pools) > 0 {
		fmt.Fprintln(w)
		rows = nil
		for _, p := range s.Pools {
			rows = append(rows, []any{p.Network, p.Prefix, p.Used, free(p.Free)})
		}
		columns(w, []any{"NETWORK", "SUBNET", "USED", "FREE"}, rows)
	}
	for _, b := range s.Bridges {
		showDrops(w, b.Drops)
	}
	if len(s.Problems) > 0 {
		fmt.Fprintln(w)
	}
	for _, p := range s.Problems {
		fmt.Fprintf(w, "problem: %s: %s\n", p.What, p.Error)
	}
}
