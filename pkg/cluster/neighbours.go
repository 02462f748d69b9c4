package cluster

import (
	"errors"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// only is what no two endpoints may have. Ports of transparent functions have no address, and nothing is sent to them.
func only(r vnet.Remote) []string {
	if len(r.Addrs) == 0 {
		return nil
	}
	all := []string{fmt.Sprintf("MAC %s of network %s", r.MAC, r.Ref())}
	for _, p := range r.Addrs {
		all = append(all, fmt.Sprintf("address %s of network %s", p.Addr(), r.Ref()))
	}
	return all
}

// placeOf says whose a record of an endpoint is.
func placeOf(key string) string {
	r, _ := parseEndpoint(key)
	return fmt.Sprintf("endpoint %s of node %s", r.ID, r.Node)
}

// neighbours are what other nodes' endpoints find in the node's store: their networks, and who of these is here.
type neighbours struct {
	tx       store.Tx
	bridge   string
	networks map[vnet.Ref]neighbourhood
	err      error // that kept it from being read
}

type neighbourhood struct {
	vnet.Network

	known bool
	whose map[string]vnet.EndpointID // of what only one may have, as far as it is somebody's here
}

func (n *neighbours) in(r vnet.Ref) neighbourhood {
	if found, ok := n.networks[r]; ok {
		return found
	}
	found := neighbourhood{whose: map[string]vnet.EndpointID{}}
	net, err := store.Network(n.tx, r)
	found.Network, found.known = net, err == nil
	if errors.Is(err, vnet.ErrNotFound) {
		err = nil
	}
	here, failed := store.All[vnet.Endpoint](n.tx, store.EndpointsOf(r))
	for _, e := range here {
		if e.Bridge != n.bridge || e.State == vnet.Leaving {
			continue
		}
		for _, what := range only(e.Publish("")) {
			found.whose[what] = e.ID
		}
	}
	n.err = errors.Join(n.err, err, failed)
	n.networks[r] = found
	return found
}

// fits says why an endpoint cannot be one of its network. As long as that is not known, none is.
func (n *neighbours) fits(r vnet.Remote) objection {
	net := n.in(r.Ref())
	if net.known && net.IsProvider() {
		return objection{why: "the wire leads to it", quiet: true, moot: true}
	}
	if len(r.Addrs) == 0 {
		return objection{}
	}
	if !net.known {
		return objection{why: "its network is still to come", quiet: true}
	}
	if err := r.MAC.Validate(); err != nil {
		return objection{why: err.Error()}
	}
	for _, p := range r.Addrs {
		switch s, ok := net.SubnetOf(p.Addr()); {
		case !ok:
			return objection{why: fmt.Sprintf("address %s is in no subnet of network %s", p.Addr(), r.Ref())}
		case p.Addr() == s.Gateway:
			return objection{why: fmt.Sprintf("address %s is the gateway's", p.Addr()), whose: "network " + r.Ref().String()}
		}
	}
	for _, what := range only(r) {
		if id, ok := net.whose[what]; ok {
			return objection{why: what + " is another's", whose: fmt.Sprintf("endpoint %s of this node", id)}
		}
	}
	return objection{}
}
