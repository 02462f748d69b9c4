package vnet

import "cmp"

// FunctionPort says which port of a service function an endpoint is.
type FunctionPort struct {
	Group  GroupName `json:"group"`
	Port   PortRole  `json:"port"`
	Weight int       `json:"weight,omitempty"` // the instance's share of its group's connections; 0 in a declaration: 1
}

// PortRole is what a port is for a function.
type PortRole string

// The roles: a port pair is an ingress and an egress, or one port for both.
const (
	Ingress PortRole = "ingress" // what clients send goes in here
	Egress  PortRole = "egress"  // and comes out here
	Both    PortRole = "both"
)

// MaxWeight is the largest weight of an instance.
const MaxWeight = 100

// Normal checks a declaration and returns it with defaults filled in.
func (f FunctionPort) Normal() (FunctionPort, error) {
	if err := f.Group.Validate(); err != nil {
		return f, err
	}
	switch f.Port {
	case Ingress, Egress, Both:
	default:
		return f, Invalidf("port %q: must be ingress, egress or both", f.Port)
	}
	f.Weight = cmp.Or(f.Weight, 1)
	if f.Weight < 0 || f.Weight > MaxWeight {
		return f, Invalidf("weight %d: must be 1 to %d", f.Weight, MaxWeight)
	}
	return f, nil
}

// Instance is a port pair: one container that serves in a group, with its two endpoints.
type Instance struct {
	Tenant    TenantName `json:"tenant"`
	Group     GroupName  `json:"group"`
	Container string     `json:"container"`
	// Number stands for the instance in the pipeline (16 bits, from 1). It is this node's own.
	Number  uint32     `json:"number"`
	Ingress EndpointID `json:"ingress,omitempty"` // empty while it is missing; the same as Egress if one serves for both
	Egress  EndpointID `json:"egress,omitempty"`
	Weight  int        `json:"weight"`
	// Zone is where the switch tracks what an addressed function is given. 0: a transparent function.
	Zone Zone `json:"zone,omitempty"`
	// Drained: no new connection shall come to it. An operator's word.
	Drained bool `json:"drained,omitempty"`
	// Hung: probes do not come out of it. The word of tenetd.
	Hung bool `json:"hung,omitempty"`
	// Node has the instance, and Down says that a port of it is: in what nodes of a cluster tell each other. Empty, false: it
	// is one of this node's own, whose ports can be looked at.
	Node NodeName `json:"node,omitempty"`
	Down bool     `json:"down,omitempty"`
}

// Ref returns the group the instance serves in.
func (i Instance) Ref() GroupRef { return GroupRef{i.Tenant, i.Group} }

// Whole reports whether the instance has both its ports.
func (i Instance) Whole() bool { return i.Ingress != "" && i.Egress != "" }

func (i Instance) String() string { return i.Ref().String() + "/" + i.Container }

// Hop is a path's visit to the instance.
func (i Instance) Hop() Hop { return Hop{i.Group, i.Number, i.Node} }

// With returns the instance with one more of its ports. ErrExists if it has such a port already.
func (i Instance) With(id EndpointID, f FunctionPort) (Instance, error) {
	for _, port := range []struct {
		role PortRole
		has  *EndpointID
	}{{Ingress, &i.Ingress}, {Egress, &i.Egress}} {
		if f.Port != port.role && f.Port != Both {
			continue
		}
		if *port.has != "" && *port.has != id {
			return i, Existsf("serviceFunction: container %s has its %s port in group %s already", i.Container, port.role, i.Group)
		}
		*port.has = id
	}
	i.Weight = max(i.Weight, f.Weight)
	return i, nil
}

// Without returns the instance without that endpoint.
func (i Instance) Without(id EndpointID) Instance {
	if i.Ingress == id {
		i.Ingress = ""
	}
	if i.Egress == id {
		i.Egress = ""
	}
	return i
}
