package main

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/store"
)

// ends runs tenetd and fails the test unless it ends with that code, saying these words.
func ends(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, stop := context.WithCancel(t.Context())
	stop() // where it would run on, it ends at once
	if got := run(ctx, args, &out, &errs); got != code || !strings.Contains(out.String()+errs.String(), words) {
		t.Errorf("tenetd %v ends with %d, want %d and %q:\n%s%s", args, got, code, words, out.String(), errs.String())
	}
}

func TestCommandLine(t *testing.T) {
	ends(t, exitDone, "Examples:", "--help")
	ends(t, exitDone, "tenetd unknown", "--version")
	ends(t, exitUsage, "hint: tenetd --help", "--nonsense")
	ends(t, exitUsage, "takes no arguments", "now")
	ends(t, exitUsage, "log-level", "--log-level=loud")
	ends(t, exitFailed, "no such file", "--config=/nonexistent.json")
	ends(t, exitFailed, "must be an absolute path", "--data-dir=here")
}

// configured writes a node's configuration with a directory of its own for everything, and these keys, and returns the file.
func configured(t *testing.T, dir string, keys map[string]any) string {
	t.Helper()
	all := map[string]any{"dataDir": dir, "ovsRunDir": dir, "socket": filepath.Join(dir, "sock"), "metrics": "off"}
	maps.Copy(all, keys)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "tenet.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// A node has one; and without a switch it waits for one rather than fail.
func TestOneForADataDirectory(t *testing.T) {
	dir := t.TempDir()
	ends(t, exitDone, "tenetd ends", "--data-dir="+dir, "--ovs-run-dir="+dir)
	unlock, err := store.TryLock(dir, "tenetd")
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ends(t, exitFailed, "another tenetd runs", "--data-dir="+dir, "--ovs-run-dir="+dir)
}

// A sync that looks just then whether a tenetd runs does not keep one from beginning.
func TestBeginsOnceASyncIsOver(t *testing.T) {
	dir := t.TempDir()
	unlock, err := store.TryLock(dir, "tenetd")
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, unlock)
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Second)
	defer stop()
	var out, errs bytes.Buffer
	if code := run(ctx, []string{"--config=" + configured(t, dir, nil)}, &out, &errs); code != exitDone {
		t.Errorf("it ends with %d: %s", code, errs.String())
	}
}
