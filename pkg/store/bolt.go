package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	bolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Bolt is a node's store: one bbolt file, opened for each transaction and closed after it, so
// that nobody holds it while dialling, executing or waiting.
type Bolt struct{ dir string }

const (
	boltFile   = "node.db"
	bucketName = "tenet"
	version    = "1"
)

// OpenBolt returns the store in dir. Nothing is touched before the first Update, which makes
// the directory (0700) and the file (0600).
func OpenBolt(dir string) *Bolt { return &Bolt{dir} }

// Path returns the path of the database file.
func (b *Bolt) Path() string { return filepath.Join(b.dir, boltFile) }

// Update runs fn in a read-write transaction. See Store.
func (b *Bolt) Update(ctx context.Context, fn func(Tx) error) error {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return b.unavailable(err)
	}
	return b.with(ctx, false, func(db *bolt.DB) error {
		var refused error // by the version or the closure; what bbolt itself says has no kind yet
		err := db.Update(func(tx *bolt.Tx) error {
			bucket, err := tx.CreateBucketIfNotExists([]byte(bucketName))
			if err != nil {
				return err
			}
			t := boltTx{bucket, new(bool)}
			if refused = checkVersion(t); refused != nil {
				return refused
			}
			if t.Get(versionKey) == nil {
				if err := t.Put(versionKey, []byte(version)); err != nil {
					return err
				}
			}
			refused = t.run(fn)
			return refused
		})
		if err != nil && refused == nil {
			return b.unavailable(err) // such as a full disk
		}
		return err
	})
}

// View runs fn in a read-only transaction. A store that is not there yet is empty. See Store.
func (b *Bolt) View(ctx context.Context, fn func(Tx) error) error {
	// The first Update makes the file before it writes to it; one that was cut off there leaves no byte.
	if info, err := os.Stat(b.Path()); errors.Is(err, os.ErrNotExist) || err == nil && info.Size() == 0 {
		return fn(emptyTx{})
	}
	return b.with(ctx, true, func(db *bolt.DB) error {
		return db.View(func(tx *bolt.Tx) error {
			t := boltTx{tx.Bucket([]byte(bucketName)), new(bool)}
			if t.bucket == nil {
				return t.run(func(Tx) error { return fn(emptyTx{}) })
			}
			if err := checkVersion(t); err != nil {
				return err
			}
			return t.run(fn)
		})
	})
}

// leastSpace is what a change may need on the file system, in bytes.
const leastSpace = 64 << 10

// Writable returns nil if an Update would find the store usable; it changes nothing.
func (b *Bolt) Writable(ctx context.Context) error {
	dir := b.dir
	for { // the directory may not be there yet: then the nearest one above must take it
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, os.ErrNotExist) || dir == filepath.Dir(dir) {
			return b.unavailable(err)
		}
		dir = filepath.Dir(dir)
	}
	const writeAndSearch = 2 | 1 // W_OK | X_OK of access(2)
	if err := syscall.Access(dir, writeAndSearch); err != nil {
		return b.unavailable(&os.PathError{Op: "write", Path: dir, Err: err})
	}
	var st syscall.Statfs_t
	const readOnly = 1 // ST_RDONLY of statfs(2); root passes access(2) on some file systems
	if err := syscall.Statfs(dir, &st); err == nil && st.Flags&readOnly != 0 {
		return b.unavailable(&os.PathError{Op: "write", Path: dir, Err: syscall.EROFS})
	} else if err == nil && st.Bfree*uint64(st.Bsize) < leastSpace {
		return b.unavailable(&os.PathError{Op: "write", Path: dir, Err: syscall.ENOSPC})
	}
	return b.View(ctx, func(Tx) error { return nil })
}

// with opens the database, runs fn and closes it. Reading a damaged file can panic or fault
// (it is mapped into memory): both become vnet.ErrCorrupt. An ownPanic goes on as what it was.
func (b *Bolt) with(ctx context.Context, readOnly bool, fn func(*bolt.DB) error) (err error) {
	// bbolt would ask for its own lock every 50 ms.
	unlock, err := Lock(ctx, b.dir, "store")
	if err != nil {
		return b.unavailable(err)
	}
	defer unlock()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	var file *os.File // bbolt's
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		// bbolt may have died with its own mutexes held: its Close would wait for them for
		// ever. Its mapping stays, and would keep the file locked too.
		if file != nil {
			_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN)
			_ = file.Close()
		}
		if own, ok := r.(ownPanic); ok {
			panic(own.value) //nolint:forbidigo // it is not ours
		}
		err = b.corrupt(fmt.Errorf("%v", r))
	}()
	db, err := bolt.Open(b.Path(), 0o600, &bolt.Options{
		ReadOnly: readOnly,
		Timeout:  patience(ctx),
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			var err error
			file, err = os.OpenFile(name, flag, mode)
			return file, err
		},
	})
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return b.unavailable(errors.New("another program keeps the file locked"))
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch),
		err != nil && strings.HasPrefix(err.Error(), "file size too small"): // bbolt has no value for it
		return b.corrupt(err)
	case err != nil:
		return b.unavailable(err)
	}
	err = fn(db)
	if cerr := db.Close(); cerr != nil && err == nil {
		err = b.unavailable(cerr)
	}
	return err
}

// patience is how long to wait for a stranger who has the file locked: our own processes are
// shut out by our own lock. It ends with ctx, and is never 0, which would mean for ever.
func patience(ctx context.Context) time.Duration {
	longest := time.Second
	if deadline, ok := ctx.Deadline(); ok {
		longest = min(longest, time.Until(deadline))
	}
	return max(longest, time.Millisecond)
}

func (b *Bolt) unavailable(err error) error {
	return fmt.Errorf("store %s: %w: %w", b.Path(), vnet.ErrUnavailable, err)
}

func (b *Bolt) corrupt(err error) error {
	return vnet.WithHint(fmt.Errorf("store %s: %w: %w", b.Path(), vnet.ErrCorrupt, err),
		"nothing was overwritten; restore %s from a copy, or move it away and attach the containers again", b.Path())
}

// checkVersion refuses a store that a newer tenet has written.
func checkVersion(tx Tx) error {
	if v := tx.Get(versionKey); v != nil && !bytes.Equal(v, []byte(version)) {
		return fmt.Errorf("store has format %.20q, this program knows %s: %w", v, version, vnet.ErrCorrupt)
	}
	return nil
}

// boltTx is a transaction of bbolt's.
type boltTx struct {
	bucket *bolt.Bucket
	inside *bool // bbolt is at work, and what panics is not the caller's code
}

// ownPanic is a panic of a caller's own code, which says nothing about the file, on its way
// through bbolt. The stack on which it began is still below whoever recovers it.
type ownPanic struct{ value any }

// run runs fn, and makes its panics ownPanics: all but bbolt's, and faults in values that bbolt
// has returned, which lie in the mapped file.
func (t boltTx) run(fn func(Tx) error) error {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		_, fault := r.(interface{ Addr() uintptr }) // see debug.SetPanicOnFault
		if !fault && !*t.inside {
			r = ownPanic{r}
		}
		panic(r) //nolint:forbidigo // it is not ours
	}()
	return fn(t)
}

func (t boltTx) Get(key string) []byte {
	*t.inside = true
	value := t.bucket.Get([]byte(key))
	*t.inside = false
	return value
}

func (t boltTx) Put(key string, value []byte) error {
	*t.inside = true
	err := t.bucket.Put([]byte(key), value)
	*t.inside = false
	return err
}

func (t boltTx) Delete(key string) error {
	*t.inside = true
	err := t.bucket.Delete([]byte(key))
	*t.inside = false
	return err
}

func (t boltTx) Range(prefix string, visit func(key string, value []byte) error) error {
	*t.inside = true
	c := t.bucket.Cursor()
	for k, v := c.Seek([]byte(prefix)); k != nil && bytes.HasPrefix(k, []byte(prefix)); k, v = c.Next() {
		key := string(k)
		*t.inside = false
		if err := visit(key, v); err != nil {
			if errors.Is(err, ErrStop) {
				return nil
			}
			return err
		}
		*t.inside = true
	}
	*t.inside = false
	return nil
}

// emptyTx is a store that does not exist yet.
type emptyTx struct{}

func (emptyTx) Get(string) []byte                              { return nil }
func (emptyTx) Put(string, []byte) error                       { return berrors.ErrTxNotWritable }
func (emptyTx) Delete(string) error                            { return berrors.ErrTxNotWritable }
func (emptyTx) Range(string, func(string, []byte) error) error { return nil }
