package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

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
// so that no port inherits flows of one that was there before. vnet.ErrExists if another
// endpoint has e's MAC or number, or if e is in another network.
func PutEndpoint(tx Tx, e *vnet.Endpoint) error {
	if e.OFPort == 0 {
		if err := takeOFPort(tx, e); err != nil {
			return err
		}
	}
	type index struct{ what, key, value string }
	indexes := []index{
		{"endpoint " + string(e.ID), attachmentKey(e.ID), e.Ref().String()},
		{fmt.Sprintf("OpenFlow port %d", e.OFPort), ofportKey(e.OFPort), string(e.ID)},
	}
	if e.MAC != (vnet.MAC{}) {
		indexes = append(indexes, index{fmt.Sprintf("MAC %s of network %s", e.MAC, e.Ref()), macKey(e.Ref(), e.MAC), string(e.ID)})
	}
	for _, i := range indexes {
		if holder := tx.Get(i.key); holder != nil && string(holder) != i.value {
			return vnet.Existsf("%s is taken by %s", i.what, holder)
		}
		if err := tx.Put(i.key, []byte(i.value)); err != nil {
			return err
		}
	}
	return Save(tx, endpointKey(e.Ref(), e.ID), e)
}

// MACTaken reports whether an endpoint of the network has the MAC.
func MACTaken(tx Tx, r vnet.Ref, m vnet.MAC) bool { return tx.Get(macKey(r, m)) != nil }

// DeleteEndpoint removes e's record. It is no error if it is gone; what another endpoint has by
// now, of what e had, stays.
func DeleteEndpoint(tx Tx, e vnet.Endpoint) error {
	type index struct{ key, value string }
	indexes := []index{
		{macKey(e.Ref(), e.MAC), string(e.ID)},
		{ofportKey(e.OFPort), string(e.ID)},
		{transitKey(uint32(e.Transit)), string(e.ID)},
		{zoneKey(uint32(e.Zone)), string(e.ID)},
		{meterKey(e.Bandwidth.Ingress.Meter), string(e.ID)},
		{meterKey(e.Bandwidth.Egress.Meter), string(e.ID)},
		{attachmentKey(e.ID), e.Ref().String()},
	}
	for _, m := range e.Ports {
		indexes = append(indexes, index{hostPortKey(m), string(e.ID)})
	}
	for _, index := range indexes {
		if string(tx.Get(index.key)) != index.value {
			continue
		}
		if err := tx.Delete(index.key); err != nil {
			return err
		}
	}
	return tx.Delete(endpointKey(e.Ref(), e.ID))
}

// OpenFlow port numbers that endpoints ask for. Below are the bridge's own ports (tunnels,
// gateway, uplinks); 0xff00 and up mean something to OpenFlow.
const (
	firstOFPort = 0x400
	lastOFPort  = 0xfeff
)

func takeOFPort(tx Tx, e *vnet.Endpoint) error {
	n, err := takeNext(tx, nextOFPort, func(n uint32) string { return ofportKey(int(n)) }, firstOFPort, lastOFPort, string(e.ID))
	if errors.Is(err, vnet.ErrExhausted) {
		return fmt.Errorf("all %d port numbers of the bridge are in use: %w", lastOFPort-firstOFPort+1, err)
	}
	e.OFPort = int(n)
	return err
}

// takeNext claims a number from first to last for holder: the next free one after that which
// was claimed last, so that a number rests for as long as can be before somebody else has it.
func takeNext(tx Tx, counter string, key func(uint32) string, first, last uint32, holder string) (uint32, error) {
	next := first
	if v := tx.Get(counter); v != nil {
		if err := json.Unmarshal(v, &next); err != nil || next < first || next > last {
			next = first // a damaged counter costs nothing but order
		}
	}
	n, err := take(tx, func(n uint32) string { return key(first - 1 + n) }, next-first, last-first+1, holder)
	if err != nil {
		return 0, err
	}
	n += first - 1
	if next = n + 1; next > last {
		next = first
	}
	return n, Save(tx, counter, next)
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

// HasReady reports whether an endpoint of the network on that bridge is Ready.
func HasReady(tx Tx, r vnet.Ref, bridge string) (bool, error) {
	ready := false
	err := tx.Range(EndpointsOf(r), func(key string, value []byte) error {
		e, err := decode[vnet.Endpoint](key, value)
		if err == nil && e.State == vnet.Ready && e.Bridge == bridge {
			ready, err = true, ErrStop
		}
		return err
	})
	return ready, err
}

// HasAliases reports whether the host is linked to any endpoint.
func HasAliases(tx Tx) (bool, error) {
	has := false
	err := tx.Range(Endpoints, func(key string, value []byte) error {
		e, err := decode[vnet.Endpoint](key, value)
		if err == nil && e.Transit != 0 {
			has, err = true, ErrStop
		}
		return err
	})
	return has, err
}

// HasEndpoint reports whether there is an endpoint of that id.
func HasEndpoint(tx Tx, id vnet.EndpointID) bool { return tx.Get(attachmentKey(id)) != nil }
