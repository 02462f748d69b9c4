package node

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// overlay is what a bridge has to know of the cluster's other nodes. It is empty on a bridge without tunnels.
type overlay struct {
	here    vnet.NodeName // empty: the node is one on its own
	etcd    []netip.AddrPort
	peers   map[vnet.NodeName]vnet.Peer
	remotes map[vnet.Ref][]vnet.Remote
}

// viewPeers reads the other nodes.
func viewPeers(tx store.Tx, bridge string) (overlay, error) {
	o := overlay{peers: map[vnet.NodeName]vnet.Peer{}, remotes: map[vnet.Ref][]vnet.Remote{}}
	own, err := store.FindOverlay(tx)
	if errors.Is(err, vnet.ErrNotFound) {
		return o, nil
	}
	o.here = own.Name
	if err != nil || own.Bridge != bridge {
		return o, err
	}
	o.etcd = own.Etcd
	peers, err := store.Peers(tx)
	for _, p := range peers {
		o.peers[p.Name] = p
	}
	return o, err
}

// viewOverlay reads their endpoints, too.
func viewOverlay(tx store.Tx, bridge string) (overlay, error) {
	o, err := viewPeers(tx, bridge)
	if err != nil || len(o.peers) == 0 {
		return o, err
	}
	remotes, err := store.All[vnet.Remote](tx, store.Remotes)
	for _, r := range remotes {
		o.remotes[r.Ref()] = append(o.remotes[r.Ref()], r)
	}
	return o, err
}

// nodes are those that have an endpoint in the network.
func (o overlay) nodes(r vnet.Ref) ([]vnet.Peer, error) {
	return nodesOf(o.remotes[r], func(name vnet.NodeName) (vnet.Peer, error) {
		p, ok := o.peers[name]
		if !ok {
			return p, vnet.ErrNotFound
		}
		return p, nil
	})
}

// nodesOf returns the nodes of these endpoints that find knows, in the order of their names.
func nodesOf(remotes []vnet.Remote, find func(vnet.NodeName) (vnet.Peer, error)) ([]vnet.Peer, error) {
	found := map[vnet.NodeName]vnet.Peer{}
	for _, r := range remotes {
		if _, ok := found[r.Node]; ok {
			continue
		}
		p, err := find(r.Node)
		switch {
		case errors.Is(err, vnet.ErrNotFound):
		case err != nil:
			return nil, err
		default:
			found[r.Node] = p
		}
	}
	return slices.SortedFunc(maps.Values(found), func(a, b vnet.Peer) int { return strings.Compare(string(a.Name), string(b.Name)) }), nil
}

// endpoints are the flows of other nodes' endpoints, and those of their networks that are not among these yet.
func (o overlay) endpoints(tx store.Tx, bridge string, networks map[vnet.Ref]pipeline.Network) ([]openflow.Flow, error) {
	var flows []openflow.Flow
	chained := map[vnet.TenantName]bool{}
	for ref, remotes := range o.remotes {
		net, ok := networks[ref]
		if !ok {
			var err error
			net, err = network(tx, ref, bridge)
			if errors.Is(err, vnet.ErrNotFound) { // its record is still to come
				continue
			}
			if err != nil {
				return nil, err
			}
			networks[ref] = net
			flows = append(flows, pipeline.NetworkFlows(net)...)
		}
		if _, ok := chained[ref.Tenant]; !ok {
			var err error
			if chained[ref.Tenant], err = store.HasChains(tx, ref.Tenant); err != nil {
				return nil, err
			}
		}
		for _, r := range remotes {
			if p, ok := o.peers[r.Node]; ok && len(r.Addrs) > 0 && !net.IsProvider() { // ports of transparent functions have none
				flows = append(flows, pipeline.RemoteFlows(net, pipeline.Remote{Remote: r, Peer: p, Chained: chained[ref.Tenant]})...)
			}
		}
	}
	return flows, nil
}

// OverlayChange is what has become of the cluster's other nodes and their endpoints. Records that say what stands
// already change nothing.
type OverlayChange struct {
	Peers       []vnet.Peer
	GonePeers   []vnet.NodeName
	Remotes     []vnet.Remote
	GoneRemotes []vnet.Remote // as much of them as names them
}

// Empty reports whether it changes nothing.
func (c OverlayChange) Empty() bool {
	return len(c.Peers)+len(c.GonePeers)+len(c.Remotes)+len(c.GoneRemotes) == 0
}

// ChangeOverlay records the change, and has the bridge of the overlay follow: in one bundle, which costs no more where
// there are many others. A switch that does not run is no error. What it was not told is Untold.
func (n *Node) ChangeOverlay(ctx context.Context, c OverlayChange) error {
	moved := map[vnet.NodeName]bool{} // to another address: all that lead there lead elsewhere now
	led := false                      // chains have to know
	narrowed := false                 // or widened: links have another MTU now
	var own store.Overlay
	err := n.Store.Update(ctx, func(tx store.Tx) error {
		clear(moved)
		var err error
		if own, err = store.FindOverlay(tx); err != nil {
			return err
		}
		if led, err = c.concerns(tx, own.Bridge); err != nil {
			return err
		}
		if err := c.record(tx, moved); err != nil {
			return err
		}
		now, err := store.FindOverlay(tx)
		if narrowed = now.LeastMTU != own.LeastMTU; err != nil || led {
			return err
		}
		led, err = c.concerns(tx, own.Bridge)
		return err
	})
	if err != nil {
		return err
	}
	on, err := n.on(ctx, own.Bridge)
	if err == nil {
		err = on.reach(ctx, c, moved)
	}
	if err == nil && (led || len(moved) > 0) {
		err = on.SyncChains(ctx, own.Bridge)
	}
	if err == nil && narrowed {
		on.followHost(ctx)
	}
	return n.told(err)
}

// concerns reports whether chains have to know of the change: a classifier names an endpoint, by its labels or itself, or
// it is the only one known of its network. It is asked before the change is recorded and after.
func (c OverlayChange) concerns(tx store.Tx, bridge string) (bool, error) {
	chains := map[vnet.TenantName][]vnet.Chain{}
	for _, r := range slices.Concat(c.Remotes, c.GoneRemotes) {
		if _, ok := chains[r.Tenant]; !ok {
			var err error
			if chains[r.Tenant], err = store.All[vnet.Chain](tx, store.ChainsOf(r.Tenant)); err != nil {
				return false, err
			}
		}
		if len(chains[r.Tenant]) == 0 {
			continue
		}
		stands, err := store.Load[vnet.Remote](tx, store.RemoteKey(r.Ref(), r.Node, r.ID))
		if err == nil {
			r = stands // one that has gone is named by its key alone
		} else if !errors.Is(err, vnet.ErrNotFound) {
			return false, err
		}
		used, err := usedHere(tx, r.Ref(), bridge)
		if err != nil {
			return false, err
		}
		if !used || slices.ContainsFunc(chains[r.Tenant], func(k vnet.Chain) bool { return k.Names(r.Attachment, r.Labels) }) {
			return true, nil
		}
	}
	return false, nil
}

func (c OverlayChange) record(tx store.Tx, moved map[vnet.NodeName]bool) error {
	var errs []error
	for _, p := range c.Peers { // by name: there may be very many others
		stands, err := store.FindPeer(tx, p.Name)
		if err != nil && !errors.Is(err, vnet.ErrNotFound) {
			return err
		}
		if stands.VTEP != p.VTEP || stands.Encapsulation != p.Encapsulation {
			moved[p.Name] = true
		}
		errs = append(errs, store.PutPeer(tx, p))
	}
	for _, name := range c.GonePeers {
		moved[name] = true
		errs = append(errs, store.DeletePeer(tx, name))
	}
	for _, r := range c.GoneRemotes {
		errs = append(errs, store.DeleteRemote(tx, r))
	}
	for _, r := range c.Remotes {
		errs = append(errs, store.PutRemote(tx, r))
	}
	if len(c.Peers)+len(c.GonePeers) > 0 {
		errs = append(errs, noteMTU(tx))
	}
	return errors.Join(errs...)
}

// noteMTU writes the smallest MTU of the other nodes' underlays where every ADD finds it.
func noteMTU(tx store.Tx) error {
	own, err := store.FindOverlay(tx)
	if err != nil {
		return err
	}
	peers, err := store.Peers(tx)
	own.LeastMTU = 0
	for _, p := range peers {
		if p.MTU > 0 && (own.LeastMTU == 0 || p.MTU < own.LeastMTU) {
			own.LeastMTU = p.MTU
		}
	}
	return errors.Join(err, store.PutOverlay(tx, own))
}

// on is the node as it is on that bridge.
func (n *Node) on(ctx context.Context, bridge string) (*Node, error) {
	if bridge == n.Bridge {
		return n, nil
	}
	sw, err := n.dial(ctx)
	config := n.Config
	config.Bridge = bridge
	return &Node{Config: config, Store: n.Store, Release: n.Release, Tally: n.Tally, sw: sw}, err
}

// reach sends the switch what the change is about, as the store is now.
func (n *Node) reach(ctx context.Context, c OverlayChange, moved map[vnet.NodeName]bool) error {
	unlock, err := n.lockFlows(ctx, n.Bridge)
	if err != nil {
		return err
	}
	defer unlock()
	conn, err := n.openflow(ctx, n.Bridge)
	if err != nil {
		return err
	}
	defer conn.Close()
	stands, err := pipelineStands(ctx, conn)
	if err != nil {
		return err
	}
	if !stands {
		_, err := n.syncFlows(ctx, conn, true)
		return err
	}
	var changes []openflow.Change
	var flooding []pipeline.Network
	err = n.Store.View(ctx, func(tx store.Tx) error {
		changes, flooding, err = c.render(tx, n.Bridge, moved)
		return err
	})
	if err != nil {
		return err
	}
	for _, net := range flooding {
		flood, err := n.flood(ctx, net, n.Bridge)
		if err != nil {
			return err
		}
		changes = append(changes, flood...)
	}
	if err := n.Tally.commit(ctx, conn, changes); err != nil {
		return kind(err)
	}
	var fresh []vnet.Peer
	for _, p := range c.Peers {
		if moved[p.Name] {
			fresh = append(fresh, p)
		}
	}
	return greet(ctx, conn, fresh)
}

// greet sends something to each of the nodes, to which nothing was sent yet.
func greet(ctx context.Context, c *openflow.Conn, peers []vnet.Peer) error {
	frame := append(ethernet(vnet.RouterMAC, vnet.RouterMAC, pipeline.ProbeType), make([]byte, minPayload)...)
	for _, p := range peers {
		if err := c.Send(ctx, [][]byte{frame}, pipeline.Greeting(p)...); err != nil {
			return kind(err)
		}
	}
	return nil
}

const minPayload = 46 // IEEE 802.3, 3.2.8

// greetAll greets all nodes that have an endpoint which is known here: a switch that has begun anew has forgotten the ways.
func (n *Node) greetAll(ctx context.Context, c *openflow.Conn) error {
	met := map[vnet.NodeName]vnet.Peer{}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		o, err := viewOverlay(tx, n.Bridge)
		for _, remotes := range o.remotes {
			for _, r := range remotes {
				if p, ok := o.peers[r.Node]; ok {
					met[r.Node] = p
				}
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	return greet(ctx, c, slices.Collect(maps.Values(met)))
}

// render returns what changes on the bridge, and the networks whose flood lists do.
func (c OverlayChange) render(tx store.Tx, bridge string, moved map[vnet.NodeName]bool) ([]openflow.Change, []pipeline.Network, error) {
	remotes := c.Remotes
	if len(moved) > 0 { // all that lead there, too
		all, err := store.All[vnet.Remote](tx, store.Remotes)
		if err != nil {
			return nil, nil, err
		}
		remotes = slices.Concat(remotes, slices.DeleteFunc(all, func(r vnet.Remote) bool { return !moved[r.Node] }))
	}
	var changes []openflow.Change
	for name := range moved {
		changes = append(changes, openflow.DeleteCookie(pipeline.PeerOwner(name).Cookie(), allBits))
	}
	for _, p := range c.Peers {
		changes = append(changes, adds(pipeline.PeerFlows(p))...)
	}
	o := overlay{peers: map[vnet.NodeName]vnet.Peer{}, remotes: map[vnet.Ref][]vnet.Remote{}}
	touched := map[vnet.Ref]bool{}
	for _, r := range slices.Concat(remotes, c.GoneRemotes) {
		touched[r.Ref()] = true
		changes = append(changes, openflow.DeleteCookie(pipeline.RemoteOwner(r).Cookie(), allBits))
	}
	for _, r := range remotes {
		if _, ok := o.peers[r.Node]; !ok {
			p, err := store.FindPeer(tx, r.Node)
			if errors.Is(err, vnet.ErrNotFound) {
				continue
			}
			if err != nil {
				return nil, nil, err
			}
			o.peers[r.Node] = p
		}
		o.remotes[r.Ref()] = append(o.remotes[r.Ref()], r)
	}
	networks := map[vnet.Ref]pipeline.Network{}
	flows, err := o.endpoints(tx, bridge, networks)
	if err != nil {
		return nil, nil, err
	}
	changes = append(changes, adds(flows)...)
	var flooding []pipeline.Network
	for ref := range touched {
		used, err := usedHere(tx, ref, bridge)
		if err != nil {
			return nil, nil, err
		}
		net, err := network(tx, ref, bridge)
		switch {
		case !used || errors.Is(err, vnet.ErrNotFound):
			changes = append(changes, deleteOwner(pipeline.NetworkOwner(ref)), deleteOwner(pipeline.FloodOwner(ref)))
		case err != nil:
			return nil, nil, err
		case net.Floods():
			flooding = append(flooding, net)
		}
	}
	return changes, flooding, nil
}

const allBits = ^uint64(0)

// usedHere reports whether the bridge has to know the network: somebody of it is here, or the tenant is and somebody of
// it is elsewhere.
func usedHere(tx store.Tx, r vnet.Ref, bridge string) (bool, error) {
	used, err := store.HasLiving(tx, r, bridge)
	if used || err != nil {
		return used, err
	}
	own, err := store.FindOverlay(tx)
	if errors.Is(err, vnet.ErrNotFound) || err == nil && own.Bridge != bridge {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return store.HasRemote(tx, r)
}

// flood returns what makes a network's flood list what it should be.
func (n *Node) flood(ctx context.Context, net pipeline.Network, bridge string) ([]openflow.Change, error) {
	members, err := n.members(ctx, net, bridge)
	if err != nil {
		return nil, err
	}
	var nodes []vnet.Peer
	err = n.Store.View(ctx, func(tx store.Tx) error {
		own, err := store.FindOverlay(tx)
		if errors.Is(err, vnet.ErrNotFound) || err == nil && own.Bridge != bridge {
			return nil
		}
		if err != nil {
			return err
		}
		remotes, err := store.All[vnet.Remote](tx, store.RemotesOf(net.Ref()))
		if err != nil {
			return err
		}
		nodes, err = nodesOf(remotes, func(name vnet.NodeName) (vnet.Peer, error) { return store.FindPeer(tx, name) })
		return err
	})
	return append([]openflow.Change{deleteOwner(pipeline.FloodOwner(net.Ref()))}, adds(pipeline.FloodFlows(net, members, nodes))...), err
}

// tunnelOwner is the owner of the tunnels' ports.
const tunnelOwner = "tunnel"

// Tunnel makes the bridge of the overlay, with its tunnels and all that it should have.
func (n *Node) Tunnel(ctx context.Context) error {
	if err := n.EnsureTunnels(ctx); err != nil {
		return err
	}
	var own store.Overlay
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		own, err = store.FindOverlay(tx)
		return err
	})
	if err != nil {
		return err
	}
	on, err := n.on(ctx, own.Bridge)
	if err != nil {
		return err
	}
	if _, err := on.connectAll(ctx, true); err != nil {
		return err
	}
	on.followHost(ctx)
	return nil
}

// followHost makes the host's side follow what has become of the overlay. What stands in the way there concerns no other
// node, and status tells.
func (n *Node) followHost(ctx context.Context) { _, _ = n.syncHost(ctx, n.Bridge, true) }

// EnsureTunnels makes the ports that lead to other nodes, on the bridge of the overlay: one for each encapsulation that
// is received here or there.
func (n *Node) EnsureTunnels(ctx context.Context) error {
	var own store.Overlay
	wanted := map[vnet.Encapsulation]bool{}
	err := n.Store.View(ctx, func(tx store.Tx) error {
		var err error
		if own, err = store.FindOverlay(tx); err != nil {
			return err
		}
		wanted[own.Encapsulation] = true
		peers, err := store.Peers(tx)
		for _, p := range peers {
			wanted[p.Encapsulation] = true
		}
		return err
	})
	if err != nil {
		return err
	}
	on, err := n.on(ctx, own.Bridge)
	if err != nil {
		return err
	}
	if err := on.EnsureBridge(ctx); err != nil {
		return err
	}
	for e := range wanted {
		_, err := on.sw.EnsurePort(ctx, own.Bridge, ovs.Port{
			Name: e.Link(), Owner: tunnelOwner, Type: string(e), OFPortRequest: int(e.OFPort()),
			Options: map[string]string{"remote_ip": "flow", "key": "flow", "local_ip": own.VTEP.String()},
		})
		if err != nil {
			return kind(err)
		}
	}
	return nil
}
