package ovs

import (
	"maps"

	"github.com/ovn-kubernetes/libovsdb/ovsdb"
)

// Columns arrive as libovsdb decodes them: an atom, or an OvsSet where the column is optional and empty or has
// several values, or an OvsMap. These give them back as plain values; what is absent is the zero value.

// atoms is the column as a list.
func atoms(v any) []any {
	switch v := v.(type) {
	case nil:
		return nil
	case ovsdb.OvsSet:
		return v.GoSet
	default:
		return []any{v}
	}
}

func text(row ovsdb.Row, column string) string {
	if a := atoms(row[column]); len(a) == 1 {
		t, _ := a[0].(string)
		return t
	}
	return ""
}

func texts(row ovsdb.Row, column string) []string {
	var list []string
	for _, a := range atoms(row[column]) {
		if t, ok := a.(string); ok {
			list = append(list, t)
		}
	}
	return list
}

func number(row ovsdb.Row, column string) int {
	if a := atoms(row[column]); len(a) == 1 {
		f, _ := a[0].(float64) // JSON's only number
		return int(f)
	}
	return 0
}

func uuidOf(row ovsdb.Row) string {
	u, _ := row["_uuid"].(ovsdb.UUID)
	return u.GoUUID
}

// portsOf is the column ports of a row of table Bridge.
func portsOf(row ovsdb.Row) []string {
	var list []string
	for _, a := range atoms(row["ports"]) {
		if u, ok := a.(ovsdb.UUID); ok {
			list = append(list, u.GoUUID)
		}
	}
	return list
}

func pairs(row ovsdb.Row, column string) map[string]string {
	m, _ := row[column].(ovsdb.OvsMap)
	out := make(map[string]string, len(m.GoMap))
	for k, v := range m.GoMap {
		k, _ := k.(string)
		out[k], _ = v.(string)
	}
	return out
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

// disowned takes the owner's mark out of external_ids again; ok tells whether there was one.
func disowned(ids map[string]string) (owner string, ok bool) { //nolint:nonamedreturns // two values of one map read
	owner, ok = ids[OwnerKey]
	delete(ids, OwnerKey)
	return owner, ok
}
