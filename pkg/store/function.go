package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Group returns the group of that name, vnet.ErrNotFound if there is none.
func Group(tx Tx, r vnet.GroupRef) (vnet.Group, error) {
	g, err := Load[vnet.Group](tx, groupKey(r))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.WithHint(vnet.NotFoundf("group %s does not exist", r), "tenetctl group add %s --mode MODE; a chain is led through groups of its own tenant", r)
	}
	return g, err
}

// PutGroup makes the group and its tenant, or changes the group. vnet.ErrExists if it stands with another mode:
// its instances were made for that.
func PutGroup(tx Tx, g vnet.Group) error {
	g, err := g.Normal()
	if err != nil {
		return err
	}
	stands, err := Group(tx, g.Ref())
	switch {
	case err == nil && stands.Mode != g.Mode:
		return vnet.WithHint(vnet.Existsf("group %s stands and is declared differently: mode: %q is asked, %q stands", g.Ref(), g.Mode, stands.Mode),
			"delete it first: tenetctl group del %s", g.Ref())
	case err != nil && !errors.Is(err, vnet.ErrNotFound):
		return err
	}
	if _, err := DeclareTenant(tx, g.Tenant); err != nil {
		return err
	}
	return Save(tx, groupKey(g.Ref()), g)
}

// DeleteGroup removes the group. vnet.ErrExists while a chain leads through it or an instance serves in it.
func DeleteGroup(tx Tx, r vnet.GroupRef) error {
	if _, err := Group(tx, r); err != nil {
		return vnet.WithHint(err, "see tenetctl group list")
	}
	all, err := All[vnet.Chain](tx, ChainsOf(r.Tenant))
	if err != nil {
		return err
	}
	for _, c := range all {
		if slices.Contains(c.Groups, r.Group) {
			return vnet.WithHint(vnet.Existsf("chain %s leads through group %s", c.Ref(), r), "lead it elsewhere, or delete it first: tenetctl chain del %s", c.Ref())
		}
	}
	if used, err := count(tx, functionsIn(r)); err != nil {
		return err
	} else if used > 0 {
		return vnet.WithHint(vnet.Existsf("group %s still has %d instances", r, used), "see them: tenetctl function list")
	}
	return tx.Delete(groupKey(r))
}

// Instances returns those of a tenant, or with an empty name of all, in the order of their groups and containers.
func Instances(tx Tx, t vnet.TenantName) ([]vnet.Instance, error) {
	if t == "" {
		return All[vnet.Instance](tx, Functions)
	}
	return All[vnet.Instance](tx, FunctionsOf(t))
}

// InstancesElsewhere returns those of a tenant on other nodes of the cluster.
func InstancesElsewhere(tx Tx, t vnet.TenantName) ([]vnet.Instance, error) {
	if t == "" {
		return All[vnet.Instance](tx, Elsewhere)
	}
	return All[vnet.Instance](tx, Elsewhere+string(t)+"/")
}

// PutElsewhere writes an instance of another node, DeleteElsewhere removes it.
func PutElsewhere(tx Tx, i vnet.Instance) error { return Save(tx, elsewhereKey(i), i) }

// DeleteElsewhere removes the instance of another node that the cluster's record at key was of.
func DeleteElsewhere(tx Tx, key string) error {
	return tx.Delete(Elsewhere + strings.TrimPrefix(key, Functions))
}

// FindInstance returns the group's instance in the container, vnet.ErrNotFound if there is none.
func FindInstance(tx Tx, r vnet.GroupRef, container string) (vnet.Instance, error) {
	i, err := Load[vnet.Instance](tx, functionKey(r, container))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.NotFoundf("group %s has no instance in container %s", r, container)
		if _, groupErr := Group(tx, r); groupErr != nil {
			err = groupErr
		}
		err = vnet.WithHint(err, "see tenetctl function list")
	}
	return i, err
}

// PutInstance writes an instance that stands.
func PutInstance(tx Tx, i vnet.Instance) error { return Save(tx, functionKey(i.Ref(), i.Container), i) }

// MayJoin reports why an endpoint cannot be that port of a function of the group: vnet.ErrNotFound if there is no
// such group, vnet.ErrExists if the container has that port already, vnet.ErrInvalid if a chain through the group
// names the endpoint as its client or server.
func MayJoin(tx Tx, t vnet.TenantName, at vnet.Attachment, f vnet.FunctionPort) (vnet.Group, error) {
	ref := vnet.GroupRef{Tenant: t, Group: f.Group}
	g, err := Group(tx, ref)
	if err != nil {
		return g, fmt.Errorf("serviceFunction: %w", err)
	}
	i, err := Load[vnet.Instance](tx, functionKey(ref, at.Container))
	if err != nil && !errors.Is(err, vnet.ErrNotFound) {
		return g, err
	}
	if _, err := i.With(at.ID(), f); err != nil {
		return g, err
	}
	if g.Mode == vnet.Rewriting && f.Port == vnet.Both {
		return g, vnet.WithHint(vnet.Invalidf("serviceFunction: group %s rewrites packets, and what such a function lets out is known by the port alone", ref),
			"give the container two attachments, one for port ingress and one for egress")
	}
	all, err := All[vnet.Chain](tx, ChainsOf(t))
	if err != nil {
		return g, err
	}
	for _, c := range all {
		if !slices.Contains(c.Groups, f.Group) {
			continue
		}
		if i.Number == 0 {
			if err := checkInstances(tx, c, 1); err != nil {
				return g, err
			}
		}
		if names(c, func(s vnet.Selector) bool { return s.Endpoint == at.String() }) {
			return g, ownClient(c, at.String(), f.Group)
		}
	}
	return g, nil
}

// checkInstances returns a vnet.ErrExhausted if the chain's groups have too many instances together, with so many more.
func checkInstances(tx Tx, c vnet.Chain, more int) error {
	for _, g := range c.Groups {
		n, err := count(tx, functionsIn(vnet.GroupRef{Tenant: c.Tenant, Group: g}))
		if err != nil {
			return err
		}
		more += n
	}
	if more > vnet.MaxInstances {
		return vnet.WithHint(fmt.Errorf("chain %s would lead through %d instances, %d at most: %w", c.Ref(), more, vnet.MaxInstances, vnet.ErrExhausted),
			"take some away, or lead by several chains through groups of their own")
	}
	return nil
}

func ownClient(c vnet.Chain, endpoint string, g vnet.GroupName) error {
	return vnet.Invalidf("chain %s leads through group %s, so %s cannot be its function and its client or server, too", c.Ref(), g, endpoint)
}

// JoinGroup makes the endpoint a port of its function's instance, which gets its number, and a zone if its ports
// have addresses, with the first of its ports.
func JoinGroup(tx Tx, e vnet.Endpoint) error {
	if e.Function == nil {
		return nil
	}
	ref := vnet.GroupRef{Tenant: e.Tenant, Group: e.Function.Group}
	g, err := Group(tx, ref)
	if err != nil {
		return err
	}
	i, err := Load[vnet.Instance](tx, functionKey(ref, e.Container))
	if errors.Is(err, vnet.ErrNotFound) {
		i = vnet.Instance{Tenant: e.Tenant, Group: e.Function.Group, Container: e.Container}
		i.Number, err = takeNext(tx, nextNumber, instanceKey, 1, 1<<16-1, i.String())
		if err == nil && g.Mode.Addressed() {
			i.Zone, err = takeZone(tx, i.String())
		}
	}
	if err != nil {
		return err
	}
	if i, err = i.With(e.ID, *e.Function); err != nil {
		return err
	}
	return PutInstance(tx, i)
}

// LeaveGroup takes the endpoint out of its function's instance, and returns the instance as it was; with its last port
// the instance goes.
func LeaveGroup(tx Tx, e vnet.Endpoint) (vnet.Instance, error) {
	if e.Function == nil {
		return vnet.Instance{}, nil
	}
	ref := vnet.GroupRef{Tenant: e.Tenant, Group: e.Function.Group}
	was, err := Load[vnet.Instance](tx, functionKey(ref, e.Container))
	if errors.Is(err, vnet.ErrNotFound) {
		return was, nil
	}
	if err != nil {
		return was, err
	}
	left := was.Without(e.ID)
	if left.Ingress != "" || left.Egress != "" {
		return was, PutInstance(tx, left)
	}
	for _, key := range []string{zoneKey(uint32(was.Zone)), instanceKey(was.Number), functionKey(ref, e.Container)} {
		if err := tx.Delete(key); err != nil {
			return was, err
		}
	}
	return was, nil
}
