package vnet

import "time"

// PathID numbers a path: 15 bits, from 1, since a hop's VNI has room for no more.
type PathID uint32

// MaxPath is the highest.
const MaxPath PathID = 1<<15 - 1

// MaxHops is how many groups a chain may have.
const MaxHops = 8

// MaxInstances is how many instances the groups of a chain may have together: the switch shares new connections among
// 256 ways at most.
const MaxInstances = 256

// Path is one concrete way through a chain: an instance of each of its groups. A connection keeps its path.
type Path struct {
	ID   PathID `json:"id"`
	Hops []Hop  `json:"hops"` // in the order of forward packets; none: everything was open and dead
	// Weight is its share of new connections. 0: none.
	Weight int `json:"weight"`
	// At are its shares of new connections that clients on these nodes open, where the chain prefers functions of the client's
	// node: there the paths with such a share are all that count.
	At map[NodeName]int `json:"at,omitempty"`
	// Retired is when it got no new connection any more.
	Retired time.Time `json:"retired,omitzero"`
}

// Retires makes it one that gets no new connection any more.
func (p Path) Retires(now time.Time) Path {
	if p.Serves() {
		p.Weight, p.At, p.Retired = 0, nil, now
	}
	return p
}

// Serves reports whether it gets new connections; else it stands for those that have it.
func (p Path) Serves() bool { return p.Weight > 0 || len(p.At) > 0 }

// Hop is one instance on a path.
type Hop struct {
	Group    GroupName `json:"group"`
	Instance uint32    `json:"instance"`       // its number, on its node
	Node     NodeName  `json:"node,omitempty"` // that it is on; empty: on the only one there is
}

// On reports whether the hop is on that node.
func (h Hop) On(n NodeName) bool { return h.Node == "" || h.Node == n }

// Leg is a part of a chain in which a connection keeps its addresses: all of it, or, where a
// group rewrites them, up to that group, and from behind it on.
type Leg struct {
	// Number stands for the leg in the pipeline (16 bits, from 1).
	Number uint32      `json:"number"`
	Groups []GroupName `json:"groups"`
	Paths  []Path      `json:"paths"`
	// Blocked is a group that is closed and has nobody alive: there is no way through.
	Blocked GroupName `json:"blocked,omitempty"`
}
