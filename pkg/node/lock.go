package node

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

// Locks between processes: one byte of one file for each name. Nothing of a lock is left when
// its holder dies, and none needs a file of its own. The order is: an attachment's, then the
// flows', then the store's.
const lockFile = "work.lock"

// LockAttachment waits until nobody else works on the endpoint. Release it with the function returned.
func (n *Node) LockAttachment(ctx context.Context, id vnet.EndpointID) (func(), error) {
	return n.lock(ctx, "attachment "+string(id))
}

// lockFlows waits until nobody else writes flows of the bridge.
func (n *Node) lockFlows(ctx context.Context) (func(), error) { return n.lock(ctx, "flows "+n.Bridge) }

func (n *Node) lock(ctx context.Context, name string) (func(), error) {
	f, err := n.openLocks()
	if err != nil {
		return nil, err
	}
	locked := make(chan error, 1)
	go func() { locked <- setLock(f, name, unix.F_OFD_SETLKW) }()
	select {
	case err := <-locked:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		return func() { f.Close() }, nil
	case <-ctx.Done():
		go func() { // the lock may still come: let it go again
			<-locked
			f.Close()
		}()
		return nil, vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("lock %s: another process holds it: %w", name, ctx.Err()))
	}
}

// tryAttachment takes the endpoint's lock if nobody has it; nil if somebody does.
func (n *Node) tryAttachment(id vnet.EndpointID) (func(), error) {
	f, err := n.openLocks()
	if err != nil {
		return nil, err
	}
	err = setLock(f, "attachment "+string(id), unix.F_OFD_SETLK)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		f.Close()
		return nil, nil //nolint:nilnil // nobody's fault: it is held
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", id, err)
	}
	return func() { f.Close() }, nil
}

func (n *Node) openLocks() (*os.File, error) {
	if err := os.MkdirAll(n.DataDir, 0o700); err != nil {
		return nil, vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("data directory: %w", err))
	}
	f, err := os.OpenFile(filepath.Join(n.DataDir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	return f, vnet.OfKind(vnet.ErrUnavailable, err)
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
