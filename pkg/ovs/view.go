package ovs

import (
	"context"
	"slices"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// A view is what one transaction saw of a bridge and of one port name.
type view struct {
	nextCfg, curCfg int
	bridge          Bridge
	made            bool // ovs-vswitchd has given the bridge its datapath_id
	portUUID        string
	portOwner       string // empty: no port of that name, or not ours
	inBridge        bool   // the port is in this bridge
	taken           bool   // an interface of that name exists, in whatever port
}

// view reads the bridge, or returns ErrNotFound, and the port of that name, if port is not empty.
func (s *Switch) view(ctx context.Context, bridge, port string) (view, error) {
	ops := []ovsdb.Operation{
		s.selectRoot("next_cfg", "cur_cfg"),
		selectName(tableBridge, bridge, bridgeColumns()...),
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
	v := view{nextCfg: number(res[0].Rows[0], "next_cfg"), curCfg: number(res[0].Rows[0], "cur_cfg")}
	if port != "" {
		if len(res[2].Rows) == 1 {
			v.portUUID = uuidOf(res[2].Rows[0])
			v.portOwner = pairs(res[2].Rows[0], "external_ids")[OwnerKey]
		}
		v.taken = len(res[3].Rows) == 1
	}
	if len(res[1].Rows) == 0 {
		return v, ErrNotFound
	}
	row := res[1].Rows[0]
	v.made = text(row, "datapath_id") != ""
	v.bridge = bridgeOf(row)
	v.bridge.Applied = v.made && v.curCfg >= v.nextCfg
	v.inBridge = v.portUUID != "" && slices.Contains(v.bridge.ports, v.portUUID)
	return v, nil
}

func bridgeColumns() []string {
	return []string{"_uuid", "name", "datapath_type", "fail_mode", "external_ids", "ports", "datapath_id"}
}

func bridgeOf(row ovsdb.Row) Bridge {
	b := Bridge{
		Name: text(row, "name"), Datapath: text(row, "datapath_type"), FailMode: text(row, "fail_mode"),
		ExternalIDs: pairs(row, "external_ids"), uuid: uuidOf(row), ports: portsOf(row),
	}
	if b.Datapath == "" {
		b.Datapath = "system" // what ovs-vswitchd makes of an empty datapath_type
	}
	b.Owner, _ = disowned(b.ExternalIDs)
	return b
}
