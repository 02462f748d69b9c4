package store_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// sound returns the bytes of a store with enough records for a tree of pages, a list of free
// ones among them.
func sound(t *testing.T) []byte {
	t.Helper()
	s := store.OpenBolt(t.TempDir())
	for round := range 3 {
		update(t, s, func(tx store.Tx) error {
			for i := range 150 {
				if err := tx.Put(fmt.Sprintf("%d/%03d", round, i), bytes.Repeat([]byte("x"), 200)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	update(t, s, func(tx store.Tx) error {
		for i := range 150 {
			if err := tx.Delete(fmt.Sprintf("1/%03d", i)); err != nil {
				return err
			}
		}
		return nil
	})
	raw, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// damaged returns a store whose file has those bytes.
func damaged(t *testing.T, raw []byte) *store.Bolt {
	t.Helper()
	s := store.OpenBolt(t.TempDir())
	if err := os.WriteFile(s.Path(), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func sum(t *testing.T, s *store.Bolt) [32]byte {
	t.Helper()
	raw, err := os.ReadFile(s.Path())
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(raw)
}

// read visits every record; change writes a few.
func read(tx store.Tx) error {
	return tx.Range("", func(_ string, value []byte) error { return use(value) })
}

// use touches every byte.
func use(value []byte) error {
	if bytes.Count(value, []byte{0xff}) == len(value)+1 {
		return errors.New("cannot be")
	}
	return nil
}

func change(tx store.Tx) error {
	for i := range 20 {
		if err := tx.Put(fmt.Sprintf("0/%03d", i*7), []byte("y")); err != nil {
			return err
		}
	}
	return read(tx)
}

// survives uses a damaged store in every way: each works or says that the store is corrupt,
// and what says so has changed nothing. It returns how many said so.
func survives(t *testing.T, what string, s *store.Bolt) int {
	t.Helper()
	said := 0
	for _, try := range []struct {
		way string
		run func() error
	}{
		{"View", func() error { return s.View(t.Context(), read) }},
		{"Writable", func() error { return s.Writable(t.Context()) }},
		{"Update", func() error { return s.Update(t.Context(), change) }},
		{"View again", func() error { return s.View(t.Context(), read) }},
	} {
		before := sum(t, s)
		err := try.run()
		if err == nil {
			continue
		}
		said++
		if !errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), s.Path()) || vnet.Hint(err) == "" {
			t.Errorf("%s, %s: got %v, want an ErrCorrupt with the file's name and a hint", what, try.way, err)
		}
		if sum(t, s) != before {
			t.Errorf("%s, %s: said %v and changed the file", what, try.way, err)
		}
	}
	return said
}

func TestRubbishInPlaceOfTheStoreIsNotOverwritten(t *testing.T) {
	for what, raw := range map[string][]byte{
		"text": []byte("hello"), "a page of zeros": make([]byte, 4096), "many pages of zeros": make([]byte, 1<<16),
		"many pages of ones": bytes.Repeat([]byte{0xff}, 1<<16), "one byte": {0},
	} {
		if survives(t, what, damaged(t, raw)) != 4 {
			t.Errorf("%s was taken for a store", what)
		}
	}
}

func TestStoreWithoutAByteIsEmpty(t *testing.T) {
	s := damaged(t, nil) // as a kill between making the file and writing to it leaves it
	wantAll(t, s, map[string]string{})
	update(t, s, put("a", "x"))
	wantAll(t, s, map[string]string{"a": "x"})
}

func TestTruncatedStoreIsRefusedNotOverwritten(t *testing.T) {
	raw := sound(t)
	const page = 4096
	said := 0
	for n := 1; n < len(raw)/page; n++ {
		for _, size := range []int{n * page, n*page - 1, n*page + 17} {
			said += survives(t, fmt.Sprintf("first %d of %d bytes", size, len(raw)), damaged(t, raw[:size]))
		}
	}
	if said == 0 {
		t.Error("nobody noticed")
	}
}

func TestFlippedBytesNeverCrashTheProcess(t *testing.T) {
	raw := sound(t)
	random := rand.New(rand.NewPCG(1, 2))
	said := 0
	for range 200 {
		bad := bytes.Clone(raw)
		at := random.IntN(len(bad)/4096)*4096 + random.IntN(160) // the heads of pages are what steers
		bad[at] ^= byte(1 + random.IntN(255))
		said += survives(t, fmt.Sprintf("byte %d flipped to %#x", at, bad[at]), damaged(t, bad))
	}
	if said == 0 {
		t.Error("nobody noticed")
	}
}

// A bug of who uses the store says nothing about the file, which nobody should then move away.
func TestAPanicOfTheClosureIsNoDamage(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"), put("b", "x"))
	var none []string
	var nobody *vnet.Tenant
	broken := errors.New("broken")
	for what, closure := range map[string]func(store.Tx) error{
		"at once":         func(store.Tx) error { panic(broken) },
		"of the runtime":  func(store.Tx) error { return errors.New(none[len(none)]) },
		"a nil pointer":   func(store.Tx) error { return tenantNamed(nobody) },
		"after a Get":     func(tx store.Tx) error { panic(string(tx.Get("a"))) },
		"after a write":   func(tx store.Tx) error { panic(errors.Join(tx.Put("a", []byte("y")), tx.Delete("b"), broken)) },
		"in a visit":      func(tx store.Tx) error { return tx.Range("", func(string, []byte) error { panic(broken) }) },
		"after a visit":   func(tx store.Tx) error { panic(errors.Join(read(tx), broken)) },
		"after an ending": func(tx store.Tx) error { panic(tx.Range("", func(string, []byte) error { return broken })) },
		"of a Get within a visit": func(tx store.Tx) error {
			return tx.Range("", func(key string, _ []byte) error { panic(string(tx.Get(key))) })
		},
	} {
		for way, run := range map[string]func(context.Context, func(store.Tx) error) error{"Update": s.Update, "View": s.View} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s, %s: it does not go on", what, way)
					}
				}()
				t.Errorf("%s, %s: got %v, want the panic", what, way, run(t.Context(), closure))
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			if err := s.Update(ctx, wants("a", "x")); err != nil {
				t.Errorf("%s, %s: then: %v", what, way, err)
			}
			cancel()
			wantAll(t, s, map[string]string{"a": "x", "b": "x"})
		}
	}
}

func tenantNamed(t *vnet.Tenant) error { return errors.New(string(t.Name)) }

func TestAPanicOfTheClosureKeepsItsValueAndStack(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"))
	value := errors.New("broken")
	defer func() {
		if r := recover(); r != any(value) {
			t.Errorf("recovered %v, want %v", r, value)
		}
		if stack := string(debug.Stack()); !strings.Contains(stack, "store_test.crash(") {
			t.Errorf("where it began is not in\n%s", stack)
		}
	}()
	_ = s.Update(t.Context(), func(store.Tx) error { return crash(value) })
}

func crash(value error) error { panic(value) }

func TestNewerStoreIsRefusedNotOverwritten(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"), put("meta/version", "2"))
	before := sum(t, s)
	for what, err := range map[string]error{"View": s.View(t.Context(), read), "Update": s.Update(t.Context(), change), "Writable": s.Writable(t.Context())} {
		if !errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), `format "2", this program knows 1`) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	if sum(t, s) != before {
		t.Error("the file was changed")
	}
}

func TestRecordsThatCannotBeReadNameTheirKey(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	for _, value := range []string{
		"", "null", "{", "[]", `{"name":"blue","number":1,"colour":"red"}`, `{"name":"blue","number":-1}`, `{"name":"blue"}{}`, `{"name":"blue"} x`,
	} {
		update(t, s, put("tenants/blue", value))
		for what, err := range map[string]error{
			"Tenant": s.View(t.Context(), func(tx store.Tx) error { _, err := store.Tenant(tx, "blue"); return err }),
			"All":    s.View(t.Context(), func(tx store.Tx) error { _, err := store.All[vnet.Tenant](tx, store.Tenants); return err }),
		} {
			if !errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), "tenants/blue") {
				t.Errorf("%s of %q: got %v, want an ErrCorrupt that names the key", what, value, err)
			}
		}
	}
}
