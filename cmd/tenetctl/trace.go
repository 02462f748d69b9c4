package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// traceView is a trace as it is shown.
type traceView struct {
	From  string     `json:"from"`
	To    netip.Addr `json:"to"`
	Notes []string   `json:"notes"` // what the reader may not expect
	node.Trace
}

func newTrace(a *app) *cobra.Command {
	var source, sourceMAC string
	var sourcePort uint16
	cmd := &cobra.Command{
		Use: "trace FROM TO [icmp|tcp/PORT|udp/PORT]", Short: "Tell where a packet would go, table by table",
		ValidArgsFunction: a.completeEndpoints(2),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 3 {
				return nil
			}
			return exactly("FROM", "TO")(cmd, args)
		},
		Long: `trace asks the switch what it would do with a packet that the endpoint FROM sends,
and explains the answer: the tables it passes, whose flow took it there, what
was changed, and in one sentence what becomes of it. No packet is sent.

FROM and TO are endpoints: an id, CONTAINER/IFNAME, a container's id or its
beginning, or TENANT/NETWORK/ADDRESS. TO may also be an address as FROM's tenant
knows it, of an endpoint or not. The packet goes where the container's kernel
would send it: in its own subnet to the owner's MAC, else to the router's; if
nobody in its subnet has the address, the question for it (ARP, neighbour
solicitation) is what is traced.

In a cluster FROM is an endpoint of this node, as only its switch can tell. TO may
be on another.

A packet that a chain leads is followed from function to function. Which path a
new connection gets is chance, by the weights: the likeliest is shown. That of a
connection that there is is found by its --source-port.

--source-ip and --source-mac pose as somebody else, to see that refused.`,
		Example: `  tenetctl trace web1 web2
  tenetctl trace web1/eth0 10.0.1.7 tcp/5432
  tenetctl trace blue/web/10.0.0.2 blue/db/10.0.1.7 udp/53 -o json
  tenetctl trace web1 web2 tcp/80 --source-port 51234
  tenetctl trace web1 web2 --source-ip 10.0.0.99`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p := node.Probe{SourcePort: sourcePort}
			var err error
			if len(args) == 3 {
				if p.Protocol, p.Port, err = parseProtocol(args[2]); err != nil {
					return usagef(cmd, "%w", err)
				}
			}
			if source != "" {
				if p.Source, err = netip.ParseAddr(source); err != nil {
					return usagef(cmd, "--source-ip: %w", err)
				}
			}
			if sourceMAC != "" { // one that no endpoint may have is as good to pose with
				if p.SourceMAC, err = vnet.ParseMAC(sourceMAC); err != nil && p.SourceMAC == (vnet.MAC{}) {
					return usagef(cmd, "--source-mac: %w", err)
				}
			}
			return a.onEndpoint(cmd.Context(), args[0], func(ctx context.Context, n *node.Node, from vnet.Endpoint) error {
				return a.trace(ctx, n, from, args[1], p)
			})
		},
	}
	cmd.Flags().StringVar(&source, "source-ip", "", "source `address` other than the sender's")
	cmd.Flags().Uint16Var(&sourcePort, "source-port", 0, "source `port` of tcp and udp (default: any)")
	cmd.Flags().StringVar(&sourceMAC, "source-mac", "", "source `MAC` other than the sender's")
	return cmd
}

func (a *app) trace(ctx context.Context, n *node.Node, from vnet.Endpoint, to string, p node.Probe) error {
	p.From = from
	view := traceView{From: from.Attachment.String(), Notes: []string{}}
	look := func(others []vnet.Remote) error {
		return n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			p.To, view.Notes, err = target(tx, others, from, to, p.Source)
			return err
		})
	}
	err := look(nil)
	if errors.Is(err, vnet.ErrNotFound) && n.Clustered() { // of those on a wire and of other tenants the node knows nothing
		others, failed := a.elsewhere(ctx, n, store.Endpoints)
		if failed != nil {
			return failed
		}
		err = look(others)
	}
	if err != nil {
		return err
	}
	view.To = p.To
	if view.Trace, err = n.Trace(ctx, p); err != nil {
		return err
	}
	return a.print(view, func(w io.Writer) { showTrace(w, view) })
}

// target finds the address that TO means to the sender, and what the reader should know of it. TO may be one of those others, which
// the node knows nothing of.
func target(tx store.Tx, others []vnet.Remote, from vnet.Endpoint, text string, source netip.Addr) (netip.Addr, []string, error) {
	notes := []string{}
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.WithZone("").Unmap(), notes, nil
	}
	foreign := func(r vnet.Ref) {
		if net, err := store.Network(tx, r); r.Tenant != from.Tenant && err == nil && net.Gateway == vnet.GatewayRouted {
			notes = append(notes, text+" is of another tenant, in a network that the host routes: whoever reaches the host reaches it")
		} else if r.Tenant != from.Tenant {
			notes = append(notes, fmt.Sprintf("%s is of another tenant, whom %s cannot address: this is where the address leads in tenant %s", text, from.Attachment, from.Tenant))
		}
	}
	to, err := findEndpoint(tx, text)
	if errors.Is(err, vnet.ErrNotFound) { // of those of other nodes this one knows its tenants'
		remotes, failed := store.All[vnet.Remote](tx, store.Remotes)
		if failed != nil {
			return netip.Addr{}, notes, failed
		}
		if len(others) > 0 {
			remotes = others
		}
		if r, found := findRemote(remotes, text); !errors.Is(found, vnet.ErrNotFound) {
			to, err = endpointOf(r), found
		}
	}
	if ref, addr, placed := parsePlace(text); placed {
		if err != nil { // nobody has it; the network may still be there
			if _, err := store.Network(tx, ref); err != nil {
				return addr, notes, err
			}
		}
		foreign(ref)
		return addr, notes, nil
	}
	if err != nil {
		return netip.Addr{}, notes, err
	}
	foreign(to.Ref())
	// The family that both have, IPv4 first, or that of the source posed as.
	for _, is6 := range []bool{false, true} {
		if source.IsValid() && source.Is6() != is6 || !source.IsValid() && !has(from, is6) {
			continue
		}
		for _, a := range to.Addrs {
			if a.Addr().Is6() == is6 {
				return a.Addr(), notes, nil
			}
		}
	}
	return netip.Addr{}, notes, vnet.Invalidf("%s and %s have no address of the same family", from.Attachment, to.Attachment)
}

func has(e vnet.Endpoint, is6 bool) bool {
	for _, a := range e.Addrs {
		if a.Addr().Is6() == is6 {
			return true
		}
	}
	return false
}

// parseProtocol parses icmp, tcp/PORT or udp/PORT.
func parseProtocol(text string) (node.Protocol, uint16, error) {
	name, port, hasPort := strings.Cut(text, "/")
	p := node.Protocol(name)
	if p == node.ICMP && !hasPort {
		return p, 0, nil
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if p != node.TCP && p != node.UDP || err != nil || n == 0 {
		return "", 0, vnet.Invalidf("protocol %q: want icmp, tcp/PORT or udp/PORT, PORT 1 to 65535", text)
	}
	return p, uint16(n), nil
}

func showTrace(w io.Writer, t traceView) {
	fmt.Fprintf(w, "%s sends %s\nto %s: %s\n", t.From, t.Packet, t.To, t.SentTo)
	for _, note := range t.Notes {
		fmt.Fprintf(w, "note: %s\n", note)
	}
	fmt.Fprintln(w)
	var rows [][]any
	for _, s := range t.Steps {
		did := strings.Join(s.Changes, ", ")
		if s.Function != "" {
			rows = append(rows, []any{"   (outside)", "function " + s.Function, did})
			continue
		}
		switch {
		case s.Owner == "":
			s.Owner, did = "-", "no flow matches"
		case did == "" && s.Kind != "forward":
			did = "drops: " + s.Kind
		case did == "":
			did = "passes it on"
		}
		rows = append(rows, []any{fmt.Sprintf("%2d %s", s.Table, s.Name), s.Owner, did})
	}
	columns(w, []any{"TABLE", "FLOW OF", "WHAT IT DOES"}, rows)
	fmt.Fprintf(w, "\n%s\n", t.Verdict.Sentence)
}
