package node

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Trace is the way of a packet through the pipeline, as the switch itself tells it.
type Trace struct {
	Packet  string      `json:"packet"` // in ovs-ofctl's words
	SentTo  string      `json:"sentTo"` // whose MAC it is sent to, in words
	Steps   []TraceStep `json:"steps"`
	Verdict Verdict     `json:"verdict"`
}

// TraceStep is one table: which flow took the packet, and what it did.
type TraceStep struct {
	Table   uint8    `json:"table"`
	Name    string   `json:"name"`
	Owner   string   `json:"owner"`   // whose flow: "endpoint c1/eth0", "network blue/web", "base"; empty: no flow matched
	Kind    string   `json:"kind"`    // "forward", or the name of the drop
	Match   string   `json:"match"`   // in ovs-ofctl's words
	Changes []string `json:"changes"` // in ours
	Actions []string `json:"actions"` // in ovs-ofctl's words
	// Function is a service function that the packet goes through at this point; then the rest is empty but for Changes.
	Function string `json:"function,omitempty"`
}

// Verdict is what becomes of the packet.
type Verdict struct {
	Sentence  string   `json:"sentence"`
	Delivered []string `json:"delivered"`        // the attachments it reaches
	Table     string   `json:"table,omitempty"`  // where it is dropped
	Reason    string   `json:"reason,omitempty"` // and why
}

// Trace asks the switch what it would do with a packet; none is sent. vnet.ErrUnavailable if
// the sender has no working port.
func (n *Node) Trace(ctx context.Context, p Probe) (Trace, error) {
	known, err := n.names(ctx, p.From.Bridge)
	if err != nil {
		return Trace{}, err
	}
	var net vnet.Network
	var neighbours []vnet.Endpoint
	err = n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		if net, err = store.Network(tx, p.From.Ref()); err != nil {
			return err
		}
		if neighbours, err = store.All[vnet.Endpoint](tx, store.EndpointsOf(p.From.Ref())); err != nil {
			return err
		}
		others, err := remotesIn(tx, p.From.Ref(), p.From.Bridge)
		for _, r := range others {
			neighbours = append(neighbours, vnet.Endpoint{Attachment: r.Attachment, ID: r.ID, Tenant: r.Tenant, Network: r.Network, MAC: r.MAC, Addrs: r.Addrs})
		}
		return err
	})
	if err != nil {
		return Trace{}, err
	}
	out, err := p.address(net, neighbours)
	if err != nil {
		return Trace{}, err
	}
	port, ok := known.ofports[p.From.ID]
	if !ok {
		return Trace{}, vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("%s has no working port on %s", p.From.Attachment, p.From.Bridge)),
			"repair it: tenetctl sync")
	}
	t := Trace{Packet: out.text(port), SentTo: out.how}
	visits, err := n.traceOnce(ctx, p.From.Bridge, t.Packet)
	if err != nil {
		return t, err
	}
	if led := chainOf(visits); led >= 0 {
		return n.traceChain(ctx, known, out, t, visits[:led+1])
	}
	t.Steps, t.Verdict = known.explain(visits, p.From)
	return t, nil
}

// traceOnce asks the switch for one pass of a packet.
func (n *Node) traceOnce(ctx context.Context, bridge, packet string) ([]tableVisit, error) {
	text, err := ovs.Control(ctx, n.OVSRunDir, "ofproto/trace", bridge, packet)
	if err != nil {
		return nil, kind(err)
	}
	return parseTrace(text)
}

// names turn what the switch says into what the store calls it.
type names struct {
	owners    map[pipeline.Owner]string
	places    map[vnet.VNI]vnet.Ref
	tenants   map[uint32]vnet.TenantName
	endpoints map[uint32]string // by OpenFlow port
	beyond    map[uint32]string // who is at ports that are no endpoint's
	ofports   map[vnet.EndpointID]uint32
	functions map[uint32]pipeline.Function // by OpenFlow port
	chains    map[pipeline.Owner]vnet.ChainRef
}

// names reads the names of everything on a bridge.
func (n *Node) names(ctx context.Context, bridge string) (names, error) {
	k := names{
		owners: map[pipeline.Owner]string{pipeline.Base: "base"}, places: map[vnet.VNI]vnet.Ref{},
		tenants: map[uint32]vnet.TenantName{}, endpoints: map[uint32]string{},
		beyond:    map[uint32]string{vnet.GatewayPort: "the host, by " + vnet.GatewayLink},
		functions: map[uint32]pipeline.Function{}, chains: map[pipeline.Owner]vnet.ChainRef{},
	}
	for _, e := range vnet.Encapsulations {
		k.beyond[e.OFPort()] = "another node, by " + e.Link()
	}
	seen, err := n.stand(ctx, bridge)
	if err != nil {
		return k, err
	}
	k.ofports = seen.ports
	return k, n.Store.View(ctx, func(tx store.Tx) error {
		tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
		if err != nil {
			return err
		}
		for _, t := range tenants {
			k.tenants[t.Number] = t.Name
		}
		others, err := viewOverlay(tx, bridge)
		if err != nil {
			return err
		}
		for name := range others.peers {
			k.owners[pipeline.PeerOwner(name)] = "node " + string(name)
		}
		for _, remotes := range others.remotes {
			for _, r := range remotes {
				k.owners[pipeline.RemoteOwner(r)] = fmt.Sprintf("%s on %s", r.Attachment, r.Node)
			}
		}
		networks, err := store.All[vnet.Network](tx, store.Networks)
		if err != nil {
			return err
		}
		for _, net := range networks {
			k.places[net.VNI] = net.Ref()
			k.owners[pipeline.NetworkOwner(net.Ref())] = "network " + net.Ref().String()
			k.owners[pipeline.FloodOwner(net.Ref())] = "flood list of " + net.Ref().String()
			k.owners[pipeline.LedOwner(net.Ref())] = "network " + net.Ref().String()
		}
		if err := k.nameChains(tx, seen); err != nil {
			return err
		}
		uplinks, err := store.All[vnet.Uplink](tx, store.Uplinks)
		if err != nil {
			return err
		}
		for _, u := range uplinks {
			if u.Bridge == bridge {
				k.beyond[uint32(u.OFPort)] = fmt.Sprintf("the wire of uplink %s, by %s", u.Name, u.NIC)
			}
		}
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		for _, e := range endpoints {
			k.owners[pipeline.EndpointOwner(e.ID)] = "endpoint " + e.Attachment.String()
			if port, ok := k.ofports[e.ID]; ok {
				k.endpoints[port] = e.Attachment.String()
			}
		}
		return err
	})
}

// explain says what each visit was, and how it ended.
func (k names) explain(visits []tableVisit, from vnet.Endpoint) ([]TraceStep, Verdict) {
	var steps []TraceStep
	v := Verdict{Delivered: []string{}}
	var sent []output
	for _, visit := range visits {
		s := TraceStep{
			Table: visit.table, Name: pipeline.TableName(visit.table), Match: visit.flow,
			Actions: append([]string{}, visit.actions...), Changes: []string{},
		}
		if visit.matched {
			s.Kind = pipeline.KindOf(visit.cookie).String()
			s.Owner = k.owner(visit.cookie)
		}
		for _, a := range visit.actions {
			if change := k.change(a); change != "" {
				s.Changes = append(s.Changes, change)
			}
		}
		sent = append(sent, visit.outputs...)
		steps = append(steps, s)
	}
	last := visits[len(visits)-1]
	switch reason := pipeline.KindOf(last.cookie); {
	case len(sent) > 0:
		v.deliver(k, sent, from)
	case last.matched && reason.Drops():
		v.Table, v.Reason = pipeline.TableName(last.table), reason.String()
		v.Sentence = fmt.Sprintf("dropped in %s: %s: %s", v.Table, v.Reason, reason.Text())
	case !last.matched:
		v.Table, v.Reason = pipeline.TableName(last.table), "no-flow"
		v.Sentence = fmt.Sprintf("dropped in %s: no flow matches, so the pipeline is not whole; repair it: tenetctl sync", v.Table)
	default:
		v.Table, v.Reason = pipeline.TableName(last.table), "not-sent"
		v.Sentence = fmt.Sprintf("dropped in %s: %s", v.Table, notSent(last.notes))
	}
	return steps, v
}

func (v *Verdict) deliver(k names, sent []output, from vnet.Endpoint) {
	var ports []string
	for _, o := range sent {
		name, known := k.endpoints[o.port]
		switch {
		case o.inPort:
			v.Delivered = append(v.Delivered, from.Attachment.String())
			v.Sentence = fmt.Sprintf("answered by the gateway, to %s itself", from.Attachment)
			return
		case known:
			v.Delivered = append(v.Delivered, name)
			ports = append(ports, name)
		case k.beyond[o.port] != "":
			ports = append(ports, k.beyond[o.port])
		default:
			ports = append(ports, fmt.Sprintf("OpenFlow port %d, which is no endpoint's", o.port))
		}
	}
	v.Sentence = "delivered to the port of " + strings.Join(ports, ", ")
	if len(v.Delivered) == 0 {
		v.Sentence = "handed to " + strings.Join(ports, ", ")
	}
	if len(sent) == 1 && sent[0].port == vnet.GatewayPort {
		v.Sentence += ", whose routes and rules decide from here on"
	}
}

// notSent tells why a packet that found its way was not sent.
func notSent(notes []string) string {
	for _, note := range slices.Backward(notes) {
		if strings.Contains(note, "skipping output to input port") {
			return "it would go back to its sender"
		}
		if text, ok := strings.CutPrefix(note, ">>"); ok {
			return "the switch says: " + strings.TrimLeft(text, "> ")
		}
	}
	return "nothing was left to do with it"
}

func (k names) owner(cookie uint64) string {
	if name, ok := k.owners[pipeline.OwnerOf(cookie)]; ok {
		return name
	}
	return fmt.Sprintf("nobody known (cookie 0x%x)", cookie)
}

// change says what an action changes, in words; "" if that is of no interest to a reader.
func (k names) change(action string) string {
	value, to, isSet := strings.Cut(strings.TrimPrefix(action, "set_field:"), "->")
	switch {
	case strings.HasPrefix(action, "move:"):
		return moved[action]
	case action == "dec_ttl":
		return "TTL one less"
	case action == "IN_PORT":
		return "back out where it came from"
	case strings.HasPrefix(action, "ct("):
		return tracked(action)
	case strings.HasPrefix(action, "output:"):
		return k.out(strings.TrimPrefix(action, "output:"))
	case !strings.HasPrefix(action, "set_field:") || !isSet:
		return ""
	}
	switch to {
	case "metadata":
		return k.place(value)
	case "reg7":
		return hopText(value)
	case "reg1":
		return "for " + k.port(value)
	}
	if name := fieldNames[to]; name != "" {
		switch value {
		case vnet.RouterMAC.String(), vnet.PeerMAC.String():
			value = "the router's"
		case vnet.GatewayMAC.String():
			value = "the host's"
		}
		return name + " becomes " + value
	}
	return ""
}

// out says where an output goes; a register holds a port that was chosen before.
func (k names) out(port string) string {
	if strings.HasPrefix(port, "NXM") {
		return "out by that port"
	}
	return "out by " + k.port(port)
}

// port names an OpenFlow port.
func (k names) port(number string) string {
	port, err := strconv.ParseUint(number, 0, 32)
	if name, known := k.endpoints[uint32(port)]; err == nil && known {
		return fmt.Sprintf("port %d, %s", port, name)
	}
	if name := k.beyond[uint32(port)]; err == nil && name != "" {
		return name
	}
	return "port " + number
}

// place names the tenant and network in a value of metadata.
func (k names) place(value string) string {
	value, _, _ = strings.Cut(value, "/")
	bits, err := strconv.ParseUint(value, 0, 64)
	if err != nil {
		return ""
	}
	number, vni := pipeline.PlaceIn(bits)
	ref, known := k.places[vni]
	switch {
	case !known && vni == 0:
		return "of tenant " + string(k.tenants[number])
	case !known:
		return fmt.Sprintf("in an unknown network, vni %d", vni)
	case number == 0:
		return "on to network " + ref.String()
	case k.tenants[number] != ref.Tenant:
		return fmt.Sprintf("in network %s, but as tenant number %d", ref, number)
	}
	return "in network " + ref.String()
}

// tracked says what connection tracking does to a packet.
func tracked(ct string) string {
	for _, how := range []struct{ nat, words string }{{"nat(src=", "source becomes "}, {"nat(dst=", "destination becomes "}} {
		if _, rest, found := strings.Cut(ct, how.nat); found {
			addr, _, _ := strings.Cut(rest, ")")
			return how.words + addr
		}
	}
	if strings.Contains(ct, "nat") {
		return "translated back, if it is an answer"
	}
	return ""
}

// fieldNames are the fields that flows set on the packet itself.
var fieldNames = map[string]string{
	"eth_dst": "destination MAC", "eth_src": "source MAC", "ip_src": "source", "ip_dst": "destination",
	"ipv6_src": "source", "ipv6_dst": "destination", "nw_ttl": "TTL", "icmp_type": "ICMP type", "icmpv6_type": "ICMPv6 type",
	"arp_op": "ARP operation", "arp_spa": "ARP sender", "arp_sha": "ARP sender's MAC",
	"nd_target": "ND target", "nd_sll": "ND source MAC", "nd_tll": "ND target MAC",
}

// moved are the moves that turn a packet round.
var moved = map[string]string{
	"move:NXM_OF_ETH_SRC[]->NXM_OF_ETH_DST[]":   "back to the MAC it came from",
	"move:NXM_OF_IP_SRC[]->NXM_OF_IP_DST[]":     "back to the address it came from",
	"move:NXM_NX_IPV6_SRC[]->NXM_NX_IPV6_DST[]": "back to the address it came from",
	"move:NXM_OF_ARP_SPA[]->NXM_OF_ARP_TPA[]":   "the asker becomes the one told",
}
