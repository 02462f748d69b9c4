package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

const endpointNames = "an id, CONTAINER/IFNAME, a container's id or its beginning, or TENANT/NETWORK/ADDRESS"

// findEndpoint returns the endpoint that text names. vnet.ErrNotFound if there is none,
// vnet.ErrInvalid if there are several.
func findEndpoint(tx store.Tx, text string) (vnet.Endpoint, error) {
	all, err := store.All[vnet.Endpoint](tx, store.Endpoints)
	if err != nil {
		return vnet.Endpoint{}, err
	}
	return named(all, text, func(e vnet.Endpoint) vnet.Endpoint { return e })
}

// findRemote is the same of endpoints of other nodes.
func findRemote(all []vnet.Remote, text string) (vnet.Remote, error) {
	return named(all, text, endpointOf)
}

// endpointOf is what an endpoint of another node has of those that are here.
func endpointOf(r vnet.Remote) vnet.Endpoint {
	return vnet.Endpoint{Attachment: r.Attachment, ID: r.ID, Tenant: r.Tenant, Network: r.Network, MAC: r.MAC, Addrs: r.Addrs}
}

// named returns the one of them that text names.
func named[E any](all []E, text string, view func(E) vnet.Endpoint) (E, error) {
	var none E
	ref, addr, placed := parsePlace(text)
	// The first of these that fits any endpoint decides.
	for _, fits := range []func(vnet.Endpoint) bool{
		func(e vnet.Endpoint) bool { return string(e.ID) == text },
		func(e vnet.Endpoint) bool { return e.Attachment.String() == text },
		func(e vnet.Endpoint) bool { return placed && e.Ref() == ref && e.Has(addr) },
		func(e vnet.Endpoint) bool { return e.Container == text },
		func(e vnet.Endpoint) bool { return text != "" && strings.HasPrefix(e.Attachment.String(), text) },
	} {
		found := slices.DeleteFunc(slices.Clone(all), func(e E) bool { return !fits(view(e)) })
		switch len(found) {
		case 0:
		case 1:
			return found[0], nil
		default:
			var names []vnet.Attachment
			for _, e := range found {
				names = append(names, view(e).Attachment)
			}
			return none, vnet.WithHint(vnet.Invalidf("%q may be any of %d endpoints", text, len(found)), "say which: %s", list(names[:min(len(names), 5)]))
		}
	}
	return none, vnet.WithHint(vnet.NotFoundf("no endpoint %q", text), "name it by %s; see tenetctl endpoint list", endpointNames)
}

// parsePlace parses TENANT/NETWORK/ADDRESS.
func parsePlace(text string) (vnet.Ref, netip.Addr, bool) {
	parts := strings.Split(text, "/")
	if len(parts) != 3 {
		return vnet.Ref{}, netip.Addr{}, false
	}
	addr, err := netip.ParseAddr(parts[2])
	return vnet.Ref{Tenant: vnet.TenantName(parts[0]), Network: vnet.NetworkName(parts[1])}, addr, err == nil
}

// onEndpoint reads the endpoint that text names, and calls fn with it. One of another node is an error that says of which.
func (a *app) onEndpoint(ctx context.Context, text string, fn func(context.Context, *node.Node, vnet.Endpoint) error) error {
	return a.onAnyEndpoint(ctx, text, fn, func(_ context.Context, _ *node.Node, r vnet.Remote) error {
		return vnet.WithHint(vnet.NotFoundf("endpoint %s (%s, %s) is not on this node but on node %s", r.ID, r.Attachment, r.Ref(), r.Node), "run this on node %s", r.Node)
	})
}

// onAnyEndpoint calls elsewhere if it is of another node.
func (a *app) onAnyEndpoint(ctx context.Context, text string, here func(context.Context, *node.Node, vnet.Endpoint) error, elsewhere func(context.Context, *node.Node, vnet.Remote) error) error {
	return a.on(ctx, func(ctx context.Context, n *node.Node) error {
		var e vnet.Endpoint
		err := n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			e, err = findEndpoint(tx, text)
			return err
		})
		if err == nil {
			return here(ctx, n, e)
		}
		if !errors.Is(err, vnet.ErrNotFound) || !n.Clustered() {
			return err
		}
		remotes, err := a.elsewhere(ctx, n, store.Endpoints)
		if err != nil {
			return err
		}
		r, err := findRemote(remotes, text)
		if err != nil {
			return err
		}
		return elsewhere(ctx, n, r)
	})
}

// completeTimeout is how long a shell may wait for a completion.
const completeTimeout = 2 * time.Second

// complete offers fixed values for a flag.
func complete(cmd *cobra.Command, flag string, values ...string) {
	completeWith(cmd, flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values, cobra.ShellCompDirectiveNoFileComp
	})
}

// completeWith has fn offer values for a flag.
func completeWith(cmd *cobra.Command, flag string, fn cobra.CompletionFunc) {
	_ = cmd.RegisterFlagCompletionFunc(flag, fn) // fails only for a flag that is not there
}

func (a *app) completeTenants() cobra.CompletionFunc {
	return a.completeFrom(1, func(tx store.Tx) ([]string, error) {
		tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
		return texts(tenants, func(t vnet.Tenant) string { return string(t.Name) }), err
	})
}

func (a *app) completeNetworks() cobra.CompletionFunc {
	return a.completeFrom(1, func(tx store.Tx) ([]string, error) {
		networks, err := store.All[vnet.Network](tx, store.Networks)
		return texts(networks, func(n vnet.Network) string { return n.Ref().String() }), err
	})
}

// completeUplinks completes up to so many arguments.
func (a *app) completeUplinks(arguments int) cobra.CompletionFunc {
	return a.completeFrom(arguments, func(tx store.Tx) ([]string, error) {
		uplinks, err := store.All[vnet.Uplink](tx, store.Uplinks)
		return texts(uplinks, func(u vnet.Uplink) string { return string(u.Name) }), err
	})
}

// completeEndpoints completes up to so many arguments.
func (a *app) completeEndpoints(arguments int) cobra.CompletionFunc {
	return a.completeFrom(arguments, func(tx store.Tx) ([]string, error) {
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		return texts(endpoints, func(e vnet.Endpoint) string { return e.Attachment.String() }), err
	})
}

// completeFrom offers names out of the store; a shell is told of no error.
func (a *app) completeFrom(arguments int, read func(store.Tx) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		if len(args) >= arguments {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		a.timeout = min(a.timeout, completeTimeout)
		var names []string
		err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
			return n.Store.View(ctx, func(tx store.Tx) error {
				var err error
				names, err = read(tx)
				return err
			})
		})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, begun) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

func texts[T any](values []T, text func(T) string) []string {
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = text(v)
	}
	return list
}
