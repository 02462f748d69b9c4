// Package cni is the edge towards container runtimes: it parses network configurations and
// CNI_ARGS, runs the verbs, builds results, calls foreign IPAM plugins, and turns kinds of
// errors into CNI's codes. Nothing behind it knows CNI.
package cni

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// OurIPAM is the IPAM type that is served in the same process.
const OurIPAM = "tenet-ipam"

// MaxConf is the largest network configuration read, in bytes.
const MaxConf = 1 << 20

// Versions are the CNI versions spoken.
var Versions = version.PluginSupports("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

// NetConf is a network configuration of type tenet, or the ipam section of one of another type.
type NetConf struct {
	types.PluginConf `json:"-"`

	Tenant     vnet.TenantName  `json:"tenant"`
	Network    vnet.NetworkName `json:"network"`
	TenantFrom string           `json:"tenantFrom"` // "namespace": K8S_POD_NAMESPACE
	Subnets    []vnet.Subnet    `json:"subnets"`
	VNI        *vnet.VNI        `json:"vni"`
	Gateway    vnet.Gateway     `json:"gateway"`
	// EgressAddress and Provider belong to the network's declaration, as in vnet.Network.
	EgressAddress string         `json:"egressAddress"`
	Provider      *vnet.Provider `json:"provider"`
	MTU           *int           `json:"mtu"`
	Bridge        string         `json:"bridge"`
	OVSRunDir     string         `json:"ovsRunDir"`
	DataDir       string         `json:"dataDir"`
	Datapath      string         `json:"datapath"`
	Config        string         `json:"config"`
	// ServiceFunction and Labels are read when an endpoint is made, as what args.cni says of them is: DEL does not
	// stumble over them.
	ServiceFunction json.RawMessage `json:"serviceFunction"`
	Labels          json.RawMessage `json:"labels"`

	Runtime Runtime `json:"-"`
	Args    Args    `json:"-"`
	ipam    map[string]json.RawMessage
	args    json.RawMessage // what the runtime adds for one container
	dns     vnet.DNS        // of the network that is declared
	Raw     []byte          `json:"-"` // the whole configuration, as it came
}

// Runtime is what a runtime adds for the capabilities that the configuration declares.
type Runtime struct {
	IPs []string `json:"ips"`
	MAC string   `json:"mac"`
	// PortMappings and Bandwidth are read when an endpoint is made: DEL does not stumble over them.
	PortMappings []json.RawMessage `json:"portMappings"`
	Bandwidth    json.RawMessage   `json:"bandwidth"`
}

// Keys that are CNI's or the runtime's.
var foreignKeys = []string{
	"cniVersion", "name", "type", "args", "capabilities", "dns", "ipMasq", "prevResult", "runtimeConfig",
	"disableCheck", "disableGC", "loadOnlyInlinedPlugins",
}

// Keys of the two plugins.
var (
	tenetKeys = []string{
		"tenant", "network", "tenantFrom", "subnets", "vni", "gateway", "egressAddress", "provider", "mtu",
		"bridge", "ovsRunDir", "dataDir", "datapath", "config", "ipam", "serviceFunction", "labels",
	}
	ipamKeys     = []string{"type", "tenant", "network", "tenantFrom", "subnets", "dataDir", "config"}
	subnetKeys   = []string{"prefix", "gateway", "reserved"}
	providerKeys = []string{"uplink", "vlan"}
	runtimeKeys  = []string{"ips", "mac", "portMappings", "bandwidth"}
)

// Keys that are read into types.PluginConf.
var pluginKeys = []string{"cniVersion", "name", "type", "capabilities", "dns", "prevResult", "cni.dev/valid-attachments"}

// ParseTenet parses the configuration of the tenet plugin together with CNI_ARGS.
func ParseTenet(stdin []byte, args string) (*NetConf, error) {
	c, keys, err := parse(stdin, args)
	if err != nil {
		return nil, err
	}
	if err := knownKeys(keys, tenetKeys, foreignKeys); err != nil {
		return nil, err
	}
	if err := c.read("network configuration", keys, tenetKeys); err != nil {
		return nil, err
	}
	section, err := c.readIPAMType(keys)
	if err != nil {
		return nil, err
	}
	if c.ipam = section; c.IPAM.Type == "" {
		c.IPAM.Type = OurIPAM
	}
	if c.IPAM.Type == OurIPAM {
		if err := knownKeys(section, []string{"type"}, nil); err != nil {
			return nil, vnet.WithHint(fmt.Errorf("ipam: %w", err), "for the tenet plugin, tenant, network and subnets stand beside ipam, not in it")
		}
	}
	if masq, ok := keys["ipMasq"]; ok && !slices.Contains([]string{"false", "null"}, string(masq)) {
		return nil, vnet.WithHint(vnet.Invalidf("ipMasq is not offered: a network says itself how it leaves its tenant"),
			`declare the network with "gateway": "nat"`)
	}
	c.dns = vnet.DNS(c.DNS)
	c.args = keys["args"]
	return c, c.check()
}

// ParseIPAM parses the configuration that tenet-ipam gets from another main plugin.
func ParseIPAM(stdin []byte, args string) (*NetConf, error) {
	c, keys, err := parse(stdin, args)
	if err != nil {
		return nil, err
	}
	section, err := c.readIPAMType(keys)
	if err != nil {
		return nil, err
	}
	if section == nil {
		return nil, vnet.Invalidf("network configuration has no ipam section")
	}
	if err := knownKeys(section, ipamKeys, nil); err != nil {
		return nil, fmt.Errorf("ipam: %w", err)
	}
	if err := c.read("ipam", section, ipamKeys); err != nil {
		return nil, err
	}
	c.Runtime.PortMappings, c.Runtime.Bandwidth = nil, nil // the main plugin's
	return c, c.check()
}

// parse reads what every configuration has.
func parse(stdin []byte, args string) (*NetConf, map[string]json.RawMessage, error) {
	switch {
	case len(bytes.TrimSpace(stdin)) == 0:
		return nil, nil, vnet.Invalidf("network configuration is empty: it is read from standard input")
	case len(stdin) > MaxConf:
		return nil, nil, vnet.Invalidf("network configuration has %d bytes: more than %d", len(stdin), MaxConf)
	}
	keys, err := keysOf("network configuration", stdin)
	if err != nil {
		return nil, nil, err
	}
	c := &NetConf{Raw: stdin}
	if err := decode("network configuration", pick(keys, pluginKeys), &c.PluginConf); err != nil {
		return nil, nil, err
	}
	if err := version.ParsePrevResult(&c.PluginConf); err != nil {
		return nil, nil, vnet.Invalidf("prevResult: %v", err)
	}
	if raw, ok := keys["runtimeConfig"]; ok {
		section, err := keysOf("runtimeConfig", raw)
		if err != nil {
			return nil, nil, err
		}
		if err := decode("runtimeConfig", pick(section, runtimeKeys), &c.Runtime); err != nil {
			return nil, nil, err
		}
	}
	c.Args, err = parseArgs(args)
	return c, keys, err
}

// read decodes our own keys of a section.
func (c *NetConf) read(what string, keys map[string]json.RawMessage, ours []string) error {
	if err := decode(what, pick(keys, ours), c); err != nil {
		return err
	}
	if c.Provider != nil {
		section, err := keysOf("provider", keys["provider"])
		if err != nil {
			return err
		}
		if err := knownKeys(section, providerKeys, nil); err != nil {
			return fmt.Errorf("provider: %w", err)
		}
	}
	if len(c.Subnets) == 0 {
		return nil
	}
	var subnets []json.RawMessage
	if err := decode("subnets", keys["subnets"], &subnets); err != nil {
		return err
	}
	for i, raw := range subnets {
		section, err := keysOf(fmt.Sprintf("subnets[%d]", i), raw)
		if err != nil {
			return err
		}
		if err := knownKeys(section, subnetKeys, nil); err != nil {
			return fmt.Errorf("subnets[%d]: %w", i, err)
		}
	}
	return nil
}

// readIPAMType reads the type from the ipam section, and returns the section; nil if there is none.
func (c *NetConf) readIPAMType(keys map[string]json.RawMessage) (map[string]json.RawMessage, error) {
	raw, ok := keys["ipam"]
	if !ok {
		return nil, nil
	}
	section, err := keysOf("ipam", raw)
	if err != nil {
		return nil, err
	}
	return section, decode("ipam", pick(section, []string{"type"}), &c.IPAM)
}

// check validates what does not depend on the store, and fills in the tenant.
func (c *NetConf) check() error {
	switch {
	case c.TenantFrom != "" && c.TenantFrom != "namespace":
		return vnet.Invalidf("tenantFrom %q: must be \"namespace\"", c.TenantFrom)
	case c.TenantFrom != "" && c.Tenant != "":
		return vnet.Invalidf("tenant and tenantFrom cannot both be given")
	case c.Datapath != "" && c.Datapath != "system" && c.Datapath != "netdev":
		return vnet.Invalidf("datapath %q: must be system or netdev", c.Datapath)
	case c.VNI != nil && c.VNI.Validate() != nil:
		return c.VNI.Validate()
	case c.MTU != nil && *c.MTU <= 0:
		return vnet.Invalidf("mtu %d: must be positive; leave it out for the underlay's less the tunnel header", *c.MTU)
	case c.Provider != nil && c.Provider.Uplink == "":
		return vnet.Invalidf("provider: uplink is missing")
	case len(c.Subnets) == 0 && (c.VNI != nil || c.MTU != nil || c.Gateway != "" || c.EgressAddress != "" || c.Provider != nil):
		return vnet.Invalidf("vni, gateway, egressAddress, provider and mtu declare a network, and need subnets beside them")
	}
	return nil
}

// Ref returns the network that the configuration names. vnet.ErrInvalid if the tenant or the
// network is missing; with tenantFrom the runtime must have told the namespace.
func (c *NetConf) Ref() (vnet.Ref, error) {
	r := vnet.Ref{Tenant: c.Tenant, Network: c.Network}
	if c.TenantFrom == "namespace" {
		r.Tenant = vnet.TenantName(c.Args.K8S_POD_NAMESPACE)
		if r.Tenant == "" {
			return r, vnet.WithHint(vnet.Invalidf("tenantFrom is \"namespace\", but CNI_ARGS has no K8S_POD_NAMESPACE"), "the kubelet and CRI runtimes pass it; elsewhere give \"tenant\"")
		}
	}
	if err := r.Tenant.Validate(); err != nil {
		return r, err
	}
	return r, r.Network.Validate()
}

// Declaration returns the network as the configuration declares it; false if it only names it.
func (c *NetConf) Declaration() (vnet.Network, bool, error) {
	r, err := c.Ref()
	n := vnet.Network{Tenant: r.Tenant, Name: r.Network, Subnets: c.Subnets, Gateway: c.Gateway, DNS: c.dns}
	if err != nil || len(c.Subnets) == 0 {
		return n, false, err
	}
	if n.EgressAddress, err = c.egress(); err != nil {
		return n, true, err
	}
	if c.Provider != nil {
		n.Provider = *c.Provider
	}
	if c.VNI != nil {
		n.VNI = *c.VNI
	}
	if c.MTU != nil {
		n.MTU = *c.MTU
	}
	n, err = n.Normal()
	return n, true, err
}

// egress parses egressAddress, zero if there is none.
func (c *NetConf) egress() (netip.Addr, error) {
	if c.EgressAddress == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(c.EgressAddress)
	if err != nil {
		return a, vnet.Invalidf("egressAddress %q: not an address", c.EgressAddress)
	}
	return a, nil
}

// Addresses returns the addresses that were asked for by capability or CNI_ARGS, without duplicates.
func (c *NetConf) Addresses() ([]netip.Addr, error) {
	asked := slices.Clone(c.Runtime.IPs)
	if c.Args.IP != "" {
		asked = append(asked, strings.Split(string(c.Args.IP), ",")...)
	}
	var addrs []netip.Addr
	for _, text := range asked {
		a, err := netip.ParseAddr(text)
		if err != nil { // the ips capability may carry a prefix length; the subnet's is the one that counts
			p, perr := netip.ParsePrefix(text)
			if perr != nil {
				return nil, vnet.Invalidf("address %q: neither an IPv4 nor an IPv6 address", text)
			}
			a = p.Addr()
		}
		if a = a.Unmap(); a.Zone() != "" {
			return nil, vnet.Invalidf("address %q: a zone makes no sense here", text)
		}
		if !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// MAC returns the address that was asked for by capability or CNI_ARGS, zero if none was.
func (c *NetConf) MAC() (vnet.MAC, error) {
	text := c.Runtime.MAC
	if c.Args.MAC != "" {
		if text != "" && !strings.EqualFold(text, string(c.Args.MAC)) {
			return vnet.MAC{}, vnet.Invalidf("MAC %s is asked by capability, %s by CNI_ARGS", text, c.Args.MAC)
		}
		text = string(c.Args.MAC)
	}
	if text == "" {
		return vnet.MAC{}, nil
	}
	return vnet.ParseMAC(text)
}

// Fingerprint is a hash of everything in the configuration that shapes an endpoint: a second
// ADD with the same one asks for the same thing.
func (c *NetConf) Fingerprint() string {
	ports, _ := c.PortMappings() // what cannot be read makes no endpoint
	limits, _ := c.Bandwidth()
	function, _ := c.FunctionPort()
	labels, _ := c.EndpointLabels()
	shape := struct {
		Name, Tenant, Network, TenantFrom, Namespace string
		Subnets                                      []vnet.Subnet
		VNI                                          *vnet.VNI
		Gateway                                      vnet.Gateway
		MTU                                          *int
		IPs                                          []string
		MAC, IP, ArgsMAC, Bridge                     string
		IPAM                                         map[string]json.RawMessage
		// What came later is left out where it is not used: the hash of what stands stays.
		EgressAddress string             `json:",omitzero"`
		Provider      *vnet.Provider     `json:",omitzero"`
		DNS           vnet.DNS           `json:",omitzero"`
		Ports         []vnet.PortMapping `json:",omitempty"`
		Bandwidth     vnet.Bandwidth     `json:",omitzero"`
		Function      *vnet.FunctionPort `json:",omitempty"`
		Labels        vnet.Labels        `json:",omitempty"`
	}{
		c.Name, string(c.Tenant), string(c.Network), c.TenantFrom, string(c.Args.K8S_POD_NAMESPACE),
		c.Subnets, c.VNI, c.Gateway, c.MTU, c.Runtime.IPs, c.Runtime.MAC, string(c.Args.IP), string(c.Args.MAC), c.Bridge, c.ipam,
		c.EgressAddress, c.Provider, c.dns, ports, limits, function, labels,
	}
	text, _ := json.Marshal(shape) // nothing in it can fail to marshal
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// Attachments returns those that the runtime lists as valid, for GC.
func (c *NetConf) Attachments() []vnet.Attachment {
	var valid []vnet.Attachment
	for _, a := range c.ValidAttachments {
		valid = append(valid, vnet.Attachment{Container: a.ContainerID, IfName: a.IfName})
	}
	return valid
}
