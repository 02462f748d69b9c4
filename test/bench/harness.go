package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
)

// A harness is what ovstest, etcdtest and lab need of a test: where they would fail one, try returns an error.
type harness struct {
	testing.TB // nil: what is not below is not called

	ctx context.Context // testing.TB has it so
	dir string          // for TempDir

	mu       sync.Mutex
	failed   error // the first
	cleanups []func()
}

var errHarness = errors.New("what is measured on")

// try calls f, which may call what fails a test. In f's goroutine, and in those that f starts, that ends the goroutine.
func (h *harness) try(f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed
}

func (h *harness) end() {
	for {
		h.mu.Lock()
		n := len(h.cleanups)
		if n == 0 {
			h.mu.Unlock()
			return
		}
		last := h.cleanups[n-1]
		h.cleanups = h.cleanups[:n-1]
		h.mu.Unlock()
		_ = h.try(last) // what failed has been told
	}
}

func (h *harness) fail(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed == nil {
		h.failed = fmt.Errorf("%w: %s", errHarness, text)
	}
}

// What follows is testing.TB's.

func (h *harness) Helper()                   {}
func (h *harness) Context() context.Context  { return h.ctx }
func (h *harness) Logf(f string, a ...any)   { say(f, a...) }
func (h *harness) Errorf(f string, a ...any) { say(f, a...); h.fail(fmt.Sprintf(f, a...)) }
func (h *harness) Fatal(a ...any)            { h.fail(fmt.Sprint(a...)); runtime.Goexit() }
func (h *harness) Fatalf(f string, a ...any) { h.Fatal(fmt.Sprintf(f, a...)) }
func (h *harness) FailNow()                  { h.Fatal("it failed") }
func (h *harness) Skip(a ...any)             { h.Fatal(a...) }
func (h *harness) SkipNow()                  { h.FailNow() }
func (h *harness) Skipped() bool             { return false }

func (h *harness) Cleanup(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cleanups = append(h.cleanups, f)
}

func (h *harness) Failed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failed != nil
}

func (h *harness) TempDir() string {
	dir, err := os.MkdirTemp(h.dir, "tenet-bench")
	if err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}
