package ovs

import (
	"context"
	"fmt"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// A view is what was seen of a bridge and of one port name.
type view struct {
	nextCfg, curCfg int
	bridge          Bridge
	made            bool // ovs-vswitchd has given the bridge its datapath_id
	portUUID        string
	portOwner       string // empty: no port of that name, or not ours
	inBridge        bool   // the port is in this bridge
	taken           bool   // an interface of that name exists, in whatever port
}

// view reads the bridge, or returns ErrNotFound, and the port of that name, if port is not empty. It costs the same
// whatever the bridge's size.
func (s *Switch) view(ctx context.Context, bridge, port string) (view, error) {
	ops := []ovsdb.Operation{
		s.selectRoot("next_cfg", "cur_cfg"),
		selectName(tableBridge, bridge, "_uuid", "name", "datapath_type", "fail_mode", "external_ids", "other_config", "datapath_id"),
	}
	if port != "" {
		ops = append(ops,
			selectName(tablePort, port, "_uuid", "external_ids"),
			selectName(tableInterface, port, "_uuid"))
	}
	res, err := s.transact(ctx, ops...)
	if err != nil {
		return view{}, err
	}
	if len(res[0].Rows) == 0 {
		return view{}, errNoRoot
	}
	if len(res[1].Rows) == 0 {
		return view{}, ErrNotFound
	}
	root, row := res[0].Rows[0], res[1].Rows[0]
	v := view{
		nextCfg: root.number("next_cfg"), curCfg: root.number("cur_cfg"),
		bridge: bridgeOf(row), made: row.text("datapath_id") != "",
	}
	v.bridge.Applied = v.made && v.curCfg >= v.nextCfg
	if port == "" {
		return v, nil
	}
	v.taken = len(res[3].Rows) > 0
	if len(res[2].Rows) > 0 {
		v.portUUID, v.portOwner = res[2].Rows[0].uuid(), res[2].Rows[0].owner()
		home, err := s.home(ctx, v.portUUID)
		if err != nil {
			return view{}, err
		}
		if home == "" {
			return s.view(ctx, bridge, port) // removed or replaced since we saw it: look again
		}
		v.inBridge = home == v.bridge.uuid
	}
	return v, nil
}

// home is the uuid of the bridge that a port is in, or empty if the port has been removed: rows of table Port live as
// long as a bridge refers to them. It spares fetching the bridge's list of ports.
func (s *Switch) home(ctx context.Context, portUUID string) (string, error) {
	res, err := s.transact(ctx, ovsdb.Operation{
		Op: ovsdb.OperationSelect, Table: tableBridge, Columns: []string{"_uuid"},
		Where: []ovsdb.Condition{{
			Column: "ports", Function: ovsdb.ConditionIncludes, Value: ovsdb.UUID{GoUUID: portUUID},
		}},
	})
	if err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	return res[0].Rows[0].uuid(), nil
}

// BridgeWith returns the name of the bridge that an interface of that name is in, ours or not, alone or in a bond; empty
// if there is none.
func (s *Switch) BridgeWith(ctx context.Context, name string) (string, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	bridge, err := s.bridgeWith(ctx, name)
	if err != nil {
		return "", fmt.Errorf("look for %s in bridges: %w", name, err)
	}
	return bridge, nil
}

func (s *Switch) bridgeWith(ctx context.Context, name string) (string, error) {
	res, err := s.transact(ctx, selectName(tableInterface, name, "_uuid"))
	if err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	refers := func(table, column string, r row, columns ...string) ([]result, error) {
		return s.transact(ctx, ovsdb.Operation{Op: ovsdb.OperationSelect, Table: table, Columns: columns, Where: []ovsdb.Condition{{
			Column: column, Function: ovsdb.ConditionIncludes, Value: ovsdb.UUID{GoUUID: r.uuid()},
		}}})
	}
	if res, err = refers(tablePort, "interfaces", res[0].Rows[0], "_uuid"); err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	if res, err = refers(tableBridge, "ports", res[0].Rows[0], "name"); err != nil || len(res[0].Rows) == 0 {
		return "", err
	}
	return res[0].Rows[0].text("name"), nil
}

func bridgeOf(r row) Bridge {
	b := Bridge{
		Name: r.text("name"), Owner: r.owner(), Datapath: r.text("datapath_type"), FailMode: r.text("fail_mode"),
		HWAddr: r.pairs("other_config")["hwaddr"], ExternalIDs: r.ids(), uuid: r.uuid(),
	}
	_, b.Standalone = b.ExternalIDs[standaloneKey]
	delete(b.ExternalIDs, standaloneKey)
	if b.Datapath == "" {
		b.Datapath = "system" // what ovs-vswitchd makes of an empty datapath_type
	}
	return b
}
