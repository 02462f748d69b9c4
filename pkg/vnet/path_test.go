package vnet_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Whatever a record of legs says, what the pipeline reckons with is in its bounds, or the record is refused.
func TestLegsAreInTheirBounds(t *testing.T) {
	hop := vnet.Hop{Group: "fw", Instance: 1, Node: "n1"}
	good := func() []vnet.Leg {
		return []vnet.Leg{
			{Number: 1, Groups: []vnet.GroupName{"fw"}, Paths: []vnet.Path{{ID: 1, Hops: []vnet.Hop{hop}, Weight: vnet.MaxShare}, {ID: vnet.MaxPath, At: map[vnet.NodeName]int{"n1": 1}}}},
			{Number: 1<<16 - 1, Blocked: "nat", Paths: []vnet.Path{{ID: 2}}},
		}
	}
	if err := vnet.ValidateLegs(good()); err != nil {
		t.Error(err)
	}
	many := good()
	for id := range 300 { // that connections still have
		many[0].Paths = append(many[0].Paths, vnet.Path{ID: vnet.PathID(100 + id), Hops: []vnet.Hop{hop}})
	}
	if err := vnet.ValidateLegs(many); err != nil {
		t.Error(err)
	}
	for what, spoil := range map[string]func(l []vnet.Leg) []vnet.Leg{
		"too many legs":      func(l []vnet.Leg) []vnet.Leg { return slices.Repeat(l, vnet.MaxHops) },
		"no number":          func(l []vnet.Leg) []vnet.Leg { l[0].Number = 0; return l },
		"a large number":     func(l []vnet.Leg) []vnet.Leg { l[0].Number = 1 << 16; return l },
		"one number twice":   func(l []vnet.Leg) []vnet.Leg { l[1].Number = 1; return l },
		"too many groups":    func(l []vnet.Leg) []vnet.Leg { l[0].Groups = slices.Repeat(l[0].Groups, vnet.MaxHops+1); return l },
		"no group":           func(l []vnet.Leg) []vnet.Leg { l[0].Groups[0] = ""; return l },
		"blocked by nobody":  func(l []vnet.Leg) []vnet.Leg { l[1].Blocked = "a/b"; return l },
		"no path number":     func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].ID = 0; return l },
		"a large path":       func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].ID = vnet.MaxPath + 1; return l },
		"one path twice":     func(l []vnet.Leg) []vnet.Leg { l[1].Paths[0].ID = 1; return l },
		"a heavy path":       func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Weight = 1 << 62; return l },
		"a negative path":    func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Weight = -1; return l },
		"heavy on a node":    func(l []vnet.Leg) []vnet.Leg { l[0].Paths[1].At["n1"] = 1 << 62; return l },
		"negative on a node": func(l []vnet.Leg) []vnet.Leg { l[0].Paths[1].At["n1"] = -1; return l },
		"on no node":         func(l []vnet.Leg) []vnet.Leg { l[0].Paths[1].At[""] = 1; return l },
		"too many hops": func(l []vnet.Leg) []vnet.Leg {
			l[0].Paths[0].Hops = slices.Repeat(l[0].Paths[0].Hops, vnet.MaxHops+1)
			return l
		},
		"a hop nowhere":      func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Hops[0].Node = ""; return l },
		"a hop of no group":  func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Hops[0].Group = ""; return l },
		"a hop of no number": func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Hops[0].Instance = 0; return l },
		"a large instance":   func(l []vnet.Leg) []vnet.Leg { l[0].Paths[0].Hops[0].Instance = 1 << 16; return l },
	} {
		if err := vnet.ValidateLegs(spoil(good())); !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
