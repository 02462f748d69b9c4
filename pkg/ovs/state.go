package ovs

import (
	"context"
	"fmt"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// restoreWait is the key in Open_vSwitch.other_config that makes a starting ovs-vswitchd leave the kernel's flows and
// take no packets until it is cleared, so that flows can be restored first.
const restoreWait = "flow-restore-wait"

var errNoRoot = fmt.Errorf("the row of table Open_vSwitch is gone: %w", ErrUnavailable)

// A State is what the database says of the switch as a whole.
type State struct {
	DBVersion     string   // of the schema
	DatapathTypes []string // that ovs-vswitchd was built with
	RestoreWait   bool     // other_config:flow-restore-wait is set
	Applied       bool     // ovs-vswitchd has applied all changes that asked for it
}

// State reads the state of the switch. It does not tell whether ovs-vswitchd lives: see Alive.
func (s *Switch) State(ctx context.Context) (State, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	res, err := s.transact(ctx,
		s.selectRoot("db_version", "datapath_types", "other_config", "next_cfg", "cur_cfg"))
	if err == nil && len(res[0].Rows) == 0 {
		err = errNoRoot
	}
	if err != nil {
		return State{}, fmt.Errorf("state of the switch: %w", err)
	}
	row := res[0].Rows[0]
	return State{
		DBVersion: row.text("db_version"), DatapathTypes: row.texts("datapath_types"),
		RestoreWait: row.pairs("other_config")[restoreWait] == "true",
		Applied:     row.number("cur_cfg") >= row.number("next_cfg"),
	}, nil
}

// SetRestoreWait sets or clears other_config:flow-restore-wait. A running ovs-vswitchd that has once seen it cleared
// ignores it until its next start; one that starts with it set forwards nothing new, on *any* bridge, until it is
// cleared.
//
// Setting waits for nothing. Clearing waits for ovs-vswitchd to have seen it; if it does not before the context ends,
// the error is ErrUnavailable, and the flag is cleared all the same.
func (s *Switch) SetRestoreWait(ctx context.Context, on bool) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	mutations := []ovsdb.Mutation{
		{Column: "other_config", Mutator: ovsdb.MutateOperationDelete, Value: toSet([]string{restoreWait})},
	}
	if on { // an insert alone would keep another value
		mutations = append(mutations, ovsdb.Mutation{
			Column: "other_config", Mutator: ovsdb.MutateOperationInsert, Value: toMap(map[string]string{restoreWait: "true"}),
		})
	}
	ops := []ovsdb.Operation{{Op: ovsdb.OperationMutate, Table: tableRoot, Where: s.whereRoot(), Mutations: mutations}}
	if !on {
		ops = append(ops, s.bump()...)
	}
	res, err := s.transact(ctx, ops...)
	switch {
	case err == nil && res[0].Count != 1:
		err = errNoRoot
	case err == nil && !on:
		var cfg int
		if cfg, err = bumped(res); err == nil {
			err = s.applied(ctx, cfg)
		}
	}
	if err != nil {
		verb := "clear"
		if on {
			verb = "set"
		}
		return fmt.Errorf("%s %s: %w", verb, restoreWait, err)
	}
	return nil
}
