package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// groupView is a group as it is shown.
type groupView struct {
	vnet.Group

	Chains    []vnet.ChainName     `json:"chains"` // that lead through it
	Instances []node.InstanceState `json:"instances"`
}

func newGroup(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", Short: "Groups of service functions that do the same",
		Long: `A group is a set of service functions that do the same: firewalls, for one. A
chain leads each connection through one function of each of its groups.
Containers join a group by CNI, with this in their network configuration or in
its args.cni, once for each of their two ports (or "both" for one):

  "serviceFunction": {"group": "fw", "port": "ingress", "weight": 1}

--mode is what the functions do to packets:
  transparent  nothing: a bridge, an inline IDS. Their ports have no addresses
  routed       their kernel forwards them, addresses unchanged: a firewalling router
  rewriting    they change addresses or ports: NAT, a proxy. What leaves their
               egress port is traffic of that port's own address`,
	}
	cmd.AddCommand(newGroupAdd(a), newGroupList(a), newGroupShow(a), newGroupDel(a))
	return cmd
}

func newGroupAdd(a *app) *cobra.Command {
	var asked vnet.Group
	cmd := &cobra.Command{
		Use: "add TENANT/GROUP", Short: "Make a group, or change it", Args: exactly("TENANT/GROUP"),
		Long: `add makes a group, and its tenant if need be, with the defaults of what is not
said. One that is there is changed in what is said, and stays as it is in what
is not. Its mode cannot be changed: its functions were made for that.

--on-failure is what becomes of traffic when the function that it is led to is
dead: closed drops it and counts it, open lets it go on to the next hop. A
function is dead when one of its ports is down, or, if --probe-interval is
given and tenetd runs, when --probe-threshold probes in a row do not come out
of it. New connections always go to functions that live.`,
		Example: `  tenetctl group add blue/fw --on-failure closed
  tenetctl group add blue/ids --on-failure open --probe-interval 1s
  tenetctl group add blue/nat --mode rewriting`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseGroup(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			asked.Tenant, asked.Name = ref.Tenant, ref.Group
			return a.addGroup(cmd, asked)
		},
	}
	f := cmd.Flags()
	f.StringVar((*string)(&asked.Mode), "mode", string(vnet.Transparent), "what its functions do to packets: `transparent`, routed or rewriting")
	f.StringVar((*string)(&asked.OnFailure), "on-failure", string(vnet.Closed), "what becomes of traffic to a dead one: `closed` or open")
	f.DurationVar((*time.Duration)(&asked.Probe.Interval), "probe-interval", 0, "`time` between probes; 0: none")
	f.IntVar(&asked.Probe.Threshold, "probe-threshold", 0, "`number` of probes lost in a row that make a function dead (default 3)")
	complete(cmd, "mode", "transparent\ta bridge or inline IDS", "routed\tforwards by its routes", "rewriting\tNAT or a proxy")
	complete(cmd, "on-failure", "closed\tdrop", "open\tgo on to the next hop")
	return cmd
}

// addGroup makes a group of what the command's flags ask for, and where they are not given of what stands.
func (a *app) addGroup(cmd *cobra.Command, asked vnet.Group) error {
	var became string
	err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
		return a.change(ctx, n, true, func(tx store.Tx) error {
			stands, err := store.Group(tx, asked.Ref())
			if err != nil && !errors.Is(err, vnet.ErrNotFound) {
				return err
			}
			m := manifest{kind: kindGroup, group: asked}
			given := cmd.Flags().Changed
			if !given("mode") {
				m.group.Mode = stands.Mode
			}
			if !given("on-failure") {
				m.group.OnFailure = stands.OnFailure
			}
			probe := &m.group.Probe
			if !given("probe-interval") {
				probe.Interval = stands.Probe.Interval
			}
			switch {
			case given("probe-threshold") && probe.Threshold == 0:
				return usagef(cmd, "group add: --probe-threshold 0: must be 1 to 100")
			case probe.Interval == 0 && given("probe-threshold"):
				return usagef(cmd, "group add: --probe-threshold needs --probe-interval")
			case probe.Interval != 0 && !given("probe-threshold"):
				probe.Threshold = stands.Probe.Threshold
			}
			if became, err = m.declare(tx, n, 0); err != nil {
				return m.explain(err)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return a.printOutcomes([]outcome{{kindGroup, asked.Ref().String(), became}})
}

func newGroupList(a *app) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List groups", Args: exactly(),
		Long:    "list lists the groups of service functions. With -o yaml it gives manifests that\napply accepts.",
		Example: "  tenetctl group list\n  tenetctl group list --tenant blue -o yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			groups, err := a.groups(cmd.Context(), vnet.TenantName(tenant))
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(groupManifests(groups))
			}
			return a.print(groups, func(w io.Writer) {
				var rows [][]any
				for _, g := range groups {
					rows = append(rows, []any{g.Ref(), g.Mode, g.OnFailure, probeText(g.Probe), list(g.Chains), servingText(g.Instances)})
				}
				columns(w, []any{"GROUP", "MODE", "ON FAILURE", "PROBE", "CHAINS", "SERVING"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of `tenant`")
	completeWith(cmd, "tenant", a.completeTenants())
	return cmd
}

func newGroupShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT/GROUP", Short: "Show one group with its instances",
		Args: exactly("TENANT/GROUP"), ValidArgsFunction: a.completeGroups(),
		Long:    "show shows a group and its instances. With -o yaml it gives the manifest that\napply accepts.",
		Example: "  tenetctl group show blue/fw",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseGroup(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			groups, err := a.groups(cmd.Context(), ref.Tenant)
			if err != nil {
				return err
			}
			groups = slices.DeleteFunc(groups, func(g groupView) bool { return g.Name != ref.Group })
			if len(groups) == 0 {
				return vnet.WithHint(vnet.NotFoundf("group %s does not exist", ref), "see tenetctl group list")
			}
			if a.output == "yaml" {
				return a.printManifests(groupManifests(groups))
			}
			g := groups[0]
			return a.print(g, func(w io.Writer) {
				columns(w, nil, [][]any{
					{"group", g.Ref()}, {"mode", g.Mode}, {"on failure", g.OnFailure}, {"probe", probeText(g.Probe)}, {"chains", list(g.Chains)},
				})
				if len(g.Instances) > 0 {
					fmt.Fprintln(w)
					listFunctions(w, g.Instances)
				}
			})
		},
	}
}

func newGroupDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del TENANT/GROUP", Aliases: []string{"delete"}, Short: "Delete a group",
		Args: exactly("TENANT/GROUP"), ValidArgsFunction: a.completeGroups(),
		Long:    "del deletes a group. It refuses while a chain leads through it or a function\nserves in it.",
		Example: "  tenetctl group del blue/fw",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseGroup(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			return a.delete(cmd.Context(), kindGroup, ref.String(), func(tx store.Tx) error { return store.DeleteGroup(tx, ref) })
		},
	}
}

// delete removes what concerns chains.
func (a *app) delete(ctx context.Context, kind, name string, remove func(store.Tx) error) error {
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error { return a.change(ctx, n, true, remove) })
	if err != nil {
		return err
	}
	return a.printOutcomes([]outcome{{kind, name, deleted}})
}

// groups reads the groups of a tenant, or with an empty name of all.
func (a *app) groups(ctx context.Context, tenant vnet.TenantName) ([]groupView, error) {
	views := []groupView{}
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		instances, err := n.Instances(ctx, tenant)
		if err != nil {
			return err
		}
		return n.Store.View(ctx, func(tx store.Tx) error {
			views = views[:0]
			groups, chains := store.Groups, store.Chains
			if tenant != "" {
				groups, chains = store.GroupsOf(tenant), store.ChainsOf(tenant)
			}
			all, err := store.All[vnet.Group](tx, groups)
			if err != nil {
				return err
			}
			led, err := store.All[vnet.Chain](tx, chains)
			for _, g := range all {
				view := groupView{Group: g, Chains: []vnet.ChainName{}, Instances: []node.InstanceState{}}
				for _, c := range led {
					if c.Tenant == g.Tenant && slices.Contains(c.Groups, g.Name) {
						view.Chains = append(view.Chains, c.Name)
					}
				}
				for _, i := range instances {
					if i.Ref() == g.Ref() {
						view.Instances = append(view.Instances, i)
					}
				}
				views = append(views, view)
			}
			return err
		})
	})
	return views, err
}

func groupManifests(groups []groupView) []any {
	var docs []any
	for _, g := range groups {
		docs = append(docs, groupDocument{Kind: kindGroup, Group: g.Group})
	}
	return docs
}

func probeText(p vnet.Probe) string {
	if p.Interval == 0 {
		return "-"
	}
	return fmt.Sprintf("every %s, dead after %d", p.Interval, p.Threshold)
}

// servingText says how many of the instances serve.
func servingText(instances []node.InstanceState) string {
	serving := 0
	for _, i := range instances {
		if i.State == "serves" {
			serving++
		}
	}
	return fmt.Sprintf("%d of %d", serving, len(instances))
}

// parseGroup parses TENANT/GROUP.
func parseGroup(text string) (vnet.GroupRef, error) {
	tenant, group, found := strings.Cut(text, "/")
	if !found {
		return vnet.GroupRef{}, vnet.Invalidf("group %q: want TENANT/GROUP", text)
	}
	r := vnet.GroupRef{Tenant: vnet.TenantName(tenant), Group: vnet.GroupName(group)}
	if err := r.Tenant.Validate(); err != nil {
		return r, err
	}
	return r, r.Group.Validate()
}

func (a *app) completeGroups() cobra.CompletionFunc {
	return a.completeFrom(1, func(tx store.Tx) ([]string, error) {
		groups, err := store.All[vnet.Group](tx, store.Groups)
		return texts(groups, func(g vnet.Group) string { return g.Ref().String() }), err
	})
}
