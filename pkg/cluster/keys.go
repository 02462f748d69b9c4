package cluster

import (
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Keys of etcd beside those that a node's store has, too (pkg/store, keys.go). Names hold no slash.
const (
	Nodes    = "nodes/"    // what a node is; stays when it is off
	alive    = "alive/"    // leased: a tenetd of the node runs
	silences = "silences/" // of a node without a lease, leased by others: NODE/doubted, NODE/reached (doubt.go)
	off      = "off/"      // neither its tenetd nor its address answers: by whoever found it out
	uses     = "path-use/" // by node: which paths that get no new connection its own have
	drains   = "drains/"   // the node is to leave
	grace    = "grace/"    // leased: the node has gone, but for not so long that others may have its blocks
	refills  = "refills/"  // by node that found etcd emptied: it has not declared yet all that it knows
	holdings = "holdings/" // by node: what of the cluster's is its own
)

func nodeKey(n vnet.NodeName) string    { return Nodes + string(n) }
func aliveKey(n vnet.NodeName) string   { return alive + string(n) }
func doubtKey(n vnet.NodeName) string   { return silences + string(n) + "/doubted" }
func reachedKey(n vnet.NodeName) string { return silences + string(n) + "/reached" }
func offKey(n vnet.NodeName) string     { return off + string(n) }
func useKey(n vnet.NodeName) string     { return uses + string(n) }
func drainKey(n vnet.NodeName) string   { return drains + string(n) }
func graceKey(n vnet.NodeName) string   { return grace + string(n) }
func refillKey(n vnet.NodeName) string  { return refills + string(n) }

// endpointsIn is the prefix of a tenant's endpoints on all nodes.
func endpointsIn(t vnet.TenantName) string { return store.Endpoints + string(t) + "/" }

// endpointKey is where an endpoint is told of. Ids are a node's own: two nodes may have containers of one name.
func endpointKey(r vnet.Remote) string {
	return store.EndpointsOf(r.Ref()) + string(r.Node) + "/" + string(r.ID)
}

// parseEndpoint reads what an endpoint's key says; it is all there is of one that has gone.
func parseEndpoint(key string) (vnet.Remote, bool) {
	p := strings.Split(key, "/")
	if len(p) != 5 {
		return vnet.Remote{}, false
	}
	return vnet.Remote{Tenant: vnet.TenantName(p[1]), Network: vnet.NetworkName(p[2]), Node: vnet.NodeName(p[3]), ID: vnet.EndpointID(p[4])}, true
}

func blockKey(r vnet.Ref, block netip.Prefix) string { return store.BlockKey(r, block) }

// heldEndpoints and heldBlocks lead from a node to what it has: to an endpoint by its network and id, to a block.
func heldEndpoints(n vnet.NodeName) string { return holdings + string(n) + "/" + store.Endpoints }
func heldBlocks(n vnet.NodeName) string    { return holdings + string(n) + "/" + store.Blocks }

func heldEndpointKey(r vnet.Remote) string {
	return heldEndpoints(r.Node) + r.Ref().String() + "/" + string(r.ID)
}

func heldBlockKey(n vnet.NodeName, r vnet.Ref, block netip.Prefix) string {
	return heldBlocks(n) + r.String() + "/" + block.String()
}

// parseHeldBlock reads TENANT/NETWORK/ADDRESS/LENGTH.
func parseHeldBlock(text string) (vnet.Ref, netip.Prefix, bool) {
	p := strings.SplitN(text, "/", 3)
	if len(p) != 3 {
		return vnet.Ref{}, netip.Prefix{}, false
	}
	block, err := netip.ParsePrefix(p[2])
	return vnet.Ref{Tenant: vnet.TenantName(p[0]), Network: vnet.NetworkName(p[1])}, block, err == nil
}
