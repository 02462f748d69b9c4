package ovs

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// A Port is one port with its one interface, which has the same name.
type Port struct {
	Name  string
	Owner string // external_ids:tenet
	// Type is the interface's: empty for a link of the host, "internal" for one that ovs-vswitchd makes, "vxlan",
	// "geneve" … for a tunnel, "patch" for one end of a cable to another bridge (Interface.type in ovs-vswitchd.conf.db(5)).
	Type    string
	Options map[string]string // Interface.options, for tunnels and patch ports
	// OFPortRequest is the OpenFlow port number to have, 1 to 65279; 0 leaves it to ovs-vswitchd. Without a request a
	// port whose link went and came back gets another number.
	OFPortRequest int
	// MTURequest is the MTU that ovs-vswitchd gives the link (Interface.mtu_request); 0 leaves it to ovs-vswitchd.
	MTURequest int
	// Trunks are the VLANs that pass, 0 being frames without a tag (Port.trunks); none: all of them do. They count
	// only where the bridge forwards by itself (BridgeSpec.Standalone).
	Trunks      []int
	ExternalIDs map[string]string // without the owner

	// What ovs-vswitchd says, ignored by Plug.

	OFPort    int    // -1: refused, see Error; 0: ovs-vswitchd has not got to it
	Error     string // ovs-vswitchd's words
	LinkState string // "up", "down" or empty
}

// Port returns a port of ours in a bridge, or ErrNotFound, or ErrNotOurs for one without OwnerKey.
func (s *Switch) Port(ctx context.Context, bridge, name string) (Port, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	p, err := s.port(ctx, bridge, name)
	if err != nil {
		return Port{}, fmt.Errorf("port %s of %s: %w", name, bridge, err)
	}
	return p, nil
}

func (s *Switch) port(ctx context.Context, bridge, name string) (Port, error) {
	res, err := s.transact(ctx,
		selectName(tableBridge, bridge, "_uuid"),
		selectName(tablePort, name, "_uuid", "external_ids", "trunks"),
		selectName(tableInterface, name, interfaceColumns()...))
	if err != nil {
		return Port{}, err
	}
	for _, r := range res {
		if len(r.Rows) == 0 {
			return Port{}, ErrNotFound
		}
	}
	home, err := s.home(ctx, res[1].Rows[0].uuid())
	switch {
	case err != nil:
		return Port{}, err
	case home == "":
		return s.port(ctx, bridge, name) // removed or replaced since we saw it: look again
	case home != res[0].Rows[0].uuid():
		return Port{}, ErrNotFound
	case res[1].Rows[0].owner() == "":
		return Port{}, ErrNotOurs
	}
	return portOf(res[1].Rows[0], res[2].Rows[0]), nil
}

// Ports returns our ports in a bridge, sorted by name, without the bridge's own (the local port). A missing bridge is
// ErrNotFound.
func (s *Switch) Ports(ctx context.Context, bridge string) ([]Port, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	ports, err := s.ports(ctx, bridge)
	if err != nil {
		return nil, fmt.Errorf("ports of %s: %w", bridge, err)
	}
	return ports, nil
}

func (s *Switch) ports(ctx context.Context, bridge string) ([]Port, error) {
	// The rows of all bridges, but only narrow columns: a condition can name a key of external_ids only with its value.
	res, err := s.transact(ctx,
		selectName(tableBridge, bridge, "ports"),
		ovsdb.Operation{Op: ovsdb.OperationSelect, Table: tablePort, Columns: []string{"_uuid", "name", "external_ids", "trunks"}},
		ovsdb.Operation{Op: ovsdb.OperationSelect, Table: tableInterface, Columns: interfaceColumns()})
	if err != nil {
		return nil, err
	}
	if len(res[0].Rows) == 0 {
		return nil, ErrNotFound
	}
	in := map[uuid]bool{}
	for _, u := range res[0].Rows[0].uuids("ports") {
		in[u] = true
	}
	ours := map[string]row{}
	for _, row := range res[1].Rows {
		name := row.text("name")
		if in[uuid(row.uuid())] && name != bridge && row.owner() != "" {
			ours[name] = row
		}
	}
	ports := make([]Port, 0, len(ours))
	for _, row := range res[2].Rows {
		if port, ok := ours[row.text("name")]; ok {
			ports = append(ports, portOf(port, row))
		}
	}
	slices.SortFunc(ports, func(a, b Port) int { return strings.Compare(a.Name, b.Name) })
	return ports, nil
}

func interfaceColumns() []string {
	return []string{
		"name", "type", "options", "ofport_request", "mtu_request", "external_ids", "ofport", "error", "link_state",
	}
}

// portOf reads a port from its rows of the tables Port and Interface.
func portOf(port, r row) Port {
	return Port{
		Name: r.text("name"), Owner: r.owner(), Type: r.text("type"), Options: r.pairs("options"),
		OFPortRequest: r.number("ofport_request"), MTURequest: r.number("mtu_request"), Trunks: set[int](port["trunks"]),
		ExternalIDs: r.ids(), OFPort: r.number("ofport"), Error: r.text("error"), LinkState: r.text("link_state"),
	}
}
