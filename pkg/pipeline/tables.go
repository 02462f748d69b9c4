// Package pipeline renders what the store says into flows. It is pure: the same records give
// the same flows, and nothing is asked of the switch.
//
// DESIGN.md beside this file explains each table with the flows that the tests hold it to.
package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The tables, in the order a packet meets them. The gaps are for what a later table needs.
const (
	Classify       = 0   // which endpoint sent it: tenant, network
	TunnelSource   = 1   // by a tunnel: from a node of ours
	GatewayIn      = 2   // what the host sends: to an alias, to a network's transit address, to a routed prefix
	GatewayTracked = 3   // of that, after translation: answers, and what the host opens
	TunnelDemux    = 4   // by a tunnel: for which network
	TunnelHop      = 5   // by a tunnel: for which hop of a path
	PortSecurity   = 10  // is it the sender's own MAC and address
	Neighbour      = 15  // ARP and ND questions: to the owner, or answered for the gateway
	ChainClassify  = 20  // does a chain want it: which, and what is tracked of its connection
	ChainPinned    = 21  // tracked: has its connection a path
	ChainFragment  = 22  // of a packet in fragments only now is it known, by what is tracked, which chain wants it
	ChainSelect    = 30  // it has none: one is chosen
	ChainPin       = 31  // and kept for the connection
	ChainHop       = 32  // path, direction and hop: to that function, or out of the chain
	FunctionEnter  = 33  // to a function that lives
	ChainBypass    = 34  // past one that is dead and open: to the next hop
	ChainClosed    = 35  // one that is dead and closed
	FunctionReturn = 36  // what comes out of a function: by its tag, or by what is tracked of what was sent in
	FunctionFound  = 38  // tracked: to the next hop
	ChainEnd       = 39  // out of the chain: which network it came from
	Route          = 40  // addressed to the router: which network of the tenant
	NextHop        = 41  // which MAC has the address there
	RouterSource   = 42  // from the router's MAC, TTL one less
	Destination    = 50  // which port has the MAC in this network
	TunnelOut      = 52  // to another node, unless it came from one
	Flood          = 55  // broadcast and multicast, where the network asks for it
	Answer         = 60  // may it be an answer to somebody whose connections are led through chains
	AnswerTracked  = 61  // tracked: if it is, it visits the functions backwards
	Deliver        = 65  // to the port chosen, or out of the tenant
	Egress         = 70  // leaves the tenant: translated to the network's transit address, or routed
	EgressReply    = 71  // for the host or its transit range: only answers
	EgressTracked  = 72  // translated: to the host
	Output         = 80  // out of the port chosen
	Marker         = 253 // says which pipeline this is; written last
)

// tableNames, for those who read flows.
var tableNames = map[uint8]string{
	Classify: "Classify", PortSecurity: "PortSecurity", Neighbour: "Neighbour", Route: "Route", NextHop: "NextHop",
	RouterSource: "RouterSource", Destination: "Destination", Flood: "Flood", Output: "Output", Marker: "Marker",
	TunnelSource: "TunnelSource", TunnelDemux: "TunnelDemux", TunnelHop: "TunnelHop", TunnelOut: "TunnelOut",
	GatewayIn: "GatewayIn", GatewayTracked: "GatewayTracked", Egress: "Egress", EgressReply: "EgressReply", EgressTracked: "EgressTracked",
	ChainClassify: "ChainClassify", ChainPinned: "ChainPinned", ChainFragment: "ChainFragment", ChainSelect: "ChainSelect", ChainPin: "ChainPin", ChainHop: "ChainHop",
	FunctionEnter: "FunctionEnter", ChainBypass: "ChainBypass", ChainClosed: "ChainClosed", FunctionReturn: "FunctionReturn",
	FunctionFound: "FunctionFound", ChainEnd: "ChainEnd", Answer: "Answer", AnswerTracked: "AnswerTracked", Deliver: "Deliver",
}

// ChainTables are those in which all flows are the base's or of chains (ChainBase, ChainFlows, FunctionFlows, TenantFlows).
var ChainTables = []uint8{
	TunnelHop, ChainClassify, ChainPinned, ChainFragment, ChainSelect, ChainPin, ChainHop, FunctionEnter, ChainBypass, ChainClosed, FunctionReturn,
	FunctionFound, ChainEnd, Answer, AnswerTracked, Deliver,
}

// TableName returns the table's name, its number where it has none.
func TableName(table uint8) string {
	if name, ok := tableNames[table]; ok {
		return name
	}
	return fmt.Sprintf("table %d", table)
}

// Version is the pipeline's: it is in the marker and in every cookie. A switch with another
// one is rendered anew.
const Version = 4

// Metadata carries where a packet is: bits 0 to 23 the network's VNI, 32 to 55 the tenant's number.
const (
	networkMask = 0x0000_0000_00ff_ffff
	tenantMask  = 0x00ff_ffff_0000_0000
)

// Registers: reg0 bits 0 to 3 say what sent the packet, bit 4 that it may open a connection to
// an endpoint, bit 8 that it has left its chain, bit 9 that it did so as an answer; reg1 is the
// port it leaves by; reg3 an instance's number; reg4 a leg's; reg5 and reg6 the zones in which
// the connections of its sender and of its receiver are tracked for chains, 0: none.
const (
	classMask     = 0xf
	classTunnel   = 1
	classGateway  = 2
	classEndpoint = 3
	classUplink   = 4
	classFunction = 5
	mayOpen       = 0x10
	chainDone     = 0x100
	answerDone    = 0x300
)

var (
	outPort     = openflow.Reg1
	inFunction  = openflow.Reg3
	inLeg       = openflow.Reg4
	senderZone  = openflow.Reg5
	receiveZone = openflow.Reg6
)

// reg7 is where in a chain a packet is: bits 0 to 6 the hop, bit 7 set if it is an answer, from
// bit 8 on the path. Hop 0, and the one behind the last, is the end of the chain; an answer that
// has not begun its way is at hop 0x7f. Conntrack keeps it in the label, from bit 64 on.
//
// Between nodes the same three are the frame's VNI (tunnel.go), which is why a path has 15 bits and a hop 4 (vnet.MaxPath, vnet.MaxHops, vnet.MaxVNI).
var where = openflow.Reg7

const (
	answer      = 0x80
	answerBegin = 0xff
	hopMask     = 0xff
	labelAt     = 64
	pathAt      = 8
	pathBits    = 24
)

// pinned is the bit of ct_mark that says that the connection has a path.
var pinned = openflow.CTMark.Masked(1, 1)

// A from term matches packets that such a thing sent.
func from(class uint64) openflow.Term { return openflow.Reg0.Masked(class, classMask) }

// A family is one of the two address families, with its fields.
type family struct {
	proto, icmp openflow.Term
	echo        openflow.Term // of ICMP: a request
	src, dst    *openflow.Field
	is4         bool
}

var (
	ipv4 = family{openflow.IP, openflow.ICMP, openflow.ICMPType.Is(8), openflow.IPv4Src, openflow.IPv4Dst, true}
	ipv6 = family{openflow.IPv6, openflow.ICMPv6, openflow.ICMPv6Type.Is(128), openflow.IPv6Src, openflow.IPv6Dst, false}
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// transit is the family's part of the transit range, of the address t in it.
func (f family) transit() netip.Prefix {
	if f.is4 {
		return vnet.TransitRange4
	}
	return vnet.TransitRange6
}

func (f family) addr(t vnet.Transit) netip.Addr {
	if f.is4 {
		return t.Addr4()
	}
	return t.Addr6()
}

// An inNetwork term matches packets in the network.
func (n Network) inNetwork() openflow.Term {
	return openflow.Metadata.Masked(uint64(n.VNI), networkMask)
}

// An inTenant term matches packets of the tenant, whatever their network.
func (n Network) inTenant() openflow.Term {
	return openflow.Metadata.Masked(uint64(n.TenantNumber)<<32, tenantMask)
}

// OwnerMask is the owner's part of a cookie, which is version (8 bits) | kind (8) | hash of the
// owner (48): it finds all flows of an owner, whatever their kind.
const OwnerMask uint64 = 0x0000_ffff_ffff_ffff

// DropBit is set in the cookies of flows that drop, and of no others.
const DropBit = uint64(UnknownPort) << 48

// Owner is who a flow is for: the base, a network, an endpoint.
type Owner uint64

// Base owns the flows that every bridge has.
const Base Owner = 0

// EndpointOwner is the owner of an endpoint's flows.
func EndpointOwner(id vnet.EndpointID) Owner { return ownerOf("endpoint " + string(id)) }

// NetworkOwner is the owner of a network's flows.
func NetworkOwner(r vnet.Ref) Owner { return ownerOf("network " + r.String()) }

// FloodOwner is the owner of a network's flood list, which changes with its members.
func FloodOwner(r vnet.Ref) Owner { return ownerOf("flood " + r.String()) }

// EtcdOwner is the owner of what keeps containers from the cluster's etcd.
var EtcdOwner = ownerOf("etcd")

// PeerOwner is the owner of what lets another node's tunnels in.
func PeerOwner(n vnet.NodeName) Owner { return ownerOf("peer " + string(n)) }

// RemoteOwner is the owner of the flows that lead to another node's endpoint. An id that comes back in another network is
// another endpoint: of which is heard first is not said.
func RemoteOwner(r vnet.Remote) Owner {
	return ownerOf("remote " + string(r.Node) + " " + r.Ref().String() + " " + string(r.ID))
}

// ChainOwner is the owner of a chain's flows.
func ChainOwner(r vnet.ChainRef) Owner { return ownerOf("chain " + r.String()) }

// LedOwner is the owner of what a network has for the sake of its tenant's chains.
func LedOwner(r vnet.Ref) Owner { return ownerOf("led network " + r.String()) }

// FunctionOwner is the owner of the flows that lead in and out of an instance, whatever the chain.
func FunctionOwner(i vnet.Instance) Owner { return ownerOf("function " + i.String()) }

func ownerOf(name string) Owner {
	sum := sha256.Sum256([]byte(name))
	return Owner(binary.BigEndian.Uint64(sum[:8]) & OwnerMask)
}

// Cookie is the cookie of an owner's flows that pass traffic on.
func (o Owner) Cookie() uint64 { return o.cookie(Forward) }

func (o Owner) cookie(k Kind) uint64 { return Version<<56 | uint64(k)<<48 | uint64(o) }

// OwnerOf returns the owner in a cookie, KindOf the kind.
func OwnerOf(cookie uint64) Owner { return Owner(cookie & OwnerMask) }

// KindOf returns the kind in a cookie.
func KindOf(cookie uint64) Kind { return Kind(cookie >> 48) }
