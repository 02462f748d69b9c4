package node_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// An attachment's lock shuts out others, not other attachments, and the wait for it ends with
// the caller's time.
func TestOneAtATimeForAnAttachment(t *testing.T) {
	n := node.Open(node.Config{DataDir: t.TempDir()}, nil)
	unlock, err := n.LockAttachment(t.Context(), "aaaa")
	if err != nil {
		t.Fatal(err)
	}
	other, err := n.LockAttachment(t.Context(), "bbbb")
	if err != nil {
		t.Fatal(err)
	}
	other()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.LockAttachment(ctx, "aaaa"); !errors.Is(err, vnet.ErrUnavailable) {
		t.Fatalf("a second lock: %v, want %v", err, vnet.ErrUnavailable)
	}
	unlock()
	again, err := n.LockAttachment(t.Context(), "aaaa")
	if err != nil {
		t.Fatal(err)
	}
	again()
}

// A lock dies with its holder, however that dies.
func TestLockOfADeadProcessIsFree(t *testing.T) {
	if holding := os.Getenv("TENET_TEST_HOLD"); holding != "" {
		if _, err := node.Open(node.Config{DataDir: holding}, nil).LockAttachment(t.Context(), "aaaa"); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stdout.WriteString("held\n"); err != nil {
			t.Fatal(err)
		}
		select {}
	}
	dir := t.TempDir()
	holder := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^"+t.Name()+"$")
	holder.Env = append(os.Environ(), "TENET_TEST_HOLD="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	n := node.Open(node.Config{DataDir: dir}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.LockAttachment(ctx, "aaaa"); err == nil {
		t.Fatal("the lock is free while its holder lives")
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait()
	unlock, err := n.LockAttachment(t.Context(), "aaaa")
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
