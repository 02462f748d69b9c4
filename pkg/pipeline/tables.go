// Package pipeline renders what the store says into flows. It is pure: the same records give
// the same flows, and nothing is asked of the switch.
//
// DESIGN.md beside this file explains each table with the flows that the tests hold it to.
package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The tables, in the order a packet meets them. The gaps are for what a later table needs.
const (
	Classify     = 0   // which endpoint sent it: tenant, network
	PortSecurity = 10  // is it the sender's own MAC and address
	Neighbour    = 15  // ARP and ND questions: to the owner, or answered for the gateway
	Route        = 40  // addressed to the router: which network of the tenant
	NextHop      = 41  // which MAC has the address there
	RouterSource = 42  // from the router's MAC, TTL one less
	Destination  = 50  // which port has the MAC in this network
	Flood        = 55  // broadcast and multicast, where the network asks for it
	Output       = 80  // out of the port chosen
	Marker       = 253 // says which pipeline this is; written last
)

// tableNames, for those who read flows.
var tableNames = map[uint8]string{
	Classify: "Classify", PortSecurity: "PortSecurity", Neighbour: "Neighbour", Route: "Route", NextHop: "NextHop",
	RouterSource: "RouterSource", Destination: "Destination", Flood: "Flood", Output: "Output", Marker: "Marker",
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
const Version = 1

// Metadata carries where a packet is: bits 0 to 23 the network's VNI, 32 to 55 the tenant's number.
const (
	networkMask = 0x0000_0000_00ff_ffff
	tenantMask  = 0x00ff_ffff_0000_0000
)

// Registers: reg0 bits 0 to 3 say what sent the packet, reg1 is the port it leaves by.
const (
	classMask     = 0xf
	classEndpoint = 3
)

var outPort = openflow.Reg1

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

func ownerOf(name string) Owner {
	sum := sha256.Sum256([]byte(name))
	return Owner(binary.BigEndian.Uint64(sum[:8]) & OwnerMask)
}

func (o Owner) cookie(k Kind) uint64 { return Version<<56 | uint64(k)<<48 | uint64(o) }

// OwnerOf returns the owner in a cookie, KindOf the kind.
func OwnerOf(cookie uint64) Owner { return Owner(cookie & OwnerMask) }

// KindOf returns the kind in a cookie.
func KindOf(cookie uint64) Kind { return Kind(cookie >> 48) }
