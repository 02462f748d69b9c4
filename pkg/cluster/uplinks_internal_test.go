package cluster

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What somebody takes away, or adds, of what etcd has of a node's uplinks is put right when what was told of them is not relied on
// any more, and not before: etcd is not asked each time.
func TestUplinksAreToldAgainNowAndThen(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	d := w.member(1).started()
	lan := vnet.Uplink{Name: "lan", NIC: "eth1", VLANs: vnet.VLANs{{First: 100, Last: 199}}, Bridge: d.Agent.Bridge}
	err := d.store.Update(t.Context(), func(tx store.Tx) error {
		_, err := store.DeclareUplink(tx, lan, d.Agent.Name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	tells := func() []string {
		t.Helper()
		d.retellUplinks()
		own, err := d.ownUplinks(t.Context())
		if err := errors.Join(err, d.tellUplinks(t.Context(), own)); err != nil {
			t.Fatal(err)
		}
		return slices.Sorted(maps.Keys(w.keys(store.Uplinks, "uplink-nodes/")))
	}
	told := tells()
	if want := []string{"uplink-nodes/lan/" + string(d.Agent.Name), "uplinks/lan"}; !slices.Equal(told, want) {
		t.Fatalf("etcd has %v, want %v", told, want)
	}
	other := "uplink-nodes/wan/" + string(d.Agent.Name)
	err = w.etcd.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(tx.Delete(told[0]), tx.Delete(told[1]), tx.Put(other, nil))
	})
	if err != nil {
		t.Fatal(err)
	}
	if is, want := tells(), []string{other}; !slices.Equal(is, want) {
		t.Errorf("at once etcd has %v, want %v", is, want)
	}
	d.uplinksAt = d.uplinksAt.Add(-uplinksPause)
	if is := tells(); !slices.Equal(is, told) {
		t.Errorf("later etcd has %v, want %v", is, told)
	}
}
