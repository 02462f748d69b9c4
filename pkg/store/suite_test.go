package store_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
)

// conforms holds a Store to its contract. open returns the same, empty store at each call within
// one test: as another process would open it.
func conforms(t *testing.T, fresh func(t *testing.T) (open func() store.Store)) {
	t.Run("what one wrote another reads", func(t *testing.T) {
		open := fresh(t)
		update(t, open(), put("a/1", "x"), put("a/2", "y"))
		update(t, open(), put("a/1", "z"), func(tx store.Tx) error { return tx.Delete("a/2") })
		wantAll(t, open(), map[string]string{"a/1": "z"})
	})
	t.Run("a transaction sees its own writes", func(t *testing.T) {
		update(t, fresh(t)(), put("a", "x"), wants("a", "x"), put("a", "y"), wants("a", "y"), func(tx store.Tx) error { return tx.Delete("a") }, wants("a", ""))
	})
	t.Run("an error rolls everything back and comes back unchanged", func(t *testing.T) {
		s := fresh(t)()
		update(t, s, put("kept", "x"))
		broken := errors.New("broken")
		err := s.Update(t.Context(), func(tx store.Tx) error {
			return errors.Join(put("kept", "y")(tx), put("new", "y")(tx), broken)
		})
		if !errors.Is(err, broken) {
			t.Errorf("got %v, want the closure's error", err)
		}
		wantAll(t, s, map[string]string{"kept": "x"})
		if err := s.View(t.Context(), func(store.Tx) error { return broken }); !errors.Is(err, broken) {
			t.Errorf("View: got %v, want the closure's error", err)
		}
	})
	t.Run("an empty store can be viewed and is not made by it", func(t *testing.T) {
		s := fresh(t)()
		wantAll(t, s, map[string]string{})
		view(t, s, wants("a", ""))
	})
	t.Run("a view cannot write", func(t *testing.T) {
		s := fresh(t)()
		for range 2 { // before there is anything, and after
			view(t, s, func(tx store.Tx) error {
				if err := tx.Put("a", []byte("y")); err == nil {
					t.Error("Put in a View went well")
				}
				if err := tx.Delete("a"); err == nil {
					t.Error("Delete in a View went well")
				}
				return nil
			})
			update(t, s, put("a", "x"))
		}
		wantAll(t, s, map[string]string{"a": "x"})
	})
	t.Run("a view does not change meanwhile", func(t *testing.T) {
		open := fresh(t)
		update(t, open(), put("a", "x"))
		done := make(chan error, 1)
		view(t, open(), wants("a", "x"), func(store.Tx) error {
			go func() { done <- open().Update(context.Background(), put("a", "y")) }()
			return nil
		}, wants("a", "x"))
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		wantAll(t, open(), map[string]string{"a": "y"})
	})
	t.Run("deleting what is not there is no error", func(t *testing.T) {
		update(t, fresh(t)(), func(tx store.Tx) error { return tx.Delete("a") })
	})
	t.Run("a range is in order, keeps to its prefix and can be ended", func(t *testing.T) {
		s := fresh(t)()
		update(t, s, put("b/2", "x"), put("b/10", "x"), put("b/1", "x"), put("a/9", "x"), put("b", "x"), put("c/1", "x"), put("bb/1", "x"))
		view(t, s, func(tx store.Tx) error {
			if diff := cmp.Diff([]string{"b/1", "b/10", "b/2"}, keys(t, tx, "b/", 9)); diff != "" {
				t.Errorf("order (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"b/1", "b/10"}, keys(t, tx, "b/", 2)); diff != "" {
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
			update(t, s, func(store.Tx) error { runs++; return nil }, put("a", "x"))
		}
		wantAll(t, s, map[string]string{"a": "x"})
	})
	t.Run("no update is lost among many writers", func(t *testing.T) {
		open := fresh(t)
		const writers, rounds = 8, 5
		errs := make(chan error, writers)
		for w := range writers {
			go func() {
				var err error
				for r := range rounds {
					err = errors.Join(err, open().Update(context.Background(), func(tx store.Tx) error {
						return errors.Join(increment(tx, "counter"), put(fmt.Sprintf("w/%d/%d", w, r), "x")(tx))
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
		view(t, open(), wants("counter", strconv.Itoa(writers*rounds)), func(tx store.Tx) error {
			if got := len(keys(t, tx, "w/", 1000)); got != writers*rounds {
				t.Errorf("%d records, want %d", got, writers*rounds)
			}
			return nil
		})
	})
}

func put(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error { return tx.Put(key, []byte(value)) }
}

// wants fails the transaction if key has another value; "" wants none.
func wants(key, value string) func(store.Tx) error {
	return func(tx store.Tx) error {
		if got := tx.Get(key); string(got) != value || value == "" && got != nil {
			return fmt.Errorf("%s is %q, want %q", key, got, value)
		}
		return nil
	}
}

// increment adds one to the number at key.
func increment(tx store.Tx, key string) error {
	n := 0
	if v := tx.Get(key); v != nil {
		if _, err := fmt.Sscan(string(v), &n); err != nil {
			return err
		}
	}
	return tx.Put(key, fmt.Append(nil, n+1))
}

// keys returns at most limit keys of a prefix.
func keys(t *testing.T, tx store.Tx, prefix string, limit int) []string {
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

func inTurn(steps []func(store.Tx) error) func(store.Tx) error {
	return func(tx store.Tx) error {
		for _, step := range steps {
			if err := step(tx); err != nil {
				return err
			}
		}
		return nil
	}
}

func update(t *testing.T, s store.Store, steps ...func(store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), inTurn(steps)); err != nil {
		t.Fatal(err)
	}
}

func view(t *testing.T, s store.Store, steps ...func(store.Tx) error) {
	t.Helper()
	if err := s.View(t.Context(), inTurn(steps)); err != nil {
		t.Fatal(err)
	}
}

// wantAll compares everything in the store but what it keeps about itself.
func wantAll(t *testing.T, s store.Store, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	view(t, s, func(tx store.Tx) error {
		return tx.Range("", func(key string, value []byte) error { got[key] = string(value); return nil })
	})
	delete(got, "meta/version")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("store (-want +got):\n%s\nkeys: %v", diff, slices.Sorted(maps.Keys(got)))
	}
}
