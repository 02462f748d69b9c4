package veth

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// CheckNetNS tells whether path is a network namespace: nil, or an error that
// is ErrNetNS, and fs.ErrNotExist too if nothing is there.
func CheckNetNS(path string) error {
	ns, err := openNetNS(path)
	if err != nil {
		return err
	}
	return ns.Close()
}

// openNetNS opens the network namespace at path. The file system is asked first,
// because opening whatever else may be there (a FIFO, a device) is not harmless.
func openNetNS(path string) (netns.NsHandle, error) {
	none := netns.None()
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		return none, fmt.Errorf("%w: %w", ErrNetNS, &os.PathError{Op: "open namespace", Path: path, Err: err})
	}
	if int64(fs.Type) != unix.NSFS_MAGIC { //nolint:unconvert // an int32 on some architectures
		return none, fmt.Errorf("%w: %s is %s", ErrNetNS, path, kindOfFile(path))
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return none, fmt.Errorf("%w: %w", ErrNetNS, &os.PathError{Op: "open namespace", Path: path, Err: err})
	}
	ns := netns.NsHandle(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err == nil && kind != unix.CLONE_NEWNET {
		err = errors.New("a namespace of another kind")
	}
	if err != nil {
		return none, errors.Join(fmt.Errorf("%w: %s: %w", ErrNetNS, path, err), ns.Close())
	}
	return ns, nil
}

// kindOfFile says what is at path instead of a namespace.
func kindOfFile(path string) string {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return "not a namespace"
	case info.IsDir():
		return "a directory"
	case info.Mode().IsRegular():
		return "a regular file (a namespace was mounted there, or never was)"
	}
	return "a special file, not a namespace"
}

// ends holds a netlink socket in each of the two namespaces.
type ends struct {
	ns          netns.NsHandle
	here, there *netlink.Handle
}

// openEnds opens both namespaces. The caller closes them.
func openEnds(path string) (*ends, error) {
	ns, err := openNetNS(path)
	if err != nil {
		return nil, err
	}
	e := &ends{ns: ns}
	if e.here, err = openHere(); err != nil {
		return nil, errors.Join(err, ns.Close())
	}
	own, err := netns.Get()
	if err != nil {
		e.close()
		return nil, fmt.Errorf("open the caller's network namespace: %w", err)
	}
	same := own.Equal(ns)
	if err := own.Close(); err != nil || same {
		e.close()
		if same {
			return nil, fmt.Errorf("%w: %s is the caller's own", ErrNetNS, path)
		}
		return nil, fmt.Errorf("close the caller's network namespace: %w", err)
	}
	if e.there, err = netlink.NewHandleAt(ns, unix.NETLINK_ROUTE); err != nil {
		e.close()
		return nil, fmt.Errorf("open a netlink socket in %s: %w", path, err)
	}
	return e, nil
}

// openHere opens a netlink socket in the caller's namespace.
func openHere() (*netlink.Handle, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a netlink socket: %w", err)
	}
	return h, nil
}

// close gives everything back. Nothing of it can fail in a way that matters.
func (e *ends) close() {
	for _, h := range []*netlink.Handle{e.here, e.there} {
		if h != nil {
			h.Close()
		}
	}
	_ = e.ns.Close()
}

// inside runs f on a thread that is in ns, for the two things that no socket
// can carry there: sysctls and the opening of other sockets. f must not start
// goroutines. A thread that cannot come back ends with its goroutine, because
// it is still locked to it.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("open this thread's network namespace: %w", err)
			return
		}
		defer home.Close() //nolint:errcheck // a file descriptor of a namespace has nothing to lose
		if err := netns.Set(ns); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter the container's network namespace: %w", err)
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
