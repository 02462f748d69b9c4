// Package paths decides which ways lead through a chain: which instances follow one another, and
// what share of the new connections each way gets. It is pure but for the transaction.
//
// Instances of successive groups are not combined each with each, which would make a number of
// paths that nobody can install (eight groups of three: 6,561). The groups' weights are laid side
// by side, and a path is what lies between two cuts:
//
//	fw   |----- fw1 -----|----- fw2 -----|
//	ids  |--- ids1 --|-- ids2 ---|- ids3-|
//	      path 1     | 2 | 3     | 4
//
// So each instance has just its share, and there are at most as many paths as instances. Only
// instances that live count: when one dies, the cuts move, and the paths that are no more stand
// for the connections that have them.
package paths

import (
	"cmp"
	"maps"
	"math"
	"math/big"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// State is what becomes of an instance.
type State int

// The states of an instance.
const (
	Gone   State = iota // it has not both its ports: nobody can be led through it
	Dead                // a port of it is down, or it hangs: what its group says happens to those who have it
	Serves              // it lives; unless it is drained, new connections come to it
)

// Plan writes the legs and paths of all chains of the tenant, as the instances are now. It
// changes nothing if nothing has changed. vnet.ErrExhausted if there are no numbers left.
func Plan(tx store.Tx, t vnet.TenantName, state func(vnet.Instance) State, now time.Time) error {
	_, err := PlanSome(tx, t, state, now, math.MaxInt)
	return err
}

// PlanSome is Plan of so many chains at most that change, since a transaction of a cluster's store
// may be about no more than some. It reports whether there may be more.
func PlanSome(tx store.Tx, t vnet.TenantName, state func(vnet.Instance) State, now time.Time, most int) (bool, error) {
	chains, err := store.All[vnet.Chain](tx, store.ChainsOf(t))
	if err != nil || len(chains) == 0 {
		return false, err
	}
	instances, err := store.Instances(tx, t)
	if err != nil {
		return false, err
	}
	p := planner{now: now, states: map[vnet.Hop]State{}, groups: map[vnet.GroupName]vnet.Group{}, in: map[vnet.GroupName][]vnet.Instance{}}
	for _, i := range instances {
		p.states[i.Hop()] = state(i)
		p.in[i.Group] = append(p.in[i.Group], i)
	}
	for _, c := range chains {
		for _, name := range c.Groups {
			if p.groups[name], err = store.Group(tx, vnet.GroupRef{Tenant: t, Group: name}); err != nil {
				return false, err
			}
		}
		before, err := store.Legs(tx, c.Ref())
		if err != nil {
			return false, err
		}
		after := p.legs(c, before)
		if slices.EqualFunc(before, after, equalLeg) {
			continue
		}
		if most == 0 {
			return true, nil
		}
		most--
		if err := store.PutLegs(tx, c.Ref(), after, now); err != nil {
			return false, err
		}
	}
	return false, nil
}

func equalLeg(a, b vnet.Leg) bool {
	return a.Number == b.Number && a.Blocked == b.Blocked && slices.Equal(a.Groups, b.Groups) &&
		slices.EqualFunc(a.Paths, b.Paths, func(p, q vnet.Path) bool {
			return p.ID == q.ID && p.Weight == q.Weight && maps.Equal(p.At, q.At) && slices.Equal(p.Hops, q.Hops)
		})
}

// planner knows who serves where.
type planner struct {
	now    time.Time
	states map[vnet.Hop]State
	groups map[vnet.GroupName]vnet.Group
	in     map[vnet.GroupName][]vnet.Instance
}

// candidates are the instances of a group that new connections may come to.
func (p planner) candidates(g vnet.GroupName) []vnet.Instance {
	return slices.DeleteFunc(slices.Clone(p.in[g]), func(i vnet.Instance) bool { return i.Drained || p.states[i.Hop()] != Serves })
}

// legs cuts a chain behind each group that rewrites, finds the paths of each leg, and keeps of
// the legs before what still stands.
func (p planner) legs(c vnet.Chain, before []vnet.Leg) []vnet.Leg {
	var after []vnet.Leg
	rest := c.Groups
	for len(rest) > 0 || len(after) == 0 {
		leg, n := p.leg(rest, c.PreferLocal)
		rest = rest[n:]
		var old vnet.Leg
		if len(after) < len(before) {
			old = before[len(after)]
		}
		leg.Number = old.Number
		leg.Paths = p.merge(leg.Paths, old.Paths)
		after = append(after, leg)
		if leg.Blocked != "" { // nothing comes further
			break
		}
	}
	for _, old := range before[min(len(after), len(before)):] {
		if old.Groups, old.Blocked, old.Paths = nil, "", p.merge(nil, old.Paths); len(old.Paths) > 0 {
			after = append(after, old)
		}
	}
	return after
}

// leg is the part of the chain that begins with these groups, and how many of them it takes.
func (p planner) leg(groups []vnet.GroupName, preferLocal bool) (vnet.Leg, int) {
	var leg vnet.Leg
	var parts [][]vnet.Instance
	for _, g := range groups {
		leg.Groups = append(leg.Groups, g)
		serving := p.candidates(g)
		if len(serving) == 0 {
			if p.groups[g].OnFailure == vnet.Closed {
				leg.Blocked = g
				return leg, len(leg.Groups)
			}
			continue
		}
		parts = append(parts, serving)
		if p.groups[g].Mode == vnet.Rewriting {
			break
		}
	}
	leg.Paths = couple(parts)
	if preferLocal {
		leg.Paths = preferred(leg.Paths, parts)
	}
	return leg, len(leg.Groups)
}

// preferred adds the paths of clients on each node that has a function of one of the groups: of such a group through these
// alone.
func preferred(paths []vnet.Path, groups [][]vnet.Instance) []vnet.Path {
	nodes := map[vnet.NodeName]bool{}
	for _, instances := range groups {
		for _, i := range instances {
			nodes[i.Node] = true
		}
	}
	for _, node := range slices.Sorted(maps.Keys(nodes)) {
		var own [][]vnet.Instance
		for _, instances := range groups {
			local := slices.DeleteFunc(slices.Clone(instances), func(i vnet.Instance) bool { return i.Node != node })
			if len(local) == 0 {
				local = instances
			}
			own = append(own, local)
		}
		for _, p := range couple(own) {
			at := slices.IndexFunc(paths, func(q vnet.Path) bool { return slices.Equal(q.Hops, p.Hops) })
			if at < 0 {
				at, paths = len(paths), append(paths, vnet.Path{Hops: p.Hops})
			}
			if paths[at].At == nil {
				paths[at].At = map[vnet.NodeName]int{}
			}
			paths[at].At[node] = p.Weight
		}
	}
	return paths
}

// merge gives new paths the numbers of old ones that are the same, and keeps of the others those
// that can still be gone: for the connections that have them.
func (p planner) merge(paths, before []vnet.Path) []vnet.Path {
	merged := slices.Clone(paths)
	for _, old := range before {
		i := slices.IndexFunc(merged, func(q vnet.Path) bool { return q.ID == 0 && slices.Equal(q.Hops, old.Hops) })
		switch {
		case i >= 0:
			merged[i].ID = old.ID
		case slices.ContainsFunc(old.Hops, func(h vnet.Hop) bool { return p.states[h] == Gone }):
		default:
			merged = append(merged, old.Retires(p.now))
		}
	}
	return merged
}

// couple lays the weights of the groups side by side and returns the paths between the cuts.
func couple(groups [][]vnet.Instance) []vnet.Path {
	one := big.NewRat(1, 1)
	var ends []*big.Rat
	cuts := make([][]*big.Rat, len(groups))                                                       // where each instance's share ends
	weight := func(i vnet.Instance) int64 { return int64(min(max(i.Weight, 1), vnet.MaxWeight)) } // whoever wrote it
	for g, instances := range groups {
		var total, sum int64
		for _, i := range instances {
			total += weight(i)
		}
		for _, i := range instances {
			sum += weight(i)
			end := big.NewRat(sum, total)
			cuts[g] = append(cuts[g], end)
			ends = append(ends, end)
		}
	}
	if len(ends) == 0 {
		ends = []*big.Rat{one}
	}
	slices.SortFunc(ends, (*big.Rat).Cmp)
	ends = slices.CompactFunc(ends, func(a, b *big.Rat) bool { return a.Cmp(b) == 0 })
	var paths []vnet.Path
	from, at := new(big.Rat), make([]int, len(groups))
	for _, end := range ends {
		width := new(big.Rat).Sub(end, from)
		share, _ := width.Mul(width, big.NewRat(vnet.MaxShare, 1)).Float64()
		path := vnet.Path{Weight: max(1, int(share+0.5))}
		for g, instances := range groups {
			i := instances[at[g]]
			path.Hops = append(path.Hops, i.Hop())
			if cuts[g][at[g]].Cmp(end) == 0 {
				at[g]++
			}
		}
		paths = append(paths, path)
		from = end
	}
	return paths
}

// Collect removes the paths that have got no new connection since before, and that no connection
// has any more: of no more chains than a transaction of a cluster's store may be about. It reports
// how many; none are left when it says 0. It also frees the numbers that rest since before and
// that no connection has.
func Collect(tx store.Tx, used map[vnet.PathID]bool, before time.Time) (int, error) {
	unused := func(p vnet.Path) bool { return !p.Serves() && p.Retired.Before(before) && !used[p.ID] }
	chains, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return 0, err
	}
	removed, changed := 0, 0
	for _, c := range chains {
		if changed == mostCollected {
			break
		}
		legs, err := store.Legs(tx, c.Ref())
		if err != nil {
			return removed, err
		}
		had := removed
		for i := range legs {
			kept := slices.DeleteFunc(slices.Clone(legs[i].Paths), unused)
			removed += len(legs[i].Paths) - len(kept)
			legs[i].Paths = kept
		}
		if removed == had {
			continue
		}
		changed++
		legs = slices.DeleteFunc(legs, func(l vnet.Leg) bool { return len(l.Groups) == 0 && len(l.Paths) == 0 })
		if err := store.PutLegs(tx, c.Ref(), legs, before); err != nil {
			return removed, err
		}
	}
	return removed, store.FreePaths(tx, unused)
}

// mostCollected is how many chains lose paths at once: their numbers are records, too.
const mostCollected = 32

// Retired returns the paths of all chains that get no new connections, and the numbers at rest as
// paths without hops, the oldest first.
func Retired(tx store.Tx) ([]vnet.Path, error) {
	retired, err := store.RestingPaths(tx)
	if err != nil {
		return nil, err
	}
	chains, err := store.All[vnet.Chain](tx, store.Chains)
	if err != nil {
		return nil, err
	}
	for _, c := range chains {
		legs, err := store.Legs(tx, c.Ref())
		if err != nil {
			return nil, err
		}
		for _, l := range legs {
			for _, p := range l.Paths {
				if !p.Serves() {
					retired = append(retired, p)
				}
			}
		}
	}
	slices.SortFunc(retired, func(a, b vnet.Path) int { return cmp.Or(a.Retired.Compare(b.Retired), cmp.Compare(a.ID, b.ID)) })
	return retired, nil
}
