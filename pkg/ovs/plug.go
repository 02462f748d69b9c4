package ovs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Plug puts a port into a bridge of ours and returns its OpenFlow port number, when ovs-vswitchd has attached the link.
//
// A port of that name and owner that is there already is taken out first and put in anew: on the userspace datapath a
// row that stays while its link is replaced by another of the same name stays deaf. A port of that name with another
// owner, or in another bridge, is ErrNotOurs and not touched.
//
// A missing bridge is ErrNotFound and nothing is written. A missing link is ErrDevice. If ovs-vswitchd does not do its
// part before the context ends the error is ErrUnavailable. After these two the row may be there: Unplug removes it.
func (s *Switch) Plug(ctx context.Context, bridge string, p Port) (int, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	n, err := s.plug(ctx, bridge, p)
	if err != nil {
		return 0, fmt.Errorf("plug %s into %s: %w", p.Name, bridge, err)
	}
	return n, nil
}

// EnsurePort is Plug, but leaves a port alone that is there as asked for and works. It is for links that ovs-vswitchd
// itself makes, as tunnels and internal ports; a link of the host may have been reborn, which no row tells.
func (s *Switch) EnsurePort(ctx context.Context, bridge string, p Port) (int, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	old, err := s.port(ctx, bridge, p.Name)
	if err == nil && old.OFPort > 0 && old.Is(p) {
		return old.OFPort, nil
	}
	return s.Plug(ctx, bridge, p)
}

// Is reports whether both ask for the same of ovs-vswitchd, whatever that says.
func (p Port) Is(o Port) bool {
	return p.Owner == o.Owner && p.Type == o.Type && maps.Equal(p.Options, o.Options) &&
		maps.Equal(p.ExternalIDs, o.ExternalIDs) && p.OFPortRequest == o.OFPortRequest && p.MTURequest == o.MTURequest &&
		slices.Equal(trunks(p), trunks(o))
}

// trunks are a port's VLANs as the database keeps them: sorted, each once.
func trunks(p Port) []int {
	return slices.Compact(slices.Sorted(slices.Values(p.Trunks)))
}

func (s *Switch) plug(ctx context.Context, bridge string, p Port) (int, error) {
	if p.Name == "" || p.Owner == "" {
		return 0, errors.New("a port needs a name and an owner")
	}
	for {
		v, err := s.view(ctx, bridge, p.Name)
		if err != nil {
			return 0, err
		}
		if err := mayPlug(v, p); err != nil {
			return 0, err
		}
		if v.inBridge {
			if v.nextCfg, err = s.unplug(ctx, v.bridge.uuid, v.portUUID); err != nil {
				return 0, err
			}
		}
		// A port of this name may have been taken out just now, by us or somebody else. Were it put in again before
		// ovs-vswitchd has seen it go, it would see nothing and keep the old link.
		if v.curCfg < v.nextCfg {
			if err := s.applied(ctx, v.nextCfg); err != nil {
				return 0, fmt.Errorf("earlier changes first: %w", err)
			}
		}
		uuid, err := s.insertPort(ctx, v.bridge.uuid, p)
		if errors.Is(err, errConstraint) && ctx.Err() == nil {
			continue // somebody else was first with this name: look whose it is
		}
		if err != nil {
			return 0, err
		}
		return s.awaitPort(ctx, uuid)
	}
}

func mayPlug(v view, p Port) error {
	switch {
	case v.bridge.Owner == "":
		return fmt.Errorf("the bridge: %w", ErrNotOurs)
	case v.portUUID == "" && v.taken:
		return fmt.Errorf("an interface of that name is in another port: %w", ErrNotOurs)
	case v.portUUID == "":
		return nil
	case v.portOwner == "":
		return fmt.Errorf("a port of that name exists: %w", ErrNotOurs)
	case !v.inBridge:
		return fmt.Errorf("a port of that name is in another bridge: %w", ErrNotOurs)
	case v.portOwner != p.Owner:
		return fmt.Errorf("a port of that name belongs to %s: %w", v.portOwner, ErrNotOurs)
	}
	return nil
}

// insertPort writes port and interface in one transaction and returns the interface's uuid.
func (s *Switch) insertPort(ctx context.Context, bridgeUUID string, p Port) (string, error) {
	ids := toMap(owned(p.Owner, p.ExternalIDs))
	row := ovsdb.Row{"name": p.Name, "type": p.Type, "external_ids": ids, "options": toMap(p.Options)}
	if p.OFPortRequest != 0 {
		row["ofport_request"] = p.OFPortRequest
	}
	if p.MTURequest != 0 {
		row["mtu_request"] = p.MTURequest
	}
	res, err := s.transact(ctx,
		ovsdb.Operation{Op: ovsdb.OperationInsert, Table: tableInterface, UUIDName: "interface", Row: row},
		ovsdb.Operation{Op: ovsdb.OperationInsert, Table: tablePort, UUIDName: "port", Row: ovsdb.Row{
			"name": p.Name, "interfaces": ovsdb.UUID{GoUUID: "interface"}, "external_ids": ids, "trunks": toSet(trunks(p)),
		}},
		ovsdb.Operation{Op: ovsdb.OperationMutate, Table: tableBridge, Where: whereUUID(bridgeUUID), Mutations: []ovsdb.Mutation{
			{Column: "ports", Mutator: ovsdb.MutateOperationInsert, Value: ovsdb.UUID{GoUUID: "port"}},
		}},
	)
	if err != nil {
		return "", err
	}
	if res[2].Count != 1 { // the new rows, referenced by nothing, were dropped by the commit
		return "", fmt.Errorf("the bridge has just been removed: %w", ErrNotFound)
	}
	return string(res[0].UUID), nil
}

// awaitPort waits for ovs-vswitchd to give an interface its number.
func (s *Switch) awaitPort(ctx context.Context, uuid string) (int, error) {
	look := ovsdb.Operation{
		Op: ovsdb.OperationSelect, Table: tableInterface, Where: whereUUID(uuid), Columns: []string{"ofport", "error"},
	}
	res, err := s.await(ctx, ovsdb.Operation{
		Op: ovsdb.OperationWait, Table: tableInterface, Where: whereUUID(uuid), Columns: []string{"ofport"},
		Until: string(ovsdb.WaitConditionNotEqual), Rows: []ovsdb.Row{{"ofport": ovsdb.OvsSet{}}},
	}, look)
	at := 1
	if errors.Is(err, errTimedOut) {
		res, err = s.transact(ctx, look) // it may have come in between
		at = 0
	}
	if err != nil {
		return 0, err
	}
	if len(res[at].Rows) == 0 {
		return 0, fmt.Errorf("the port was removed while it was waited for: %w", ErrNotFound)
	}
	row := res[at].Rows[0]
	switch n := row.number("ofport"); {
	case n > 0:
		return n, nil
	case n == 0:
		return 0, fmt.Errorf("the port is in the database, but %w", errNotApplied)
	default:
		return 0, fmt.Errorf("%w: %s", ErrDevice, row.text("error"))
	}
}
