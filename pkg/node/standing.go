package node

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/uplink"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// standing is what the switch and the kernel say of the ports of all bridges, at one moment, with one bridge to render for.
type standing struct {
	here   string                     // this boot and network namespace
	bridge string                     // empty: any
	ports  map[vnet.EndpointID]uint32 // OpenFlow port numbers; nil: there is no bridge, or no switch
	up     map[vnet.EndpointID]bool   // whose link works
}

// stand looks at the ports of all bridges, to render for this one, which must be ours: what is rendered from this store
// would wipe out another's. vnet.ErrNotFound if there is no such bridge; what it says of the others is right even so.
func (n *Node) stand(ctx context.Context, bridge string) (standing, error) {
	s := standing{bridge: bridge, up: map[vnet.EndpointID]bool{}}
	var err error
	if s.here, err = uplink.Here(); err != nil {
		return s, err
	}
	sw, err := n.dial(ctx)
	if err != nil {
		return s, err
	}
	b, missing := sw.Bridge(ctx, bridge)
	switch {
	case errors.Is(missing, ovs.ErrNotFound):
	case missing != nil:
		return s, kind(missing)
	default:
		if err := n.owns(b); err != nil {
			return s, vnet.WithHint(err, "which store, and which bridge? --data-dir, --bridge, or the node's configuration")
		}
	}
	bridges, err := n.bridges(ctx)
	if err != nil {
		return s, err
	}
	if !slices.Contains(bridges, bridge) {
		bridges = append(bridges, bridge)
	}
	for _, each := range bridges {
		ports, err := n.ofports(ctx, each)
		if errors.Is(err, vnet.ErrNotFound) {
			continue
		}
		if err != nil {
			return s, err
		}
		if s.ports == nil {
			s.ports = map[vnet.EndpointID]uint32{}
		}
		maps.Copy(s.ports, ports)
	}
	links, err := veth.List(ctx, "tenet ")
	for _, l := range links {
		words := strings.Fields(l.Alias) // linkAlias and the endpoint
		s.up[vnet.EndpointID(words[len(words)-1])] = l.Works
	}
	return s, cmp.Or(kind(err), kind(missing))
}

// function returns the instance with its ports, and what becomes of it.
func (s standing) function(tx store.Tx, i vnet.Instance, groups map[vnet.GroupRef]vnet.Group) (pipeline.Function, paths.State, error) {
	f := pipeline.Function{Instance: i}
	g, ok := groups[i.Ref()]
	if !ok {
		var err error
		if g, err = store.Group(tx, i.Ref()); err != nil {
			return f, paths.Gone, err
		}
		groups[i.Ref()] = g
	}
	f.Mode, f.OnFailure = g.Mode, g.OnFailure
	tenant, err := store.Tenant(tx, i.Tenant)
	if err != nil {
		return f, paths.Gone, err
	}
	f.TenantNumber = tenant.Number
	if !i.Whole() {
		return f, paths.Gone, nil
	}
	state := paths.Serves
	if i.Hung {
		state = paths.Dead
	}
	for _, end := range []struct {
		id   vnet.EndpointID
		port *pipeline.FunctionPort
	}{{i.Ingress, &f.In}, {i.Egress, &f.Out}} {
		e, err := store.Endpoint(tx, end.id)
		switch {
		case errors.Is(err, vnet.ErrNotFound), err == nil && (e.State != vnet.Ready || s.bridge != "" && e.Bridge != s.bridge):
			return f, paths.Gone, nil
		case err != nil:
			return f, paths.Gone, err
		}
		*end.port = pipeline.FunctionPort{Port: portOf(e, s.ports), MAC: e.MAC, Addrs: e.Addrs}
		// Links of another network namespace cannot be seen from here: the switch itself looks at its ports.
		if _, has := s.ports[e.ID]; !has || e.Boot == s.here && !s.up[e.ID] {
			state = paths.Dead
		}
	}
	return f, state, nil
}

// plan decides anew which paths the chains of all tenants have, on whatever bridge.
//
// On a node of a cluster the cluster has decided.
func (s standing) plan(tx store.Tx) error {
	if _, member := store.Member(tx); member {
		return nil
	}
	s.bridge = ""
	tenants, err := store.All[vnet.Tenant](tx, store.Tenants)
	if err != nil {
		return err
	}
	groups := map[vnet.GroupRef]vnet.Group{}
	for _, t := range tenants {
		var failed error
		err := paths.Plan(tx, t.Name, func(i vnet.Instance) paths.State {
			_, state, err := s.function(tx, i, groups)
			failed = errors.Join(failed, err)
			if state == paths.Dead && s.ports == nil && !i.Hung {
				state = paths.Serves // nobody can say, and what leads may go on
			}
			return state
		}, time.Now().UTC())
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}

// replan writes what the plan is now, if it differs.
func (n *Node) replan(ctx context.Context, s standing) error {
	err := n.Store.View(ctx, func(tx store.Tx) error { return s.plan(readOnly{tx}) })
	if !errors.Is(err, errWrites) {
		return err
	}
	return n.Store.Update(ctx, s.plan)
}

// readOnly is a transaction that tells whether anything would be written.
type readOnly struct{ store.Tx }

var errWrites = errors.New("it writes")

func (readOnly) Put(string, []byte) error { return errWrites }
func (readOnly) Delete(string) error      { return errWrites }
