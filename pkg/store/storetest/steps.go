package storetest

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
)

// Put is the step that writes value at key.
func Put(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error { return tx.Put(key, []byte(value)) }
}

// Wants is the step that fails the transaction if key has another value; "" wants none.
func Wants(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error {
		if got := tx.Get(key); string(got) != value || value == "" && got != nil {
			return fmt.Errorf("%s is %q, want %q", key, got, value)
		}
		return nil
	}
}

// Increment adds one to the number at key.
func Increment(tx store.Tx, key string) error {
	n := 0
	if v := tx.Get(key); v != nil {
		if _, err := fmt.Sscan(string(v), &n); err != nil {
			return err
		}
	}
	return tx.Put(key, fmt.Append(nil, n+1))
}

// Keys returns at most limit keys of a prefix, in the order of Range.
func Keys(t *testing.T, tx store.Tx, prefix string, limit int) []string {
	t.Helper()
	var got []string
	err := tx.Range(prefix, func(key string, _ []byte) error {
		if got = append(got, key); len(got) == limit {
			return fmt.Errorf("enough: %w", store.ErrStop)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return got
}

// InTurn is the transaction that takes the steps until one fails.
func InTurn(steps ...func(store.Tx) error) func(store.Tx) error {
	return func(tx store.Tx) error {
		for _, step := range steps {
			if err := step(tx); err != nil {
				return err
			}
		}
		return nil
	}
}

// Update takes the steps in one Update and fails the test if that fails.
func Update(t *testing.T, s store.Store, steps ...func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), InTurn(steps...)); err != nil {
		t.Fatal(err)
	}
}

// View takes the steps in one View and fails the test if that fails.
func View(t *testing.T, s store.Store, steps ...func(store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), InTurn(steps...)); err != nil {
		t.Fatal(err)
	}
}

// WantAll compares everything in the store but what it keeps about itself.
func WantAll(t *testing.T, s store.Store, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	View(t, s, func(tx store.Tx) error {
		clear(got) // a View may run again
		return tx.Range("", func(key string, value []byte) error { got[key] = string(value); return nil })
	})
	delete(got, "meta/version")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("store (-want +got):\n%s\nkeys: %v", diff, slices.Sorted(maps.Keys(got)))
	}
}
