package vnet

import (
	"fmt"
	"slices"
	"time"
)

// PathID numbers a path: 15 bits, from 1, since a hop's VNI has room for no more.
type PathID uint32

// MaxPath is the highest.
const MaxPath PathID = 1<<15 - 1

// MaxHops is how many groups a chain may have.
const MaxHops = 8

// MaxInstances is how many instances the groups of a chain may have together: the switch shares new connections among
// 256 ways at most.
const MaxInstances = 256

// MaxShare is the largest share of a path, and what the shares of a leg's paths add up to, but for rounding.
const MaxShare = 10_000

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

// Chosen are the paths that a new connection of a client on the node may be given, with their weights there: those that are
// its own clients', if there are any.
func (l Leg) Chosen(at NodeName) []Path {
	var all, own []Path
	for _, p := range l.Paths {
		if p.Weight > 0 {
			all = append(all, p)
		}
		if w := p.At[at]; w > 0 {
			p.Weight = w
			own = append(own, p)
		}
	}
	if len(own) > 0 {
		return own
	}
	return all
}

const maxNumber = 1<<16 - 1 // of a leg, or an instance

// ValidateLegs reports whether the legs can be those of a chain, as a cluster's nodes tell each other: everything that the
// pipeline reckons with is in its bounds.
func ValidateLegs(legs []Leg) error {
	if len(legs) > MaxHops { // each but the last ends with a group that rewrites
		return Invalidf("there are %d legs: at most %d", len(legs), MaxHops)
	}
	numbers, ids := map[uint32]bool{}, map[PathID]bool{}
	for i, l := range legs {
		if l.Number < 1 || l.Number > maxNumber || numbers[l.Number] {
			return Invalidf("leg %d: number %d: must be 1 to %d, and no other's", i+1, l.Number, maxNumber)
		}
		numbers[l.Number] = true
		if err := l.validate(); err != nil {
			return fmt.Errorf("leg %d: %w", i+1, err)
		}
		for _, p := range l.Paths {
			if ids[p.ID] {
				return Invalidf("leg %d: path %d: there are two", i+1, p.ID)
			}
			ids[p.ID] = true
			if err := p.validate(); err != nil {
				return fmt.Errorf("leg %d: path %d: %w", i+1, p.ID, err)
			}
		}
	}
	return nil
}

func (l Leg) validate() error {
	if len(l.Groups) > MaxHops {
		return Invalidf("it has %d groups: at most %d", len(l.Groups), MaxHops)
	}
	groups := l.Groups
	if l.Blocked != "" {
		groups = append(slices.Clip(groups), l.Blocked)
	}
	for _, g := range groups {
		if err := g.Validate(); err != nil {
			return err
		}
	}
	return nil
}

func (p Path) validate() error {
	switch {
	case p.ID < 1 || p.ID > MaxPath:
		return Invalidf("its number must be 1 to %d", MaxPath)
	case len(p.Hops) > MaxHops:
		return Invalidf("it has %d hops: at most %d", len(p.Hops), MaxHops)
	case p.Weight < 0 || p.Weight > MaxShare:
		return Invalidf("weight %d: must be 0 to %d", p.Weight, MaxShare)
	}
	for node, weight := range p.At {
		if err := node.Validate(); err != nil {
			return err
		}
		if weight < 0 || weight > MaxShare {
			return Invalidf("weight %d on node %s: must be 0 to %d", weight, node, MaxShare)
		}
	}
	for _, h := range p.Hops {
		if err := h.Group.Validate(); err != nil {
			return err
		}
		if err := h.Node.Validate(); err != nil {
			return err
		}
		if h.Instance < 1 || h.Instance > maxNumber {
			return Invalidf("instance %d: must be 1 to %d", h.Instance, maxNumber)
		}
	}
	return nil
}
