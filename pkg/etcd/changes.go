package etcd

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// outcome runs the closure and returns what etcd is to be told of its writes, nil for a deletion: nothing of those
// that change nothing. If there is anything the snapshot has a revision.
func (t *tx) outcome(fn func(store.Tx) error) (map[string][]byte, error) {
	if err := t.run(fn); err != nil {
		return nil, err
	}
	changes := map[string][]byte{}
	packs := map[string]map[string]string{}
	for key, value := range t.writes {
		pack, member := packOf(key)
		if pack == "" {
			if kv, known := t.snapshot.known(key); !known || (kv == nil) != (value == nil) || !bytes.Equal(kv.GetValue(), value) {
				changes[key] = value
			}
			continue
		}
		if packs[pack] == nil {
			members, err := t.pack(pack)
			if err != nil {
				return nil, err
			}
			packs[pack] = maps.Clone(members)
		}
		if value == nil {
			delete(packs[pack], member)
		} else {
			packs[pack][member] = string(value)
		}
	}
	for pack, members := range packs {
		if maps.Equal(members, t.packs[pack]) {
			continue
		}
		value, err := encode(pack, members)
		if err != nil {
			return nil, err
		}
		changes[pack] = value
	}
	if len(changes) == 0 {
		return nil, nil
	}
	return changes, t.snapshot.pin()
}

// encode returns a pack as it is in etcd, nil without members.
func encode(pack string, members map[string]string) ([]byte, error) {
	if len(members) == 0 {
		return nil, nil
	}
	value, err := json.Marshal(members)
	if err == nil && len(value) > maxValue {
		err = vnet.Invalidf("the records packed in %s have %d bytes, etcd takes no more than %d", pack, len(value), maxValue)
	}
	return value, err
}

// operations are the changes as etcd takes them.
func operations(prefix string, changes map[string][]byte) []clientv3.Op {
	var ops []clientv3.Op
	deletes := false
	for _, key := range slices.Sorted(maps.Keys(changes)) {
		if value := changes[key]; value != nil {
			ops = append(ops, clientv3.OpPut(prefix+key, string(value)))
		} else {
			ops = append(ops, clientv3.OpDelete(prefix+key))
			deletes = true
		}
	}
	if deletes {
		ops = append(ops, clientv3.OpPut(prefix+deletedKey, ""))
	}
	return ops
}
