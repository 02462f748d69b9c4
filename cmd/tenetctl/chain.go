package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func newChain(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "chain", Short: "Service chains: which traffic visits which functions",
		Long: `A chain leads those of a tenant's connections that a classifier picks through an
ordered list of groups of service functions: each connection visits one function
of each group, always the same, and its answers visit them backwards.`,
	}
	cmd.AddCommand(newChainAdd(a), newChainList(a), newChainShow(a), newChainDel(a), newChainGraph(a))
	return cmd
}

func newChainAdd(a *app) *cobra.Command {
	var c vnet.Chain
	var groups, ports, sourcePorts []string
	var from, to string
	var k vnet.Classifier
	var asymmetric bool
	cmd := &cobra.Command{
		Use: "add TENANT/CHAIN --group GROUP... --from WHO --to WHO", Short: "Make a chain, or change it",
		Args: exactly("TENANT/CHAIN"),
		Long: `add makes a chain with one classifier; apply makes chains with several. A chain
that is there becomes what is said: new connections take the new way, those that
stand keep theirs until they end or their function has gone.

Groups are visited in the order given, 8 at most. A connection is led if it is
opened by --from to --to, each one of
  network:NAME                 a network of the tenant
  endpoint:CONTAINER/IFNAME    one container
  label:KEY=VALUE[,KEY=VALUE]  containers with these labels
  10.0.0.0/24 or an address    whoever has such an address, outside the tenant, too
  any                          everybody
and if --protocol and ports agree, where they are given.`,
		Example: `  tenetctl chain add blue/web-in --group fw --group ids --from network:front --to network:web --protocol tcp --port 80,8000-8099
  tenetctl chain add blue/out --group nat --from label:app=crawler --to any
  tenetctl chain add blue/dns --group fw --from any --to 10.0.0.53 --protocol udp --port 53 --priority 10`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseChain(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			c.Tenant, c.Name = ref.Tenant, ref.Chain
			if len(groups) == 0 {
				return usagef(cmd, "chain add: --group is missing")
			}
			for _, flag := range []struct {
				name, text string
				to         *vnet.Selector
			}{{"from", from, &k.From}, {"to", to, &k.To}} {
				if flag.text == "" {
					return usagef(cmd, "chain add: --%s is missing; all traffic is --%s any", flag.name, flag.name)
				}
				if *flag.to, err = parseSelector(flag.text); err != nil {
					return usagef(cmd, "chain add: --%s: %w", flag.name, err)
				}
			}
			for _, flag := range []string{"protocol", "port", "source-port"} { // an empty variable of a script must not lead all
				if f := cmd.Flags().Lookup(flag); f.Changed && slices.Contains([]string{"", "[]"}, f.Value.String()) {
					return usagef(cmd, "chain add: --%s is empty; without it all are led", flag)
				}
			}
			if k.DestinationPorts, err = parsePorts(ports); err != nil {
				return usagef(cmd, "chain add: --port: %w", err)
			}
			if k.SourcePorts, err = parsePorts(sourcePorts); err != nil {
				return usagef(cmd, "chain add: --source-port: %w", err)
			}
			for _, g := range groups {
				c.Groups = append(c.Groups, vnet.GroupName(g))
			}
			symmetric := !asymmetric
			c.Symmetric, c.Classifiers = &symmetric, []vnet.Classifier{k}
			return a.add(cmd.Context(), manifest{kind: kindChain, chain: c})
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&groups, "group", nil, "`groups` to visit, in this order: fw,ids (repeatable)")
	f.StringVar(&from, "from", "", "`who` opens the connections")
	f.StringVar(&to, "to", "", "`who` they are opened to")
	f.StringVar((*string)(&k.Protocol), "protocol", "", "`tcp`, udp or icmp (default any)")
	f.StringSliceVar(&ports, "port", nil, "destination `ports`, such as 80,8000-8099 (default any)")
	f.StringSliceVar(&sourcePorts, "source-port", nil, "source `ports` (default any)")
	f.IntVar(&c.Priority, "priority", 0, "of two chains that want a packet the one with the higher `number` has it, 0 to 10000")
	f.BoolVar(&c.PreferLocal, "prefer-local", false, "take functions of the client's node where a group has any there")
	f.BoolVar(&asymmetric, "asymmetric", false, "answers go straight to the client")
	complete(cmd, "protocol", "tcp", "udp", "icmp")
	return cmd
}

func newChainList(a *app) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List chains", Args: exactly(),
		Long:    "list lists the chains. With -o yaml it gives manifests that apply accepts.",
		Example: "  tenetctl chain list\n  tenetctl chain list --tenant blue -o yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			chains := []vnet.Chain{}
			err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				return n.Store.View(ctx, func(tx store.Tx) error {
					prefix := store.Chains
					if tenant != "" {
						prefix = store.ChainsOf(vnet.TenantName(tenant))
					}
					all, err := store.All[vnet.Chain](tx, prefix)
					chains = append(chains[:0], all...)
					return err
				})
			})
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(chainManifests(chains...))
			}
			return a.print(chains, func(w io.Writer) {
				var rows [][]any
				for _, c := range chains {
					rows = append(rows, []any{c.Ref(), c.Priority, arrows(c.Groups), c.Classifiers[0], more(len(c.Classifiers) - 1)})
				}
				columns(w, []any{"CHAIN", "PRIORITY", "GROUPS", "CLASSIFIERS", ""}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of `tenant`")
	completeWith(cmd, "tenant", a.completeTenants())
	return cmd
}

func more(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("and %d more", n)
}

func arrows(groups []vnet.GroupName) string {
	return strings.Join(texts(groups, func(g vnet.GroupName) string { return string(g) }), " → ")
}

func newChainShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT/CHAIN", Short: "Show one chain: its functions, what went through each hop, its paths",
		Args: exactly("TENANT/CHAIN"), ValidArgsFunction: a.completeChains(),
		Long: `show shows a chain as it is on this node: for each hop the functions with their
states and what went in and came out (what is missing, the function kept), the
paths with the share of new connections that each gets, and what was dropped.
With -o yaml it gives the manifest that apply accepts.`,
		Example: "  tenetctl chain show blue/web-in\n  tenetctl chain show blue/web-in -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := a.chainState(cmd, args[0])
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(chainManifests(st.Chain))
			}
			return a.print(st, func(w io.Writer) { showChain(w, st) })
		},
	}
}

func (a *app) chainState(cmd *cobra.Command, text string) (node.ChainState, error) {
	var st node.ChainState
	ref, err := parseChain(text)
	if err != nil {
		return st, usagef(cmd, "%w", err)
	}
	err = a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
		var err error
		st, err = n.ChainState(ctx, ref)
		return err
	})
	return st, err
}

func showChain(w io.Writer, st node.ChainState) {
	answers := "visit the same functions backwards"
	if !st.IsSymmetric() {
		answers = "go straight to the client"
	}
	about := [][]any{{"chain", st.Ref()}, {"priority", st.Priority}, {"answers", answers}}
	for i, k := range st.Classifiers {
		what := ""
		if i == 0 {
			what = "leads"
		}
		about = append(about, []any{what, k})
	}
	if st.Blocked != "" {
		about = append(about, []any{"blocked", fmt.Sprintf("group %s is closed, and no function in it lives: new connections are dropped", st.Blocked)})
	}
	columns(w, nil, about)
	fmt.Fprintln(w)
	var rows [][]any
	for i, h := range st.Hops {
		rows = append(rows, append([]any{fmt.Sprintf("%d %s", i+1, h.Name), h.Mode, h.OnFailure, servingText(h.Instances)}, counted(h.Mode, h.Traffic)...))
		for _, f := range h.Instances {
			rows = append(rows, append([]any{"  " + f.Container + on(f.Node), "", fmt.Sprintf("weight %d", f.Weight), f.State}, counted(h.Mode, f.Traffic)...))
		}
	}
	columns(w, []any{"HOP", "MODE", "ON FAILURE", "STATE", "IN", "OUT", "ANSWERS IN", "OUT"}, rows)
	if len(st.Paths) > 0 {
		rows = nil
		for _, p := range st.Paths {
			share := fmt.Sprintf("%.1f %%", 100*p.Share)
			if p.Share == 0 {
				share = "none: only those that have it"
			}
			rows = append(rows, []any{p.ID, wayText(p.Containers), share, p.Packets})
		}
		fmt.Fprintln(w)
		columns(w, []any{"PATH", "THROUGH", "NEW CONNECTIONS", "PACKETS"}, rows)
	}
	if len(st.Drops) > 0 {
		rows = nil
		for _, d := range st.Drops {
			rows = append(rows, []any{d.Reason, d.Packets, d.Text})
		}
		fmt.Fprintln(w)
		columns(w, []any{"DROPPED", "PACKETS", "BECAUSE"}, rows)
	}
}

// wayText is a path by the containers that it leads through; one without a name has gone.
func wayText(containers []string) string {
	if len(containers) == 0 {
		return "past dead functions that are open"
	}
	names := make([]string, len(containers))
	for i, name := range containers {
		names[i] = cmp.Or(name, "one that has gone")
	}
	return strings.Join(names, " → ")
}

func newChainDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del TENANT/CHAIN", Aliases: []string{"delete"}, Short: "Delete a chain",
		Args: exactly("TENANT/CHAIN"), ValidArgsFunction: a.completeChains(),
		Long:    "del deletes a chain: from then on its traffic goes straight. Groups and functions\nstay.",
		Example: "  tenetctl chain del blue/web-in",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseChain(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			return a.delete(cmd.Context(), kindChain, ref.String(), func(tx store.Tx) error { return store.DeleteChain(tx, ref) })
		},
	}
}

func chainManifests(chains ...vnet.Chain) []any {
	var docs []any
	for _, c := range chains {
		docs = append(docs, chainDocument{Kind: kindChain, Chain: c})
	}
	return docs
}

// parseChain parses TENANT/CHAIN.
func parseChain(text string) (vnet.ChainRef, error) {
	tenant, chain, found := strings.Cut(text, "/")
	if !found {
		return vnet.ChainRef{}, vnet.Invalidf("chain %q: want TENANT/CHAIN", text)
	}
	r := vnet.ChainRef{Tenant: vnet.TenantName(tenant), Chain: vnet.ChainName(chain)}
	if err := r.Tenant.Validate(); err != nil {
		return r, err
	}
	return r, r.Chain.Validate()
}

// parseSelector parses one side of a classifier.
func parseSelector(text string) (vnet.Selector, error) {
	if text == "any" {
		return vnet.Selector{Any: true}, nil
	}
	if what, name, found := strings.Cut(text, ":"); found {
		switch what {
		case "network":
			return vnet.Selector{Network: vnet.NetworkName(name)}, vnet.NetworkName(name).Validate()
		case "endpoint":
			return vnet.Selector{Endpoint: name}, nil
		case "label":
			labels := vnet.Labels{}
			for pair := range strings.SplitSeq(name, ",") {
				key, value, has := strings.Cut(pair, "=")
				if !has {
					return vnet.Selector{}, vnet.Invalidf("label %q: want KEY=VALUE", pair)
				}
				if _, twice := labels[key]; twice {
					return vnet.Selector{}, vnet.Invalidf("label %q is given twice", key)
				}
				labels[key] = value
			}
			return vnet.Selector{Labels: labels}, labels.Validate()
		}
	}
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		return vnet.Selector{Prefix: netip.PrefixFrom(a, a.BitLen())}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return vnet.Selector{}, vnet.Invalidf("%q: want network:NAME, endpoint:CONTAINER/IFNAME, label:KEY=VALUE, a prefix, an address or any", text)
	}
	return vnet.Selector{Prefix: p}, nil
}

func parsePorts(list []string) (vnet.PortRanges, error) {
	var ports vnet.PortRanges
	for _, text := range list {
		r, err := vnet.ParsePortRange(text)
		if err != nil {
			return nil, err
		}
		ports = append(ports, r)
	}
	return ports, nil
}

func (a *app) completeChains() cobra.CompletionFunc {
	return a.completeFrom(1, func(tx store.Tx) ([]string, error) {
		chains, err := store.All[vnet.Chain](tx, store.Chains)
		return texts(chains, func(c vnet.Chain) string { return c.Ref().String() }), err
	})
}

// on says which node something is on, where there are several.
func on(n vnet.NodeName) string {
	if n == "" {
		return ""
	}
	return " on " + string(n)
}
