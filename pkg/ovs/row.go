package ovs

import (
	"encoding/json"
	"maps"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// A result is what one operation of a transaction answered (RFC 7047 section 5.2).
type result struct {
	Count   int    `json:"count"`
	Error   string `json:"error"`
	Details string `json:"details"`
	UUID    uuid   `json:"uuid"`
	Rows    []row  `json:"rows"`
}

// A row is decoded column by column, when asked: libovsdb decodes each value three times, 40 ms for a thousand ports.
// What is absent, or of another type than asked for, is the zero value.
type row map[string]json.RawMessage

// text is a string, or an optional one.
func (r row) text(column string) string {
	return one[string](r[column])
}

// number is an integer, or an optional one.
func (r row) number(column string) int {
	return one[int](r[column])
}

// texts is a set of strings.
func (r row) texts(column string) []string {
	return set[string](r[column])
}

// uuid is the row's own; among its columns must be _uuid.
func (r row) uuid() string { return string(one[uuid](r["_uuid"])) }

// uuids is a set of references.
func (r row) uuids(column string) []uuid {
	return set[uuid](r[column])
}

// pairs is a map of strings.
func (r row) pairs(column string) map[string]string {
	list := inside[[2]string]("map", r[column])
	m := make(map[string]string, len(list))
	for _, kv := range list {
		m[kv[0]] = kv[1]
	}
	return m
}

// A uuid is written ["uuid","550e8400-…"].
type uuid string

func (u *uuid) UnmarshalJSON(b []byte) error {
	var pair [2]string
	if err := json.Unmarshal(b, &pair); err != nil {
		return err
	}
	*u = uuid(pair[1])
	return nil
}

// set is a column's values: an atom stands for a set of one (RFC 7047 section 5.1).
func set[T any](raw json.RawMessage) []T {
	if list := inside[T]("set", raw); list != nil {
		return list
	}
	var v T
	if len(raw) == 0 || json.Unmarshal(raw, &v) != nil {
		return nil
	}
	return []T{v}
}

// one is a column's only value.
func one[T any](raw json.RawMessage) T {
	var zero T
	if list := set[T](raw); len(list) == 1 {
		return list[0]
	}
	return zero
}

// inside is the list in ["set",[…]] or ["map",[…]]; nil if it is none.
func inside[T any](kind string, raw json.RawMessage) []T {
	if len(raw) == 0 || raw[0] != '[' {
		return nil
	}
	var tagged [2]json.RawMessage
	if json.Unmarshal(raw, &tagged) != nil || string(tagged[0]) != `"`+kind+`"` {
		return nil
	}
	list := []T{}
	if json.Unmarshal(tagged[1], &list) != nil {
		return nil
	}
	return list
}

func toMap(m map[string]string) ovsdb.OvsMap {
	out := ovsdb.OvsMap{GoMap: make(map[any]any, len(m))}
	for k, v := range m {
		out.GoMap[k] = v
	}
	return out
}

func toSet[T any](list []T) ovsdb.OvsSet {
	out := ovsdb.OvsSet{GoSet: make([]any, len(list))}
	for i, v := range list {
		out.GoSet[i] = v
	}
	return out
}

// owned is external_ids with the owner's mark in it.
func owned(owner string, ids map[string]string) map[string]string {
	out := maps.Clone(ids)
	if out == nil {
		out = map[string]string{}
	}
	out[OwnerKey] = owner
	return out
}

// owner is who a row belongs to; empty if it is not ours.
func (r row) owner() string { return r.pairs("external_ids")[OwnerKey] }

// ids is external_ids without the owner's mark.
func (r row) ids() map[string]string {
	m := r.pairs("external_ids")
	delete(m, OwnerKey)
	return m
}
