package store

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Chain returns the chain of that name, vnet.ErrNotFound if there is none.
func Chain(tx Tx, r vnet.ChainRef) (vnet.Chain, error) {
	c, err := Load[vnet.Chain](tx, chainKey(r))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.WithHint(vnet.NotFoundf("chain %s does not exist", r), "see tenetctl chain list")
	}
	return c, err
}

// HasChains reports whether the tenant has a chain.
func HasChains(tx Tx, t vnet.TenantName) (bool, error) {
	n, err := count(tx, ChainsOf(t))
	return n > 0, err
}

// PutChain makes the chain or changes it. With the tenant's first chain its endpoints and networks get the zones in
// which their connections are tracked; the chain's paths are another's work (package paths).
//
// Errors: vnet.ErrNotFound if what it names is not there, vnet.ErrExists if another chain of the same priority has one
// of its classifiers, or one of its rewriting groups, vnet.ErrInvalid if it makes no sense.
func PutChain(tx Tx, c vnet.Chain) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	if err := checkGroups(tx, c); err != nil {
		return err
	}
	if err := checkInstances(tx, c, 0); err != nil {
		return err
	}
	for i, k := range c.Classifiers {
		for _, s := range []vnet.Selector{k.From, k.To} {
			if err := checkSelector(tx, c, s); err != nil {
				return fmt.Errorf("classifier %d: %w", i+1, err)
			}
		}
	}
	others, err := All[vnet.Chain](tx, ChainsOf(c.Tenant))
	if err != nil {
		return err
	}
	for _, o := range others {
		if o.Name == c.Name || o.Priority != c.Priority {
			continue
		}
		for _, k := range c.Classifiers {
			if slices.ContainsFunc(o.Classifiers, k.Equal) {
				return vnet.WithHint(vnet.Existsf("chain %s of the same priority, %d, has the same classifier: %s", o.Ref(), o.Priority, k), "give one of them a higher priority")
			}
		}
	}
	if err := Save(tx, chainKey(c.Ref()), c); err != nil {
		return err
	}
	return GiveZones(tx, c.Tenant)
}

// BringChain writes a chain that stood on a node on its own into a cluster: endpoints that it names are published later.
func BringChain(tx Tx, c vnet.Chain) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	if err := checkGroups(tx, c); err != nil {
		return err
	}
	return Save(tx, chainKey(c.Ref()), c)
}

// BringLegs writes the legs of a chain that stood on a node on its own into a cluster, with the numbers that its connections
// carry, beside those that it has there. A path whose number is another's there is left out: who plans makes it anew.
func BringLegs(tx Tx, r vnet.ChainRef, brought []vnet.Leg, now time.Time) error {
	legs, err := Legs(tx, r)
	if err != nil {
		return err
	}
	claim := func(key string) (bool, error) {
		if tx.Get(key) != nil {
			return false, nil
		}
		return true, tx.Put(key, []byte(r.String()))
	}
	for i, leg := range brought {
		if i == len(legs) {
			free, err := claim(legKey(leg.Number))
			if err != nil {
				return err
			}
			if !free {
				leg.Number = 0
			}
			legs = append(legs, vnet.Leg{Number: leg.Number, Groups: leg.Groups, Blocked: leg.Blocked})
		}
		for _, p := range leg.Paths {
			free, err := claim(pathKey(uint32(p.ID)))
			if err != nil {
				return err
			}
			if free {
				legs[i].Paths = append(legs[i].Paths, p)
			}
		}
	}
	return PutLegs(tx, r, legs, now)
}

// checkGroups checks that the chain's groups are there, and that those that rewrite are its alone: what leaves
// their functions is told from other traffic by the port alone.
func checkGroups(tx Tx, c vnet.Chain) error {
	for _, name := range c.Groups {
		g, err := Group(tx, vnet.GroupRef{Tenant: c.Tenant, Group: name})
		if err != nil {
			return err
		}
		if g.Mode != vnet.Rewriting {
			continue
		}
		others, err := All[vnet.Chain](tx, ChainsOf(c.Tenant))
		if err != nil {
			return err
		}
		for _, o := range others {
			if o.Name != c.Name && slices.Contains(o.Groups, name) {
				return vnet.WithHint(vnet.Existsf("group %s rewrites packets and serves chain %s already", g.Ref(), o.Ref()), "a rewriting group serves one chain: make another group")
			}
		}
	}
	return nil
}

// checkSelector checks that what the selector names is there, and can be led through functions. An endpoint that the
// chain as it stands names already may have gone since.
func checkSelector(tx Tx, c vnet.Chain, s vnet.Selector) error {
	network := s.Network
	if s.Endpoint != "" {
		container, ifName, _ := strings.Cut(s.Endpoint, "/")
		e, err := Endpoint(tx, vnet.Attachment{Container: container, IfName: ifName}.ID())
		switch {
		case errors.Is(err, vnet.ErrNotFound), err == nil && e.Tenant != c.Tenant:
			return missing(tx, c, s.Endpoint)
		case err != nil:
			return err
		case e.Function != nil && slices.Contains(c.Groups, e.Function.Group):
			return ownClient(c, s.Endpoint, e.Function.Group)
		}
		network = e.Network
	}
	if network == "" {
		return nil
	}
	n, err := Network(tx, vnet.Ref{Tenant: c.Tenant, Network: network})
	switch {
	case errors.Is(err, vnet.ErrNotFound):
		return vnet.WithHint(err, "see tenetctl network list --tenant %s; a classifier names networks of its own tenant", c.Tenant)
	case err == nil && n.IsProvider():
		return vnet.Invalidf("network %s is on a wire: chains lead traffic of networks that are not", n.Ref())
	}
	return err
}

// missing returns a vnet.ErrNotFound for an endpoint that is not there, unless the chain as it stands names it.
func missing(tx Tx, c vnet.Chain, endpoint string) error {
	stands, err := Chain(tx, c.Ref())
	switch {
	case err == nil && names(stands, func(s vnet.Selector) bool { return s.Endpoint == endpoint }):
		return nil
	case err != nil && !errors.Is(err, vnet.ErrNotFound):
		return err
	}
	return vnet.WithHint(vnet.NotFoundf("tenant %s has no endpoint %s", c.Tenant, endpoint), "see tenetctl endpoint list --tenant %s; labels name endpoints that are yet to come", c.Tenant)
}

// names reports whether a classifier of the chain has such a selector.
func names(c vnet.Chain, is func(vnet.Selector) bool) bool {
	return slices.ContainsFunc(c.Classifiers, func(k vnet.Classifier) bool { return is(k.From) || is(k.To) })
}

// networkUnnamed returns a vnet.ErrExists if a chain's classifier names the network.
func networkUnnamed(tx Tx, r vnet.Ref) error {
	all, err := All[vnet.Chain](tx, ChainsOf(r.Tenant))
	if err != nil {
		return err
	}
	for _, c := range all {
		if names(c, func(s vnet.Selector) bool { return s.Network == r.Network }) {
			return vnet.WithHint(vnet.Existsf("network %s is named by chain %s", r, c.Ref()), "delete the chain first: tenetctl chain del %s", c.Ref())
		}
	}
	return nil
}

// NeedsZone reports whether chains may lead connections that the endpoint opens or answers. Ports of functions are
// led through no chain, but for those from which rewritten traffic goes on.
func NeedsZone(g *vnet.Group, e vnet.Endpoint) bool {
	return e.Function == nil || g != nil && g.Mode == vnet.Rewriting && e.Function.Port == vnet.Egress
}

// GiveZone gives the endpoint the zone in which its connections are tracked, if its tenant has chains and it needs one.
func GiveZone(tx Tx, e *vnet.Endpoint) error {
	chained, err := HasChains(tx, e.Tenant)
	if err != nil || !chained {
		return err
	}
	return giveZone(tx, e)
}

func giveZone(tx Tx, e *vnet.Endpoint) error {
	var group *vnet.Group
	if e.Function != nil {
		g, err := Group(tx, vnet.GroupRef{Tenant: e.Tenant, Group: e.Function.Group})
		if errors.Is(err, vnet.ErrNotFound) { // its record has gone: nobody is led through it
			return nil
		}
		if err != nil {
			return err
		}
		group = &g
	}
	n, err := Network(tx, e.Ref())
	if err != nil || n.IsProvider() || e.Zone != 0 || !NeedsZone(group, *e) {
		return err
	}
	e.Zone, err = takeZone(tx, string(e.ID))
	return err
}

// GiveZones gives zones to all of the tenant who have none. A cluster's own store knows of none: they are nodes' own.
func GiveZones(tx Tx, t vnet.TenantName) error {
	if isShared(tx) {
		return nil
	}
	networks, err := All[vnet.Network](tx, NetworksOf(t))
	if err != nil {
		return err
	}
	for _, n := range networks {
		g, err := NetworkGateway(tx, n.Ref())
		if err != nil {
			return err
		}
		if g.Zone != 0 && g.Outside == 0 && !n.IsProvider() {
			if g.Outside, err = takeZone(tx, n.Ref().String()); err != nil {
				return err
			}
			if err := Save(tx, gatewayKey(n.Ref()), g); err != nil {
				return err
			}
		}
		endpoints, err := All[vnet.Endpoint](tx, EndpointsOf(n.Ref()))
		if err != nil {
			return err
		}
		for _, e := range endpoints {
			if e.Zone != 0 || e.State == vnet.Leaving {
				continue
			}
			if err := giveZone(tx, &e); err != nil {
				return err
			}
			if e.Zone != 0 {
				if err := PutEndpoint(tx, &e); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// DeleteChain removes the chain with its legs and paths, whose numbers rest from now on.
func DeleteChain(tx Tx, r vnet.ChainRef) error {
	if _, err := Chain(tx, r); err != nil {
		return err
	}
	if err := PutLegs(tx, r, nil, time.Now()); err != nil {
		return err
	}
	return tx.Delete(chainKey(r))
}

// Legs returns a chain's legs.
func Legs(tx Tx, r vnet.ChainRef) ([]vnet.Leg, error) {
	l, err := Load[[]vnet.Leg](tx, legsKey(r))
	if errors.Is(err, vnet.ErrNotFound) {
		err = nil
	}
	return l, err
}

// PutLegs writes a chain's legs: those and paths that have no number are given one. The numbers of legs that are no
// more are free; those of paths rest until FreePaths, from now on or since they were retired, for connections may still
// carry them. None: the record goes.
//
// vnet.ErrExhausted if all numbers are in use; before that those at rest are taken.
func PutLegs(tx Tx, r vnet.ChainRef, after []vnet.Leg, now time.Time) error {
	before, err := Legs(tx, r)
	if err != nil {
		return err
	}
	if err := leaveNumbers(tx, before, after, now); err != nil {
		return err
	}
	for i := range after {
		leg := &after[i]
		if leg.Number == 0 {
			if leg.Number, err = takeNext(tx, nextLeg, legKey, 1, 1<<16-1, r.String()); err != nil {
				return fmt.Errorf("all %d numbers of chains are in use: %w", 1<<16-1, err)
			}
		}
		for j := range leg.Paths {
			if p := &leg.Paths[j]; p.ID == 0 {
				if p.ID, err = takePath(tx, r); err != nil {
					return err
				}
			}
		}
	}
	if len(after) == 0 {
		return tx.Delete(legsKey(r))
	}
	return Save(tx, legsKey(r), after)
}

// leaveNumbers frees the numbers of legs, and puts to rest those of paths, that were before and are no more.
func leaveNumbers(tx Tx, before, after []vnet.Leg, now time.Time) error {
	kept := map[string]bool{}
	for _, leg := range after {
		kept[legKey(leg.Number)] = true
		for _, p := range leg.Paths {
			kept[pathKey(uint32(p.ID))] = true
		}
	}
	for _, leg := range before {
		if key := legKey(leg.Number); !kept[key] {
			if err := tx.Delete(key); err != nil {
				return err
			}
		}
		for _, p := range leg.Paths {
			key := pathKey(uint32(p.ID))
			if kept[key] {
				continue
			}
			since := now
			if !p.Retired.IsZero() {
				since = p.Retired
			}
			if err := tx.Put(key, []byte(restingSince+since.UTC().Format(time.RFC3339Nano))); err != nil {
				return err
			}
		}
	}
	return nil
}

func takePath(tx Tx, r vnet.ChainRef) (vnet.PathID, error) {
	take := func() (uint32, error) { return takeNext(tx, nextPath, pathKey, 1, uint32(vnet.MaxPath), r.String()) }
	id, err := take()
	if errors.Is(err, vnet.ErrExhausted) {
		if err := FreePaths(tx, func(vnet.Path) bool { return true }); err != nil {
			return 0, err
		}
		id, err = take()
	}
	if err != nil {
		return 0, fmt.Errorf("all %d numbers of paths are in use: %w", vnet.MaxPath, err)
	}
	return vnet.PathID(id), nil
}

// RestingPaths returns the numbers of paths that are no more and that nobody else may have yet: as paths without hops,
// retired when their rest began.
func RestingPaths(tx Tx) ([]vnet.Path, error) {
	var resting []vnet.Path
	err := tx.Range(paths, func(key string, value []byte) error {
		text, rests := strings.CutPrefix(string(value), restingSince)
		if !rests {
			return nil
		}
		id, noNumber := strconv.ParseUint(strings.TrimPrefix(key, paths), 10, 32)
		since, noTime := time.Parse(time.RFC3339Nano, text)
		if err := errors.Join(noNumber, noTime); err != nil {
			return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
		}
		resting = append(resting, vnet.Path{ID: vnet.PathID(id), Retired: since})
		return nil
	})
	return resting, err
}

// FreePaths frees the numbers among RestingPaths that have rested.
func FreePaths(tx Tx, rested func(vnet.Path) bool) error {
	resting, err := RestingPaths(tx)
	if err != nil {
		return err
	}
	for _, p := range resting {
		if !rested(p) {
			continue
		}
		if err := tx.Delete(pathKey(uint32(p.ID))); err != nil {
			return err
		}
	}
	return nil
}
