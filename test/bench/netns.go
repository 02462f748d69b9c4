package main

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// A namespace is a network namespace that lives as long as its descriptor is open: it is mounted nowhere.
type namespace struct {
	file *os.File
	path string // leads every process to it, as CNI_NETNS must
}

func openNamespace(path string) (namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return namespace{}, err
	}
	return namespace{file: f, path: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), f.Fd())}, nil
}

func newNamespace() (namespace, error) {
	var n namespace
	err := onThread(func() error {
		err := unix.Unshare(unix.CLONE_NEWNET)
		if err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		n, err = openNamespace("/proc/thread-self/ns/net")
		return err
	})
	return n, err
}

// do runs f on a thread that is in the namespace. Goroutines that f starts are elsewhere.
func (n namespace) do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter a network namespace: %w", err)
		}
		return f()
	})
}

// onThread runs f on a thread that ends with it.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- f()
	}()
	return <-done
}

// quiet keeps IPv6 off the links that are made in the namespace while f runs: the chatter of a thousand idle
// containers, each with its own link-local address to defend, is not what is measured.
func (n namespace) quiet(f func() error) error {
	set := func(value string) error {
		return n.do(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte(value), 0o600)
		})
	}
	if err := set("1"); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err
	}
	return set("0")
}
