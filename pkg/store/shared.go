package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The records of a cluster are read and written by nodes of several versions, for as long as it takes to replace one
// after the other. A field that one does not know it leaves out of account, and leaves in its place when it writes the
// record. Where that would not do a record says a higher version, and older nodes leave it alone.

// RecordVersion is the version of the records that this tenet writes into a cluster, and the highest that it reads.
const RecordVersion = 1

const versionField = "v"

// isShared reports whether the transaction is one on the records of a whole cluster, as a Tx says that has a method Shared.
func isShared(tx Tx) bool {
	s, ok := tx.(interface{ Shared() bool })
	return ok && s.Shared()
}

// decodeIn decodes a record as the transaction's store wants it.
func decodeIn[T any](tx Tx, key string, value []byte) (T, error) {
	if !isShared(tx) {
		return decode[T](key, value)
	}
	var record T
	if err := DecodeShared(key, value, &record); err != nil {
		return record, err
	}
	return record, nil
}

// DecodeShared decodes a record of a cluster. vnet.ErrCorrupt if it cannot be read, vnet.ErrUnavailable if it is for newer tenets only.
func DecodeShared(key string, value []byte, record any) error {
	var v struct {
		V int `json:"v"`
	}
	if object(value) {
		if err := json.Unmarshal(value, &v); err != nil {
			return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
		}
	}
	if v.V > RecordVersion {
		return vnet.WithHint(fmt.Errorf("record %s is of version %d, this tenet reads up to %d: %w", key, v.V, RecordVersion, vnet.ErrUnavailable), "bring this node's tenet up to date")
	}
	if err := json.Unmarshal(value, record); err != nil {
		return fmt.Errorf("record %s: %w: %w", key, vnet.ErrCorrupt, err)
	}
	return nil
}

// EncodeShared encodes a record for a cluster.
func EncodeShared(record any) ([]byte, error) {
	value, err := json.Marshal(record)
	if err != nil {
		return nil, err
	}
	return keepUnknown(nil, value, record)
}

func object(value []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) }

// keepUnknown adds to a record's new value the fields of the old one that its type does not have, and the version. What is
// no object has neither.
func keepUnknown(before, value []byte, record any) ([]byte, error) {
	if !object(value) {
		return value, nil
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, err
	}
	if object(before) {
		var old, known map[string]json.RawMessage
		if err := json.Unmarshal(before, &old); err != nil {
			return nil, err
		}
		if err := knownIn(before, record, &known); err != nil {
			return nil, err
		}
		maps.DeleteFunc(old, func(name string, v json.RawMessage) bool {
			_, is := known[name]
			return is || isZero(v)
		})
		maps.Copy(old, fields)
		fields = old
	}
	fields[versionField] = fmt.Appendf(nil, "%d", RecordVersion)
	return json.Marshal(fields)
}

// knownIn reads which of the fields of an encoded record its type has.
func knownIn(value []byte, record any, fields *map[string]json.RawMessage) error {
	again := reflect.New(reflect.Indirect(reflect.ValueOf(record)).Type())
	if err := json.Unmarshal(value, again.Interface()); err != nil {
		return err
	}
	text, err := json.Marshal(again.Interface())
	if err != nil {
		return err
	}
	return json.Unmarshal(text, fields)
}

// isZero reports whether a field has the value that it would have if it were not there: a known one is left out then.
func isZero(v json.RawMessage) bool {
	switch string(bytes.TrimSpace(v)) {
	case "null", "false", "0", `""`, "[]", "{}":
		return true
	}
	return false
}
