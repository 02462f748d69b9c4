package etcd

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A change of a chain can take hundreds of numbers, each with a record that says whose it is. One key of etcd's keeps
// as many of them as 64: the record path-ids/130 is the member "130" of the JSON object at packed/path-ids/2.
const (
	packed  = "packed/"
	perPack = 64
)

// packedDirs are the directories of such records, as keys.go of package store has them.
var packedDirs = []string{"instance-numbers/", "leg-numbers/", "path-ids/", "tenant-numbers/", "vnis/"}

// packOf returns the etcd key and the member in which a record is packed, nothing if it is not.
func packOf(key string) (string, string) {
	dir, name := split(key)
	n, err := strconv.ParseUint(name, 10, 64)
	if !slices.Contains(packedDirs, dir) || err != nil || strconv.FormatUint(n, 10) != name {
		return "", ""
	}
	return fmt.Sprintf("%s%s%d", packed, dir, n/perPack), name
}

// split cuts a key after its first slash.
func split(key string) (string, string) {
	i := strings.Index(key, "/") + 1
	return key[:i], key[i:]
}

// unpack returns the members of what is in etcd, none if nothing.
func unpack(kv *mvccpb.KeyValue) (map[string]string, error) {
	members := map[string]string{}
	if kv == nil {
		return members, nil
	}
	if err := json.Unmarshal(kv.Value, &members); err != nil || members == nil {
		return nil, fmt.Errorf("records packed in %s: %w: not an object of texts", kv.Key, vnet.ErrCorrupt)
	}
	return members, nil
}
