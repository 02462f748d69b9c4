package ovs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
	"github.com/vishvananda/netlink"
)

// A BridgeSpec says what EnsureBridge makes.
type BridgeSpec struct {
	Name string
	// Owner is written as external_ids:tenet on the bridge's rows.
	Owner string
	// Datapath is "system" (the kernel's) or "netdev" (userspace). Empty: "system" if ovs-vswitchd and the kernel have
	// it, else "netdev". It counts only when the bridge is created: an existing bridge keeps its own.
	Datapath string
	// Standalone makes a bridge that forwards by itself, as a learning switch does, and goes on doing so when its flows
	// are lost (fail_mode=standalone). It counts only when the bridge is created: no bridge changes its shape.
	Standalone bool
	// HWAddr is the MAC of the bridge's local link, as "02:00:00:00:00:01"; empty: one that is made up.
	HWAddr string
	// ExternalIDs are written beside the owner. Other keys that the row has stay.
	ExternalIDs map[string]string
}

// A Bridge is one bridge's row.
type Bridge struct {
	Name        string
	Owner       string // empty: not ours
	Datapath    string // "system" or "netdev"
	FailMode    string
	Standalone  bool              // made so by EnsureBridge
	HWAddr      string            // other_config:hwaddr
	ExternalIDs map[string]string // without the owner
	Applied     bool              // ovs-vswitchd has made the bridge and applied all changes up to now

	uuid string
}

// standaloneKey is the key in a bridge's external_ids that says that it was made to forward by itself. The fail mode
// does not tell: anybody may change it, and it is mended.
const standaloneKey = OwnerKey + "-standalone"

// EnsureBridge makes sure that a bridge of ours exists, drops what no flow admits (fail_mode=secure) unless it is to be
// Standalone, and speaks OpenFlow 1.5, and returns when ovs-vswitchd has applied it. It may be raced by other
// processes: there will be one bridge. A bridge of that name without OwnerKey, with another owner, or of the other
// shape, is ErrNotOurs and stays as it is. A bridge that ovs-vswitchd cannot make (it has no such datapath) is
// ErrDevice; its row stays.
func (s *Switch) EnsureBridge(ctx context.Context, spec BridgeSpec) (Bridge, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	b, err := s.ensureBridge(ctx, spec)
	if err != nil {
		return Bridge{}, fmt.Errorf("bridge %s: %w", spec.Name, err)
	}
	return b, nil
}

func (s *Switch) ensureBridge(ctx context.Context, spec BridgeSpec) (Bridge, error) {
	if spec.Name == "" || strings.ContainsAny(spec.Name, `/\`) || spec.Owner == "" {
		return Bridge{}, errors.New("a bridge needs a name without slashes and an owner")
	}
	var cfg int
	for {
		v, err := s.view(ctx, spec.Name, "")
		switch {
		case errors.Is(err, ErrNotFound):
			cfg, err = s.insertBridge(ctx, spec)
			if errors.Is(err, errConstraint) {
				continue // somebody else was first: look at what he made
			}
			if err != nil {
				return Bridge{}, err
			}
		case err != nil:
			return Bridge{}, err
		case v.bridge.Owner == "":
			return Bridge{}, ErrNotOurs
		case v.bridge.Owner != spec.Owner:
			return Bridge{}, fmt.Errorf("it belongs to %s: %w", v.bridge.Owner, ErrNotOurs)
		case v.bridge.Standalone != spec.Standalone:
			return Bridge{}, fmt.Errorf("it is in use for something else (%s=%t): %w", standaloneKey, v.bridge.Standalone, ErrNotOurs)
		case v.bridge.is(spec) && v.made: // whatever else ovs-vswitchd has to do
			return v.bridge, nil
		case v.bridge.is(spec):
			cfg = v.nextCfg
		default:
			if cfg, err = s.mendBridge(ctx, spec, v.bridge); err != nil {
				return Bridge{}, err
			}
		}
		break
	}
	if err := s.applied(ctx, cfg); err != nil {
		return Bridge{}, err
	}
	v, err := s.view(ctx, spec.Name, "")
	if err != nil {
		return Bridge{}, err
	}
	if !v.made {
		return Bridge{}, fmt.Errorf("datapath %q: %w", v.bridge.Datapath, ErrDevice)
	}
	return v.bridge, nil
}

// insertBridge writes a new bridge and returns the number of the change.
func (s *Switch) insertBridge(ctx context.Context, spec BridgeSpec) (int, error) {
	datapath := spec.Datapath
	if datapath == "" {
		var err error
		if datapath, err = s.bestDatapath(ctx); err != nil {
			return 0, err
		}
	}
	mac := spec.HWAddr
	if mac == "" {
		var err error
		if mac, err = bridgeMAC(); err != nil {
			return 0, err
		}
	}
	ids := toMap(owned(spec.Owner, nil))
	ops := []ovsdb.Operation{
		{Op: ovsdb.OperationInsert, Table: tableInterface, UUIDName: "local_interface", Row: ovsdb.Row{
			"name": spec.Name, "type": "internal", "external_ids": ids,
		}},
		{Op: ovsdb.OperationInsert, Table: tablePort, UUIDName: "local_port", Row: ovsdb.Row{
			"name": spec.Name, "interfaces": ovsdb.UUID{GoUUID: "local_interface"}, "external_ids": ids,
		}},
		{Op: ovsdb.OperationInsert, Table: tableBridge, UUIDName: "bridge", Row: ovsdb.Row{
			"name": spec.Name, "datapath_type": datapath, "fail_mode": spec.failMode(),
			"ports": ovsdb.UUID{GoUUID: "local_port"},
			// All, as 1.5 is what we speak, older releases leave it off by default, and ovs-ofctl speaks 1.0.
			"protocols": toSet([]string{
				"OpenFlow10", "OpenFlow11", "OpenFlow12", "OpenFlow13", "OpenFlow14", "OpenFlow15",
			}),
			"external_ids": toMap(spec.ids(nil)),
			// hwaddr: else the local port takes the lowest MAC of all ports, and each ADD may change it.
			"other_config": toMap(map[string]string{"hwaddr": mac, "disable-in-band": "true"}),
		}},
		{Op: ovsdb.OperationMutate, Table: tableRoot, Where: s.whereRoot(), Mutations: []ovsdb.Mutation{
			{Column: "bridges", Mutator: ovsdb.MutateOperationInsert, Value: ovsdb.UUID{GoUUID: "bridge"}},
		}},
	}
	res, err := s.transact(ctx, append(ops, s.bump()...)...)
	if err != nil {
		return 0, err
	}
	return bumped(res)
}

// is tells whether a bridge of ours has all that the spec asks for.
func (b Bridge) is(spec BridgeSpec) bool {
	for k, v := range spec.ExternalIDs {
		if have, ok := b.ExternalIDs[k]; !ok || have != v {
			return false
		}
	}
	return b.FailMode == spec.failMode() && (spec.HWAddr == "" || b.HWAddr == spec.HWAddr)
}

func (s BridgeSpec) failMode() string {
	if s.Standalone {
		return "standalone"
	}
	return "secure"
}

// ids is what external_ids shall be where it has been have.
func (s BridgeSpec) ids(have map[string]string) map[string]string {
	ids := maps.Clone(have)
	if ids == nil {
		ids = map[string]string{}
	}
	maps.Copy(ids, s.ExternalIDs)
	if s.Standalone {
		ids[standaloneKey] = "true"
	}
	return owned(s.Owner, ids)
}

// mendBridge brings our bridge's row to what the spec says and returns the number of the change.
func (s *Switch) mendBridge(ctx context.Context, spec BridgeSpec, b Bridge) (int, error) {
	ops := []ovsdb.Operation{{Op: ovsdb.OperationUpdate, Table: tableBridge, Where: whereUUID(b.uuid), Row: ovsdb.Row{
		"fail_mode": spec.failMode(), "external_ids": toMap(spec.ids(b.ExternalIDs)),
	}}}
	if spec.HWAddr != "" { // an insert alone would keep another value
		ops = append(ops, ovsdb.Operation{Op: ovsdb.OperationMutate, Table: tableBridge, Where: whereUUID(b.uuid), Mutations: []ovsdb.Mutation{
			{Column: "other_config", Mutator: ovsdb.MutateOperationDelete, Value: toSet([]string{"hwaddr"})},
			{Column: "other_config", Mutator: ovsdb.MutateOperationInsert, Value: toMap(map[string]string{"hwaddr": spec.HWAddr})},
		}})
	}
	res, err := s.transact(ctx, append(ops, s.bump()...)...)
	if err != nil {
		return 0, err
	}
	return bumped(res)
}

// Bridge returns a bridge, ours or not, or ErrNotFound.
func (s *Switch) Bridge(ctx context.Context, name string) (Bridge, error) {
	ctx, cancel := bound(ctx)
	defer cancel()
	v, err := s.view(ctx, name, "")
	if err != nil {
		return Bridge{}, fmt.Errorf("bridge %s: %w", name, err)
	}
	return v.bridge, nil
}

// RemoveBridge removes a bridge of ours with all its ports, also those that others plugged into it, without waiting
// for ovs-vswitchd. None of that name is nil.
func (s *Switch) RemoveBridge(ctx context.Context, name string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	v, err := s.view(ctx, name, "")
	switch {
	case errors.Is(err, ErrNotFound):
		return nil
	case err == nil && v.bridge.Owner == "":
		err = ErrNotOurs
	case err == nil:
		remove := ovsdb.Operation{Op: ovsdb.OperationMutate, Table: tableRoot, Where: s.whereRoot(), Mutations: []ovsdb.Mutation{
			{Column: "bridges", Mutator: ovsdb.MutateOperationDelete, Value: ovsdb.UUID{GoUUID: v.bridge.uuid}},
		}}
		_, err = s.transact(ctx, append([]ovsdb.Operation{remove}, s.bump()...)...)
	}
	if err != nil {
		return fmt.Errorf("remove bridge %s: %w", name, err)
	}
	return nil
}

// AwaitApplied waits until ovs-vswitchd has applied all that was asked of it up to now: links of what was removed are
// gone. If it does not before the context ends the error is ErrUnavailable.
func (s *Switch) AwaitApplied(ctx context.Context) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	res, err := s.transact(ctx, s.selectRoot("next_cfg"))
	if err == nil && len(res[0].Rows) == 0 {
		err = errNoRoot
	}
	if err == nil {
		err = s.applied(ctx, res[0].Rows[0].number("next_cfg"))
	}
	if err != nil {
		return fmt.Errorf("await the switch: %w", err)
	}
	return nil
}

// bestDatapath is "system" where ovs-vswitchd and the kernel both have it.
func (s *Switch) bestDatapath(ctx context.Context) (string, error) {
	res, err := s.transact(ctx, s.selectRoot("datapath_types"))
	if err != nil {
		return "", err
	}
	types := res[0].Rows[0].texts("datapath_types")
	if len(types) > 0 && !slices.Contains(types, "system") {
		return "netdev", nil
	}
	// ovs-vswitchd lists what it was built with. Asking for the family loads the module where there is one.
	if _, err := netlink.GenlFamilyGet("ovs_datapath"); err != nil {
		return "netdev", nil //nolint:nilerr // that is the answer
	}
	return "system", nil
}

// bridgeMAC makes up a locally administered unicast address.
func bridgeMAC() (string, error) {
	b := make([]byte, 5)
	if _, err := rand.Read(b); err != nil {
		return "", err
	}
	return fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4]), nil
}
