package pipeline

// Kind says what a flow is for. Every flow that drops has a kind of its own, so that its
// packets are counted under a name.
type Kind uint8

// Kinds of flows that pass traffic on.
const (
	Forward Kind = 1 // carries traffic of its owner
	Mark    Kind = 2 // the marker
)

// Kinds of drops.
const (
	UnknownPort Kind = 0x80 + iota
	VLANTag
	BridgeControl
	SpoofedMAC
	SpoofedIPv4
	SpoofedIPv6
	ForgedARP
	ForgedND
	RouterAdvert
	RouterSolicit
	Redirect
	ListenerReport
	SelfProbe
	OtherProtocol
	UnknownNeighbour
	TTLExpired
	TunnelForbidden
	Unroutable
	UnknownAddress
	UnknownMAC
	NoMulticast
	NoPort
	Stray
	UnknownAlias
	Unsolicited
	InvalidConnection
	HostForbidden
	UplinkLoop
	HostMulticast
	ChainBlocked
	FunctionDown
	ForgedPath
	FunctionStray
	ProbeReturn
	ChainedLinkLocal
	ChainedFragment
	UnknownVTEP
	UnknownVNI
	SplitHorizon
	Greets
	EtcdForbidden
)

// drops gives each drop its name, and what happened in words.
var drops = map[Kind]struct{ name, text string }{
	UnknownPort:       {"unknown-port", "it came in by a port, or in a VLAN of an uplink, that belongs to nothing here"},
	VLANTag:           {"vlan-tag", "a container sent a VLAN tag"},
	BridgeControl:     {"bridge-control", "a container sent a bridge-control frame (01:80:c2:00:00:0x)"},
	SpoofedMAC:        {"spoofed-mac", "the sender used a MAC that is not its own"},
	SpoofedIPv4:       {"spoofed-ipv4", "the sender used an IPv4 source address that is not its own"},
	SpoofedIPv6:       {"spoofed-ipv6", "the sender used an IPv6 source address that is not its own"},
	ForgedARP:         {"forged-arp", "the sender's ARP names an address or MAC that is not its own"},
	ForgedND:          {"forged-nd", "the sender's neighbour discovery names an address or MAC that is not its own"},
	RouterAdvert:      {"router-advertisement", "a container posed as a router"},
	RouterSolicit:     {"router-solicitation", "no router advertises here: addresses come from IPAM"},
	Redirect:          {"redirect", "a container sent an ICMPv6 redirect"},
	ListenerReport:    {"multicast-listener", "multicast listener reports go nowhere: membership is not tracked"},
	SelfProbe:         {"self-probe", "the sender asked who has its own address: nobody else may"},
	OtherProtocol:     {"other-protocol", "neither ARP, IPv4 nor IPv6"},
	UnknownNeighbour:  {"unknown-neighbour", "nobody in the network has the address that was asked for"},
	TTLExpired:        {"ttl-expired", "its time to live ran out at the router"},
	TunnelForbidden:   {"tunnel", "a container sent VXLAN or Geneve to an address outside its tenant"},
	Unroutable:        {"unroutable", "its destination is in no network of the tenant, and no way out leads there"},
	UnknownAddress:    {"unknown-address", "nobody in the network has its destination address"},
	UnknownMAC:        {"unknown-mac", "nobody in the network has its destination MAC"},
	NoMulticast:       {"no-multicast", "the network does not carry broadcast and multicast"},
	NoPort:            {"no-port", "no output port was chosen"},
	UnknownAlias:      {"unknown-alias", "the host sent it to an address that is nobody's here, or that it alone may use"},
	Unsolicited:       {"unsolicited", "it came from outside for a connection that nobody inside opened"},
	InvalidConnection: {"invalid-connection", "connection tracking could not make sense of it"},
	HostForbidden:     {"host", "a container may answer the host, but not open a connection to its aliases or its end of the link"},
	HostMulticast:     {"host-multicast", "the host sent broadcast or multicast by its link, where nobody listens"},
	UplinkLoop:        {"uplink-loop", "it came in by the uplink with the MAC of an endpoint that is here"},
	ChainBlocked:      {"chain-blocked", "a group of its chain is closed, and no function in it lives"},
	FunctionDown:      {"function-down", "the function that its connection goes through is dead, and its group is closed"},
	ForgedPath:        {"forged-path", "a function sent what nobody sent through it: a tag of no path, of another hop or port, or a connection that it was not given"},
	FunctionStray:     {"function-stray", "a function's port sent what is no part of a chain: ARP, broadcast, traffic of its own"},
	ProbeReturn:       {"probe", "a probe of a function, which has come back"},
	ChainedLinkLocal:  {"chained-link-local", "a chain leads such traffic, and packets to link-local addresses cannot be led"},
	ChainedFragment:   {"chained-fragment", "a packet in fragments opened a connection that several chains may want, by ports that its fragments have not; one that opens with a short packet goes on with long ones"},
	UnknownVTEP:       {"unknown-vtep", "it came by a tunnel from an address that is no node's"},
	UnknownVNI:        {"unknown-vni", "it came by a tunnel for a network, or a hop of a chain, that is not here"},
	SplitHorizon:      {"split-horizon", "it came by a tunnel for an endpoint that is not here any more"},
	Greets:            {"greeting", "a node sent its first packet here, so that none that matters is lost"},
	EtcdForbidden:     {"etcd", "a container sent to the cluster's etcd"},
	Stray:             {"stray", "no flow of the table wants it"},
}

// Drops reports whether flows of this kind drop.
func (k Kind) Drops() bool { return k >= UnknownPort }

// String returns the kind's name as shown in status and trace.
func (k Kind) String() string {
	switch k {
	case Forward:
		return "forward"
	case Mark:
		return "marker"
	}
	if d, ok := drops[k]; ok {
		return d.name
	}
	return "unknown"
}

// Text says in words why packets are dropped, "" if the kind does not drop.
func (k Kind) Text() string { return drops[k].text }
