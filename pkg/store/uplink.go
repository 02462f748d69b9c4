package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Uplink returns the uplink of that name, vnet.ErrNotFound if there is none.
func Uplink(tx Tx, name vnet.UplinkName) (vnet.Uplink, error) {
	u, err := Load[vnet.Uplink](tx, uplinkKey(name))
	if errors.Is(err, vnet.ErrNotFound) {
		err = vnet.WithHint(vnet.NotFoundf("uplink %s does not exist", name), "tenetctl uplink add %s --nic NIC", name)
	}
	return u, err
}

// DeclareUplink records the uplink for the bridge that it names, with an OpenFlow port number, and returns it as it
// stands; a removal that was begun is called off. vnet.ErrExists if it stands otherwise, or if another has its NIC.
//
// In a cluster it is declared once, with its VLANs alone, and what is recorded of the NIC is that the node has one: it is a
// node's own matter. vnet.ErrInvalid if a network is on another VLAN of it.
func DeclareUplink(tx Tx, u vnet.Uplink, node vnet.NodeName) (vnet.Uplink, error) {
	u, err := u.Normal()
	if err != nil {
		return u, err
	}
	if isShared(tx) {
		return u, shareUplink(tx, u, node)
	}
	others, err := All[vnet.Uplink](tx, Uplinks)
	if err != nil {
		return u, err
	}
	taken := map[int]bool{}
	for _, o := range others {
		taken[o.OFPort] = true
		switch {
		case o.Name != u.Name && o.NIC == u.NIC:
			return u, vnet.Existsf("%s is the NIC of uplink %s", u.NIC, o.Name)
		case o.Name == u.Name && (o.NIC != u.NIC || !slices.Equal(o.VLANs, u.VLANs) || o.Bridge != u.Bridge):
			return u, vnet.WithHint(vnet.Existsf("uplink %s stands and is declared differently: nic %s, vlans %q, bridge %s", u.Name, o.NIC, o.VLANs, o.Bridge),
				"delete it first: tenetctl uplink del %s", u.Name)
		case o.Name == u.Name:
			u.OFPort = o.OFPort
		}
	}
	for p := vnet.FirstUplinkPort; u.OFPort == 0 && p <= vnet.LastUplinkPort; p++ {
		if !taken[p] {
			u.OFPort = p
		}
	}
	if u.OFPort == 0 {
		return u, fmt.Errorf("OpenFlow port numbers %d to %d are all in use: %w", vnet.FirstUplinkPort, vnet.LastUplinkPort, vnet.ErrExhausted)
	}
	u.Leaving = false
	return u, Save(tx, uplinkKey(u.Name), u)
}

func shareUplink(tx Tx, u vnet.Uplink, node vnet.NodeName) error {
	stands, err := Uplink(tx, u.Name)
	switch {
	case errors.Is(err, vnet.ErrNotFound):
		if err := carries(tx, u); err != nil {
			return err
		}
		err = Save(tx, uplinkKey(u.Name), vnet.Uplink{Name: u.Name, VLANs: u.VLANs})
	case err == nil && !slices.Equal(stands.VLANs, u.VLANs):
		err = vnet.WithHint(vnet.Existsf("uplink %s stands in the cluster and is declared differently: vlans %q", u.Name, stands.VLANs),
			"it is the same wire on all nodes: name another, or delete it first: tenetctl uplink del %s", u.Name)
	}
	if err != nil || tx.Get(uplinkNodeKey(u.Name, node)) != nil {
		return err
	}
	return tx.Put(uplinkNodeKey(u.Name, node), []byte(node))
}

// carries fails if a network is on a VLAN of the uplink that is not among its own: it was declared when the uplink's record had
// gone (BringNetwork).
func carries(tx Tx, u vnet.Uplink) error {
	return tx.Range(providersOf(u.Name), func(key string, ref []byte) error {
		vlan, err := strconv.Atoi(strings.TrimPrefix(key, providersOf(u.Name)))
		if err == nil && !u.VLANs.Contains(vlan) {
			err = vnet.Invalidf("uplink %s: network %s is VLAN %d of it, which is not among %s", u.Name, ref, vlan, u.VLANs)
		}
		return err
	})
}

// UplinkNodes returns which nodes of a cluster have a NIC on the uplink.
func UplinkNodes(tx Tx, name vnet.UplinkName) ([]vnet.NodeName, error) {
	var nodes []vnet.NodeName
	err := tx.Range(uplinkNodesOf(name), func(key string, _ []byte) error {
		nodes = append(nodes, vnet.NodeName(strings.TrimPrefix(key, uplinkNodesOf(name))))
		return nil
	})
	slices.Sort(nodes)
	return nodes, err
}

// ForgetUplink has a cluster's store say that the node has no NIC on the uplink any more. The uplink goes with the last that
// had one, unless a network is on it.
func ForgetUplink(tx Tx, name vnet.UplinkName, node vnet.NodeName) error {
	if err := tx.Delete(uplinkNodeKey(name, node)); err != nil {
		return err
	}
	nodes, err := UplinkNodes(tx, name)
	if err != nil || len(nodes) > 0 {
		return err
	}
	used, err := UplinkNetworks(tx, name)
	if err != nil || len(used) > 0 {
		return err
	}
	return tx.Delete(uplinkKey(name))
}

// KeepUplinks is ForgetUplink for all uplinks of the node but those.
func KeepUplinks(tx Tx, node vnet.NodeName, those ...vnet.UplinkName) error {
	var gone []vnet.UplinkName
	err := tx.Range(uplinkNodes, func(key string, _ []byte) error {
		name, of, _ := strings.Cut(strings.TrimPrefix(key, uplinkNodes), "/")
		if u := vnet.UplinkName(name); of == string(node) && !slices.Contains(those, u) {
			gone = append(gone, u)
		}
		return nil
	})
	for _, u := range gone {
		err = errors.Join(err, ForgetUplink(tx, u, node))
	}
	return err
}

// UplinkHost returns what KeepUplinkHost kept for the uplink, nil if it kept nothing.
func UplinkHost(tx Tx, name vnet.UplinkName) json.RawMessage {
	return slices.Clone(tx.Get(uplinkHostKey(name)))
}

// KeepUplinkHost keeps what the uplink's NIC had of the host, in the words of who moves it.
func KeepUplinkHost(tx Tx, name vnet.UplinkName, host any) error {
	return Save(tx, uplinkHostKey(name), host)
}

// LeaveUplink marks that the uplink is about to go, so that no network comes. vnet.ErrExists while one is on it.
func LeaveUplink(tx Tx, name vnet.UplinkName) (vnet.Uplink, error) {
	u, err := unusedUplink(tx, name)
	if err != nil {
		return u, err
	}
	u.Leaving = true
	return u, Save(tx, uplinkKey(name), u)
}

// DeleteUplink removes the uplink's record and what was kept of the host. vnet.ErrExists while a network is on it.
func DeleteUplink(tx Tx, name vnet.UplinkName) error {
	if _, err := unusedUplink(tx, name); err != nil {
		return err
	}
	return errors.Join(tx.Delete(uplinkHostKey(name)), tx.Delete(uplinkKey(name)))
}

// unusedUplink is Uplink for one that must not carry a network.
func unusedUplink(tx Tx, name vnet.UplinkName) (vnet.Uplink, error) {
	u, err := Uplink(tx, name)
	if err != nil {
		return u, err
	}
	used, err := UplinkNetworks(tx, name)
	if _, member := Member(tx); member && err == nil {
		used, err = inhabited(tx, used) // elsewhere they may go on
	}
	if err != nil || len(used) == 0 {
		return u, err
	}
	return u, vnet.WithHint(vnet.Existsf("uplink %s still carries network %s", name, used[0]), "delete it first: tenetctl network del %s", used[0])
}

// UplinkNetworks returns the networks on the uplink, by tenant/network.
func UplinkNetworks(tx Tx, name vnet.UplinkName) ([]string, error) {
	var used []string
	if _, member := Member(tx); member { // whose networks are claimed in the cluster
		all, err := All[vnet.Network](tx, Networks)
		for _, n := range all {
			if n.Provider.Uplink == name && n.IsProvider() {
				used = append(used, n.Ref().String())
			}
		}
		return used, err
	}
	err := tx.Range(providersOf(name), func(_ string, ref []byte) error {
		used = append(used, string(ref))
		return nil
	})
	slices.Sort(used)
	return used, err
}

// inhabited are those of the networks that an endpoint is in.
func inhabited(tx Tx, networks []string) ([]string, error) {
	var found []string
	for _, name := range networks {
		n, err := count(tx, Endpoints+name+"/")
		if err != nil {
			return nil, err
		}
		if n > 0 {
			found = append(found, name)
		}
	}
	return found, nil
}

// takeProvider claims a provider network's VLAN. vnet.ErrExists if another network has it,
// vnet.ErrInvalid if it is not among the uplink's.
func takeProvider(tx Tx, n vnet.Network) error {
	if !n.IsProvider() {
		return nil
	}
	u, err := Uplink(tx, n.Provider.Uplink)
	if err != nil {
		return err
	}
	return takeVLAN(tx, n, u)
}

// bringProvider is takeProvider for a network that stood: its uplink may be still to come, from a node that has a NIC on it.
func bringProvider(tx Tx, n vnet.Network) error {
	err := takeProvider(tx, n)
	if errors.Is(err, vnet.ErrNotFound) {
		err = takeVLAN(tx, n, vnet.Uplink{})
	}
	return err
}

func takeVLAN(tx Tx, n vnet.Network, u vnet.Uplink) error {
	if u.Leaving {
		return vnet.WithHint(vnet.Existsf("provider: uplink %s is being removed", u.Name), "finish or call off its removal: tenetctl uplink del %s, or add it again", u.Name)
	}
	if !u.VLANs.Contains(n.Provider.VLAN) {
		return vnet.Invalidf("provider: vlan %d is not among those of uplink %s: %s", n.Provider.VLAN, u.Name, u.VLANs)
	}
	key := providerKey(n.Provider)
	if holder := tx.Get(key); holder != nil {
		return vnet.Existsf("%s is network %s already", n.Provider, holder)
	}
	return tx.Put(key, []byte(n.Ref().String()))
}
