package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Want is what an ADD asks for.
type Want struct {
	vnet.Attachment
	CNINetwork string
	Conf       string // fingerprint of the configuration
	NetNS      string
	Network    vnet.Network // to declare if Declare, else only its name counts
	Declare    bool
	Addrs      []netip.Addr
	MAC        vnet.MAC // zero: derived from the address
	Ports      []vnet.PortMapping
	Bandwidth  vnet.Bandwidth
	Labels     vnet.Labels
	Function   *vnet.FunctionPort // which port of a service function it is, nil: none
	Delegate   *vnet.Delegate     // the foreign IPAM plugin that will give the addresses, nil: ours
}

// CheckPlace looks whether a cable can be laid to w: that CNI_NETNS is a network namespace, not
// the node's own. Nothing is changed.
func (w Want) CheckPlace() error {
	if err := veth.CheckNetNS(w.NetNS); err != nil {
		return kind(err)
	}
	theirs, err := os.Stat(w.NetNS)
	if err != nil {
		return vnet.OfKind(vnet.ErrInvalid, err)
	}
	own, err := os.Stat("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if os.SameFile(theirs, own) {
		return vnet.Invalidf("%s is the node's own network namespace", w.NetNS)
	}
	return nil
}

// Recorded is an endpoint as the store has it, with its network.
type Recorded struct {
	vnet.Endpoint
	Network pipeline.Network
	// Stands: an earlier ADD for the same thing has finished, and nothing was written.
	Stands bool

	fresh bool // no endpoint of the network has finished on this bridge yet: nobody has seen to its zone and the host
}

// Record writes the endpoint with its addresses, in one transaction, and declares its network
// if it is asked to. The endpoint's attachment must be locked. What an ADD or DEL that was cut
// short, or an earlier boot, has left of it is removed first.
func (n *Node) Record(ctx context.Context, w Want) (Recorded, error) {
	var r Recorded
	var left *vnet.Endpoint
	write := func() error {
		var err error
		r, left, err = n.record(ctx, w)
		return err
	}
	err := n.Asking(ctx, write)
	if left == nil || err != nil {
		return r, err
	}
	if err := n.remove(ctx, *left); err != nil {
		return r, fmt.Errorf("remove what is left of %s: %w", describe(*left), err)
	}
	return r, n.Asking(ctx, write)
}

// record writes the endpoint, or returns what is left of an earlier one.
func (n *Node) record(ctx context.Context, w Want) (Recorded, *vnet.Endpoint, error) {
	host, err := uplink.Here()
	if err != nil {
		return Recorded{}, nil, err
	}
	limit, err := n.mayStand(ctx, w)
	if err != nil {
		return Recorded{}, nil, err
	}
	var r Recorded
	var left *vnet.Endpoint
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		r, left = Recorded{}, nil
		old, err := store.Endpoint(tx, w.ID())
		switch {
		case errors.Is(err, vnet.ErrNotFound):
			r, err = n.write(tx, w, host, limit)
			return err
		case err != nil:
			return err
		case old.Attachment != w.Attachment:
			return vnet.Existsf("%s has the same endpoint id as %s", w.Attachment, describe(old))
		case old.State != vnet.Ready || !sameBoot(old, host):
			left = &old
			return nil
		case old.Conf != w.Conf || old.NetNS != w.NetNS:
			return vnet.WithHint(vnet.Existsf("%s is attached already, with another configuration or namespace", describe(old)), "DEL it first")
		}
		r.Endpoint, r.Stands = old, true
		r.Network, err = network(tx, old.Ref(), old.Bridge)
		return err
	})
	return r, left, err
}

// mayStand asks the node whether what is wanted can be here, before anything is written, and
// returns the highest MTU that it may have.
func (n *Node) mayStand(ctx context.Context, w Want) (int, error) {
	net, known, check := w.Network, false, n.CheckNetwork
	if !w.Declare || len(w.Ports) > 0 || net.Gateway == vnet.GatewayRouted {
		err := n.Store.View(ctx, func(tx store.Tx) error {
			known = store.HasEndpoint(tx, w.ID())
			stands, err := store.Network(tx, net.Ref())
			if errors.Is(err, vnet.ErrNotFound) { // told when it is needed
				return nil
			}
			check = n.checkEgress // routes that came later do not stop a network that stands
			if err == nil && !w.Declare {
				net = stands
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	if err := check(ctx, net); err != nil {
		return 0, err
	}
	if !known { // else it may have the ports itself
		if err := n.checkPorts(ctx, w.Ports); err != nil {
			return 0, err
		}
	}
	return n.mtuOf(ctx, net)
}

// write declares the network if that is asked, and writes a new endpoint of it.
func (n *Node) write(tx store.Tx, w Want, host string, limit int) (Recorded, error) {
	if w.Declare {
		if err := w.Network.CheckMTU(limit); err != nil {
			return Recorded{}, err
		}
		if _, err := Declare(tx, w.Network); err != nil {
			return Recorded{}, err
		}
	}
	if _, err := store.Network(tx, w.Network.Ref()); err != nil {
		return Recorded{}, vnet.WithHint(err, "declare it in the configuration (\"subnets\"), or beforehand: tenetctl network add %s --subnet PREFIX", w.Network.Ref())
	}
	fresh, err := n.linkNetwork(tx, w)
	if err != nil {
		return Recorded{}, err
	}
	net, err := network(tx, w.Network.Ref(), n.Bridge)
	if err != nil {
		return Recorded{}, err
	}
	e := vnet.Endpoint{
		Attachment: w.Attachment, ID: w.ID(), Tenant: net.Tenant, Network: net.Name, State: vnet.Pending,
		CNINetwork: w.CNINetwork, Conf: w.Conf, NetNS: w.NetNS, Bridge: n.Bridge, MAC: w.MAC, MTU: net.MTU, Boot: host, Delegate: w.Delegate,
		Ports: w.Ports, Bandwidth: w.Bandwidth, Labels: w.Labels, Function: w.Function,
	}
	limited := net.Network
	if limited.MTU == 0 {
		limited.MTU, e.MTU = limit, limit
	}
	if err := limited.CheckMTU(limit); err != nil {
		return Recorded{}, err
	}
	addressed, err := joins(tx, w, net)
	if err != nil {
		return Recorded{}, err
	}
	switch {
	case !addressed:
		e.MAC = cmp.Or(e.MAC, vnet.MACOf(e.ID))
	case w.Delegate == nil:
		if err := address(tx, net.Network, &e, w.Addrs); err != nil {
			return Recorded{}, err
		}
	}
	if net.Zone != 0 && addressed {
		if err := store.GiveAlias(tx, &e); err != nil {
			return Recorded{}, err
		}
	}
	if err := store.GiveMeters(tx, &e); err != nil {
		return Recorded{}, err
	}
	if err := store.PublishPorts(tx, e); err != nil {
		return Recorded{}, err
	}
	if err := store.GiveZone(tx, &e); err != nil {
		return Recorded{}, err
	}
	if err := store.PutEndpoint(tx, &e); err != nil {
		return Recorded{}, err
	}
	return Recorded{Endpoint: e, Network: net, fresh: fresh}, store.JoinGroup(tx, e)
}

// joins reports whether the endpoint has addresses: all have, but for the ports of transparent functions. It checks
// what is asked of a function's port.
func joins(tx store.Tx, w Want, net pipeline.Network) (bool, error) {
	if w.Function == nil {
		return true, nil
	}
	g, err := store.MayJoin(tx, net.Tenant, w.Attachment, *w.Function)
	switch {
	case err != nil:
		return false, err
	case net.IsProvider():
		return false, vnet.Invalidf("serviceFunction: network %s is on a wire: functions are ports of networks that are not", net.Ref())
	case g.Mode.Addressed():
		return true, nil
	case len(w.Addrs) > 0 || len(w.Ports) > 0 || w.Delegate != nil:
		return false, vnet.Invalidf("serviceFunction: group %s is transparent, so its ports have no addresses: neither ips, IP, portMappings nor another ipam can be asked for", g.Ref())
	}
	return false, nil
}

// linkNetwork gives the network its way to the host, if the host is linked to the bridge, and
// reports whether nobody has seen to it yet. Only a network that needs none can do without.
func (n *Node) linkNetwork(tx store.Tx, w Want) (bool, error) {
	linked, err := store.ClaimGateway(tx, n.Bridge)
	if err != nil {
		return false, err
	}
	if linked {
		if _, err := store.DeclareGateway(tx, w.Network.Ref()); err != nil {
			return false, err
		}
		ready, err := store.HasReady(tx, w.Network.Ref(), n.Bridge)
		return !ready, err
	}
	net, err := store.Network(tx, w.Network.Ref())
	if err == nil && (net.Gateway.Leads() || len(w.Ports) > 0) {
		err = vnet.WithHint(vnet.Existsf("bridge %s has no way to the host: a node has one, and it is on bridge %s", n.Bridge, store.GatewayBridge(tx)),
			"attach the container to bridge %s, or do without gateway %q and portMappings", store.GatewayBridge(tx), net.Gateway)
	}
	return false, err
}

// Adopt records the addresses and further routes that a foreign IPAM plugin gave the endpoint. vnet.ErrExists if
// another endpoint of the network has one of them: two IPAM plugins may not know of each other.
func (n *Node) Adopt(ctx context.Context, e *vnet.Endpoint, addrs []netip.Addr, routes []vnet.Route) error {
	return n.Store.Update(ctx, func(tx store.Tx) error {
		now, err := store.Endpoint(tx, e.ID)
		if err != nil {
			return err
		}
		net, err := store.Network(tx, now.Ref())
		if err != nil {
			return err
		}
		if err := address(tx, net, &now, addrs); err != nil {
			return err
		}
		now.Routes = append(now.Routes, routes...)
		*e = now
		return store.PutEndpoint(tx, e)
	})
}

// address takes the endpoint's addresses from the pools, and gives it a MAC if it has none.
func address(tx store.Tx, net vnet.Network, e *vnet.Endpoint, asked []netip.Addr) error {
	prefixes, err := ipam.Allocate(tx, ipam.Request{
		Network: net, Owner: e.ID, Holder: e.Attachment, CNINetwork: e.CNINetwork, Addrs: asked, Foreign: e.Delegate != nil,
	})
	if err != nil {
		return err
	}
	if err := addrsServed(e.Ports, prefixes); err != nil {
		return err
	}
	e.Addrs, e.Routes = prefixes, net.Routes(prefixes)
	if e.MAC == (vnet.MAC{}) {
		var addrs []netip.Addr
		for _, p := range prefixes {
			addrs = append(addrs, p.Addr())
		}
		e.MAC = vnet.MACFor(addrs)
		if store.MACTaken(tx, e.Ref(), e.MAC) { // somebody asked for just this one
			e.MAC = vnet.MACOf(e.ID)
		}
	}
	return nil
}

// addrsServed returns nil if each port is published for at least one of the addresses.
func addrsServed(ports []vnet.PortMapping, addrs []netip.Prefix) error {
	for _, m := range ports {
		if !slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return m.Serves(p.Addr()) }) {
			return vnet.Invalidf("portMappings: %s: the container has no address of that family", m)
		}
	}
	return nil
}
