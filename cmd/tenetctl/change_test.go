package main

import (
	"errors"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
)

// What tenetctl waits for is what etcd will tell of: what a change has made differ, of what every node takes over.
func TestAChangeSpreadsAsFarAsItDiffers(t *testing.T) {
	const tenant, network, chain, elsewhere = store.Tenants + "x", store.Networks + "x/a", store.Chains + "x/c", store.Endpoints + "e"
	for what, tc := range map[string]struct {
		write func(store.Tx) error
		want  []string
	}{
		"nothing":   {func(store.Tx) error { return nil }, nil},
		"a put":     {func(tx store.Tx) error { return tx.Put(network, []byte("2")) }, []string{store.Networks}},
		"the same":  {func(tx store.Tx) error { return tx.Put(network, []byte("1")) }, nil},
		"empty":     {func(tx store.Tx) error { return tx.Put(chain, []byte{}) }, []string{store.Chains}},
		"a delete":  {func(tx store.Tx) error { return tx.Delete(network) }, []string{store.Networks}},
		"not there": {func(tx store.Tx) error { return tx.Delete(chain) }, nil},
		"not taken over": {func(tx store.Tx) error {
			return tx.Put(elsewhere, []byte("1"))
		}, nil},
		"gone and back": {func(tx store.Tx) error {
			return errors.Join(tx.Delete(network), tx.Put(network, []byte("1")))
		}, nil},
		"come and gone": {func(tx store.Tx) error {
			return errors.Join(tx.Put(chain, []byte("1")), tx.Delete(chain))
		}, nil},
		"two": {func(tx store.Tx) error {
			return errors.Join(tx.Put(tenant, []byte("1")), tx.Put(network, []byte("2")), tx.Put(network+"b", []byte("1")))
		}, []string{store.Networks, store.Tenants}},
	} {
		t.Run(what, func(t *testing.T) {
			s := store.OpenBolt(t.TempDir())
			put := func(tx store.Tx) error { return tx.Put(network, []byte("1")) }
			if err := s.Update(t.Context(), put); err != nil {
				t.Fatal(err)
			}
			var got []string
			err := s.Update(t.Context(), func(tx store.Tx) error {
				spreads := spreading{tx, map[string][]byte{}}
				err := tc.write(spreads)
				got = slices.Sorted(slices.Values(spreads.prefixes()))
				return err
			})
			if err != nil || !slices.Equal(got, tc.want) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}
