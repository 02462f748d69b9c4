package store_test

import (
	"errors"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// shared makes a transaction one on the records of a cluster.
type shared struct{ store.Tx }

func (shared) Shared() bool { return true }

// A node leaves what it does not know of a cluster's record as it is, reads the rest, and leaves records of a later
// version alone.
func TestRecordsOfNewerNodes(t *testing.T) {
	s := empty(t)
	const newer = `{"tenant":"blue","name":"fw","mode":"routed","onFailure":"open","colour":{"is":"green"},"v":1}`
	update(t, s, func(tx store.Tx) error {
		tx = shared{tx}
		if err := tx.Put("groups/blue/fw", []byte(newer)); err != nil {
			return err
		}
		ref := vnet.GroupRef{Tenant: "blue", Group: "fw"}
		g, err := store.Group(tx, ref)
		if err != nil || g.Mode != vnet.Routed {
			t.Errorf("got %+v, %v", g, err)
		}
		g.OnFailure = vnet.Closed
		if err := store.PutGroup(tx, g); err != nil {
			return err
		}
		want := `{"colour":{"is":"green"},"mode":"routed","name":"fw","onFailure":"closed","tenant":"blue","v":1}`
		if got := string(tx.Get("groups/blue/fw")); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if err := tx.Put("groups/blue/fw", []byte(`{"tenant":"blue","name":"fw","v":2}`)); err != nil {
			return err
		}
		if _, err := store.Group(tx, ref); !errors.Is(err, vnet.ErrUnavailable) || vnet.Hint(err) == "" {
			t.Errorf("of a later version: got %v", err)
		}
		return nil
	})
	// On a node's own store nobody else writes: what it does not know is not for it to cut.
	update(t, s, func(tx store.Tx) error { return tx.Put("groups/blue/fw", []byte(newer)) })
	view(t, s, func(tx store.Tx) error {
		if _, err := store.Group(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"}); !errors.Is(err, vnet.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
		return nil
	})
}
