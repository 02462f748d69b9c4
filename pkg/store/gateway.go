package store

import (
	"errors"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Gateway is how a network and the host reach each other on this node.
type Gateway struct {
	Zone    vnet.Zone    `json:"zone"`    // where the switch tracks what passes between them
	Transit vnet.Transit `json:"transit"` // what the network is seen as by the host
	// Outside is where chains track connections between the network and what is outside its tenant. 0: the tenant has no chain.
	Outside vnet.Zone `json:"outside,omitempty"`
}

// NetworkGateway returns the network's, the zero Gateway if it has none.
func NetworkGateway(tx Tx, r vnet.Ref) (Gateway, error) {
	g, err := Load[Gateway](tx, gatewayKey(r))
	if errors.Is(err, vnet.ErrNotFound) {
		return Gateway{}, nil
	}
	return g, err
}

// DeclareGateway gives the network a way to the host if it has none.
func DeclareGateway(tx Tx, r vnet.Ref) (Gateway, error) {
	g, err := NetworkGateway(tx, r)
	if err != nil || g != (Gateway{}) {
		return g, err
	}
	if g.Zone, err = takeZone(tx, r.String()); err != nil {
		return g, err
	}
	if g.Transit, err = takeTransit(tx, r.String()); err != nil {
		return g, err
	}
	chained, err := HasChains(tx, r.Tenant)
	if err == nil && chained {
		g.Outside, err = takeZone(tx, r.String())
	}
	if err != nil {
		return g, err
	}
	return g, Save(tx, gatewayKey(r), g)
}

// deleteGateway takes the network's away.
func deleteGateway(tx Tx, r vnet.Ref) error {
	g, err := NetworkGateway(tx, r)
	if err != nil || g == (Gateway{}) {
		return err
	}
	for _, key := range []string{zoneKey(uint32(g.Zone)), zoneKey(uint32(g.Outside)), transitKey(uint32(g.Transit)), gatewayKey(r)} {
		if err := tx.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// takeZone claims a conntrack zone for holder.
func takeZone(tx Tx, holder string) (vnet.Zone, error) {
	zone, err := takeNext(tx, nextZone, zoneKey, uint32(vnet.FirstZone), uint32(vnet.LastZone), holder)
	if err != nil {
		return 0, fmt.Errorf("conntrack zones %d to %d are all in use: %w", vnet.FirstZone, vnet.LastZone, err)
	}
	return vnet.Zone(zone), nil
}

func takeTransit(tx Tx, holder string) (vnet.Transit, error) {
	n, err := takeNext(tx, nextTransit, transitKey, uint32(vnet.FirstTransit), uint32(vnet.LastTransit), holder)
	if err != nil {
		return 0, fmt.Errorf("all addresses of %s are in use: %w", vnet.TransitRange4, err)
	}
	return vnet.Transit(n), nil
}

// GatewayBridge returns the bridge that the host is linked to, "" if there is none yet.
func GatewayBridge(tx Tx) string { return string(tx.Get(gatewayOn)) }

// ClaimGateway makes bridge the one that the host is linked to, if no other with endpoints is: a
// node has one link. It reports whether it is.
func ClaimGateway(tx Tx, bridge string) (bool, error) {
	has := GatewayBridge(tx)
	if has == bridge {
		return true, nil
	}
	if has != "" {
		used := false
		err := tx.Range(Endpoints, func(key string, value []byte) error {
			e, err := decode[vnet.Endpoint](key, value)
			if err == nil && e.Bridge == has {
				used, err = true, ErrStop
			}
			return err
		})
		if err != nil || used {
			return false, err
		}
	}
	return true, tx.Put(gatewayOn, []byte(bridge))
}

// MetricsAt returns the HOST:PORT at which the node's tenetd tells how it is doing, "" if it is not known to.
func MetricsAt(tx Tx) string { return string(tx.Get(toldAt)) }

// PutMetricsAt writes it.
func PutMetricsAt(tx Tx, at string) error { return tx.Put(toldAt, []byte(at)) }

// GiveAlias gives a new endpoint the number by which the host reaches it.
func GiveAlias(tx Tx, e *vnet.Endpoint) error {
	var err error
	e.Transit, err = takeTransit(tx, string(e.ID))
	return err
}

// GiveMeters gives a new endpoint the switch's numbers for its limits.
func GiveMeters(tx Tx, e *vnet.Endpoint) error {
	for _, l := range []*vnet.Limit{&e.Bandwidth.Ingress, &e.Bandwidth.Egress} {
		if l.Rate == 0 {
			continue
		}
		const most = 60_000 // ovs-vswitchd's userspace datapath has 65,535 meters
		n, err := take(tx, meterKey, 0, most, string(e.ID))
		if err != nil {
			return fmt.Errorf("all %d meters of the switch are in use: %w", most, err)
		}
		l.Meter = n
	}
	return nil
}

// PublishPorts records the ports that a new endpoint publishes on the host. vnet.ErrExists,
// with who has it, if one is taken.
func PublishPorts(tx Tx, e vnet.Endpoint) error {
	for i, m := range e.Ports {
		for _, o := range e.Ports[:i] {
			if m.Overlaps(o) {
				return vnet.Invalidf("portMappings: %s and %s cannot both be", o, m)
			}
		}
		err := tx.Range(hostPortsOf(m), func(_ string, holder []byte) error {
			other, err := Endpoint(tx, vnet.EndpointID(holder))
			if err != nil {
				return err
			}
			for _, o := range other.Ports {
				if other.ID != e.ID && m.Overlaps(o) {
					return vnet.WithHint(vnet.Existsf("portMappings: %s port %d is published by %s of network %s already (%s)", m.Protocol, m.HostPort, other.Attachment, other.Ref(), o),
						"choose another hostPort, or another hostIP")
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := tx.Put(hostPortKey(m), []byte(e.ID)); err != nil {
			return err
		}
	}
	return nil
}
