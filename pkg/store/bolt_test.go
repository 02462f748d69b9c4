package store_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestBoltIsAStore(t *testing.T) {
	storetest.Conforms(t, func(t *testing.T) func() store.Store {
		dir := filepath.Join(t.TempDir(), "not", "there", "yet")
		return func() store.Store { return store.OpenBolt(dir) }
	})
}

func TestLookingAtAStoreThatIsNotThereMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tenet")
	s := store.OpenBolt(dir)
	view(t, s, wants("a", ""))
	if err := s.Writable(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

func TestNobodyElseCanReadTheStore(t *testing.T) {
	s := store.OpenBolt(filepath.Join(t.TempDir(), "tenet"))
	update(t, s, put("a", "x"))
	for path, want := range map[string]os.FileMode{s.Path(): 0o600, filepath.Dir(s.Path()): 0o700} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s: mode %o, want %o", path, got, want)
		}
	}
}

// wantUnavailable checks that each way to use the store says it is unavailable and names its path.
func wantUnavailable(ctx context.Context, t *testing.T, s *store.Bolt) {
	t.Helper()
	nothing := func(store.Tx) error { return nil }
	for what, err := range map[string]error{"Update": s.Update(ctx, nothing), "View": s.View(ctx, nothing), "Writable": s.Writable(ctx)} {
		if !errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), s.Path()) {
			t.Errorf("%s: got %v, want an ErrUnavailable that names %s", what, err, s.Path())
		}
	}
}

func TestDirectoryThatIsAFileIsUnavailable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s := store.OpenBolt(filepath.Join(file, "tenet"))
	wantUnavailable(t.Context(), t, s)
}

// Root passes every access check; /proc takes no file, whoever asks.
func TestDirectoryThatCannotBeWrittenIsUnavailable(t *testing.T) {
	s := store.OpenBolt("/proc/tenet")
	if err := s.Update(t.Context(), put("a", "x")); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("Update: got %v", err)
	}
	if err := s.View(t.Context(), wants("a", "")); err != nil {
		t.Errorf("there is nothing to see, and no error in that: %v", err)
	}
}

// lockFile takes a lock on a file, as another program would, and returns what unlocks it.
func lockFile(t *testing.T, path string) func() {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { f.Close() }
}

func TestWaitForAHeldStoreEndsWithTheContext(t *testing.T) {
	for who, lock := range map[string]func(*testing.T, *store.Bolt) func(){
		"by one of ours": func(t *testing.T, s *store.Bolt) func() {
			unlock, err := store.Lock(t.Context(), filepath.Dir(s.Path()), "store")
			if err != nil {
				t.Fatal(err)
			}
			return unlock
		},
		"by a stranger": func(t *testing.T, s *store.Bolt) func() { return lockFile(t, s.Path()) },
	} {
		t.Run(who, func(t *testing.T) {
			s := store.OpenBolt(t.TempDir())
			update(t, s, put("a", "x"))
			unlock := lock(t, s)
			ctx, cancel := context.WithTimeout(t.Context(), 120*time.Millisecond)
			defer cancel()
			wantUnavailable(ctx, t, s)
			unlock()
			wantAll(t, s, map[string]string{"a": "x"}) // no waiter keeps it
		})
	}
}

func TestStrangerWhoKeepsTheFileIsNamed(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"))
	lockFile(t, s.Path())
	if err := s.View(t.Context(), wants("a", "x")); !errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), "another program keeps the file locked") {
		t.Errorf("got %v", err)
	}
}

func TestNothingIsBegunAfterTheDeadline(t *testing.T) {
	s := store.OpenBolt(t.TempDir())
	update(t, s, put("a", "x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantUnavailable(ctx, t, s)
	wantAll(t, s, map[string]string{"a": "x"})
}
