package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func newFunction(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "function", Short: "Service functions: the containers that serve in groups",
		Long: `A service function is a container that treats other containers' traffic. It joins
a group by CNI (see tenetctl group --help), serves as soon as it has both its
ports, and leaves with the first of them. Functions are named
TENANT/GROUP/CONTAINER; the beginning of the container's id is enough.

Its state is one of
  serves   new connections come to it
  drained  none does; those that have it keep it
  down     the link of one of its ports is down, or its port has gone
  hung     probes do not come out of it
  waits    it has one port, and waits for the other`,
	}
	cmd.AddCommand(newFunctionList(a), newFunctionShow(a), newFunctionDrain(a, true), newFunctionDrain(a, false))
	return cmd
}

func newFunctionList(a *app) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List service functions", Args: exactly(),
		Long:    "list lists the service functions with their states, and what clients sent through\neach of them.",
		Example: "  tenetctl function list --tenant blue",
		RunE: func(cmd *cobra.Command, _ []string) error {
			functions, err := a.functions(cmd.Context(), vnet.TenantName(tenant))
			if err != nil {
				return err
			}
			return a.print(functions, func(w io.Writer) { listFunctions(w, functions) })
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of `tenant`")
	completeWith(cmd, "tenant", a.completeTenants())
	return cmd
}

func listFunctions(w io.Writer, functions []node.InstanceState) {
	var rows [][]any
	for _, f := range functions {
		rows = append(rows, append([]any{f.Instance.String() + on(f.Node), f.State, f.Weight}, counted(f.Mode, f.Traffic)...))
	}
	columns(w, []any{"FUNCTION", "STATE", "WEIGHT", "IN", "OUT", "ANSWERS IN", "OUT"}, rows)
}

func newFunctionShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT/GROUP/CONTAINER", Short: "Show one service function",
		Args: exactly("TENANT/GROUP/CONTAINER"), ValidArgsFunction: a.completeFunctions(),
		Long:    "show shows a service function: its ports, its state, and what went through it.",
		Example: "  tenetctl function show blue/fw/fw-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.function(cmd, args[0])
			if err != nil {
				return err
			}
			return a.print(f, func(w io.Writer) {
				or := func(id vnet.EndpointID) string {
					if id == "" {
						return "missing"
					}
					return string(id)
				}
				asked, answers := fmt.Sprintf("%s, %s", through(f.Traffic.In, "in"), through(f.Traffic.Out, "out")),
					fmt.Sprintf("%s, %s", through(f.Traffic.AnswersIn, "in"), through(f.Traffic.AnswersOut, "out"))
				if f.Mode == vnet.Rewriting {
					asked, answers = through(f.Traffic.In, "in"), through(f.Traffic.AnswersOut, "out")
				}
				columns(w, nil, [][]any{
					{"function", f.Instance},
					{"state", f.State},
					{"weight", f.Weight},
					{"ingress endpoint", or(f.Ingress)},
					{"egress endpoint", or(f.Egress)},
					{"from clients", asked},
					{"answers", answers},
				})
			})
		},
	}
}

// through says what went in or came out.
func through(c node.Count, way string) string {
	return fmt.Sprintf("%d packets %s (%d bytes)", c.Packets, way, c.Bytes)
}

// counted are the columns of what went in and came out. What a rewriting function makes of a packet is another's, and
// so is what it makes answers of.
func counted(m vnet.Mode, t node.HopTraffic) []any {
	out, in := any(t.Out.Packets), any(t.AnswersIn.Packets)
	if m == vnet.Rewriting {
		out, in = "-", "-"
	}
	return []any{t.In.Packets, out, in, t.AnswersOut.Packets}
}

func newFunctionDrain(a *app, drain bool) *cobra.Command {
	use, short, long := "undrain", "Let new connections come to a function again", "undrain ends what drain began."
	if drain {
		use, short = "drain", "Let no new connection come to a function"
		long = "drain lets no new connection come to a function, so that it can be taken away when\nthose that have it have ended. They keep it."
	}
	return &cobra.Command{
		Use: use + " TENANT/GROUP/CONTAINER", Short: short, Long: long,
		Args: exactly("TENANT/GROUP/CONTAINER"), ValidArgsFunction: a.completeFunctions(),
		Example: "  tenetctl function " + use + " blue/fw/fw-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			f, err := a.function(cmd, args[0])
			if err != nil {
				return err
			}
			became := unchanged
			if f.Drained != drain {
				became = use + "ed"
				err = a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
					member, err := a.member(ctx, n)
					if err != nil {
						return err
					}
					if !member {
						return n.Drain(ctx, f.Ref(), f.Container, drain)
					}
					return a.changeCluster(ctx, n, func(tx store.Tx) error { return cluster.Drain(tx, f.Ref(), f.Container, f.Node, drain) })
				})
			}
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{"Function", f.String(), became}})
		},
	}
}

func (a *app) functions(ctx context.Context, tenant vnet.TenantName) ([]node.InstanceState, error) {
	functions := []node.InstanceState{}
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		more, err := n.Instances(ctx, tenant)
		functions = append(functions, more...)
		return err
	})
	return functions, err
}

// function finds the one that text names.
func (a *app) function(cmd *cobra.Command, text string) (node.InstanceState, error) {
	var none node.InstanceState
	parts := strings.SplitN(text, "/", 3)
	if len(parts) != 3 {
		return none, usagef(cmd, "function %q: want TENANT/GROUP/CONTAINER", text)
	}
	ref, err := parseGroup(parts[0] + "/" + parts[1])
	if err != nil {
		return none, usagef(cmd, "%w", err)
	}
	all, err := a.functions(cmd.Context(), ref.Tenant)
	if err != nil {
		return none, err
	}
	all = slices.DeleteFunc(all, func(f node.InstanceState) bool { return f.Ref() != ref || !strings.HasPrefix(f.Container, parts[2]) })
	if i := slices.IndexFunc(all, func(f node.InstanceState) bool { return f.Container == parts[2] }); i >= 0 {
		return all[i], nil
	}
	switch len(all) {
	case 0:
		return none, vnet.WithHint(vnet.NotFoundf("group %s has no function in a container %s", ref, parts[2]), "see tenetctl function list --tenant %s", ref.Tenant)
	case 1:
		return all[0], nil
	}
	return none, vnet.WithHint(vnet.Invalidf("%q may be any of %d functions", text, len(all)), "give more of the container's id")
}

func (a *app) completeFunctions() cobra.CompletionFunc {
	return a.completeFrom(1, func(tx store.Tx) ([]string, error) {
		functions, err := store.Instances(tx, "")
		return texts(functions, vnet.Instance.String), err
	})
}
