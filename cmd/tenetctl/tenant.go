package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// tenantView is a tenant as it is shown.
type tenantView struct {
	Name      vnet.TenantName `json:"name"`
	Number    uint32          `json:"number"`
	Networks  []vnet.Ref      `json:"-"`
	Names     []string        `json:"networks"`
	Endpoints int             `json:"endpoints"`
}

func newTenant(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tenant", Short: "Who owns networks",
		Long: `A tenant owns networks. It is a layer-3 domain of its own: tenants may use the
same prefixes, addresses and MACs, and never reach each other.`,
	}
	cmd.AddCommand(newTenantAdd(a), newTenantList(a), newTenantShow(a), newTenantDel(a))
	return cmd
}

func newTenantAdd(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "add TENANT", Short: "Make a tenant", Args: exactly("TENANT"),
		Long: `add makes a tenant. It is no error if it is there. Tenants need not be made
beforehand: a tenant's first network makes it.`,
		Example: "  tenetctl tenant add blue",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.add(cmd.Context(), manifest{kind: kindTenant, tenant: vnet.TenantName(args[0])})
		},
	}
}

func newTenantList(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List tenants", Args: exactly(),
		Long:    "list lists the tenants of this node's store. With -o yaml it gives manifests that apply accepts.",
		Example: "  tenetctl tenant list\n  tenetctl tenant list -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			tenants, err := a.tenants(cmd.Context(), "")
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(tenantManifests(tenants))
			}
			return a.print(tenants, func(w io.Writer) {
				var rows [][]any
				for _, t := range tenants {
					rows = append(rows, []any{t.Name, len(t.Names), t.Endpoints})
				}
				columns(w, []any{"TENANT", "NETWORKS", "ENDPOINTS"}, rows)
			})
		},
	}
}

func newTenantShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT", Short: "Show one tenant", Args: exactly("TENANT"), ValidArgsFunction: a.completeTenants(),
		Long: "show shows a tenant with its networks. Its number stands for it in the pipeline's\n" +
			"metadata (bits 32 to 55), on this node.",
		Example: "  tenetctl tenant show blue",
		RunE: func(cmd *cobra.Command, args []string) error {
			tenants, err := a.tenants(cmd.Context(), vnet.TenantName(args[0]))
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(tenantManifests(tenants))
			}
			t := tenants[0]
			return a.print(t, func(w io.Writer) {
				columns(w, nil, [][]any{
					{"tenant", t.Name},
					{"number", t.Number},
					{"networks", list(t.Networks)},
					{"endpoints", t.Endpoints},
				})
			})
		},
	}
}

func newTenantDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del TENANT", Aliases: []string{"delete"}, Short: "Delete a tenant", Args: exactly("TENANT"), ValidArgsFunction: a.completeTenants(),
		Long:    "del deletes a tenant. It refuses while the tenant has networks, groups or\nchains.",
		Example: "  tenetctl tenant del blue",
		RunE: func(cmd *cobra.Command, args []string) error {
			name := vnet.TenantName(args[0])
			err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				return a.change(ctx, n, false, func(tx store.Tx) error { return store.DeleteTenant(tx, name) })
			})
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{kindTenant, string(name), deleted}})
		},
	}
}

// tenants reads all tenants, or the one of that name.
func (a *app) tenants(ctx context.Context, name vnet.TenantName) ([]tenantView, error) {
	views := []tenantView{}
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			views = views[:0]
			tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
			if name != "" {
				tenants = make([]vnet.Tenant, 1)
				tenants[0], err = store.Tenant(tx, name)
			}
			if err != nil {
				return err
			}
			for _, t := range tenants {
				view := tenantView{Name: t.Name, Number: t.Number, Names: []string{}}
				networks, err := store.All[vnet.Network](tx, store.NetworksOf(t.Name))
				if err != nil {
					return err
				}
				for _, net := range networks {
					endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(net.Ref()))
					if err != nil {
						return err
					}
					view.Networks = append(view.Networks, net.Ref())
					view.Names = append(view.Names, string(net.Name))
					view.Endpoints += len(endpoints)
				}
				views = append(views, view)
			}
			return nil
		})
	})
	return views, err
}

func tenantManifests(tenants []tenantView) []any {
	var docs []any
	for _, t := range tenants {
		docs = append(docs, tenantDocument{Kind: kindTenant, Name: t.Name})
	}
	return docs
}
