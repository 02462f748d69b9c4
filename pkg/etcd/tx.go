package etcd

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Keys of the store's own, which no transaction sees.
const (
	// deletedKey is written by every Commit that deletes, and compared by every one that has ranged: a key that is
	// gone has no revision that could be compared.
	deletedKey = "meta/deleted"
	commitKey  = "tx/commit" // see settle.go
	fenceKey   = "tx/fence"
)

func isOwn(key string) bool {
	return key == deletedKey || strings.HasPrefix(key, "tx/") || strings.HasPrefix(key, packed)
}

// maxValue is the largest record. etcd takes requests of 1.5 MiB (--max-request-bytes).
const maxValue = 1 << 20

// tx is one run of a transaction. Once a read has failed nothing is read any more, and whatever the closure makes of
// that is void: failed is what became of the run.
type tx struct {
	snapshot *snapshot
	writable bool
	writes   map[string][]byte            // nil: deleted
	packs    map[string]map[string]string // as unpacked from the snapshot
	failed   error
}

func (s *Store) begin(ctx context.Context, writable bool) *tx {
	return &tx{snapshot: s.snapshot(ctx), writable: writable, writes: map[string][]byte{}, packs: map[string]map[string]string{}}
}

// run runs the closure and returns its error, or the one that made it void.
func (t *tx) run(fn func(store.Tx) error) error {
	err := fn(t)
	if t.failed != nil {
		return t.failed
	}
	return err
}

// Shared says that the records are those of a whole cluster.
func (t *tx) Shared() bool { return true }

func (t *tx) Get(key string) []byte {
	if value, ok := t.writes[key]; ok {
		return value
	}
	if t.failed != nil || isOwn(key) {
		return nil
	}
	value, err := t.stored(key)
	t.failed = err
	return value
}

// stored returns a record as it is in the snapshot.
func (t *tx) stored(key string) ([]byte, error) {
	if pack, member := packOf(key); pack != "" {
		members, err := t.pack(pack)
		if value, ok := members[member]; ok {
			return []byte(value), err
		}
		return nil, err
	}
	kv, err := t.snapshot.get(key)
	if kv == nil {
		return nil, err
	}
	return present(kv.Value), nil
}

// present makes a value that is empty differ from none.
func present(value []byte) []byte {
	if value == nil {
		return []byte{}
	}
	return value
}

func (t *tx) pack(key string) (map[string]string, error) {
	if members, ok := t.packs[key]; ok {
		return members, nil
	}
	kv, err := t.snapshot.get(key)
	if err != nil {
		return nil, err
	}
	t.packs[key], err = unpack(kv)
	return t.packs[key], err
}

func (t *tx) Put(key string, value []byte) error {
	if err := t.mayWrite(key); err != nil {
		return err
	}
	if len(value) > maxValue {
		return vnet.Invalidf("record %s has %d bytes, etcd takes no more than %d", key, len(value), maxValue)
	}
	if pack, _ := packOf(key); pack != "" && !utf8.Valid(value) {
		return vnet.Invalidf("record %s is no text", key)
	}
	t.writes[key] = present(bytes.Clone(value))
	return nil
}

func (t *tx) Delete(key string) error {
	if err := t.mayWrite(key); err != nil {
		return err
	}
	t.writes[key] = nil
	return nil
}

func (t *tx) mayWrite(key string) error {
	dir, _ := split(key)
	pack, _ := packOf(key)
	switch {
	case !t.writable:
		return errors.New("a View writes nothing")
	case t.failed != nil:
		return t.failed
	case key == "", isOwn(key):
		return vnet.Invalidf("key %q is not for records", key)
	case pack == "" && slices.Contains(packedDirs, dir):
		return vnet.Invalidf("key %s does not end in a number", key)
	}
	return nil
}

func (t *tx) Range(prefix string, visit func(key string, value []byte) error) error {
	if t.failed != nil {
		return t.failed
	}
	records, err := t.list(prefix)
	if err != nil {
		t.failed = err
		return err
	}
	for key, value := range t.writes {
		if strings.HasPrefix(key, prefix) {
			records[key] = value
		}
	}
	for _, key := range slices.Sorted(maps.Keys(records)) {
		value := records[key]
		if value == nil {
			continue
		}
		if err := visit(key, value); errors.Is(err, store.ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// list returns the records of a prefix as they are in the snapshot.
func (t *tx) list(prefix string) (map[string][]byte, error) {
	records := map[string][]byte{}
	if dir, _ := split(prefix); !slices.Contains(packedDirs, dir) {
		kvs, err := t.snapshot.list(prefix)
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			if key := t.snapshot.store.bare(kv); !isOwn(key) {
				records[key] = present(kv.Value)
			}
		}
	}
	for _, dir := range packedDirs {
		if !strings.HasPrefix(dir, prefix) && !strings.HasPrefix(prefix, dir) {
			continue
		}
		kvs, err := t.snapshot.list(packed + dir)
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			members, err := t.pack(t.snapshot.store.bare(kv))
			if err != nil {
				return nil, err
			}
			for member, value := range members {
				if key := dir + member; strings.HasPrefix(key, prefix) {
					records[key] = []byte(value)
				}
			}
		}
	}
	return records, nil
}
