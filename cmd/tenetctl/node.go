package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func newNode(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "node", Short: "The machines of a cluster",
		Long: `A node is a machine that runs the switch. One whose configuration names etcd is
one of a cluster: its tenetd joins it when it starts. The commands ask etcd, and
work on any of its nodes.`,
	}
	cmd.AddCommand(newNodeList(a), newNodeShow(a), newNodeDel(a), newNodeStay(a))
	return cmd
}

// nodeView is a node as it is shown.
type nodeView struct {
	cluster.NodeState

	Held []string `json:"held,omitempty"`
}

func newNodeList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the cluster's nodes", Args: exactly(),
		Long: `list lists the nodes of the cluster. A node runs; or it is silent: its tenetd has
not been heard of for some time, but its address answers, so that its traffic goes
on; or it is off: neither answers; or it leaves. Of a node whose record in etcd
cannot be read, as it is damaged or a newer tenet's, list says so and why.`,
		Example: "  tenetctl node list\n  tenetctl node list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var nodes []cluster.NodeState
			err := a.onCluster(cmd.Context(), func(ctx context.Context, _ *node.Node, s *etcd.Store) error {
				var err error
				nodes, err = cluster.ListNodes(ctx, s, "")
				return err
			})
			if err != nil {
				return err
			}
			for _, n := range nodes {
				if n.Problem != "" {
					fmt.Fprintf(a.err, "tenetctl: node %s: %s\n", n.Name, oneLine(n.Problem))
				}
			}
			return a.print(nodes, func(w io.Writer) {
				var rows [][]any
				for _, n := range nodes {
					row := []any{n.Name, n.State, n.VTEP, n.Encapsulation, n.MTU, n.Endpoints, n.Blocks, n.Functions, n.Version}
					if n.Problem != "" {
						row[2], row[3], row[4], row[8] = "-", "-", "-", "-"
					}
					rows = append(rows, row)
				}
				columns(w, []any{"NODE", "STATE", "VTEP", "ENCAPSULATION", "MTU", "ENDPOINTS", "BLOCKS", "FUNCTIONS", "VERSION"}, rows)
			})
		},
	}
}

func newNodeShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NODE", Short: "Show one node", Args: exactly("NODE"),
		Long:    "show shows a node of the cluster, with the blocks of addresses that it holds.",
		Example: "  tenetctl node show n1",
		RunE: func(cmd *cobra.Command, args []string) error {
			var view nodeView
			err := a.onCluster(cmd.Context(), func(ctx context.Context, _ *node.Node, s *etcd.Store) error {
				nodes, err := cluster.ListNodes(ctx, s, vnet.NodeName(args[0]))
				if err != nil {
					return err
				}
				if view.NodeState = nodes[0]; view.Problem != "" {
					return vnet.WithHint(vnet.OfKind(vnet.ErrCorrupt, fmt.Errorf("node %s: %s", view.Name, view.Problem)),
						"if it is a newer tenet's, bring this node's up to date; if it is damaged, tenetctl node del %s takes it out of the cluster while it does not run", view.Name)
				}
				view.Held, err = cluster.HeldBlocks(ctx, s, view.Name)
				return err
			})
			if err != nil {
				return err
			}
			return a.print(view, func(w io.Writer) {
				columns(w, nil, [][]any{
					{"node", view.Name},
					{"state", view.State},
					{"vtep", view.VTEP},
					{"encapsulation", view.Encapsulation},
					{"underlay mtu", view.MTU},
					{"joined", view.Joined.Format(time.RFC3339)},
					{"version", view.Version},
					{"endpoints", view.Endpoints},
					{"functions", view.Functions},
					{"blocks", list(view.Held)},
				})
			})
		},
	}
}

func newNodeDel(a *app) *cobra.Command {
	drain, force := false, false
	cmd := &cobra.Command{
		Use: "del NODE", Aliases: []string{"delete"}, Short: "Take a node out of the cluster", Args: exactly("NODE"),
		Long: `del takes a node that does not run out of the cluster: its endpoints are
withdrawn, and its addresses are free for others at once, without waiting for the
end of its grace. It refuses while the node runs, and while it is silent: then its
address may answer, and its containers go on until they are withdrawn. --force
takes out a silent one.

With --drain it asks a node that runs to leave. The node takes no new container,
gives its blocks of addresses back as they are released, and leaves with its last
container. del waits for that, for as long as --timeout says; the node goes on by
itself. Empty etcd.endpoints in its configuration before its tenetd is started
again, or it joins anew.`,
		Example: "  tenetctl node del n3\n  tenetctl node del n2 --drain --timeout 10m",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := vnet.NodeName(args[0])
			err := a.onCluster(cmd.Context(), func(ctx context.Context, _ *node.Node, s *etcd.Store) error {
				nodes, err := cluster.ListNodes(ctx, s, name)
				if err != nil {
					return err
				}
				if !drain && !force && nodes[0].State == "silent" {
					return vnet.WithHint(vnet.Existsf("node %s is silent: its tenetd does not run, but its %s may go on", name, plural(int(nodes[0].Endpoints), "endpoint")),
						"start its tenetd, or, if nobody reaches it, wait until it is off; --force takes it out as it is")
				}
				if !drain {
					return cluster.Remove(ctx, s, name)
				}
				if err := cluster.Leave(ctx, s, name); err != nil {
					return err
				}
				return a.awaitLeft(ctx, s, name)
			})
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{"Node", string(name), deleted}})
		},
	}
	cmd.Flags().BoolVar(&drain, "drain", false, "ask a node that runs to leave, and wait for it")
	cmd.Flags().BoolVar(&force, "force", false, "take out a node whose tenetd is silent, though its containers may go on")
	return cmd
}

func newNodeStay(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "stay NODE", Short: "Take back that a node is to leave", Args: exactly("NODE"),
		Long:    "stay takes back what del --drain asked, as long as the node has not left.",
		Example: "  tenetctl node stay n2",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := vnet.NodeName(args[0])
			err := a.onCluster(cmd.Context(), func(ctx context.Context, _ *node.Node, s *etcd.Store) error { return cluster.Stay(ctx, s, name) })
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{"Node", string(name), "stays"}})
		},
	}
}

// awaitLeft waits until the node is none of the cluster's, and says how far it has come.
func (a *app) awaitLeft(ctx context.Context, s *etcd.Store, name vnet.NodeName) error {
	const pause = 500 * time.Millisecond
	end, ends := ctx.Deadline()
	said, state := "", ""
	for {
		nodes, err := cluster.ListNodes(ctx, s, "")
		if err != nil {
			return err
		}
		left := ""
		for _, n := range nodes {
			if n.Name == name {
				state = n.State
				left = fmt.Sprintf("%s and %s", plural(int(n.Endpoints), "endpoint"), plural(int(n.Blocks), "block"))
				if n.State == "off" {
					left += ", but is off: it leaves when it is back; without --drain it is taken out as it is"
				}
			}
		}
		if left == "" {
			return nil
		}
		if left != said {
			fmt.Fprintf(a.err, "tenetctl: node %s still has %s\n", name, left)
			said = left
		}
		again := time.After(pause)
		if ends && time.Until(end) < 2*pause { // etcd had no time to answer, and would be said to be at fault
			again = nil
		}
		select {
		case <-ctx.Done():
			if state == "silent" {
				return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("node %s is silent, and still has %s", name, left)), "it leaves when its tenetd runs: start that")
			}
			return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("node %s still has %s", name, left)),
				"it goes on leaving; wait on with the same command, or have it stay: tenetctl node stay %s", name)
		case <-again:
		}
	}
}

// onCluster runs fn with the cluster's store. vnet.ErrInvalid if this node is configured to be one on its own.
func (a *app) onCluster(ctx context.Context, fn func(context.Context, *node.Node, *etcd.Store) error) error {
	return a.on(ctx, func(ctx context.Context, n *node.Node) error {
		if !n.Clustered() {
			return vnet.WithHint(vnet.Invalidf("this node is one on its own"), `"etcd": {"endpoints": […]} in its configuration makes it one of a cluster; --config names another`)
		}
		return withEtcd(n, func(s *etcd.Store) error {
			const patience = 5 * time.Second // with an etcd that does not answer, however long the rest may take
			asked, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			if err := s.View(asked, func(tx store.Tx) error { tx.Get("meta/version"); return nil }); err != nil {
				return err
			}
			return fn(ctx, n, s)
		})
	})
}
