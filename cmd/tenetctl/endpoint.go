package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// endpointView is an endpoint as it is shown: the record but for what could be a secret (the
// configuration of a foreign IPAM plugin).
type endpointView struct {
	ID         vnet.EndpointID  `json:"id"`
	Container  string           `json:"container"`
	IfName     string           `json:"ifName"`
	Tenant     vnet.TenantName  `json:"tenant"`
	Network    vnet.NetworkName `json:"network"`
	State      vnet.State       `json:"state"`
	Addresses  []netip.Prefix   `json:"addresses"`
	MAC        string           `json:"mac"` // empty: none yet
	MTU        int              `json:"mtu"`
	NetNS      string           `json:"netns"`
	CNINetwork string           `json:"cniNetwork"`
	IPAM       string           `json:"ipam"` // the plugin that gave the addresses
	Bridge     string           `json:"bridge"`
	Port       string           `json:"port"`
	Node       vnet.NodeName    `json:"node,omitempty"` // in a cluster: which has it; of other nodes' less is known

	Aliases   []vnet.Alias       `json:"aliases"`   // by which the host reaches it
	Published []vnet.PortMapping `json:"published"` // ports of the host
	Bandwidth vnet.Bandwidth     `json:"bandwidth,omitzero"`
}

// endpointDetails is an endpoint with what the switch says of it.
type endpointDetails struct {
	endpointView
	Switch      *node.PortState `json:"switch"`  // null: there is no port, or no answer
	Traffic     *node.Traffic   `json:"traffic"` // null: the switch does not say
	Differences []string        `json:"differences"`
	Problem     string          `json:"problem,omitempty"` // why the switch does not say
}

func newEndpoint(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use: "endpoint", Short: "Container interfaces",
		Long: `An endpoint is one container interface in a network. Endpoints are made by CNI
(an ADD of the plugin tenet), and mostly removed by it.

An ENDPOINT is named by its id, as CONTAINER/IFNAME, by a container's id or the
beginning of it if that is unique, or as TENANT/NETWORK/ADDRESS.`,
	}
	cmd.AddCommand(newEndpointList(a), newEndpointShow(a), newEndpointDel(a))
	return cmd
}

func newEndpointList(a *app) *cobra.Command {
	var tenant, network string
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List endpoints", Args: exactly(),
		Long: `list lists the endpoints of this node's store. The switch is not asked. A state
other than ready means that an ADD or DEL is at work, or was cut short.

In a cluster it lists those of all nodes, as etcd has them. If etcd does not answer
these are as many as this node leads to.`,
		Example: "  tenetctl endpoint list\n  tenetctl endpoint list --network blue/web -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			prefix := store.Endpoints
			if tenant != "" {
				prefix += tenant + "/"
			}
			if network != "" {
				ref, err := parseRef(network)
				if err != nil {
					return usagef(cmd, "%w", err)
				}
				if tenant != "" && ref.Tenant != vnet.TenantName(tenant) {
					return usagef(cmd, "endpoint list: network %s is not of tenant %s", ref, tenant)
				}
				prefix = store.EndpointsOf(ref)
			}
			endpoints := []endpointView{}
			err := a.on(cmd.Context(), func(ctx context.Context, n *node.Node) error {
				err := n.Store.View(ctx, func(tx store.Tx) error {
					all, err := store.All[vnet.Endpoint](tx, prefix)
					for _, e := range all {
						v := viewEndpoint(e)
						if n.Clustered() {
							v.Node = n.Name
						}
						endpoints = append(endpoints, v)
					}
					return err
				})
				if err != nil || !n.Clustered() {
					return err
				}
				others, err := a.elsewhere(ctx, n, prefix)
				for _, r := range others {
					endpoints = append(endpoints, viewEndpointElsewhere(r))
				}
				return err
			})
			if err != nil {
				return err
			}
			return a.print(endpoints, func(w io.Writer) { listEndpoints(w, endpoints) })
		},
	}
	cmd.Flags().StringVar(&tenant, "tenant", "", "only those of `tenant`")
	cmd.Flags().StringVar(&network, "network", "", "only those of `TENANT/NETWORK`")
	completeWith(cmd, "tenant", a.completeTenants())
	completeWith(cmd, "network", a.completeNetworks())
	return cmd
}

// elsewhere are the endpoints of other nodes whose keys begin with the prefix. Of what cannot be read it tells.
func (a *app) elsewhere(ctx context.Context, n *node.Node, prefix string) ([]vnet.Remote, error) {
	var others []vnet.Remote
	var unread []error
	read := func(tx store.Tx, prefix string) error {
		others, unread = nil, nil
		return store.Each(tx, prefix, func(key string, r vnet.Remote, err error) error {
			whose := strings.Split(key, "/")[3]
			switch {
			case whose == string(n.Name): // the node's store has them
			case err != nil:
				unread = append(unread, err)
			case whose != string(r.Node):
				unread = append(unread, fmt.Errorf("record %s says that it is node %s's", key, r.Node))
			default:
				others = append(others, r)
			}
			return nil
		})
	}
	const patience = 3 * time.Second
	err := askEtcd(ctx, n, patience, func(tx store.Tx) error { return read(tx, prefix) })
	if errors.Is(err, vnet.ErrUnavailable) {
		fmt.Fprintf(a.err, "tenetctl: etcd does not answer: of other nodes' endpoints those are known that this node leads to: %s\n", oneLine(err.Error()))
		err = n.Store.View(ctx, func(tx store.Tx) error { return read(tx, store.Remotes+strings.TrimPrefix(prefix, store.Endpoints)) })
	}
	for _, what := range unread {
		fmt.Fprintf(a.err, "tenetctl: left out: %s\n", oneLine(what.Error()))
	}
	return others, err
}

func viewEndpointElsewhere(r vnet.Remote) endpointView {
	return endpointView{
		ID: r.ID, Container: r.Container, IfName: r.IfName, Tenant: r.Tenant, Network: r.Network, State: vnet.Ready,
		Addresses: append([]netip.Prefix{}, r.Addrs...), MAC: r.MAC.String(), Port: r.ID.Port(), Node: r.Node,
		Aliases: []vnet.Alias{}, Published: []vnet.PortMapping{},
	}
}

func newEndpointShow(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "show ENDPOINT", Short: "Show one endpoint, its counters and what is wrong with it",
		Args: exactly("ENDPOINT"), ValidArgsFunction: a.completeEndpoints(1),
		Long: `show shows an endpoint: its record, what it sent and was sent, what was dropped
of what it sent and why, and how its port, link, addresses, routes and flows
differ from what they should be. tenetctl sync repairs most of that.

Counters start when the endpoint's flows are written, and lag a second behind.
Without a switch that answers there is only the record.

Of an endpoint of another node it shows what the cluster knows of it, as etcd has
it or, where that does not answer, this node.`,
		Example: "  tenetctl endpoint show 4f2c\n  tenetctl endpoint show 4f2c/eth0 -o json\n  tenetctl endpoint show blue/web/10.0.0.2",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onAnyEndpoint(cmd.Context(), args[0], func(ctx context.Context, n *node.Node, e vnet.Endpoint) error {
				d := endpointDetails{endpointView: viewEndpoint(e), Differences: []string{}}
				differs, err := n.Check(ctx, e)
				if err == nil {
					d.Differences = append(d.Differences, differs...)
					if port, err := n.PortState(ctx, e); err == nil { // else it is among the differences
						d.Switch = &port
					}
					var t node.Traffic
					if t, err = n.Traffic(ctx, e); err == nil {
						d.Traffic = &t
					}
				}
				if err != nil {
					d.Problem = oneLine(err.Error())
				}
				if n.Clustered() {
					d.Node = n.Name
				}
				return a.print(d, func(w io.Writer) { showEndpoint(w, d) })
			}, func(_ context.Context, _ *node.Node, r vnet.Remote) error {
				d := endpointDetails{endpointView: viewEndpointElsewhere(r), Differences: []string{}}
				d.Problem = fmt.Sprintf("it is on node %s: tenetctl endpoint show %s there tells the rest", r.Node, r.ID)
				return a.print(d, func(w io.Writer) { showEndpointElsewhere(w, d) })
			})
		},
	}
}

func newEndpointDel(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "del ENDPOINT", Aliases: []string{"delete"}, Short: "Remove an endpoint, as CNI DEL does",
		Args: exactly("ENDPOINT"), ValidArgsFunction: a.completeEndpoints(1),
		Long: `del removes an endpoint with its flows, port, link and addresses: what CNI DEL
does. A container that still runs loses its interface. It is for what a runtime
has forgotten; while the runtime knows the container, let it do that.`,
		Example: "  tenetctl endpoint del 4f2c/eth0",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.onEndpoint(cmd.Context(), args[0], func(ctx context.Context, n *node.Node, e vnet.Endpoint) error {
				unlock, err := n.LockAttachment(ctx, e.ID)
				if err != nil {
					return err
				}
				defer unlock()
				if err := n.Remove(ctx, e.ID); err != nil {
					return err
				}
				return a.printOutcomes([]outcome{{"Endpoint", e.Attachment.String(), deleted}})
			})
		},
	}
}

func viewEndpoint(e vnet.Endpoint) endpointView {
	v := endpointView{
		ID: e.ID, Container: e.Container, IfName: e.IfName, Tenant: e.Tenant, Network: e.Network, State: e.State,
		Addresses: append([]netip.Prefix{}, e.Addrs...), MTU: e.MTU, NetNS: e.NetNS, CNINetwork: e.CNINetwork,
		IPAM: "tenet-ipam", Bridge: e.Bridge, Port: e.ID.Port(),
		Aliases: append([]vnet.Alias{}, e.Aliases()...), Published: append([]vnet.PortMapping{}, e.Ports...), Bandwidth: e.Bandwidth,
	}
	if e.MAC != (vnet.MAC{}) {
		v.MAC = e.MAC.String()
	}
	if e.Delegate != nil {
		v.IPAM = e.Delegate.Type
	}
	return v
}

func (v endpointView) attachment() vnet.Attachment {
	return vnet.Attachment{Container: v.Container, IfName: v.IfName}
}

func (v endpointView) ref() vnet.Ref { return vnet.Ref{Tenant: v.Tenant, Network: v.Network} }

func listEndpoints(w io.Writer, endpoints []endpointView) {
	var rows [][]any
	headings := []any{"ENDPOINT", "ATTACHMENT", "NETWORK", "ADDRESSES", "MAC", "STATE"}
	clustered := slices.ContainsFunc(endpoints, func(e endpointView) bool { return e.Node != "" })
	if clustered {
		headings = append(headings, "NODE")
	}
	for _, e := range endpoints {
		var addrs []netip.Addr
		for _, p := range e.Addresses {
			addrs = append(addrs, p.Addr())
		}
		row := []any{e.ID, e.attachment(), e.ref(), list(addrs), e.MAC, e.State}
		if clustered {
			row = append(row, e.Node)
		}
		rows = append(rows, row)
	}
	columns(w, headings, rows)
}

func showEndpoint(w io.Writer, d endpointDetails) {
	rows := [][]any{
		{"endpoint", d.ID},
		{"attachment", d.attachment()},
		{"network", d.ref()},
		{"state", d.State},
		{"addresses", list(d.Addresses) + " (" + d.IPAM + ")"},
		{"mac", d.MAC},
		{"mtu", d.MTU},
		{"netns", d.NetNS},
		{"CNI network", d.CNINetwork},
		{"port", d.port()},
	}
	for i, a := range d.Aliases {
		rows = append(rows, []any{first(i, "on the host"), fmt.Sprintf("%s for %s", a.Alias, a.Addr)})
	}
	for i, m := range d.Published {
		rows = append(rows, []any{first(i, "published"), m})
	}
	if text := limits(d.Bandwidth); text != "" {
		rows = append(rows, []any{"bandwidth", text})
	}
	if t := d.Traffic; t != nil {
		rows = append(rows,
			[]any{"sent", count(t.SentPackets, t.SentBytes)},
			[]any{"received", count(t.ReceivedPackets, t.ReceivedBytes)})
	}
	columns(w, nil, rows)
	if d.Traffic != nil {
		showDrops(w, d.Traffic.Drops)
	}
	fmt.Fprintln(w)
	for _, difference := range d.Differences {
		fmt.Fprintf(w, "differs: %s\n", difference)
	}
	switch {
	case d.Problem != "":
		fmt.Fprintf(w, "the switch cannot be asked: %s\n", d.Problem)
	case len(d.Differences) == 0:
		fmt.Fprintln(w, "everything stands as recorded")
	}
}

// showEndpointElsewhere writes what there is of an endpoint of another node.
func showEndpointElsewhere(w io.Writer, d endpointDetails) {
	columns(w, nil, [][]any{
		{"endpoint", d.ID},
		{"attachment", d.attachment()},
		{"network", d.ref()},
		{"state", d.State},
		{"addresses", list(d.Addresses)},
		{"mac", d.MAC},
		{"node", d.Node},
	})
	fmt.Fprintf(w, "\n%s\n", d.Problem)
}

// first labels the first of several lines.
func first(i int, label string) string {
	if i > 0 {
		return ""
	}
	return label
}

// limits says what bandwidth an endpoint has, "" without limits.
func limits(b vnet.Bandwidth) string {
	var texts []string
	for _, l := range []struct {
		verb string
		vnet.Limit
	}{{"receives", b.Ingress}, {"sends", b.Egress}} {
		if l.Rate == 0 {
			continue
		}
		text := fmt.Sprintf("%s at most %s/s", l.verb, bits(l.Rate))
		if l.Burst != 0 {
			text += fmt.Sprintf(" (burst %s)", bits(l.Burst))
		}
		texts = append(texts, text)
	}
	return strings.Join(texts, ", ")
}

// bits spells a number of bits in the largest unit that it fills, exactly.
func bits(n uint64) string {
	for _, unit := range []struct {
		size uint64
		name string
	}{{1e9, "Gbit"}, {1e6, "Mbit"}, {1e3, "kbit"}} {
		if n >= unit.size {
			return strconv.FormatFloat(float64(n)/float64(unit.size), 'f', -1, 64) + " " + unit.name
		}
	}
	return fmt.Sprintf("%d bit", n)
}

// port describes the port in one line.
func (d endpointDetails) port() string {
	text := d.Port + " on " + d.Bridge
	if d.Switch != nil {
		text += fmt.Sprintf(", number %d, link %s", d.Switch.OFPort, cmp.Or(d.Switch.Link, "unknown"))
	}
	return text
}

func count(packets, bytes uint64) string { return fmt.Sprintf("%d packets, %d bytes", packets, bytes) }

// showDrops writes why packets were dropped, if any were.
func showDrops(w io.Writer, drops []node.Drop) {
	if len(drops) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]any
	for _, d := range drops {
		rows = append(rows, []any{d.Reason, d.Packets, d.Text})
	}
	columns(w, []any{"DROPPED", "PACKETS", "BECAUSE"}, rows)
}
