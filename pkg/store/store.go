// Package store keeps a node's records: tenants, networks, address pools and endpoints.
//
// Store and Tx are the interface; Bolt (bolt.go) keeps a node's records in one file. Keys are
// written in keys.go and nowhere else; declare.go holds what must stay true between records.
package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Store runs transactions: all of what a closure wrote is kept, or nothing.
//
// Errors: vnet.ErrUnavailable if the store cannot be opened before ctx ends, vnet.ErrCorrupt if
// it cannot be read (nothing is overwritten then), or the closure's own, unchanged.
type Store interface {
	// Update runs fn once or more until it commits; fn's error rolls everything back.
	Update(ctx context.Context, fn func(Tx) error) error
	// View runs fn over a state that does not change meanwhile; Put and Delete fail in it.
	View(ctx context.Context, fn func(Tx) error) error
}

// Tx is a transaction: keys are slash-separated paths, values JSON. It is valid only in its closure.
type Tx interface {
	// Get returns the value of key, nil if there is none. The value may not be kept or changed.
	Get(key string) []byte
	Put(key string, value []byte) error
	// Delete is no error if there is no such key.
	Delete(key string) error
	// Range visits the keys that start with prefix, in order, until visit returns an error,
	// which it returns; ErrStop ends it without one. Visit may not write.
	Range(prefix string, visit func(key string, value []byte) error) error
}

// ErrStop is what a visitor returns to end a Range without an error.
var ErrStop = errors.New("stop")

// Load decodes the record at key. vnet.ErrNotFound if there is none, vnet.ErrCorrupt if it is
// not a T: a record with unknown fields was written by a newer tenet, and is not for us to cut.
// In a cluster nodes are of several versions for a time: see shared.go.
func Load[T any](tx Tx, key string) (T, error) {
	value := tx.Get(key)
	if value == nil {
		var none T
		return none, vnet.NotFoundf("no record %s", key)
	}
	return decodeIn[T](tx, key, value)
}

func decode[T any](key string, value []byte) (T, error) {
	var record T
	d := json.NewDecoder(bytes.NewReader(value))
	d.DisallowUnknownFields()
	err := d.Decode(&record)
	if err == nil && (d.InputOffset() != int64(len(value)) || string(value) == "null") {
		err = errors.New("not one JSON value")
	}
	if err != nil {
		return record, fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
	}
	return record, nil
}

// Save encodes record at key.
func Save(tx Tx, key string, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	if isShared(tx) {
		if value, err = keepUnknown(tx.Get(key), value, record); err != nil {
			return fmt.Errorf("record %s: %w", key, err)
		}
	}
	return tx.Put(key, value)
}

// All decodes every record whose key starts with prefix.
func All[T any](tx Tx, prefix string) ([]T, error) {
	var records []T
	err := Each(tx, prefix, func(_ string, record T, err error) error {
		records = append(records, record)
		return err
	})
	return records, err
}

// Each is All for who can do without those that cannot be read, of which it says why. Visit is as in Range.
func Each[T any](tx Tx, prefix string, visit func(key string, record T, err error) error) error {
	return tx.Range(prefix, func(key string, value []byte) error {
		record, err := decodeIn[T](tx, key, value)
		return visit(key, record, err)
	})
}
