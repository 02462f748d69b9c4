package vnet

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
)

// Chain leads a tenant's connections through groups of service functions.
type Chain struct {
	Tenant TenantName `json:"tenant"`
	Name   ChainName  `json:"name"`
	// Priority decides between chains that want the same packet: the higher one has it. 0 to MaxPriority.
	Priority int `json:"priority,omitempty"`
	// Symmetric: replies visit the same functions backwards. Nil: true.
	Symmetric *bool `json:"symmetric,omitempty"`
	// PreferLocal: of a group's functions those on the client's node are taken, if there are any.
	PreferLocal bool         `json:"preferLocal,omitempty"`
	Groups      []GroupName  `json:"groups"` // in the order of visits
	Classifiers []Classifier `json:"classifiers"`
}

// MaxPriority is the highest priority of a chain.
const MaxPriority = 10_000

const maxClassifiers = 64

// ChainRef names a chain: tenant/chain.
type ChainRef struct {
	Tenant TenantName
	Chain  ChainName
}

func (r ChainRef) String() string { return string(r.Tenant) + "/" + string(r.Chain) }

// Ref returns the chain's name with its tenant's.
func (c Chain) Ref() ChainRef { return ChainRef{c.Tenant, c.Name} }

// IsSymmetric reports whether replies visit the functions, too.
func (c Chain) IsSymmetric() bool { return c.Symmetric == nil || *c.Symmetric }

// Names reports whether a classifier of the chain names an endpoint: itself, or by its labels.
func (c Chain) Names(at Attachment, labels Labels) bool {
	return slices.ContainsFunc(c.Classifiers, func(k Classifier) bool {
		return slices.ContainsFunc([]Selector{k.From, k.To}, func(s Selector) bool {
			return s.Endpoint == at.String() || len(s.Labels) > 0 && labels.Has(s.Labels)
		})
	})
}

// Normal checks a declaration and returns it with defaults filled in.
func (c Chain) Normal() (Chain, error) {
	if err := c.Tenant.Validate(); err != nil {
		return c, err
	}
	if err := c.Name.Validate(); err != nil {
		return c, err
	}
	switch {
	case c.Priority < 0 || c.Priority > MaxPriority:
		return c, Invalidf("priority %d: must be 0 to %d", c.Priority, MaxPriority)
	case len(c.Groups) == 0:
		return c, Invalidf("chain %s has no groups", c.Ref())
	case len(c.Groups) > MaxHops:
		return c, Invalidf("chain %s has %d hops: at most %d", c.Ref(), len(c.Groups), MaxHops)
	case len(c.Classifiers) == 0:
		return c, WithHint(Invalidf("chain %s has no classifiers", c.Ref()), `one for all traffic of the tenant is {from: {any: true}, to: {any: true}}`)
	case len(c.Classifiers) > maxClassifiers:
		return c, Invalidf("chain %s has %d classifiers: at most %d", c.Ref(), len(c.Classifiers), maxClassifiers)
	}
	symmetric := c.IsSymmetric()
	c.Symmetric = &symmetric
	for i, g := range c.Groups {
		if strings.Contains(string(g), "/") {
			return c, Invalidf("group %q: a chain is led through groups of its own tenant, which are named without it", g)
		}
		if err := g.Validate(); err != nil {
			return c, err
		}
		if slices.Contains(c.Groups[:i], g) {
			return c, Invalidf("chain %s visits group %s twice", c.Ref(), g)
		}
	}
	c.Classifiers = slices.Clone(c.Classifiers)
	for i, k := range c.Classifiers {
		normal, err := k.Normal()
		if err != nil {
			return c, fmt.Errorf("classifier %d: %w", i+1, err)
		}
		c.Classifiers[i] = normal
		if slices.ContainsFunc(c.Classifiers[:i], normal.Equal) {
			return c, Invalidf("classifier %d: the chain has it twice", i+1)
		}
	}
	return c, nil
}

// Classifier says which connections a chain leads: those that somebody in From opens to somebody in To.
type Classifier struct {
	From     Selector `json:"from"`
	To       Selector `json:"to"`
	Protocol Protocol `json:"protocol,omitempty"` // empty: any
	// SourcePorts and DestinationPorts are those of tcp and udp. Empty: any.
	SourcePorts      PortRanges `json:"sourcePorts,omitempty"`
	DestinationPorts PortRanges `json:"destinationPorts,omitempty"`
}

// Protocol of a classifier.
type Protocol string

// The protocols that a classifier can ask for.
const (
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
	ICMP Protocol = "icmp" // of either family, ICMP's own kind
)

// Normal checks a classifier and returns it with defaults filled in.
func (k Classifier) Normal() (Classifier, error) {
	from, err := k.From.normal()
	if err != nil {
		return k, fmt.Errorf("from: %w", err)
	}
	to, err := k.To.normal()
	if err != nil {
		return k, fmt.Errorf("to: %w", err)
	}
	k.From, k.To = from, to
	if k.Protocol == "any" {
		k.Protocol = ""
	}
	switch k.Protocol {
	case "", TCP, UDP, ICMP:
	default:
		return k, Invalidf("protocol %q: must be tcp, udp, icmp or any", k.Protocol)
	}
	if len(k.SourcePorts)+len(k.DestinationPorts) > 0 && k.Protocol != TCP && k.Protocol != UDP {
		return k, Invalidf("ports are those of tcp or udp: say which protocol")
	}
	if from.Prefix.IsValid() && to.Prefix.IsValid() && from.Prefix.Addr().Is4() != to.Prefix.Addr().Is4() {
		return k, Invalidf("it matches nothing: %s and %s are of different families", from.Prefix, to.Prefix)
	}
	k.SourcePorts, k.DestinationPorts = k.SourcePorts.normal(), k.DestinationPorts.normal()
	return k, nil
}

// Equal reports whether both, as Normal returned them, match just the same.
func (k Classifier) Equal(o Classifier) bool { return reflect.DeepEqual(k, o) }

func (k Classifier) String() string {
	words := []string{"from " + k.From.String(), "to " + k.To.String()}
	if k.Protocol != "" {
		words = append(words, string(k.Protocol))
	}
	if len(k.SourcePorts) > 0 {
		words = append(words, "source ports "+k.SourcePorts.String())
	}
	if len(k.DestinationPorts) > 0 {
		words = append(words, "ports "+k.DestinationPorts.String())
	}
	return strings.Join(words, " ")
}

// Selector names one side of connections: just one of its fields is set.
type Selector struct {
	Network  NetworkName  `json:"network,omitempty"`
	Endpoint string       `json:"endpoint,omitempty"` // CONTAINER/IFNAME
	Prefix   netip.Prefix `json:"prefix,omitzero"`
	Labels   Labels       `json:"labels,omitempty"` // endpoints that have all of them
	Any      bool         `json:"any,omitempty"`
}

func (s Selector) normal() (Selector, error) {
	var set []string
	for what, is := range map[string]bool{
		"network": s.Network != "", "endpoint": s.Endpoint != "", "prefix": s.Prefix.IsValid(), "labels": len(s.Labels) > 0, "any": s.Any,
	} {
		if is {
			set = append(set, what)
		}
	}
	slices.Sort(set)
	switch {
	case len(set) == 0:
		return s, WithHint(Invalidf("it says nothing, which would match everything"), "say network, endpoint, prefix or labels; if all traffic is meant: any: true")
	case len(set) > 1:
		return s, Invalidf("%s cannot both be given", strings.Join(set, " and "))
	case s.Network != "":
		return s, s.Network.Validate()
	case s.Prefix.IsValid():
		if s.Prefix.Addr().Zone() != "" || s.Prefix.Addr().Is4In6() {
			return s, Invalidf("prefix %s: neither an IPv4 nor an IPv6 prefix", s.Prefix)
		}
		if s.Prefix.Bits() == 0 {
			return s, WithHint(Invalidf("prefix %s matches everything of its family", s.Prefix), "if all traffic is meant: any: true")
		}
		s.Prefix = s.Prefix.Masked()
	case len(s.Labels) > 0:
		return s, s.Labels.Validate()
	case s.Endpoint != "" && !strings.Contains(s.Endpoint, "/"):
		return s, Invalidf("endpoint %q: name it as CONTAINER/IFNAME", s.Endpoint)
	}
	return s, nil
}

func (s Selector) String() string {
	switch {
	case s.Network != "":
		return "network " + string(s.Network)
	case s.Endpoint != "":
		return "endpoint " + s.Endpoint
	case s.Prefix.IsValid():
		return s.Prefix.String()
	case len(s.Labels) > 0:
		return "labels " + s.Labels.String()
	}
	return "any"
}

// Labels are an endpoint's, for classifiers to select by.
type Labels map[string]string

// Validate reports whether they can be an endpoint's: keys and values as Kubernetes has them, or less strict.
func (l Labels) Validate() error {
	const most, longest = 64, 253
	if len(l) > most {
		return Invalidf("there are %d labels: at most %d", len(l), most)
	}
	for _, k := range slices.Sorted(maps.Keys(l)) {
		for _, text := range []string{k, l[k]} {
			if len(text) > longest || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' || r == '=' || r == ',' }) {
				return Invalidf("label %.40q: up to %d printable characters, without space, comma and equals sign", text, longest)
			}
		}
		if k == "" {
			return Invalidf("a label has no key")
		}
	}
	return nil
}

// Has reports whether l has all of the labels wanted.
func (l Labels) Has(wanted Labels) bool {
	for k, v := range wanted {
		if have, ok := l[k]; !ok || have != v {
			return false
		}
	}
	return true
}

func (l Labels) String() string {
	var texts []string
	for _, k := range slices.Sorted(maps.Keys(l)) {
		texts = append(texts, k+"="+l[k])
	}
	return strings.Join(texts, ",")
}
