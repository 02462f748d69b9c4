package cluster

import (
	"context"
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// NodeState is a node with what has become of it and what it has.
type NodeState struct {
	Record

	// State is "runs", "silent" (its tenetd has no lease, but its address answers, or nobody has found out yet), "off"
	// (neither answers), "leaves", or "damaged": its record cannot be read, and of that there is no more than the name.
	State     string `json:"state"`
	Problem   string `json:"problem,omitempty"` // why its record cannot be read
	Endpoints int64  `json:"endpoints"`
	Blocks    int64  `json:"blocks"`
	Functions int64  `json:"functions"`
}

// ListNodes returns the cluster's nodes in the order of their names, or the one of that name: vnet.ErrNotFound if there is none.
func ListNodes(ctx context.Context, s Authority, name vnet.NodeName) ([]NodeState, error) {
	var nodes []NodeState
	err := s.View(ctx, func(tx store.Tx) error {
		nodes = []NodeState{}
		return tx.Range(Nodes, func(key string, value []byte) error {
			own := vnet.NodeName(strings.TrimPrefix(key, Nodes))
			if name != "" && own != name {
				return nil
			}
			var n NodeState
			var err error
			if n.Record, err = recordOf(key, value); err == nil && n.Name != own {
				err = vnet.OfKind(vnet.ErrCorrupt, fmt.Errorf("record %s is that of node %s", key, n.Name))
			}
			switch {
			case err != nil:
				n.Record, n.State, n.Problem = Record{Peer: vnet.Peer{Name: own}}, "damaged", err.Error()
			case tx.Get(aliveKey(n.Name)) != nil && tx.Get(drainKey(n.Name)) != nil:
				n.State = "leaves"
			case tx.Get(aliveKey(n.Name)) != nil:
				n.State = "runs"
			case tx.Get(offKey(n.Name)) != nil:
				n.State = "off"
			default:
				n.State = "silent"
			}
			nodes = append(nodes, n)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	if name != "" && len(nodes) == 0 {
		return nil, noNode(name)
	}
	for i := range nodes {
		n := &nodes[i]
		for _, c := range []struct {
			to   *int64
			what string
		}{{&n.Endpoints, store.Endpoints}, {&n.Blocks, store.Blocks}, {&n.Functions, store.Functions}} {
			got, err := s.Client().Get(ctx, s.Prefix()+holdings+string(n.Name)+"/"+c.what, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err != nil {
				return nil, s.Error(err)
			}
			*c.to = got.Count
		}
	}
	return nodes, nil
}

func noNode(name vnet.NodeName) error {
	return vnet.WithHint(vnet.NotFoundf("node %s does not exist", name), "see tenetctl node list")
}

// HeldBlocks are the blocks of addresses that the node holds, as TENANT/NETWORK PREFIX.
func HeldBlocks(ctx context.Context, s Authority, name vnet.NodeName) ([]string, error) {
	prefix := s.Prefix() + heldBlocks(name)
	got, err := s.Client().Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		return nil, s.Error(err)
	}
	blocks := []string{}
	for _, kv := range got.Kvs {
		if ref, block, ok := parseHeldBlock(strings.TrimPrefix(string(kv.Key), prefix)); ok {
			blocks = append(blocks, ref.String()+" "+block.String())
		}
	}
	return blocks, nil
}

// setDrain says whether a node is to leave.
func setDrain(ctx context.Context, s Authority, name vnet.NodeName, leave bool) error {
	return s.Update(ctx, func(tx store.Tx) error {
		if tx.Get(nodeKey(name)) == nil {
			return noNode(name)
		}
		if leave {
			return tx.Put(drainKey(name), []byte("{}"))
		}
		return tx.Delete(drainKey(name))
	})
}

// Leave asks a node to leave the cluster: it takes no new endpoint, gives its blocks back as their last addresses are
// released, and goes with its last endpoint.
func Leave(ctx context.Context, s Authority, name vnet.NodeName) error {
	return setDrain(ctx, s, name, true)
}

// Stay takes back what Leave asked.
func Stay(ctx context.Context, s Authority, name vnet.NodeName) error {
	return setDrain(ctx, s, name, false)
}
