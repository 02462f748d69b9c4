package store

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Every key of the store, by hand: names hold no slash (vnet), so the paths cannot run into
// each other. A prefix ends in a slash.
const (
	Tenants     = "tenants/"
	Networks    = "networks/"
	Endpoints   = "endpoints/"
	Leases      = "leases/"
	versionKey  = "meta/version"
	nextOFPort  = "meta/next-ofport"
	nextTransit = "meta/next-transit"
	gatewayOn   = "meta/gateway-bridge"
	toldAt      = "meta/metrics"
	Uplinks     = "uplinks/"
	Groups      = "groups/"
	Chains      = "chains/"
	Functions   = "functions/"
	Elsewhere   = "functions-elsewhere/"
	Paths       = "legs/"
	nextZone    = "meta/next-zone"
	nextPath    = "meta/next-path"
	nextNumber  = "meta/next-instance"
	nextLeg     = "meta/next-leg"
	paths       = "path-ids/"
	instances   = "instance-numbers/"
	legNumbers  = "leg-numbers/"
	uplinkHosts = "uplink-hosts/"
	uplinkNodes = "uplink-nodes/"
	gateways    = "gateways/"
	transits    = "transits/"
	zones       = "zones/"
	meters      = "meters/"
	hostPorts   = "host-ports/"
	vnis        = "vnis/"
	numbers     = "tenant-numbers/"
	ofports     = "ofports/"
	attachments = "attachments/"
	Blocks      = "blocks/"
	memberKey   = "meta/cluster"
	overlayKey  = "meta/overlay"
	PeersPrefix = "peers/"
	Remotes     = "remotes/"
)

func tenantKey(t vnet.TenantName) string { return Tenants + string(t) }

func networkKey(r vnet.Ref) string { return NetworksOf(r.Tenant) + string(r.Network) }

// NetworksOf is the prefix of one tenant's networks.
func NetworksOf(t vnet.TenantName) string { return Networks + string(t) + "/" }

// EndpointsOf is the prefix of one network's endpoints.
func EndpointsOf(r vnet.Ref) string { return Endpoints + r.String() + "/" }

func endpointKey(r vnet.Ref, id vnet.EndpointID) string { return EndpointsOf(r) + string(id) }

func peerKey(n vnet.NodeName) string { return PeersPrefix + string(n) }

// RemotesOf is the prefix of one network's endpoints on other nodes.
func RemotesOf(r vnet.Ref) string { return RemotesIn(r.Tenant) + string(r.Network) + "/" }

// RemotesIn is the prefix of one tenant's endpoints on other nodes.
func RemotesIn(t vnet.TenantName) string { return Remotes + string(t) + "/" }

// RemoteKey is where an endpoint of another node is recorded. Ids are a node's own: two nodes may have containers of one name.
func RemoteKey(r vnet.Ref, n vnet.NodeName, id vnet.EndpointID) string {
	return RemotesOf(r) + string(n) + "/" + string(id)
}

// attachmentKey leads from an endpoint id to its network: DEL may know no more than the id.
func attachmentKey(id vnet.EndpointID) string { return attachments + string(id) }

func vniKey(v vnet.VNI) string { return fmt.Sprintf("%s%d", vnis, v) }

func numberKey(n uint32) string { return fmt.Sprintf("%s%d", numbers, n) }

func macKey(r vnet.Ref, m vnet.MAC) string { return "macs/" + r.String() + "/" + m.String() }

func ofportKey(n int) string { return fmt.Sprintf("%s%d", ofports, n) }

// gatewayKey is where a network's way to the host is recorded.
func gatewayKey(r vnet.Ref) string { return gateways + r.String() }

func transitKey(t uint32) string { return fmt.Sprintf("%s%d", transits, t) }

func zoneKey(z uint32) string { return fmt.Sprintf("%s%d", zones, z) }

func meterKey(m uint32) string { return fmt.Sprintf("%s%d", meters, m) }

// hostPortsOf is the prefix of all who have published the port, on whatever address.
func hostPortsOf(m vnet.PortMapping) string {
	return fmt.Sprintf("%s%s/%d/", hostPorts, m.Protocol, m.HostPort)
}

func hostPortKey(m vnet.PortMapping) string {
	if !m.HostIP.IsValid() {
		return hostPortsOf(m) + "all"
	}
	return hostPortsOf(m) + m.HostIP.String()
}

func uplinkKey(u vnet.UplinkName) string { return Uplinks + string(u) }

// uplinkHostKey is where what an uplink took over from the host is kept.
func uplinkHostKey(u vnet.UplinkName) string { return uplinkHosts + string(u) }

// uplinkNodesOf is the prefix of the nodes of a cluster that have a NIC on an uplink.
func uplinkNodesOf(u vnet.UplinkName) string { return uplinkNodes + string(u) + "/" }

func uplinkNodeKey(u vnet.UplinkName, n vnet.NodeName) string { return uplinkNodesOf(u) + string(n) }

// providerKey leads from a VLAN of an uplink to the network that it is.
func providerKey(p vnet.Provider) string { return fmt.Sprintf("%s%d", providersOf(p.Uplink), p.VLAN) }

func providersOf(u vnet.UplinkName) string { return "provider-vlans/" + string(u) + "/" }

// LeaseKey is where an owner's addresses are recorded.
func LeaseKey(owner vnet.EndpointID) string { return Leases + string(owner) }

// PoolKey is the allocation record of one pool: of a subnet, or of a block of one.
func PoolKey(r vnet.Ref, p netip.Prefix) string { return poolsOf(r) + p.String() }

// BlocksIn is the prefix of a network's blocks.
func BlocksIn(r vnet.Ref) string { return Blocks + r.String() + "/" }

// BlockKey is where the holder of a block is recorded.
func BlockKey(r vnet.Ref, block netip.Prefix) string { return BlocksIn(r) + block.String() }

// AddressKey is the record of one address that is or was in use.
func AddressKey(r vnet.Ref, a netip.Addr) string { return addressesOf(r) + a.String() }

// ReleasedKey queues an address for reuse: keys sort by seq, the oldest release first.
func ReleasedKey(r vnet.Ref, p netip.Prefix, seq uint64) string {
	return fmt.Sprintf("%s%016x", ReleasedOf(r, p), seq)
}

// ReleasedOf is the prefix of one pool's queue of released addresses.
func ReleasedOf(r vnet.Ref, p netip.Prefix) string { return releasedIn(r) + p.String() + "/" }

func poolsOf(r vnet.Ref) string     { return "pools/" + r.String() + "/" }
func addressesOf(r vnet.Ref) string { return "addresses/" + r.String() + "/" }
func releasedIn(r vnet.Ref) string  { return "released/" + r.String() + "/" }

// releasesKey is where the releases of all of a network's blocks are counted.
func releasesKey(r vnet.Ref) string { return "release-counts/" + r.String() }

// GroupsOf is the prefix of one tenant's groups of service functions.
func GroupsOf(t vnet.TenantName) string { return Groups + string(t) + "/" }

func groupKey(r vnet.GroupRef) string { return GroupsOf(r.Tenant) + string(r.Group) }

// ChainsOf is the prefix of one tenant's chains.
func ChainsOf(t vnet.TenantName) string { return Chains + string(t) + "/" }

func chainKey(r vnet.ChainRef) string { return ChainsOf(r.Tenant) + string(r.Chain) }

// FunctionsOf is the prefix of one tenant's instances of service functions.
func FunctionsOf(t vnet.TenantName) string { return Functions + string(t) + "/" }

func functionsIn(r vnet.GroupRef) string { return FunctionsOf(r.Tenant) + string(r.Group) + "/" }

// functionKey is where an instance is recorded. A container's id holds no slash (CNI, CNI_CONTAINERID).
func functionKey(r vnet.GroupRef, container string) string { return functionsIn(r) + container }

// elsewhereKey is where an instance on another node of the cluster is recorded, FunctionAt where the cluster records one.
func elsewhereKey(i vnet.Instance) string {
	return Elsewhere + strings.TrimPrefix(FunctionAt(i), Functions)
}

// FunctionAt is where a cluster records an instance. Containers' ids are a node's own.
func FunctionAt(i vnet.Instance) string {
	return functionsIn(i.Ref()) + string(i.Node) + "/" + i.Container
}

// legsKey is where a chain's legs with their paths are recorded.
func legsKey(r vnet.ChainRef) string { return Paths + r.String() }

// pathKey is where a path's chain is recorded, or since when its number rests.
func pathKey(p uint32) string { return fmt.Sprintf("%s%d", paths, p) }

// restingSince is what the record of a number at rest begins with, which no chain's name does; a time follows.
const restingSince = "resting since "

func instanceKey(n uint32) string { return fmt.Sprintf("%s%d", instances, n) }

func legKey(n uint32) string { return fmt.Sprintf("%s%d", legNumbers, n) }
