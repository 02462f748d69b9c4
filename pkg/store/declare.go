package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Tenant returns the tenant of that name, vnet.ErrNotFound if there is none.
func Tenant(tx Tx, name vnet.TenantName) (vnet.Tenant, error) {
	t, err := Load[vnet.Tenant](tx, tenantKey(name))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.NotFoundf("tenant %s does not exist", name)
	}
	return t, err
}

// Network returns the network of that name, vnet.ErrNotFound if there is none.
func Network(tx Tx, r vnet.Ref) (vnet.Network, error) {
	n, err := Load[vnet.Network](tx, networkKey(r))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.NotFoundf("network %s does not exist", r)
	}
	return n, err
}

// DeclareTenant makes the tenant if it is not there, and gives it its number.
func DeclareTenant(tx Tx, name vnet.TenantName) (vnet.Tenant, error) {
	if err := name.Validate(); err != nil {
		return vnet.Tenant{}, err
	}
	t, err := Tenant(tx, name)
	if !errors.Is(err, vnet.ErrNotFound) {
		return t, err
	}
	number, err := take(tx, numberKey, hash(string(name)), 1<<24-1, string(name))
	if err != nil {
		return vnet.Tenant{}, fmt.Errorf("tenant %s: no number: %w", name, err)
	}
	t = vnet.Tenant{Name: name, Number: number}
	return t, Save(tx, tenantKey(name), t)
}

// DeclareNetwork makes the network and its tenant if they are not there, and returns the
// network as it stands. A declaration that differs from what stands is a vnet.ErrExists that
// names the field; so is a subnet that overlaps another network of the tenant, or a VNI in use.
func DeclareNetwork(tx Tx, n vnet.Network) (vnet.Network, error) {
	return declareNetwork(tx, n, takeProvider)
}

// BringNetwork is DeclareNetwork in a cluster's store for one that stands on a node: every node has all networks, but not the
// uplinks of others.
func BringNetwork(tx Tx, n vnet.Network) error {
	_, err := declareNetwork(tx, n, bringProvider)
	return err
}

func declareNetwork(tx Tx, n vnet.Network, provide func(Tx, vnet.Network) error) (vnet.Network, error) {
	n, err := n.Normal()
	if err != nil {
		return n, err
	}
	stands, err := Network(tx, n.Ref())
	if err == nil {
		if diff := n.Differs(stands); diff != "" {
			return n, vnet.WithHint(vnet.Existsf("network %s stands and is declared differently: %s", n.Ref(), diff),
				"correct the declaration, or delete the network first: tenetctl network del %s", n.Ref())
		}
		return stands, nil
	}
	if !errors.Is(err, vnet.ErrNotFound) {
		return n, err
	}
	if err := checkOverlap(tx, n); err != nil {
		return n, err
	}
	if err := errors.Join(provide(tx, n), checkLeft(tx, n.Ref())); err != nil {
		return n, err
	}
	if n.VNI == 0 {
		// A number made from the name is the same on every node of a fleet that declares by netconf.
		vni, err := take(tx, func(v uint32) string { return vniKey(vnet.VNI(v)) }, hash(n.Ref().String()), uint32(vnet.MaxVNI), n.Ref().String())
		if err != nil {
			return n, fmt.Errorf("network %s: no vni: %w", n.Ref(), err)
		}
		n.VNI = vnet.VNI(vni)
	} else if holder := tx.Get(vniKey(n.VNI)); holder != nil {
		return n, vnet.Existsf("vni %d belongs to network %s", n.VNI, holder)
	} else if err := tx.Put(vniKey(n.VNI), []byte(n.Ref().String())); err != nil {
		return n, err
	}
	if _, err := DeclareTenant(tx, n.Tenant); err != nil {
		return n, err
	}
	return n, Save(tx, networkKey(n.Ref()), n)
}

// checkLeft fails if a cluster's store has blocks of a network of this name that has been deleted, and nobody is in any more: they
// may be cut otherwise than this one's, and go when the deletion is finished.
func checkLeft(tx Tx, r vnet.Ref) error {
	if !isShared(tx) {
		return nil
	}
	left, err := count(tx, BlocksIn(r))
	if err != nil || left == 0 {
		return err
	}
	if used, err := HasEndpoints(tx, r); err != nil || used {
		return err
	}
	return vnet.WithHint(vnet.Existsf("network %s was deleted, and nodes' blocks of it have not all gone", r), "finish that: tenetctl network del %s", r)
}

// DeleteNetwork removes the network with its pools and blocks. vnet.ErrExists while an address or endpoint of it is in use.
func DeleteNetwork(tx Tx, r vnet.Ref) error {
	return deleteNetwork(tx, r, poolsOf(r), addressesOf(r), releasedIn(r), BlocksIn(r))
}

// DeleteNetworkAlone is DeleteNetwork in a cluster's store, and leaves the blocks that nodes hold.
func DeleteNetworkAlone(tx Tx, r vnet.Ref) error { return deleteNetwork(tx, r) }

// deleteNetwork removes it with what is under the prefixes.
func deleteNetwork(tx Tx, r vnet.Ref, prefixes ...string) error {
	n, err := Network(tx, r)
	if err != nil {
		return err
	}
	if err := unusedNetwork(tx, r); err != nil {
		return err
	}
	var keys []string
	for _, prefix := range prefixes {
		err := tx.Range(prefix, func(key string, _ []byte) error {
			keys = append(keys, key)
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := deleteGateway(tx, r); err != nil {
		return err
	}
	if n.IsProvider() {
		keys = append(keys, providerKey(n.Provider))
	}
	for _, key := range append(keys, releasesKey(r), vniKey(n.VNI), networkKey(r)) {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// unusedNetwork says what stands in the way of the network's deletion: who is in it, or a chain that names it.
func unusedNetwork(tx Tx, r vnet.Ref) error {
	users, err := users(tx, r)
	if err != nil {
		return err
	}
	if len(users) > 0 {
		return vnet.WithHint(vnet.Existsf("network %s still has %d endpoints: %s", r, len(users), few(users)), "see them: tenetctl endpoint list --network %s", r)
	}
	if err := networkUnnamed(tx, r); err != nil {
		return err
	}
	used := ""
	err = tx.Range(Leases, func(key string, value []byte) error {
		lease, err := decode[Lease](key, value)
		if err == nil && lease.Ref() == r {
			used, err = lease.Holder.String(), ErrStop
		}
		return err
	})
	if err != nil {
		return err
	}
	if used != "" {
		return vnet.Existsf("network %s still has addresses in use, one by %s", r, used)
	}
	return nil
}

// users says who is in the network: on a cluster's store with the node.
func users(tx Tx, r vnet.Ref) ([]string, error) {
	var all []string
	err := tx.Range(EndpointsOf(r), func(key string, value []byte) error {
		var e struct {
			vnet.Attachment

			Node vnet.NodeName `json:"node"`
		}
		if err := json.Unmarshal(value, &e); err != nil {
			return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
		}
		name := e.Attachment.String()
		if e.Node != "" {
			name += " on " + string(e.Node)
		}
		all = append(all, name)
		return nil
	})
	return all, err
}

// few lists the first of many.
func few(all []string) string {
	const most = 10
	if len(all) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(all[:most], ", "), len(all)-most)
	}
	return strings.Join(all, ", ")
}

// DeleteTenant removes the tenant. vnet.ErrExists while it has networks, chains or groups.
func DeleteTenant(tx Tx, name vnet.TenantName) error {
	t, err := Tenant(tx, name)
	if err != nil {
		return err
	}
	for _, has := range []struct{ what, prefix string }{{"chain", ChainsOf(name)}, {"group", GroupsOf(name)}, {"network", NetworksOf(name)}} {
		if used, err := count(tx, has.prefix); err != nil {
			return err
		} else if used > 0 {
			return vnet.WithHint(vnet.Existsf("tenant %s still has %d %ss", name, used, has.what), "delete them first: tenetctl %s list --tenant %s", has.what, name)
		}
	}
	if err := tx.Delete(numberKey(t.Number)); err != nil {
		return err
	}
	return tx.Delete(tenantKey(name))
}

// checkOverlap: the networks of a tenant are routed to each other, and routed networks are
// known to the host, so in either case their prefixes must differ. Who is neither in its tenant nor routed is not even read:
// in a cluster they are many.
func checkOverlap(tx Tx, n vnet.Network) error {
	prefix := NetworksOf(n.Tenant)
	if n.Gateway == vnet.GatewayRouted {
		prefix = Networks
	}
	others, err := All[vnet.Network](tx, prefix)
	if err != nil {
		return err
	}
	for _, other := range others {
		var why string
		switch {
		case other.Tenant == n.Tenant:
			why = "in the same tenant"
		case n.Gateway == vnet.GatewayRouted && other.Gateway == vnet.GatewayRouted:
			why = "and the host routes both"
		default:
			continue
		}
		for _, theirs := range other.Subnets {
			for _, ours := range n.Subnets {
				if ours.Prefix.Overlaps(theirs.Prefix) {
					return vnet.Existsf("subnet %s overlaps subnet %s of network %s, %s", ours.Prefix, theirs.Prefix, other.Ref(), why)
				}
			}
		}
	}
	return nil
}

// take claims the first free number from 1 to highest for holder, looking from start on.
func take(tx Tx, key func(uint32) string, start, highest uint32, holder string) (uint32, error) {
	for i := range highest {
		n := (start+i)%highest + 1
		if tx.Get(key(n)) == nil {
			return n, tx.Put(key(n), []byte(holder))
		}
	}
	return 0, vnet.ErrExhausted
}

func hash(s string) uint32 {
	h := fnv.New32a()
	h.Write([]byte(s))
	return h.Sum32() >> 8 // 24 bits are all that is wanted; the sum with i cannot overflow
}

func count(tx Tx, prefix string) (int, error) {
	n := 0
	err := tx.Range(prefix, func(string, []byte) error { n++; return nil })
	return n, err
}
