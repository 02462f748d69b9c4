package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// networkView is a network as it is shown.
type networkView struct {
	Tenant    vnet.TenantName  `json:"tenant"`
	Name      vnet.NetworkName `json:"name"`
	VNI       vnet.VNI         `json:"vni"`
	Subnets   []subnetView     `json:"subnets"`
	Gateway   vnet.Gateway     `json:"gateway"`
	MTU       int              `json:"mtu"` // 0: the underlay's less the tunnel header
	Multicast bool             `json:"multicast"`
	Endpoints []endpointView   `json:"endpoints"`

	EgressAddress netip.Addr    `json:"egressAddress,omitzero"`
	Provider      vnet.Provider `json:"provider,omitzero"`
	DNS           vnet.DNS      `json:"dns,omitzero"`
	// Zone and Transit are this node's: where the switch tracks what passes between the network
	// and the host, and what the host sees the network as. None before the first endpoint.
	Zone    vnet.Zone    `json:"zone,omitempty"`
	Transit []netip.Addr `json:"transit,omitempty"`

	stands vnet.Network
}

type subnetView struct {
	vnet.Subnet
	Used uint64 `json:"used"`
	Free uint64 `json:"free"`
}

func newNetwork(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "network", Short: "A tenant's layer-2 segments and their subnets",
		Long: `A network is one layer-2 segment of a tenant, with one or more subnets. The
networks of a tenant are routed to each other; nothing reaches another tenant.
A network's gateway says whether and how it reaches what is outside.`,
	}
	cmd.AddCommand(newNetworkAdd(a), newNetworkList(a), newNetworkShow(a), newNetworkDel(a))
	return cmd
}

func newNetworkAdd(a *app) *cobra.Command {
	var subnets []string
	var egress, provider string
	var net vnet.Network
	cmd := &cobra.Command{
		Use: "add TENANT/NETWORK --subnet PREFIX[,gateway=ADDRESS][,reserved=FIRST-LAST]...", Short: "Make a network",
		Args: exactly("TENANT/NETWORK"),
		Long: `add makes a network, and its tenant if need be. It is no error if the same
network is there; one that differs is.

Each --subnet is a prefix and what is special about it: gateway=ADDRESS (by
default the first address of the prefix), and any number of
reserved=FIRST-LAST, whose addresses are never handed out.

--gateway is how the network reaches what is outside its tenant:
  none    nothing leaves the tenant
  nat     containers open connections to the outside, and are seen there as the
          node: as the address that its route has, or as --egress-address
  routed  the host routes the network's prefixes: nobody else can have them

--provider makes the network a VLAN of an uplink, or what is untagged on it. The
gateway is then a router on the wire, if any. See tenetctl uplink.`,
		Example: `  tenetctl network add blue/web --subnet 10.0.0.0/24
  tenetctl network add blue/web --subnet 10.0.0.0/24,gateway=10.0.0.254,reserved=10.0.0.1-10.0.0.9 --subnet fd00:1::/64
  tenetctl network add blue/db --subnet 10.0.1.0/24 --mtu 1400 --multicast
  tenetctl network add blue/app --subnet 10.0.2.0/24 --gateway nat --dns-server 10.0.2.53 --dns-search blue.example
  tenetctl network add blue/api --subnet 10.0.3.0/24 --gateway nat --egress-address 192.0.2.10
  tenetctl network add blue/pub --subnet 203.0.113.0/24 --gateway routed
  tenetctl network add blue/lan --subnet 192.168.7.0/24,reserved=192.168.7.1-192.168.7.99 --provider lan:100`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			if len(subnets) == 0 {
				return usagef(cmd, "network add: --subnet PREFIX is missing")
			}
			net.Tenant, net.Name = ref.Tenant, ref.Network
			for _, text := range subnets {
				s, err := parseSubnet(text)
				if err != nil {
					return usagef(cmd, "%w", err)
				}
				net.Subnets = append(net.Subnets, s)
			}
			if egress != "" {
				if net.EgressAddress, err = netip.ParseAddr(egress); err != nil {
					return usagef(cmd, "network add: egress address %q: want an address such as 192.0.2.10", egress)
				}
			}
			if cmd.Flags().Changed("provider") {
				if net.Provider, err = parseProvider(provider); err != nil {
					return usagef(cmd, "%w", err)
				}
			}
			return a.add(cmd.Context(), manifest{kind: kindNetwork, network: net})
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&subnets, "subnet", nil, "`prefix`[,gateway=ADDRESS][,reserved=FIRST-LAST] (repeatable)")
	f.Uint32Var((*uint32)(&net.VNI), "vni", 0, "the network's `number` in tunnels; 0: one is made from its name")
	f.IntVar(&net.MTU, "mtu", 0, "`bytes` of its links; 0: the underlay's less the tunnel header")
	f.StringVar((*string)(&net.Gateway), "gateway", "none", "the `way` out of the tenant: none, nat or routed")
	f.StringVar(&egress, "egress-address", "", "the node's `address` that it is seen as outside, with --gateway nat (default: any)")
	f.StringVar(&provider, "provider", "", "`UPLINK`[:VLAN] that it is on the wire")
	f.BoolVar(&net.Multicast, "multicast", false, "carry broadcast and multicast to the members")
	f.StringArrayVar(&net.DNS.Nameservers, "dns-server", nil, "`address` that containers ask for names (repeatable)")
	f.StringVar(&net.DNS.Domain, "dns-domain", "", "their local `domain`")
	f.StringArrayVar(&net.DNS.Search, "dns-search", nil, "`domain` that they search short names in (repeatable)")
	f.StringArrayVar(&net.DNS.Options, "dns-option", nil, "`option` of their resolver, such as ndots:1 (repeatable)")
	complete(cmd, "gateway", "none\tnothing leaves the tenant", "nat\tseen outside as the node", "routed\tthe host routes the prefixes")
	completeWith(cmd, "provider", a.completeUplinks(2))
	return cmd
}

func newNetworkList(a *app) *cobra.Command {
	var tenant string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List networks", Args: exactly(),
		Long:    "list lists the networks of this node's store. With -o yaml it gives manifests that apply accepts.",
		Example: "  tenetctl network list\n  tenetctl network list --tenant blue -o yaml",
		RunE: func(cmd *cobra.Command, _ []string) error {
			prefix := store.Networks
			if tenant != "" {
				prefix = store.NetworksOf(vnet.TenantName(tenant))
			}
			networks, err := a.networks(cmd.Context(), prefix)
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(networkManifests(networks))
			}
			return a.print(networks, func(w io.Writer) {
				var rows [][]any
				for _, n := range networks {
					var prefixes []string
					var used uint64
					for _, s := range n.Subnets {
						prefixes = append(prefixes, s.Prefix.String())
						used += s.Used
					}
					rows = append(rows, []any{n.stands.Ref(), n.VNI, list(prefixes), n.wayOut(), used, len(n.Endpoints)})
				}
				columns(w, []any{"NETWORK", "VNI", "SUBNETS", "GATEWAY", "ADDRESSES", "ENDPOINTS"}, rows)
			})
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of `tenant`")
	completeWith(cmd, "tenant", a.completeTenants())
	return cmd
}

func newNetworkShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT/NETWORK", Short: "Show one network with its pools and endpoints",
		Args: exactly("TENANT/NETWORK"), ValidArgsFunction: a.completeNetworks(),
		Long: `show shows a network, how many addresses of each subnet are used and free, and
its endpoints. With -o yaml it gives the manifest that apply accepts.`,
		Example: "  tenetctl network show blue/web\n  tenetctl network show blue/web -o yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			net, err := a.network(cmd.Context(), ref)
			if err != nil {
				return err
			}
			if a.output == "yaml" {
				return a.printManifests(networkManifests([]networkView{net}))
			}
			return a.print(net, func(w io.Writer) { showNetwork(w, net) })
		},
	}
}

func newNetworkDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del TENANT/NETWORK", Aliases: []string{"delete"}, Short: "Delete a network",
		Args: exactly("TENANT/NETWORK"), ValidArgsFunction: a.completeNetworks(),
		Long:    "del deletes a network with its pools. It refuses while an endpoint is in it, or an\naddress of it in use. The tenant stays.",
		Example: "  tenetctl network del blue/web",
		RunE: func(cmd *cobra.Command, args []string) error {
			ref, err := parseRef(args[0])
			if err != nil {
				return usagef(cmd, "%w", err)
			}
			err = a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				return a.deleteNetwork(ctx, n, ref)
			})
			if errors.Is(err, vnet.ErrExists) {
				return vnet.WithHint(err, "see who: tenetctl endpoint list --network %s", ref)
			}
			if err != nil {
				return err
			}
			return a.printOutcomes([]outcome{{kindNetwork, ref.String(), deleted}})
		},
	}
}

// network reads one network.
func (a *app) network(ctx context.Context, ref vnet.Ref) (networkView, error) {
	var view networkView
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			net, err := store.Network(tx, ref)
			if err != nil {
				return err
			}
			view, err = viewNetwork(tx, net)
			return err
		})
	})
	return view, err
}

// networks reads the networks under a prefix of the store's keys.
func (a *app) networks(ctx context.Context, prefix string) ([]networkView, error) {
	views := []networkView{}
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			views = views[:0]
			networks, err := store.All[vnet.Network](tx, prefix)
			for _, net := range networks {
				view, err := viewNetwork(tx, net)
				if err != nil {
					return err
				}
				views = append(views, view)
			}
			return err
		})
	})
	return views, err
}

func viewNetwork(tx store.Tx, net vnet.Network) (networkView, error) {
	view := networkView{
		Tenant: net.Tenant, Name: net.Name, VNI: net.VNI, Subnets: []subnetView{}, Gateway: net.Gateway, MTU: net.MTU,
		Multicast: net.Multicast, Endpoints: []endpointView{}, stands: net,
		EgressAddress: net.EgressAddress, Provider: net.Provider, DNS: net.DNS,
	}
	gateway, err := store.NetworkGateway(tx, net.Ref())
	if err != nil {
		return view, err
	}
	view.Zone = gateway.Zone
	for _, s := range net.Subnets {
		a := gateway.Transit.Like(s.Prefix.Addr())
		if gateway.Transit != 0 && !slices.Contains(view.Transit, a) {
			view.Transit = append(view.Transit, a)
		}
	}
	usage, err := node.PoolUsage(tx, net)
	if err != nil {
		return view, err
	}
	for i, s := range net.Subnets {
		view.Subnets = append(view.Subnets, subnetView{s, usage[i].Used, usage[i].Free})
	}
	endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(net.Ref()))
	for _, e := range endpoints {
		view.Endpoints = append(view.Endpoints, viewEndpoint(e))
	}
	return view, err
}

// wayOut says in one word or two how the network reaches what is outside.
func (n networkView) wayOut() string {
	switch {
	case n.stands.IsProvider() && n.Provider.VLAN == 0:
		return "uplink " + string(n.Provider.Uplink)
	case n.stands.IsProvider():
		return fmt.Sprintf("uplink %s:%d", n.Provider.Uplink, n.Provider.VLAN)
	case n.EgressAddress.IsValid():
		return fmt.Sprintf("%s %s", n.Gateway, n.EgressAddress)
	}
	return string(n.Gateway)
}

// dnsRows are the lines about name resolution, none if nothing is said.
func dnsRows(d vnet.DNS) [][]any {
	var rows [][]any
	for _, row := range []struct {
		what   string
		values []string
	}{{"dns servers", d.Nameservers}, {"dns domain", []string{d.Domain}}, {"dns search", d.Search}, {"dns options", d.Options}} {
		if text := strings.Join(row.values, " "); text != "" {
			rows = append(rows, []any{row.what, text})
		}
	}
	return rows
}

func showNetwork(w io.Writer, n networkView) {
	mtu := "the underlay's less the tunnel header"
	if n.MTU != 0 {
		mtu = strconv.Itoa(n.MTU)
	}
	about := [][]any{
		{"network", n.stands.Ref()},
		{"vni", n.VNI},
		{"gateway", n.Gateway},
	}
	if n.EgressAddress.IsValid() {
		about = append(about, []any{"seen as", n.EgressAddress})
	}
	if n.stands.IsProvider() {
		about = append(about, []any{"provider", n.Provider})
	}
	about = append(about, []any{"mtu", mtu}, []any{"multicast", n.Multicast})
	about = append(about, dnsRows(n.DNS)...)
	if len(n.Transit) > 0 {
		about = append(about, []any{"on this node", fmt.Sprintf("%s, conntrack zone %d", list(n.Transit), n.Zone)})
	}
	columns(w, nil, about)
	fmt.Fprintln(w)
	var rows [][]any
	for _, s := range n.Subnets {
		gateway := "-"
		if s.Gateway.IsValid() {
			gateway = s.Gateway.String()
		}
		rows = append(rows, []any{s.Prefix, gateway, list(s.Reserved), s.Used, free(s.Free)})
	}
	columns(w, []any{"SUBNET", "GATEWAY", "RESERVED", "USED", "FREE"}, rows)
	if len(n.Endpoints) > 0 {
		fmt.Fprintln(w)
		listEndpoints(w, n.Endpoints)
	}
}

// free spells a count of addresses.
func free(n uint64) string {
	if n == node.Plenty {
		return "plenty"
	}
	return strconv.FormatUint(n, 10)
}

func networkManifests(networks []networkView) []any {
	var docs []any
	for _, n := range networks {
		docs = append(docs, networkDocument{Kind: kindNetwork, Network: n.stands})
	}
	return docs
}

// parseRef parses TENANT/NETWORK.
func parseRef(text string) (vnet.Ref, error) {
	tenant, network, found := strings.Cut(text, "/")
	if !found {
		return vnet.Ref{}, vnet.Invalidf("network %q: want TENANT/NETWORK", text)
	}
	r := vnet.Ref{Tenant: vnet.TenantName(tenant), Network: vnet.NetworkName(network)}
	if err := r.Tenant.Validate(); err != nil {
		return r, err
	}
	return r, r.Network.Validate()
}

// parseProvider parses UPLINK[:VLAN].
func parseProvider(text string) (vnet.Provider, error) {
	uplink, vlan, tagged := strings.Cut(text, ":")
	p := vnet.Provider{Uplink: vnet.UplinkName(uplink)}
	if tagged {
		ids, err := vnet.ParseVLANs(vlan)
		if err != nil || ids[0].First != ids[0].Last {
			return p, vnet.Invalidf("provider %q: want UPLINK or UPLINK:VLAN, such as lan:100", text)
		}
		p.VLAN = ids[0].First
	}
	return p, p.Uplink.Validate()
}

// parseSubnet parses PREFIX[,gateway=ADDRESS][,reserved=FIRST-LAST]...
func parseSubnet(text string) (vnet.Subnet, error) {
	var s vnet.Subnet
	words := strings.Split(text, ",")
	var err error
	if s.Prefix, err = netip.ParsePrefix(words[0]); err != nil {
		return s, vnet.Invalidf("subnet %q: want a prefix such as 10.0.0.0/24", words[0])
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "gateway":
			s.Gateway, err = netip.ParseAddr(value)
		case "reserved":
			var r vnet.Range
			err = r.UnmarshalText([]byte(value))
			s.Reserved = append(s.Reserved, r)
		default:
			err = vnet.Invalidf("no option of a subnet: want gateway=ADDRESS or reserved=FIRST-LAST")
		}
		if err != nil {
			return s, fmt.Errorf("subnet %s: %q: %w", words[0], word, err)
		}
	}
	return s, nil
}
