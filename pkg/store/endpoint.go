package store

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Lease records which addresses of a network an owner holds, and for whom.
type Lease struct {
	Tenant     vnet.TenantName  `json:"tenant"`
	Network    vnet.NetworkName `json:"network"`
	Holder     vnet.Attachment  `json:"holder"`
	CNINetwork string           `json:"cniNetwork"`
	Addrs      []netip.Addr     `json:"addrs"`
}

// Ref returns the network the addresses are of.
func (l Lease) Ref() vnet.Ref { return vnet.Ref{Tenant: l.Tenant, Network: l.Network} }

// Endpoint returns the endpoint of that id, vnet.ErrNotFound if there is none.
func Endpoint(tx Tx, id vnet.EndpointID) (vnet.Endpoint, error) {
	where := tx.Get(attachmentKey(id))
	if where == nil {
		return vnet.Endpoint{}, vnet.NotFoundf("endpoint %s does not exist", id)
	}
	tenant, network, _ := strings.Cut(string(where), "/")
	return Load[vnet.Endpoint](tx, endpointKey(vnet.Ref{Tenant: vnet.TenantName(tenant), Network: vnet.NetworkName(network)}, id))
}

// PutEndpoint writes e. A new endpoint (OFPort 0) is given the number that its port shall ask
// for: numbers come round only after 64,000 others, and never while another endpoint has them,
// so that no port inherits flows of one that was there before.
func PutEndpoint(tx Tx, e *vnet.Endpoint) error {
	if e.OFPort == 0 {
		if err := takeOFPort(tx, e); err != nil {
			return err
		}
	}
	if e.MAC != (vnet.MAC{}) {
		key := macKey(e.Ref(), e.MAC)
		if holder := tx.Get(key); holder != nil && string(holder) != string(e.ID) {
			return vnet.Existsf("MAC %s is taken by endpoint %s of network %s", e.MAC, holder, e.Ref())
		}
		if err := tx.Put(key, []byte(e.ID)); err != nil {
			return err
		}
	}
	if err := tx.Put(attachmentKey(e.ID), []byte(e.Ref().String())); err != nil {
		return err
	}
	return Save(tx, endpointKey(e.Ref(), e.ID), e)
}

// MACTaken reports whether an endpoint of the network has the MAC.
func MACTaken(tx Tx, r vnet.Ref, m vnet.MAC) bool { return tx.Get(macKey(r, m)) != nil }

// DeleteEndpoint removes e's record. It is no error if it is gone.
func DeleteEndpoint(tx Tx, e vnet.Endpoint) error {
	for _, key := range []string{macKey(e.Ref(), e.MAC), ofportKey(e.OFPort), attachmentKey(e.ID), endpointKey(e.Ref(), e.ID)} {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// OpenFlow port numbers that endpoints ask for. Below are the bridge's own ports (tunnels,
// gateway, uplinks); 0xff00 and up mean something to OpenFlow.
const (
	firstOFPort = 0x400
	lastOFPort  = 0xfeff
)

func takeOFPort(tx Tx, e *vnet.Endpoint) error {
	next := firstOFPort
	if v := tx.Get(nextOFPort); v != nil {
		if err := json.Unmarshal(v, &next); err != nil || next < firstOFPort || next > lastOFPort {
			next = firstOFPort // a damaged counter costs nothing but order
		}
	}
	n, err := take(tx, func(n uint32) string { return ofportKey(firstOFPort - 1 + int(n)) },
		uint32(next-firstOFPort), lastOFPort-firstOFPort+1, string(e.ID))
	if errors.Is(err, vnet.ErrExhausted) {
		return errors.Join(err, vnet.Existsf("all %d ports of the bridge are in use", lastOFPort-firstOFPort+1))
	}
	if err != nil {
		return err
	}
	e.OFPort = firstOFPort - 1 + int(n)
	next = e.OFPort + 1
	if next > lastOFPort {
		next = firstOFPort
	}
	return Save(tx, nextOFPort, next)
}

// HasLiving reports whether an endpoint of the network on that bridge is there to stay: not Leaving.
func HasLiving(tx Tx, r vnet.Ref, bridge string) (bool, error) {
	living := false
	err := tx.Range(EndpointsOf(r), func(key string, value []byte) error {
		e, err := decode[vnet.Endpoint](key, value)
		if err == nil && e.State != vnet.Leaving && e.Bridge == bridge {
			living, err = true, ErrStop
		}
		return err
	})
	return living, err
}

// HasEndpoint reports whether there is an endpoint of that id.
func HasEndpoint(tx Tx, id vnet.EndpointID) bool { return tx.Get(attachmentKey(id)) != nil }
