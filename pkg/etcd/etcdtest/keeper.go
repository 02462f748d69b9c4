package etcdtest

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// A keeper works from one thread that lives as long as its member. That gives what it does the thread's network
// namespace, and the processes it starts a death signal that means the end of the test process. (PR_SET_PDEATHSIG
// fires when the parent *thread* ends, and Go ends threads whose goroutine returned with the thread locked, as tests
// that switch namespaces do.)
type keeper struct {
	work chan func()
	done chan struct{}
}

// newKeeper makes a keeper in the network namespace at a path, or in the test's own if it is empty.
func newKeeper(netns string) (*keeper, error) {
	k := &keeper{work: make(chan func()), done: make(chan struct{})}
	ready := make(chan error)
	go func() {
		defer close(k.done)
		// Never unlocked: the thread may have changed its namespace, and must end with this goroutine.
		runtime.LockOSThread()
		err := enter(netns)
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

func enter(netns string) error {
	if netns == "" {
		return nil
	}
	fd, err := unix.Open(netns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", netns, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", netns, err)
	}
	return nil
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

// dial connects to an IP address and port from the keeper's namespace.
func (k *keeper) dial(ctx context.Context, addr string) (net.Conn, error) {
	type answer struct {
		conn net.Conn
		err  error
	}
	answers := make(chan answer)
	k.work <- func() {
		var d net.Dialer
		conn, err := d.DialContext(ctx, "tcp", addr)
		answers <- answer{conn, err}
	}
	a := <-answers
	return a.conn, a.err
}

// free tells whether nobody in the keeper's namespace listens on an IP address and port, and it can be listened on.
func (k *keeper) free(ctx context.Context, addr string) bool {
	ok := make(chan bool)
	k.work <- func() {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", addr)
		if err == nil {
			_ = l.Close()
		}
		ok <- err == nil
	}
	return <-ok
}
