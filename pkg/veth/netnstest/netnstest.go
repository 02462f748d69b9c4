// Package netnstest gives tests network namespaces. Without root a test is skipped, unless the environment's
// TENET_REQUIRE names "netns": then it fails, so that a skip cannot pass for a run.
package netnstest

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Enter puts the calling goroutine, which must be the test's own, into a network namespace of its own, in which nothing is up,
// until the test ends. Called again it goes on into another one.
func Enter(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		const why = "network namespaces need root"
		if slices.Contains(strings.Split(os.Getenv("TENET_REQUIRE"), ","), "netns") {
			tb.Fatalf("TENET_REQUIRE has netns, but %s", why)
		}
		tb.Skip(why)
	}
	runtime.LockOSThread()
	home, err := netns.Get()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if netns.Set(home) == nil { // else the thread ends with the test
			runtime.UnlockOSThread()
		}
		_ = home.Close()
	})
	mine, err := netns.New()
	if err != nil {
		tb.Fatal(err)
	}
	_ = mine.Close() // the thread keeps it
}

// New makes a network namespace, which ends with the test, and returns its path. The caller's thread stays where it is.
func New(tb testing.TB, name string) string {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	here, err := netns.Get()
	must(err)
	defer here.Close() //nolint:errcheck // nothing to lose
	ns, err := netns.New()
	must(err)
	defer ns.Close()      //nolint:errcheck // nothing to lose
	defer netns.Set(here) //nolint:errcheck // a thread elsewhere is found out by the first that the test does
	path := filepath.Join(tb.TempDir(), name)
	must(os.WriteFile(path, nil, 0o600))
	must(unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""))
	tb.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	return path
}
