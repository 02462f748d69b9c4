package node

import (
	"errors"
	"net/netip"
	"slices"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// tenantView is what classifiers of a tenant's chains may name.
type tenantView struct {
	number    uint32
	here      bool // somebody lives on the bridge
	declared  []vnet.Network
	networks  []pipeline.Network // those that somebody lives in, on the bridge or on other nodes
	endpoints []nameable
}

// nameable is an endpoint that a classifier may name.
type nameable struct {
	vnet.Attachment
	labels vnet.Labels
	addrs  []netip.Prefix
	mac    vnet.MAC
}

func viewTenant(tx store.Tx, name vnet.TenantName, bridge string) (*tenantView, error) {
	tenant, err := store.Tenant(tx, name)
	if err != nil {
		return nil, err
	}
	t := &tenantView{number: tenant.Number}
	networks, err := store.All[vnet.Network](tx, store.NetworksOf(name))
	if err != nil {
		return nil, err
	}
	for _, plain := range networks {
		if plain.IsProvider() {
			continue
		}
		t.declared = append(t.declared, plain)
		endpoints, err := living(tx, plain.Ref(), bridge)
		if err != nil {
			return nil, err
		}
		t.here = t.here || len(endpoints) > 0
		remotes, err := remotesIn(tx, plain.Ref(), bridge)
		if err != nil {
			return nil, err
		}
		if len(endpoints)+len(remotes) == 0 {
			continue
		}
		net, err := network(tx, plain.Ref(), bridge)
		if err != nil {
			return nil, err
		}
		t.networks = append(t.networks, net)
		for _, e := range endpoints {
			if e.Zone != 0 {
				t.endpoints = append(t.endpoints, nameable{e.Attachment, e.Labels, e.Addrs, e.MAC})
			}
		}
		for _, r := range remotes {
			if r.Function == nil {
				t.endpoints = append(t.endpoints, nameable{r.Attachment, r.Labels, r.Addrs, r.MAC})
			}
		}
	}
	return t, nil
}

// living are the endpoints of a network on a bridge that are not about to leave.
func living(tx store.Tx, r vnet.Ref, bridge string) ([]vnet.Endpoint, error) {
	endpoints, err := store.All[vnet.Endpoint](tx, store.EndpointsOf(r))
	return slices.DeleteFunc(endpoints, func(e vnet.Endpoint) bool { return e.State == vnet.Leaving || e.Bridge != bridge }), err
}

// remotesIn are the network's endpoints on other nodes, as far as the bridge leads to them.
func remotesIn(tx store.Tx, r vnet.Ref, bridge string) ([]vnet.Remote, error) {
	own, err := store.FindOverlay(tx)
	if errors.Is(err, vnet.ErrNotFound) || err == nil && own.Bridge != bridge {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return store.All[vnet.Remote](tx, store.RemotesOf(r))
}

// resolve returns the addresses that a selector stands for now; nil: any.
func (t *tenantView) resolve(s vnet.Selector) []netip.Prefix {
	addrs := []netip.Prefix{}
	switch {
	case s.Any:
		return nil
	case s.Prefix.IsValid():
		return append(addrs, s.Prefix)
	case s.Network != "":
		for _, net := range t.declared {
			if net.Name == s.Network {
				for _, subnet := range net.Subnets {
					addrs = append(addrs, subnet.Prefix)
				}
			}
		}
		return addrs
	}
	for _, e := range t.named(s) {
		for _, p := range e.addrs {
			addrs = append(addrs, netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
		}
	}
	return addrs
}

// linkLocal returns the link-local addresses of the endpoints that a selector names; nil: it names none.
func (t *tenantView) linkLocal(s vnet.Selector) []netip.Addr {
	if s.Endpoint == "" && len(s.Labels) == 0 {
		return nil
	}
	addrs := []netip.Addr{}
	for _, e := range t.named(s) {
		addrs = append(addrs, e.mac.LinkLocal())
	}
	return addrs
}

// named are the endpoints that a selector names, itself or by their labels.
func (t *tenantView) named(s vnet.Selector) []nameable {
	return slices.DeleteFunc(slices.Clone(t.endpoints), func(e nameable) bool {
		return s.Endpoint != e.Attachment.String() && (len(s.Labels) == 0 || !e.labels.Has(s.Labels))
	})
}
