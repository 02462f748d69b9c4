package node

import (
	"context"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// zones are those that are tracked for chains' sake.
func zones(tx store.Tx) ([]vnet.Zone, error) {
	var all []vnet.Zone
	endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
	if err != nil {
		return nil, err
	}
	for _, e := range endpoints {
		if e.Zone != 0 {
			all = append(all, e.Zone)
		}
	}
	networks, err := store.All[vnet.Network](tx, store.Networks)
	if err != nil {
		return nil, err
	}
	for _, net := range networks {
		g, err := store.NetworkGateway(tx, net.Ref())
		if err != nil {
			return nil, err
		}
		if g.Outside != 0 {
			all = append(all, g.Outside)
		}
	}
	return all, nil
}

// emptyZones ends what is tracked in zones that nobody used, or nobody will.
func (n *Node) emptyZones(ctx context.Context, zones ...vnet.Zone) error {
	var calls [][]string
	for _, z := range zones {
		if z != 0 {
			calls = append(calls, []string{fmt.Sprintf("zone=%d", z)})
		}
	}
	if len(calls) == 0 {
		return nil
	}
	_, err := ovs.ControlEach(ctx, n.OVSRunDir, "dpctl/flush-conntrack", calls)
	if noAnswer(err) {
		return nil // datapaths of both kinds, as in EmptyZone; or no ovs-vswitchd
	}
	return kind(err)
}
