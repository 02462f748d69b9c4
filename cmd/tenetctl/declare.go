package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// outcome is what happened to one object.
type outcome struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // "created", "changed", "unchanged" or "deleted"
}

// undoTimeout is how long it may take to give back the NICs of uplinks that are not to be.
const undoTimeout = 20 * time.Second

// errTried ends a transaction that is not to be kept.
var errTried = errors.New("tried")

// declare makes what manifests declare, all or nothing, and says what became of each: uplinks
// first, which networks may be on. No NIC is touched before all of it is known to be possible.
func (a *app) declare(ctx context.Context, manifests []manifest) ([]outcome, error) {
	var outcomes []outcome
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		limit, err := n.MTU(ctx)
		if err != nil {
			return err
		}
		if err := checkNew(ctx, n, manifests); err != nil {
			return err
		}
		slices.SortStableFunc(manifests, func(a, b manifest) int { return order(a) - order(b) })
		write := func(tx store.Tx) error {
			outcomes = outcomes[:0]
			for _, m := range manifests {
				became, err := m.declare(tx, n, limit)
				if err != nil {
					return m.explain(err)
				}
				outcomes = append(outcomes, outcome{m.kind, m.name(), became})
			}
			return nil
		}
		update := func() error {
			chains := slices.ContainsFunc(manifests, func(m manifest) bool { return m.kind == kindGroup || m.kind == kindChain })
			return a.change(ctx, n, chains, write)
		}
		if len(manifests) == 0 || manifests[0].kind != kindUplink {
			return update()
		}
		err = n.Store.Update(ctx, func(tx store.Tx) error {
			if err := write(tx); err != nil {
				return err
			}
			return errTried
		})
		if !errors.Is(err, errTried) {
			return err
		}
		tried := slices.Clone(outcomes)
		if err := addUplinks(ctx, n, manifests, tried, update); err != nil {
			return err
		}
		outcomes = tried // of uplinks the second transaction only says that they are there
		return nil
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

func order(m manifest) int { return slices.Index(kinds, m.kind) }

// addUplinks makes the uplinks among manifests, and takes back those that are new if that or what
// comes then fails.
func addUplinks(ctx context.Context, n *node.Node, manifests []manifest, tried []outcome, then func() error) error {
	var made []vnet.UplinkName
	add := func() error {
		for i, m := range manifests {
			if m.kind != kindUplink {
				continue
			}
			if _, _, err := n.AddUplink(ctx, m.uplink, false); err != nil {
				return err
			}
			if tried[i].Outcome == created {
				made = append(made, m.uplink.Name)
			}
		}
		return then()
	}
	err := add()
	if err == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, name := range made {
		err = errors.Join(err, n.DelUplink(ctx, name))
	}
	return err
}

// checkNew asks the node whether the networks that are not there yet can be.
func checkNew(ctx context.Context, n *node.Node, manifests []manifest) error {
	for _, m := range manifests {
		if m.kind != kindNetwork {
			continue
		}
		net, err := m.network.Normal()
		if err != nil {
			return m.explain(err)
		}
		_, err = n.Network(ctx, net.Ref())
		if errors.Is(err, vnet.ErrNotFound) {
			err = n.CheckNetwork(ctx, net)
		}
		if err != nil {
			return m.explain(err)
		}
	}
	return nil
}

func (a *app) printOutcomes(outcomes []outcome) error {
	return a.print(outcomes, func(w io.Writer) {
		for _, o := range outcomes {
			fmt.Fprintf(w, "%s %s %s\n", strings.ToLower(o.Kind), o.Name, o.Outcome)
		}
	})
}

// explain says of an error what it is about, if it does not itself.
func (m manifest) explain(err error) error {
	if strings.Contains(err.Error(), m.name()) {
		return err
	}
	return fmt.Errorf("%s: %w", m, err)
}

// Outcomes.
const (
	created   = "created"
	changed   = "changed"
	unchanged = "unchanged"
	deleted   = "deleted"
)

// declare records one object, and says what became of it; limit is what a network's MTU may be.
func (m manifest) declare(tx store.Tx, n *node.Node, limit int) (string, error) {
	switch m.kind {
	case kindUplink:
		u := m.uplink
		u.Bridge = n.Bridge
		_, missing := store.Uplink(tx, u.Name)
		_, err := store.DeclareUplink(tx, u, n.Name)
		return ifNew(missing), err
	case kindTenant:
		_, missing := store.Tenant(tx, m.tenant)
		_, err := store.DeclareTenant(tx, m.tenant)
		return ifNew(missing), err
	case kindGroup:
		before, missing := store.Group(tx, m.group.Ref())
		if err := store.PutGroup(tx, m.group); err != nil {
			return "", err
		}
		after, err := store.Group(tx, m.group.Ref())
		return ifOther(missing, before, after), err
	case kindChain:
		before, missing := store.Chain(tx, m.chain.Ref())
		if err := store.PutChain(tx, m.chain); err != nil {
			return "", err
		}
		after, err := store.Chain(tx, m.chain.Ref())
		return ifOther(missing, before, after), err
	}
	if !m.network.IsProvider() { // on a wire the NIC's MTU is the limit, which is looked at when a container comes
		if err := m.network.CheckMTU(limit); err != nil {
			return "", err
		}
	}
	_, missing := store.Network(tx, m.network.Ref())
	_, err := store.DeclareNetwork(tx, m.network)
	return ifNew(missing), err
}

// ifNew is the outcome for what is never changed.
func ifNew(missing error) string {
	if errors.Is(missing, vnet.ErrNotFound) {
		return created
	}
	return unchanged
}

// ifOther is the outcome for what may be.
func ifOther(missing error, before, after any) string {
	if missing == nil && !reflect.DeepEqual(before, after) {
		return changed
	}
	return ifNew(missing)
}
