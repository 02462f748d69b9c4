// Package storetest holds a store.Store to its contract, and has the steps of which its tests are made.
package storetest

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
)

// Conforms holds a Store to its contract. For each case fresh makes an empty store; open returns the same one at each
// call, as another process would open it.
func Conforms(t *testing.T, fresh func(t *testing.T) (open func() store.Store)) {
	t.Run("what one wrote another reads", func(t *testing.T) {
		open := fresh(t)
		Update(t, open(), Put("a/1", "x"), Put("a/2", "y"))
		Update(t, open(), Put("a/1", "z"), func(tx store.Tx) error { return tx.Delete("a/2") })
		WantAll(t, open(), map[string]string{"a/1": "z"})
	})
	t.Run("a transaction sees its own writes", func(t *testing.T) {
		Update(t, fresh(t)(), Put("a", "x"), Wants("a", "x"), Put("a", "y"), Wants("a", "y"), func(tx store.Tx) error { return tx.Delete("a") }, Wants("a", ""))
	})
	t.Run("a range sees the transaction's own writes", func(t *testing.T) {
		s := fresh(t)()
		Update(t, s, Put("b/1", "old"), Put("b/2", "old"), Put("b/4", "old"))
		Update(t, s, Put("b/0", "new"), Put("b/3", "new"), Put("b/4", "new"), Put("c", "new"), func(tx store.Tx) error {
			if err := tx.Delete("b/1"); err != nil {
				return err
			}
			for range 2 { // from the store, and if it keeps what it has read, from there
				got := map[string]string{}
				if err := tx.Range("b/", func(key string, value []byte) error { got[key] = string(value); return nil }); err != nil {
					return err
				}
				if diff := cmp.Diff(map[string]string{"b/0": "new", "b/2": "old", "b/3": "new", "b/4": "new"}, got); diff != "" {
					t.Errorf("range (-want +got):\n%s", diff)
				}
			}
			if diff := cmp.Diff([]string{"b/0", "b/2", "b/3", "b/4"}, Keys(t, tx, "b/", 9)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			return nil
		})
		WantAll(t, s, map[string]string{"b/0": "new", "b/2": "old", "b/3": "new", "b/4": "new", "c": "new"})
	})
	t.Run("an error rolls everything back and comes back unchanged", func(t *testing.T) {
		s := fresh(t)()
		Update(t, s, Put("kept", "x"))
		broken := errors.New("broken")
		err := s.Update(t.Context(), func(tx store.Tx) error {
			return errors.Join(Put("kept", "y")(tx), Put("new", "y")(tx), broken)
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want the closure's error", err)
		}
		WantAll(t, s, map[string]string{"kept": "x"})
		if err := s.View(t.Context(), func(store.Tx) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("View: got %v, want the closure's error", err)
		}
	})
	t.Run("an empty store can be viewed and is not made by it", func(t *testing.T) {
		s := fresh(t)()
		WantAll(t, s, map[string]string{})
		View(t, s, Wants("a", ""))
	})
	t.Run("a view cannot write", func(t *testing.T) {
		s := fresh(t)()
		for range 2 { // before there is anything, and after
			View(t, s, func(tx store.Tx) error {
				if err := tx.Put("a", []byte("y")); err == nil {
					t.Error("Put in a View went well")
				}
				if err := tx.Delete("a"); err == nil {
					t.Error("Delete in a View went well")
				}
				return nil
			})
			Update(t, s, Put("a", "x"))
		}
		WantAll(t, s, map[string]string{"a": "x"})
	})
	t.Run("a view does not change meanwhile", func(t *testing.T) {
		open := fresh(t)
		Update(t, open(), Put("a", "x"))
		done := make(chan error, 1)
		View(t, open(), Wants("a", "x"), func(store.Tx) error {
			go func() { done <- open().Update(t.Context(), Put("a", "y")) }()
			return nil
		}, Wants("a", "x"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		WantAll(t, open(), map[string]string{"a": "y"})
	})
	t.Run("deleting what is not there is no error", func(t *testing.T) {
		Update(t, fresh(t)(), func(tx store.Tx) error { return tx.Delete("a") })
	})
	t.Run("a range is in order, keeps to its prefix and can be ended", func(t *testing.T) {
		s := fresh(t)()
		Update(t, s, Put("b/2", "x"), Put("b/10", "x"), Put("b/1", "x"), Put("a/9", "x"), Put("b", "x"), Put("c/1", "x"), Put("bb/1", "x"))
		View(t, s, func(tx store.Tx) error {
			if diff := cmp.Diff([]string{"b/1", "b/10", "b/2"}, Keys(t, tx, "b/", 9)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"b/1", "b/10"}, Keys(t, tx, "b/", 2)); diff != "" {
				t.Errorf("ended with ErrStop (-want +got):\n%s", diff)
			}
			broken := errors.New("broken")
			if err := tx.Range("b/", func(string, []byte) error { return broken }); !errors.Is(err, broken) {
				t.Errorf("got %v, want the visitor's error", err)
			}
			return nil
		})
	})
	t.Run("a closure that is run again leaves the same", func(t *testing.T) {
		s := fresh(t)()
		runs := 0
		for range 2 {
			Update(t, s, func(store.Tx) error { runs++; return nil }, Put("a", "x"))
		}
		WantAll(t, s, map[string]string{"a": "x"})
	})
	t.Run("no update is lost among many writers", func(t *testing.T) {
		open := fresh(t)
		const writers, rounds = 8, 5
		errs := make(chan error, writers)
		for w := range writers {
			go func() {
				var err error
				for r := range rounds {
					err = errors.Join(err, open().Update(t.Context(), func(tx store.Tx) error {
						return errors.Join(Increment(tx, "counter"), Put(fmt.Sprintf("w/%d/%d", w, r), "x")(tx))
					}))
				}
				errs <- err
			}()
		}
		for range writers {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		View(t, open(), Wants("counter", strconv.Itoa(writers*rounds)), func(tx store.Tx) error {
			if got := len(Keys(t, tx, "w/", 1000)); got != writers*rounds {
				t.Errorf("%d records, want %d", got, writers*rounds)
			}
			return nil
		})
	})
}
