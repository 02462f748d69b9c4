package store

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// lockFile holds all locks between the processes of a node, one byte for each name. Nothing of
// a lock is left when its holder dies, and none needs a file of its own.
const lockFile = "node.lock"

// Lock waits until nobody else holds the lock of that name in the data directory dir, which is
// made if it is missing. Release it with the function returned. Waiting ends with ctx, with
// vnet.ErrUnavailable; a waiter is woken at once.
func Lock(ctx context.Context, dir, name string) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, lockError(name, err)
	}
	f, err := openLocks(dir)
	if err != nil {
		return nil, lockError(name, err)
	}
	locked := make(chan error, 1)
	go func() { locked <- setLock(f, name, unix.F_OFD_SETLKW) }()
	select {
	case err := <-locked:
		if err != nil {
			return nil, lockError(name, errors.Join(err, f.Close()))
		}
		return unlock(f), nil
	case <-ctx.Done():
		go func() { // the lock may still come: let it go again
			if err := <-locked; err == nil {
				unlock(f)()
			}
		}()
		return nil, lockError(name, fmt.Errorf("another process holds it: %w", ctx.Err()))
	}
}

// TryLock takes the lock if nobody has it, and returns nil if somebody does.
func TryLock(dir, name string) (func(), error) {
	f, err := openLocks(dir)
	if err != nil {
		return nil, lockError(name, err)
	}
	err = setLock(f, name, unix.F_OFD_SETLK)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return nil, f.Close()
	case err != nil:
		return nil, lockError(name, errors.Join(err, f.Close()))
	}
	return unlock(f), nil
}

// unlock closes the file: the lock goes with its last descriptor.
func unlock(f *os.File) func() { return func() { _ = f.Close() } }

func openLocks(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
}

func lockError(name string, err error) error {
	return vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("lock %s: %w", name, err))
}

// setLock locks the byte that the name's hash points at (open file description locks, fcntl(2)).
func setLock(f *os.File, name string, cmd int) error {
	sum := sha256.Sum256([]byte(name))
	at := int64(binary.BigEndian.Uint64(sum[:8]) >> 2) // a file offset is signed
	for {
		err := unix.FcntlFlock(f.Fd(), cmd, &unix.Flock_t{Type: unix.F_WRLCK, Start: at, Len: 1})
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
