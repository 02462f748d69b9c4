package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	Outcome string `json:"outcome"` // "created", "unchanged" or "deleted"
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
				created, err := m.declare(tx, n.Bridge, limit)
				if err != nil {
					return m.explain(err)
				}
				o := outcome{m.kind, m.name(), "unchanged"}
				if created {
					o.Outcome = "created"
				}
				outcomes = append(outcomes, o)
			}
			return nil
		}
		if len(manifests) == 0 || manifests[0].kind != kindUplink {
			return n.Store.Update(ctx, write)
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
		if err := addUplinks(ctx, n, manifests, tried, func() error { return n.Store.Update(ctx, write) }); err != nil {
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

func order(m manifest) int {
	if m.kind == kindUplink {
		return 0
	}
	return 1
}

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
			if tried[i].Outcome == "created" {
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

// declare records one object, if it is not there; limit is what a network's MTU may be.
func (m manifest) declare(tx store.Tx, bridge string, limit int) (created bool, err error) { //nolint:nonamedreturns // says what the bool is
	switch m.kind {
	case kindUplink:
		u := m.uplink
		u.Bridge = bridge
		_, missing := store.Uplink(tx, u.Name)
		_, err := store.DeclareUplink(tx, u)
		return errors.Is(missing, vnet.ErrNotFound), err
	case kindTenant:
		_, err := store.Tenant(tx, m.tenant)
		if !errors.Is(err, vnet.ErrNotFound) {
			return false, err
		}
		_, err = store.DeclareTenant(tx, m.tenant)
		return true, err
	}
	if !m.network.IsProvider() { // on a wire the NIC's MTU is the limit, which is looked at when a container comes
		if err := m.network.CheckMTU(limit); err != nil {
			return false, err
		}
	}
	_, missing := store.Network(tx, m.network.Ref())
	_, err = store.DeclareNetwork(tx, m.network)
	return errors.Is(missing, vnet.ErrNotFound), err
}
