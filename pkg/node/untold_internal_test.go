package node

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// remoteOf is an endpoint of blue/web on node n2.
func remoteOf(id vnet.EndpointID) vnet.Remote {
	return vnet.Remote{Attachment: vnet.Attachment{Container: string(id), IfName: "eth0"}, ID: id, MAC: vnet.MAC{2, 0, 0, 0, 0, 1}, Tenant: "blue", Network: "web", Node: "n2"}
}

// blue is a node of a cluster that knows of tenant blue's network web.
func blue(t *testing.T, runDir string) *Node {
	t.Helper()
	n := Open(Config{Name: "n1", Bridge: "br-tenet", OVSRunDir: runDir, DataDir: filepath.Join(t.TempDir(), "tenet"), Datapath: "netdev"}, nil)
	n.Untold = &Untold{}
	t.Cleanup(n.Close)
	declared(t, n, func(tx store.Tx) error {
		return errors.Join(store.JoinCluster(tx, n.Name), store.PutOverlay(tx, store.Overlay{Peer: vnet.Peer{Name: n.Name}, Bridge: n.Bridge}),
			store.PutPeer(tx, vnet.Peer{Name: "n2", VTEP: netip.MustParseAddr("192.0.2.2"), Encapsulation: vnet.VXLAN}), store.Save(tx, "tenants/blue", vnet.Tenant{Name: "blue", Number: 1}),
			store.Save(tx, "networks/blue/web", vnet.Network{Tenant: "blue", Name: "web", VNI: 7}))
	})
	return n
}

func declared(t *testing.T, n *Node, write func(store.Tx) error) {
	t.Helper()
	err := n.Declared(t.Context(), func(tx store.Tx) (Concern, error) { return AllFlows, write(tx) })
	if err != nil {
		t.Fatal(err)
	}
}

// differences are how many flows the switch has that it should not, or has not.
func differences(t *testing.T, n *Node) int {
	t.Helper()
	d, err := n.connectAll(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	return d.MissingFlows + d.StrayFlows
}

// What a switch was not told stays known until it is told: also if nobody could be told, as without its database, which it
// outlives.
func TestWhatASwitchWasNotToldIsKnown(t *testing.T) {
	sw := ovstest.Start(t)
	n := blue(t, sw.RunDir)
	if err := n.EnsureBridge(t.Context()); err != nil {
		t.Fatal(err)
	}
	retell := func() {
		t.Helper()
		if err := n.TellUntold(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n.Untold.Any() || differences(t, n) != 0 {
			t.Errorf("something is untold: %t, %d flows differ", n.Untold.Any(), differences(t, n))
		}
	}
	retell()
	put := func(id vnet.EndpointID) {
		t.Helper()
		declared(t, n, func(tx store.Tx) error { return store.PutRemote(tx, remoteOf(id)) })
	}
	put("told")
	if n.Untold.Any() {
		t.Error("it was told, and is said not to be")
	}

	other := func() *Node { // whose connection to the database is its own
		o := Open(n.Config, nil)
		o.Untold = n.Untold
		t.Cleanup(o.Close)
		return o
	}
	sw.StopDB()
	n = other()
	put("untold")
	if !n.Untold.Any() {
		t.Error("nobody could be told, and nobody knows")
	}
	if err := n.TellUntold(t.Context()); err != nil || !n.Untold.Any() {
		t.Errorf("nobody could be told: %v, %t", err, n.Untold.Any())
	}
	sw.StartDB()
	n = other()
	retell()
}
