package main

import (
	"context"
	"fmt"
	"io"
	"net"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// uplinkView is an uplink as it is shown.
type uplinkView struct {
	Name         vnet.UplinkName `json:"name"`
	NIC          string          `json:"nic"`
	VLANs        vnet.VLANs      `json:"vlans"`        // none: all
	UplinkBridge string          `json:"uplinkBridge"` // that the NIC is in
	Bridge       string          `json:"bridge"`       // of the networks
	Networks     []string        `json:"networks"`
}

// uplinkDetails is an uplink with what the node says of it.
type uplinkDetails struct {
	uplinkView
	Link        string   `json:"link"`      // "up", "down" or "missing"; empty: the node does not say
	MTU         int      `json:"mtu"`       // the NIC's
	Addresses   []string `json:"addresses"` // the host's, on the link of the NIC's bridge
	Differences []string `json:"differences"`
	Problem     string   `json:"problem,omitempty"` // why the node does not say
}

func newUplink(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "uplink", Short: "Physical NICs that provider networks use",
		Long: `An uplink is a physical NIC of this node. A network of which it is the provider
is a VLAN of it: machines on the wire and containers are neighbours.`,
	}
	cmd.AddCommand(newUplinkAdd(a), newUplinkList(a), newUplinkShow(a), newUplinkDel(a))
	return cmd
}

func newUplinkAdd(a *app) *cobra.Command {
	var u vnet.Uplink
	var vlans []string
	var force bool
	cmd := &cobra.Command{
		Use: "add NAME --nic NIC [--vlans FIRST-LAST]...", Short: "Make a NIC an uplink", Args: exactly("NAME"),
		Long: `add puts a NIC into a bridge of its own, br-NAME, and joins that to the node's
bridge. The host's addresses and routes move from the NIC to the link br-NAME,
and back with uplink del. It is no error if the same uplink is there; what was
cut short is finished.

In a cluster an uplink is one wire, which several nodes may have a NIC on: add makes
a NIC of the node that it is run on one, and its VLANs are the same on all.

A NIC by which the default route goes is refused without --force: whoever works
on the node through it may be cut off for a moment.`,
		Example: `  tenetctl uplink add lan --nic eth1
  tenetctl uplink add lan --nic eth1 --vlans 100-199 --vlans 7
  tenetctl uplink add wan --nic eth0 --force
  tenetctl network add blue/lan --subnet 192.168.7.0/24 --provider lan:100`,
		RunE: func(cmd *cobra.Command, args []string) error {
			u.Name = vnet.UplinkName(args[0])
			if u.NIC == "" {
				return usagef(cmd, "uplink add: --nic NIC is missing")
			}
			var err error
			if u.VLANs, err = vnet.ParseVLANs(vlans...); err != nil {
				return usagef(cmd, "%w", err)
			}
			if u, err = u.Normal(); err != nil {
				return usagef(cmd, "%w", err)
			}
			o := outcome{kindUplink, args[0], "unchanged"}
			err = a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				made, err := a.addUplink(ctx, n, u, force)
				if made {
					o.Outcome = created
				}
				return err
			})
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{o})
		},
	}
	f := cmd.Flags()
	f.StringVar(&u.NIC, "nic", "", "the `link` on the wire")
	f.StringSliceVar(&vlans, "vlans", nil, "`VLANs` that networks may have, such as 100-199 (repeatable; default: all)")
	f.BoolVar(&force, "force", false, "also if the default route goes by the NIC")
	completeWith(cmd, "nic", completeLinks)
	return cmd
}

func newUplinkList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List uplinks", Args: exactly(),
		Long: `list lists the uplinks of this node's store. The switch is not asked. With -o yaml
it gives manifests that apply accepts.`,
		Example: "  tenetctl uplink list\n  tenetctl uplink list -o yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			uplinks := []uplinkView{}
			err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				return n.Store.View(ctx, func(tx store.Tx) error {
					uplinks = uplinks[:0]
					all, err := store.All[vnet.Uplink](tx, store.Uplinks)
					for _, u := range all {
						view, err := viewUplink(tx, u)
						if err != nil {
							return err
						}
						uplinks = append(uplinks, view)
					}
					return err
				})
			})
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(uplinkManifests(uplinks))
			}
			return a.print(uplinks, func(w io.Writer) {
				var rows [][]any
				for _, u := range uplinks {
					rows = append(rows, []any{u.Name, u.NIC, u.allowed(), list(u.Networks)})
				}
				columns(w, []any{"UPLINK", "NIC", "VLANS", "NETWORKS"}, rows)
			})
		},
	}
}

func newUplinkShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show one uplink and what is wrong with it",
		Args: exactly("NAME"), ValidArgsFunction: a.completeUplinks(1),
		Long: `show shows an uplink: its record, its NIC, the host's addresses that are on its
bridge now, and how it differs from what it should be; tenetctl sync repairs
that. With -o yaml it gives the manifest that apply accepts.`,
		Example: "  tenetctl uplink show lan\n  tenetctl uplink show lan -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				d := uplinkDetails{Addresses: []string{}, Differences: []string{}}
				err := n.Store.View(ctx, func(tx store.Tx) error {
					u, err := store.Uplink(tx, vnet.UplinkName(args[0]))
					if err != nil {
						return err
					}
					d.uplinkView, err = viewUplink(tx, u)
					return err
				})
				if err != nil {
					return err
				}
				if a.output == "yaml" {
					return a.printManifests(uplinkManifests([]uplinkView{d.uplinkView}))
				}
				states, err := n.Uplinks(ctx)
				if err != nil {
					d.Problem = oneLine(err.Error())
				}
				for _, s := range states {
					if s.Name == d.Name {
						d.Link, d.MTU = s.Link, s.MTU
						d.Addresses, d.Differences = append(d.Addresses, s.Addresses...), append(d.Differences, s.Drift...)
					}
				}
				return a.print(d, func(w io.Writer) { showUplink(w, d) })
			})
		},
	}
}

func viewUplink(tx store.Tx, u vnet.Uplink) (uplinkView, error) {
	networks, err := store.UplinkNetworks(tx, u.Name)
	return uplinkView{
		Name: u.Name, NIC: u.NIC, VLANs: u.VLANs, UplinkBridge: u.Name.Bridge(), Bridge: u.Bridge, Networks: append([]string{}, networks...),
	}, err
}

// allowed spells which VLANs networks may have.
func (v uplinkView) allowed() string {
	if len(v.VLANs) == 0 {
		return "all"
	}
	return v.VLANs.String()
}

func showUplink(w io.Writer, d uplinkDetails) {
	nic := d.NIC
	if d.Link != "" {
		nic += ", " + d.Link
	}
	if d.MTU != 0 {
		nic += fmt.Sprintf(", mtu %d", d.MTU)
	}
	columns(w, nil, [][]any{
		{"uplink", d.Name},
		{"nic", nic},
		{"vlans", d.allowed()},
		{"bridge", d.UplinkBridge + ", joined to " + d.Bridge},
		{"addresses", list(d.Addresses)},
		{"networks", list(d.Networks)},
	})
	fmt.Fprintln(w)
	for _, difference := range d.Differences {
		fmt.Fprintf(w, "differs: %s\n", difference)
	}
	switch {
	case d.Problem != "":
		fmt.Fprintf(w, "the node cannot say how it is: %s\n", d.Problem)
	case len(d.Differences) == 0:
		fmt.Fprintln(w, "everything stands as recorded")
	}
}

func uplinkManifests(uplinks []uplinkView) []any {
	var docs []any
	for _, u := range uplinks {
		docs = append(docs, uplinkDocument{Kind: kindUplink, Name: u.Name, NIC: u.NIC, VLANs: u.VLANs})
	}
	return docs
}

func newUplinkDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del NAME", Aliases: []string{"delete"}, Short: "Give an uplink's NIC back to the host",
		Args: exactly("NAME"), ValidArgsFunction: a.completeUplinks(1),
		Long: `del takes the NIC out of the uplink's bridge, moves the host's addresses and
routes back to it, and removes the bridge. It refuses while a network is on the
uplink.

In a cluster it refuses while a container of this node is in such a network. The
cluster forgets the uplink with the last node that had a NIC on it, if no network
is left; if etcd does not answer nothing is changed.`,
		Example: "  tenetctl uplink del lan",
		RunE: func(cmd *cobra.Command, args []string) error {
			err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				return a.delUplink(ctx, n, vnet.UplinkName(args[0]))
			})
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{kindUplink, args[0], deleted}})
		},
	}
}

// completeLinks offers the host's links.
func completeLinks(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	return texts(links, func(l net.Interface) string { return l.Name }), cobra.ShellCompDirectiveNoFileComp
}
