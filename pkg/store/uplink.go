package store

import (
	"errors"
	"slices"

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

// DeclareUplink records the uplink. vnet.ErrExists if it stands otherwise, or if another has its NIC.
func DeclareUplink(tx Tx, u vnet.Uplink) (vnet.Uplink, error) {
	u, err := u.Normal()
	if err != nil {
		return u, err
	}
	others, err := All[vnet.Uplink](tx, Uplinks)
	if err != nil {
		return u, err
	}
	for _, o := range others {
		switch {
		case o.Name != u.Name && o.NIC == u.NIC:
			return u, vnet.Existsf("%s is the NIC of uplink %s", u.NIC, o.Name)
		case o.Name == u.Name && (o.NIC != u.NIC || !slices.Equal(o.VLANs, u.VLANs)):
			return u, vnet.WithHint(vnet.Existsf("uplink %s stands and is declared differently: nic %s, vlans %q", u.Name, o.NIC, o.VLANs),
				"delete it first: tenetctl uplink del %s", u.Name)
		case o.Name == u.Name:
			return o, nil
		}
	}
	return u, Save(tx, uplinkKey(u.Name), u)
}

// DeleteUplink removes the uplink's record. vnet.ErrExists while a network is on it.
func DeleteUplink(tx Tx, name vnet.UplinkName) error {
	if _, err := Uplink(tx, name); err != nil {
		return err
	}
	used := ""
	err := tx.Range(providersOf(name), func(_ string, ref []byte) error {
		used = string(ref)
		return ErrStop
	})
	if err != nil {
		return err
	}
	if used != "" {
		return vnet.WithHint(vnet.Existsf("uplink %s still carries network %s", name, used), "delete it first: tenetctl network del %s", used)
	}
	return tx.Delete(uplinkKey(name))
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
	if !u.VLANs.Contains(n.Provider.VLAN) {
		return vnet.Invalidf("provider: vlan %d is not among those of uplink %s: %s", n.Provider.VLAN, u.Name, u.VLANs)
	}
	key := providerKey(n.Provider)
	if holder := tx.Get(key); holder != nil {
		return vnet.Existsf("%s is network %s already", n.Provider, holder)
	}
	return tx.Put(key, []byte(n.Ref().String()))
}
