package ovs

import (
	"context"
	"errors"
	"fmt"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Unplug takes a port of ours out of a bridge. It does not wait for ovs-vswitchd, dead or alive. A port or bridge that
// is not there is nil: it is gone. A port without OwnerKey is ErrNotOurs and stays.
func (s *Switch) Unplug(ctx context.Context, bridge, name string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	if _, err := s.unplugNow(ctx, bridge, name); err != nil {
		return fmt.Errorf("unplug %s from %s: %w", name, bridge, err)
	}
	return nil
}

// unplugNow returns the number of the change, or 0 if there was nothing to do.
func (s *Switch) unplugNow(ctx context.Context, bridge, name string) (int, error) {
	v, err := s.view(ctx, bridge, name)
	switch {
	case errors.Is(err, ErrNotFound):
		return 0, nil
	case err != nil:
		return 0, err
	case !v.inBridge:
		return 0, nil
	case v.portOwner == "" || name == bridge:
		return 0, ErrNotOurs
	}
	return s.unplug(ctx, v.bridge.uuid, v.portUUID)
}

// unplug takes Port rows out of a bridge; the rows go with their last reference. A row that has gone meanwhile is no
// error. It returns the number of the change.
func (s *Switch) unplug(ctx context.Context, bridgeUUID string, portUUIDs ...string) (int, error) {
	gone := make([]ovsdb.UUID, len(portUUIDs))
	for i, u := range portUUIDs {
		gone[i] = ovsdb.UUID{GoUUID: u}
	}
	remove := ovsdb.Operation{Op: ovsdb.OperationMutate, Table: tableBridge, Where: whereUUID(bridgeUUID), Mutations: []ovsdb.Mutation{
		{Column: "ports", Mutator: ovsdb.MutateOperationDelete, Value: toSet(gone)},
	}}
	res, err := s.transact(ctx, append([]ovsdb.Operation{remove}, s.bump()...)...)
	if err != nil {
		return 0, err
	}
	return bumped(res)
}

// UnplugAll takes ports of ours out of a bridge in one transaction, without waiting for ovs-vswitchd: made for rows
// whose links are gone, before ovs-vswitchd starts. Names that are not there or not ours are passed over. On the
// userspace datapath a living ovs-vswitchd stalls all traffic for some 13 ms per port with a link: there use
// UnplugEach.
func (s *Switch) UnplugAll(ctx context.Context, bridge string, names []string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	if err := s.unplugAll(ctx, bridge, names); err != nil {
		return fmt.Errorf("unplug %d ports from %s: %w", len(names), bridge, err)
	}
	return nil
}

func (s *Switch) unplugAll(ctx context.Context, bridge string, names []string) error {
	res, err := s.transact(ctx,
		selectName(tableBridge, bridge, "_uuid", "ports"),
		ovsdb.Operation{Op: ovsdb.OperationSelect, Table: tablePort, Columns: []string{"_uuid", "name", "external_ids"}})
	if err != nil {
		return err
	}
	if len(res[0].Rows) == 0 {
		return nil
	}
	row := res[0].Rows[0]
	in, wanted := map[uuid]bool{}, map[string]bool{}
	for _, u := range row.uuids("ports") {
		in[u] = true
	}
	for _, n := range names {
		wanted[n] = n != bridge
	}
	var gone []string
	for _, p := range res[1].Rows {
		if wanted[p.text("name")] && in[uuid(p.uuid())] && p.owner() != "" {
			gone = append(gone, p.uuid())
		}
	}
	if len(gone) == 0 {
		return nil
	}
	_, err = s.unplug(ctx, row.uuid(), gone...)
	return err
}

// UnplugEach unplugs ports one after the other and waits each time for ovs-vswitchd to have done it, so that traffic
// goes on in between. It goes on past failures and returns them joined.
func (s *Switch) UnplugEach(ctx context.Context, bridge string, names []string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	var errs []error
	for _, name := range names {
		cfg, err := s.unplugNow(ctx, bridge, name)
		if err == nil && cfg > 0 {
			err = s.applied(ctx, cfg)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unplug %s from %s: %w", name, bridge, err))
		}
	}
	return errors.Join(errs...)
}
