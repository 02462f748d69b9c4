package main

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Peers are the other nodes of a cluster: records in etcd, as those of nodes that run would be, and nothing else. What
// there is of everything grows with them but for each network, which is as large in all clusters.
type peers struct {
	Nodes     int
	Endpoints []string // etcd's
	Lease     int64    // of all their presences; who has it keeps it
}

const (
	ofEachNode  = 50 // endpoints
	forEachNode = 2  // networks, each of a tenant of its own: the most that has to be followed
	etcdPrefix  = "/tenet/v1/"
	realNode    = "real"
	firstNumber = 2    // of an endpoint, behind what a gateway may have
	mostNodes   = 1024 // blocks of a /16
)

func (p peers) networks() int  { return max(p.Nodes*forEachNode, networksHere) }
func (p peers) endpoints() int { return p.Nodes * ofEachNode }

func (p peers) ref(network int) vnet.Ref {
	return vnet.Ref{Tenant: vnet.TenantName(fmt.Sprintf("tenant%d", network)), Network: "net"}
}

// here are the networks that the real node is in.
func (p peers) here() []int {
	var here []int
	for i := range networksHere {
		here = append(here, i*p.networks()/networksHere)
	}
	return here
}

func (p peers) network(network int) vnet.Network {
	r := p.ref(network)
	return vnet.Network{Tenant: r.Tenant, Name: r.Network, Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.64.0.0/16")}}}
}

// vtep is the address of a node on its underlay, from RFC 2544's range; that of node -1 is the real one's.
func vtep(node int) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 18, byte((node + 2) >> 8), byte(node + 2)})
}

func (p peers) node(node int) vnet.Peer {
	return vnet.Peer{Name: vnet.NodeName(fmt.Sprintf("node%d", node)), VTEP: vtep(node), Encapsulation: vnet.VXLAN, MTU: 1500}
}

// block is what a node has of every network that it is in.
func (p peers) block(node int) netip.Prefix {
	return vnet.Subnet{Prefix: netip.MustParsePrefix("10.64.0.0/16")}.Block(uint64(node))
}

// endpoint is one of the network, on a node, with an address of the node's block there; number says which.
func (p peers) endpoint(network, node int, container string, number int) vnet.Remote {
	b := p.block(node).Addr().As4()
	addr := netip.AddrFrom4([4]byte{b[0], b[1], b[2], b[3] + byte(number)})
	a := vnet.Attachment{Container: container, IfName: ifName}
	r := p.ref(network)
	return vnet.Remote{
		Attachment: a, ID: a.ID(), Node: p.node(node).Name, Tenant: r.Tenant, Network: r.Network,
		MAC: vnet.MACFor([]netip.Addr{addr}), Addrs: []netip.Prefix{netip.PrefixFrom(addr, 16)},
	}
}

// ofNetwork is how many of the first endpoints are in each network.
func (p peers) ofNetwork() int { return p.endpoints() / p.networks() }

// nodeOf is where the network's endpoint of that number is: the nodes are filled one after the other, each with one of
// every network in turn.
func (p peers) nodeOf(network, number int) int { return (network + number*p.networks()) / ofEachNode }

// A pair is a key and its value.
type pair struct{ key, value string }

// told are the records of an endpoint: see pkg/cluster, keys.go.
func told(r vnet.Remote) ([]pair, error) {
	text, err := store.EncodeShared(r)
	return []pair{
		{fmt.Sprintf("%s%s/%s", store.EndpointsOf(r.Ref()), r.Node, r.ID), string(text)},
		{fmt.Sprintf("holdings/%s/%s%s", r.Node, store.EndpointsOf(r.Ref()), r.ID), string(text)},
	}, err
}

// holds are the records of a block.
func holds(n vnet.NodeName, r vnet.Ref, block netip.Prefix) []pair {
	return []pair{
		{store.BlockKey(r, block), fmt.Sprintf(`{"node":%q,"v":%d}`, n, store.RecordVersion)},
		{fmt.Sprintf("holdings/%s/%s", n, store.BlockKey(r, block)), ""},
	}
}

// write writes them all. It is done beside etcd, in a process that ends with it.
func (p peers) write(ctx context.Context) error {
	s, err := etcd.Open(etcd.Config{Endpoints: p.Endpoints, Prefix: etcdPrefix})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := atOnce(p.networks(), func(i int) error {
		return s.Update(ctx, func(tx store.Tx) error {
			_, err := store.DeclareNetwork(tx, p.network(i))
			return err
		})
	}); err != nil {
		return err
	}
	leased, others, err := p.records()
	if err != nil {
		return err
	}
	for _, some := range []struct {
		records []pair
		options []clientv3.OpOption
	}{{others, nil}, {leased, []clientv3.OpOption{clientv3.WithLease(clientv3.LeaseID(p.Lease))}}} {
		const most = 128 // that etcd takes in a transaction
		if err := atOnce((len(some.records)+most-1)/most, func(i int) error {
			var ops []clientv3.Op
			for _, r := range some.records[i*most : min((i+1)*most, len(some.records))] {
				ops = append(ops, clientv3.OpPut(etcdPrefix+r.key, r.value, some.options...))
			}
			_, err := s.Client().Txn(ctx).Then(ops...).Commit()
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// records are those of nodes, blocks and endpoints: the leased ones, and the others.
func (p peers) records() ([]pair, []pair, error) {
	var leased, others []pair
	now := time.Now().UTC().Truncate(time.Second)
	for i := range p.Nodes {
		n := p.node(i)
		what, err := store.EncodeShared(cluster.Record{Peer: n, Identity: fmt.Sprintf("%032x", i), Version: "bench", Joined: now})
		if err != nil {
			return nil, nil, err
		}
		others = append(others, pair{cluster.Nodes + string(n.Name), string(what)})
		leased = append(leased, pair{"alive/" + string(n.Name), fmt.Sprintf(`{"place":"machine %d","since":%q,"v":%d}`, i, now.Format(time.RFC3339), store.RecordVersion)})
	}
	type held struct{ network, node int }
	has := map[held]bool{}
	for network := range p.networks() {
		for number := range p.ofNetwork() {
			node := p.nodeOf(network, number)
			if at := (held{network, node}); !has[at] {
				has[at] = true
				others = append(others, holds(p.node(node).Name, p.ref(network), p.block(node))...)
			}
			records, err := told(p.endpoint(network, node, fmt.Sprintf("%064x", network<<16|number), firstNumber+number))
			if err != nil {
				return nil, nil, err
			}
			others = append(others, records...)
		}
	}
	return leased, others, nil
}

// atOnce does n things, a few at a time.
func atOnce(n int, do func(i int) error) error {
	const few = 16
	next := make(chan int)
	failed := make(chan error, few)
	var all sync.WaitGroup
	for range few {
		all.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < n && err == nil; i++ {
		select {
		case next <- i:
		case err = <-failed:
		}
	}
	close(next)
	all.Wait()
	close(failed)
	for e := range failed {
		err = e
	}
	return err
}
