package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Errors of a transaction that are part of the way of things; see RFC 7047 section 5.2 for the strings.
var (
	errTimedOut   = errors.New("timed out")            // a wait was not fulfilled in its time
	errConstraint = errors.New("constraint violation") // somebody else was first with a unique name
)

// transact runs operations as one transaction: all or nothing.
func (s *Switch) transact(ctx context.Context, ops ...ovsdb.Operation) ([]result, error) {
	raw, err := s.conn.call(ctx, "transact", ovsdb.NewTransactArgs(database, ops...))
	if err != nil {
		return nil, err
	}
	var res []result
	if err := json.Unmarshal(raw, &res); err != nil {
		return nil, fmt.Errorf("%s answered what is no result of a transaction: %w: %w", s.conn.peer, ErrUnavailable, err)
	}
	for i, r := range res { // an error of the commit itself is one element more than operations
		switch {
		case r.Error == "":
		case r.Error == errTimedOut.Error():
			return nil, errTimedOut
		case r.Error == errConstraint.Error():
			return nil, fmt.Errorf("%w: %s", errConstraint, r.Details)
		case i < len(ops):
			return nil, fmt.Errorf("%s %s: %s: %s", ops[i].Op, ops[i].Table, r.Error, r.Details)
		default:
			return nil, fmt.Errorf("commit: %s: %s", r.Error, r.Details)
		}
	}
	if len(res) < len(ops) {
		return nil, fmt.Errorf("%s answered %d of %d operations: %w", s.conn.peer, len(res), len(ops), ErrUnavailable)
	}
	return res, nil
}

// await is transact for operations that begin with a wait: the wait's timeout is set so that the answer comes before
// the context's end, with a little left to look at what there is.
func (s *Switch) await(ctx context.Context, ops ...ovsdb.Operation) ([]result, error) {
	end, _ := ctx.Deadline() // bound has seen to it
	left := time.Until(end)
	ms := int((left - min(left/4, 200*time.Millisecond)).Milliseconds())
	ms = max(ms, 0)
	ops[0].Timeout = &ms
	return s.transact(ctx, ops...)
}

// bump raises next_cfg in the transaction it is part of: ovs-vswitchd sets cur_cfg to it when it has applied the
// transaction. It must come last; bumped reads its result.
func (s *Switch) bump() []ovsdb.Operation {
	return []ovsdb.Operation{
		{Op: ovsdb.OperationMutate, Table: tableRoot, Where: s.whereRoot(), Mutations: []ovsdb.Mutation{
			{Column: "next_cfg", Mutator: ovsdb.MutateOperationAdd, Value: 1},
		}},
		s.selectRoot("next_cfg"),
	}
}

// bumped is the number that bump, the last operations of a transaction, gave it.
func bumped(res []result) (int, error) {
	rows := res[len(res)-1].Rows
	if len(rows) != 1 {
		return 0, errNoRoot
	}
	return rows[0].number("next_cfg"), nil
}

// applied waits until ovs-vswitchd has applied all changes up to number cfg.
func (s *Switch) applied(ctx context.Context, cfg int) error {
	root := ovsdb.UUID{GoUUID: s.root}
	_, err := s.await(ctx, ovsdb.Operation{
		// The row exists anyway; that it is among those with cur_cfg >= cfg is the condition.
		Op: ovsdb.OperationWait, Table: tableRoot, Columns: []string{"_uuid"},
		Where: []ovsdb.Condition{{Column: "cur_cfg", Function: ovsdb.ConditionGreaterThanOrEqual, Value: cfg}},
		Until: string(ovsdb.WaitConditionEqual), Rows: []ovsdb.Row{{"_uuid": root}},
	})
	if errors.Is(err, errTimedOut) {
		return errNotApplied
	}
	return err
}

// errNotApplied: the database has the change, ovs-vswitchd did not confirm it.
var errNotApplied = fmt.Errorf("ovs-vswitchd did not apply the change in time, is it running?: %w", ErrUnavailable)

func (s *Switch) whereRoot() []ovsdb.Condition {
	return whereUUID(s.root)
}

func (s *Switch) selectRoot(columns ...string) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: tableRoot, Where: s.whereRoot(), Columns: columns}
}

func whereUUID(uuid string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "_uuid", Function: ovsdb.ConditionEqual, Value: ovsdb.UUID{GoUUID: uuid}}}
}

func whereName(name string) []ovsdb.Condition {
	return []ovsdb.Condition{{Column: "name", Function: ovsdb.ConditionEqual, Value: name}}
}

func selectName(table, name string, columns ...string) ovsdb.Operation {
	return ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Where: whereName(name), Columns: columns}
}
