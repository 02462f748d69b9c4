package ovstest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A keeper starts processes from one thread that lives as long as the switch. That gives them two things: the thread's
// network namespace, and a death signal that means the end of the test process. (PR_SET_PDEATHSIG fires when the
// parent *thread* ends, and Go ends threads whose goroutine returned with the thread locked, as tests that switch
// namespaces do.)
type keeper struct {
	netns string // path of the thread's network namespace
	work  chan func()
	done  chan struct{}
}

func newKeeper(o options) (*keeper, error) {
	k := &keeper{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(k.done)
		// Never unlocked: the thread may have changed its namespace, and must end with this goroutine.
		runtime.LockOSThread()
		err := enter(o)
		k.netns = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		ready <- err
		if err != nil {
			return
		}
		for f := range k.work {
			f()
		}
	}()
	if err := <-ready; err != nil {
		return nil, err
	}
	return k, nil
}

// enter puts the calling thread into the network namespace that the options ask for.
func enter(o options) error {
	switch {
	case o.netns != "":
		fd, err := unix.Open(o.netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", o.netns, err)
		}
		defer func() { _ = unix.Close(fd) }()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", o.netns, err)
		}
	case o.real:
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("new network namespace: %w", err)
		}
		loopback := &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: 1}} // the first link of every namespace
		if err := netlink.LinkSetUp(loopback); err != nil {
			return fmt.Errorf("loopback up: %w", err)
		}
	}
	return nil
}

// canUnshare tells whether a thread may have a network namespace of its own.
func canUnshare() bool {
	k, err := newKeeper(options{real: true})
	if err != nil {
		return false
	}
	k.end()
	return true
}

// end ends the thread. The keeper must not be used again.
func (k *keeper) end() {
	close(k.work)
	<-k.done
}

// start starts cmd on the keeper's thread.
func (k *keeper) start(cmd *exec.Cmd) error {
	err := make(chan error)
	k.work <- func() { err <- cmd.Start() }
	return <-err
}

// output runs a program to its end and returns its standard output.
func (k *keeper) output(ctx context.Context, env []string, args ...string) (string, error) {
	path, err := program(args[0])
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path, args[1:]...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := k.start(cmd); err != nil {
		return "", err
	}
	if err := cmd.Wait(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(stdout.String()), nil
}
