package node

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// endpointOn is an endpoint of blue/web here, a port of a function of that group if one is named.
func endpointOn(n *Node, i byte, group vnet.GroupName) vnet.Endpoint {
	id := vnet.EndpointID(fmt.Sprintf("c%d", i))
	e := vnet.Endpoint{Attachment: vnet.Attachment{Container: string(id), IfName: "eth0"}, ID: id, Tenant: "blue", Network: "web", State: vnet.Ready, Bridge: n.Bridge, MAC: vnet.MAC{2, 0, 0, 0, 1, i}}
	if group != "" {
		e.Function = &vnet.FunctionPort{Group: group, Port: vnet.Both, Weight: 1}
	} else {
		e.Addrs = append(e.Addrs, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, 0, i}), 24))
	}
	return e
}

// A record that is missing costs what it is of its flows, and nobody else; and nobody goes round what a chain lacks.
func TestARecordThatIsMissingSpoilsNothingElse(t *testing.T) {
	sw := ovstest.Start(t)
	n := blue(t, sw.RunDir)
	if err := n.EnsureBridge(t.Context()); err != nil {
		t.Fatal(err)
	}
	client, function := endpointOn(n, 1, ""), endpointOn(n, 2, "fw")
	all := vnet.Selector{Any: true}
	chain := vnet.Chain{Tenant: "blue", Name: "c", Groups: []vnet.GroupName{"fw"}, Classifiers: []vnet.Classifier{{From: all, To: all}}}
	declared(t, n, func(tx store.Tx) error {
		return errors.Join(store.Save(tx, "groups/blue/fw", vnet.Group{Tenant: "blue", Name: "fw", Mode: vnet.Transparent, OnFailure: vnet.Open}),
			store.PutEndpoint(tx, &client), store.PutEndpoint(tx, &function), store.JoinGroup(tx, function),
			store.Save(tx, "chains/blue/c", chain),
			store.Save(tx, "legs/blue/c", []vnet.Leg{{Number: 1, Groups: chain.Groups, Paths: []vnet.Path{{ID: 1, Weight: 1, Hops: []vnet.Hop{{Group: "fw", Instance: 1, Node: "n1"}}}}}}))
	})
	declared(t, n, func(tx store.Tx) error { // which a change of anything brings to light
		return errors.Join(tx.Delete("groups/blue/fw"), store.PutRemote(tx, remoteOf("new")))
	})
	if n.Untold.Any() || differences(t, n) != 0 {
		t.Errorf("something is untold: %t", n.Untold.Any())
	}
	flows, err := n.Render(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	has := func(o pipeline.Owner, table uint8, what func(openflow.Flow) bool) bool {
		return slices.ContainsFunc(flows, func(f openflow.Flow) bool {
			return pipeline.OwnerOf(f.Cookie) == o && (table == 0 || f.Table == table) && (what == nil || what(f))
		})
	}
	if !has(pipeline.EndpointOwner(client.ID), 0, nil) {
		t.Error("another endpoint has no flows")
	}
	if has(pipeline.EndpointOwner(function.ID), 0, nil) {
		t.Error("the port of a function of no group has flows")
	}
	if !has(pipeline.ChainOwner(chain.Ref()), pipeline.ChainClassify, nil) {
		t.Error("the chain wants no packets: they go round it")
	}
	if states, err := n.Instances(t.Context(), "blue"); err != nil || len(states) != 1 || states[0].State != "waits" {
		t.Errorf("its function is %v, %v", states, err)
	}
}

// Only who has nobody to tell is content with that.
func TestAMissingRecordIsNotAMissingSwitch(t *testing.T) {
	if absent(vnet.NotFoundf("group blue/fw does not exist")) {
		t.Error("a record that is missing is taken for a switch that is")
	}
	if !absent(fmt.Errorf("bridge: %w", kind(ovs.ErrNotFound))) {
		t.Error("a bridge that is missing is not taken for that")
	}
}
