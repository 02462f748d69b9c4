package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Inside runs f on a thread that is in the network namespace at path. What f makes there (sockets, processes) stays
// there; goroutines that it starts are elsewhere. f must not end the test.
func Inside(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		done <- func() error {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return fmt.Errorf("namespace %s: %w", path, err)
			}
			defer unix.Close(fd) //nolint:errcheck // nothing to lose
			if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("enter namespace %s: %w", path, err)
			}
			return f()
		}()
	}()
	return <-done
}

// newNetNS makes a network namespace with its loopback up, bound to a path that the test's end removes.
func newNetNS(tb testing.TB, name string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	Must(tb, os.WriteFile(path, nil, 0o600))
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err == nil {
			err = unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}
		made <- err
	}()
	Must(tb, <-made)
	tb.Cleanup(func() { _ = unix.Unmount(path, unix.MNT_DETACH) })
	_, err := RunIn(tb, path, "ip", "link", "set", "lo", "up")
	Must(tb, err)
	return path
}

// RunIn runs a program in the namespace at path and returns what it prints; the error has all its words.
func RunIn(tb testing.TB, path string, args ...string) (string, error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), Patience())
	defer cancel()
	var out bytes.Buffer
	err := Inside(path, func() error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd.Run()
	})
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out.String())
	}
	return strings.TrimSpace(out.String()), err
}

// ip runs commands of ip(8) in the namespace at path, all by one process.
func ip(tb testing.TB, path string, commands ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), Patience())
	defer cancel()
	var out bytes.Buffer
	err := Inside(path, func() error {
		cmd := exec.CommandContext(ctx, "ip", "-batch", "-")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(strings.Join(commands, "\n")), &out, &out
		return cmd.Run()
	})
	if err != nil {
		tb.Fatalf("ip: %v\n%s\n%s", err, strings.Join(commands, "\n"), out.String())
	}
}

// nft runs nftables' commands in the namespace at path, one a line, all or none.
func nft(tb testing.TB, path, commands string) {
	tb.Helper()
	_, err := RunIn(tb, path, "nft", commands)
	Must(tb, err)
}
