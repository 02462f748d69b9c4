package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What a node brings along may be more than etcd takes in one transaction (--max-txn-ops, --max-request-bytes). So it is brought
// in pieces, what others name first. Each makes sense by itself, and changes nothing where it stands already. Cut anywhere, all of
// it is brought once more: a node on its own is no member before all is there, and one that fills an etcd that was emptied has
// said so (refills), in the transaction that wrote its record.
//
// Functions come before the chains that lead through them. A chain without them would be decided on as one of which nobody
// serves: it would let traffic past, and lose the paths that connections have.

// piece is one thing that a node brings along.
type piece struct {
	what  string
	write func(store.Tx) error
}

// pieces are all of them, in an order in which each names nothing that is still to come.
func (l luggage) pieces(me vnet.NodeName) []piece {
	var all []piece
	add := func(what string, write func(store.Tx) error) { all = append(all, piece{what, write}) }
	for _, t := range l.tenants {
		add("tenant "+string(t.Name), func(tx store.Tx) error {
			_, err := store.DeclareTenant(tx, t.Name)
			return err
		})
	}
	for _, u := range l.uplinks {
		add("uplink "+string(u.Name), func(tx store.Tx) error {
			_, err := store.DeclareUplink(tx, u, me)
			return err
		})
	}
	for _, n := range l.networks {
		add("network "+n.Ref().String(), func(tx store.Tx) error { return store.BringNetwork(tx, n) })
	}
	for _, g := range l.groups {
		add("group "+g.Ref().String(), func(tx store.Tx) error { return bringGroup(tx, g) })
	}
	if !l.member || l.refills {
		all = append(all, functionPieces(l.serving)...)
	}
	for _, c := range l.chains {
		add("chain "+c.Ref().String(), func(tx store.Tx) error { return bringChain(tx, c, l.legs[c.Ref()]) })
	}
	return all
}

func bringGroup(tx store.Tx, g vnet.Group) error {
	stands, err := store.Group(tx, g.Ref())
	switch {
	case err == nil && stands != g:
		return vnet.Existsf("group %s stands there and is declared differently", g.Ref())
	case err != nil && !errors.Is(err, vnet.ErrNotFound):
		return err
	}
	return store.PutGroup(tx, g)
}

func bringChain(tx store.Tx, c vnet.Chain, legs []vnet.Leg) error {
	stands, err := store.Chain(tx, c.Ref())
	switch {
	case err == nil && !reflect.DeepEqual(stands, c):
		return vnet.Existsf("chain %s stands there and is declared differently", c.Ref())
	case err != nil && !errors.Is(err, vnet.ErrNotFound):
		return err
	}
	if err := store.BringChain(tx, c); err != nil {
		return err
	}
	return store.BringLegs(tx, c.Ref(), legs, time.Now().UTC())
}

// functionPieces are those of a node's instances.
func functionPieces(serving map[string]vnet.Instance) []piece {
	var all []piece
	for _, key := range slices.Sorted(maps.Keys(serving)) {
		all = append(all, piece{"function " + key, func(tx store.Tx) error { return putFunction(tx, key, serving[key], false) }})
	}
	return all
}

// isClash tells that something of what is brought does not go with what is there.
func isClash(err error) bool {
	return !etcd.Refused(err) && (errors.Is(err, vnet.ErrExists) || errors.Is(err, vnet.ErrInvalid) || errors.Is(err, vnet.ErrNotFound))
}

var errTried = errors.New("tried")

// mayBring reports all that stands in the way of bringing it; nothing is written. Of what a member declares anew, what clashes is
// left out: others may have declared more by now, and nobody could change what this node has.
func (a *Agent) mayBring(ctx context.Context, l luggage) error {
	var conflicts []string
	var pieces []piece
	if !l.member {
		pieces = l.pieces(a.Name)
	}
	err := a.etcd.Update(ctx, func(tx store.Tx) error {
		conflicts = nil
		if len(pieces) > 0 {
			if err := readDeclared(tx); err != nil {
				return err
			}
		}
		for _, p := range pieces {
			err := p.write(tx)
			if isClash(err) {
				conflicts = append(conflicts, p.what+": "+err.Error())
			} else if err != nil {
				return err
			}
		}
		more, err := foreign(tx, l.blocks, a.Name)
		if err != nil {
			return err
		}
		conflicts = append(conflicts, more...)
		return errTried
	})
	if !errors.Is(err, errTried) {
		return err
	}
	return conflict(conflicts)
}

// readDeclared has the transaction know all that is declared, instead of asking for each record.
func readDeclared(tx store.Tx) error {
	for _, prefix := range declared {
		if err := tx.Range(prefix, func(string, []byte) error { return store.ErrStop }); err != nil {
			return err
		}
	}
	return nil
}

// foreign says which of the blocks are other nodes'.
func foreign(tx store.Tx, blocks []held, me vnet.NodeName) ([]string, error) {
	var all []string
	for _, h := range blocks {
		value := tx.Get(blockKey(h.ref, h.block))
		if value == nil {
			continue
		}
		var other holder
		if err := store.DecodeShared(blockKey(h.ref, h.block), value, &other); err != nil {
			return nil, err
		}
		if other.Node != me {
			all = append(all, fmt.Sprintf("addresses of network %s in %s are in use here, and the block is node %s's", h.ref, h.block, other.Node))
		}
	}
	return all, nil
}

func conflict(all []string) error {
	if len(all) == 0 {
		return nil
	}
	return vnet.WithHint(vnet.Existsf("this node was one on its own, and what it has conflicts with the cluster:\n  %s", strings.Join(all, "\n  ")),
		"delete or rename it here or there; etcd.endpoints left empty keeps the node on its own meanwhile")
}

// enterWithAll enters the cluster with all that the node brings along, if nothing stands in its way.
func (a *Agent) enterWithAll(ctx context.Context) error {
	brings, err := a.luggage(ctx)
	if err != nil {
		return err
	}
	if err := a.mayBring(ctx, brings); err != nil {
		return err
	}
	a.me.refills = brings.refills
	if err := a.enter(ctx); err != nil {
		return err
	}
	defer a.keepMeanwhile(ctx)()
	return a.bring(ctx, brings)
}

// bring declares in the cluster what the node has, and tells of its functions; with that, the node is off no more.
func (a *Agent) bring(ctx context.Context, l luggage) error {
	if err := a.inPieces(ctx, l.pieces(a.Name), Planned, l.member); err != nil {
		if isClash(err) { // it came after mayBring
			return conflict([]string{err.Error()})
		}
		return err
	}
	full := func(tx store.Tx) error { return deleteFound(tx, refillKey(a.Name)) }
	impossible, err := a.tellServing(ctx, l.serving, full)
	if err != nil && l.member && (impossible || !errors.Is(err, vnet.ErrUnavailable)) && !errors.Is(err, errLeaseLost) {
		a.log.Error("the cluster cannot be told of functions yet", "error", err, "hint", vnet.Hint(err)) // and is later
		err = a.etcd.Update(ctx, func(tx store.Tx) error { return errors.Join(a.comeBack(tx), full(tx)) })
	}
	if err == nil {
		a.me.refills = false
	}
	return err
}

// tellServing tells of this node's functions, with more in the same transaction: in several before that if it is too much for one.
// It reports whether an error is the transaction's own.
func (a *Agent) tellServing(ctx context.Context, want map[string]vnet.Instance, more func(store.Tx) error) (bool, error) {
	put := Planned(func(tx store.Tx) error { return errors.Join(a.putFunctions(tx, want), more(tx)) })
	impossible, err := a.update(ctx, put)
	if !errors.Is(err, vnet.ErrExhausted) {
		return impossible, err
	}
	var have map[string]bool
	err = a.etcd.View(ctx, func(tx store.Tx) error {
		var err error
		have, err = a.functionsThere(tx)
		return err
	})
	if err != nil {
		return false, err
	}
	pieces := functionPieces(want)
	tenants := map[vnet.TenantName]bool{}
	for _, i := range want {
		tenants[i.Tenant] = true
	}
	for key := range have {
		if _, ok := want[key]; !ok {
			pieces = append(pieces, piece{"function " + key, func(tx store.Tx) error { return dropFunction(tx, a.Name, key) }})
			tenants[vnet.TenantName(strings.Split(key, "/")[1])] = true
		}
	}
	// The node is back first: what is decided on must not go by that it is off. If this is cut short, all is told anew.
	if impossible, err := a.update(ctx, a.comeBack); err != nil {
		return impossible, err
	}
	if err := a.inPieces(ctx, pieces, asItIs, false); err != nil {
		return false, err
	}
	for _, tenant := range slices.Sorted(maps.Keys(tenants)) {
		err := planEach(tenant, func(plan func(store.Tx) error) error { impossible, err = a.update(ctx, plan); return err }, asIs)
		if err != nil {
			return impossible, err
		}
	}
	return a.update(ctx, put)
}

// atOnce is how many pieces at most are written in one transaction: most are of two to four records, of which etcd takes 128 if it
// was not told otherwise.
const atOnce = 32

// asItIs has inPieces write no more than the pieces.
func asItIs(write func(store.Tx) error) func(store.Tx) error { return write }

// inPieces writes them in their order, as many at once as etcd takes, with what follows from them. What cannot be written ends it, or, if the rest is to be
// written nevertheless, is said and left out.
func (a *Agent) inPieces(ctx context.Context, pieces []piece, with func(func(store.Tx) error) func(store.Tx) error, nevertheless bool) error {
	for most := atOnce; len(pieces) > 0; {
		some := pieces[:min(most, len(pieces))]
		err := a.etcd.Update(ctx, with(func(tx store.Tx) error { return a.writePieces(tx, some) }))
		switch {
		case err == nil:
			pieces = pieces[len(some):]
			most = min(2*most, atOnce)
		case errors.Is(err, vnet.ErrUnavailable):
			return err
		case len(some) > 1 && (nevertheless || errors.Is(err, vnet.ErrExhausted)):
			most = len(some) / 2
		case nevertheless:
			a.log.Error("something of what this node knows is not declared anew", "error", err, "hint", vnet.Hint(err))
			pieces = pieces[1:]
		default:
			return err
		}
	}
	return nil
}

func (a *Agent) writePieces(tx store.Tx, some []piece) error {
	if err := a.inSession(tx); err != nil {
		return err
	}
	for _, p := range some {
		if err := p.write(tx); err != nil {
			return fmt.Errorf("%s: %w", p.what, err)
		}
	}
	return nil
}
