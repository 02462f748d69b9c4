package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// etcdPrefix is where a cluster's records are in etcd, unless a configuration says otherwise.
const etcdPrefix = "/tenet/v1/"

// settled waits until what etcd has, what the nodes have and what their switches do are one; without nodes, of all.
func (c *cluster) settled(nodes ...*lab.Host) {
	c.t.Helper()
	if len(nodes) == 0 {
		nodes = c.Nodes
	}
	var differs []string
	if !lab.Within(lab.Patience(), func() bool { differs = c.differences(nodes); return len(differs) == 0 }) {
		c.t.Errorf("etcd and the nodes have not come to agree:\n%s", strings.Join(differs, "\n"))
	}
}

// differences says how etcd's records and these nodes' differ, and their switches if the records do not.
func (c *cluster) differences(nodes []*lab.Host) []string {
	c.t.Helper()
	there := c.records("")
	differs := twice(there)
	published := map[string]string{} // what the nodes should have told
	for _, h := range nodes {
		here := storeOf(h)
		maps.Copy(published, here.tells(h))
		differs = append(differs, diff(h.Name+" lacks", h.Name+" still has", here.wants(h, there), here.knows())...)
	}
	told := map[string]string{}
	for key, text := range there {
		if name := nodeOf(key, text); slices.ContainsFunc(nodes, func(h *lab.Host) bool { return h.Name == name }) {
			told[key] = text
		}
	}
	differs = append(differs, diff("etcd lacks", "etcd still has", published, told)...)
	if len(differs) > 0 {
		return differs
	}
	for _, h := range nodes {
		if out, err := h.Tenetctl("sync", "--dry-run"); err != nil || !strings.Contains(out, "everything agrees") {
			differs = append(differs, fmt.Sprintf("%s: %s %v", h.Name, out, err))
		}
	}
	return differs
}

// diff compares records, by key.
func diff(lacks, has string, want, have map[string]string) []string {
	var differs []string
	for key, text := range want {
		if plain(have[key]) != plain(text) {
			differs = append(differs, fmt.Sprintf("%s %s %s", lacks, key, text))
		}
	}
	for key, text := range have {
		if _, ok := want[key]; !ok {
			differs = append(differs, fmt.Sprintf("%s %s %s", has, key, text))
		}
	}
	slices.Sort(differs)
	return differs
}

// plain is a record without its version, and its fields in one order.
func plain(text string) string {
	var fields map[string]any
	if json.Unmarshal([]byte(text), &fields) != nil {
		return text
	}
	delete(fields, "v")
	again, err := json.Marshal(fields)
	if err != nil {
		return text
	}
	return string(again)
}

// records are etcd's under a prefix.
func (c *cluster) records(prefix string) map[string]string {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), lab.Patience())
	defer cancel()
	got, err := c.etcd.Client().Get(ctx, etcdPrefix+prefix, clientv3.WithPrefix())
	lab.Must(c.t, err)
	records := map[string]string{}
	for _, kv := range got.Kvs {
		records[strings.TrimPrefix(string(kv.Key), etcdPrefix)] = string(kv.Value)
	}
	return records
}

// put writes a record of etcd's as nobody should.
func (c *cluster) put(key, text string) {
	c.t.Helper()
	_, err := c.etcd.Client().Put(c.t.Context(), etcdPrefix+key, text)
	lab.Must(c.t, err)
}

// erase deletes one.
func (c *cluster) erase(key string) {
	c.t.Helper()
	_, err := c.etcd.Client().Delete(c.t.Context(), etcdPrefix+key)
	lab.Must(c.t, err)
}

// twice finds addresses that two endpoints have.
func twice(records map[string]string) []string {
	var found []string
	holders := map[string]string{}
	for key, text := range records {
		var r vnet.Remote
		if !strings.HasPrefix(key, store.Endpoints) || json.Unmarshal([]byte(text), &r) != nil {
			continue
		}
		for _, p := range r.Addrs {
			address := r.Ref().String() + " " + p.Addr().String()
			if other, ok := holders[address]; ok {
				found = append(found, fmt.Sprintf("two have %s: %s and %s", address, other, key))
			}
			holders[address] = key
		}
	}
	return found
}

// neverTwice fails the test if at any moment until it ends etcd has an address that two endpoints have.
func (c *cluster) neverTwice() {
	c.t.Helper()
	ctx, stop := context.WithCancel(c.t.Context())
	records := map[string]string{}
	var watch sync.WaitGroup
	watch.Go(func() {
		for r := range c.etcd.Client().Watch(ctx, etcdPrefix+store.Endpoints, clientv3.WithPrefix(), clientv3.WithRev(1)) {
			if err := r.Err(); err != nil && ctx.Err() == nil {
				c.t.Errorf("what becomes of endpoints in etcd is not known any more: %v", err)
			}
			for _, e := range r.Events {
				key := strings.TrimPrefix(string(e.Kv.Key), etcdPrefix)
				if e.Type == clientv3.EventTypeDelete {
					delete(records, key)
				} else {
					records[key] = string(e.Kv.Value)
				}
			}
			for _, found := range twice(records) {
				c.t.Errorf("at revision %d of etcd %s", r.Header.Revision, found)
			}
		}
	})
	c.t.Cleanup(func() { stop(); watch.Wait() })
}

// nodeOf is the node that a record of etcd says is here or has something; empty: it is of something else.
func nodeOf(key, text string) string {
	p := strings.Split(key, "/")
	switch p[0] + "/" {
	case store.Endpoints:
		return p[3]
	case store.Blocks:
		var holder struct {
			Node string `json:"node"`
		}
		_ = json.Unmarshal([]byte(text), &holder)
		return holder.Node
	case "holdings/":
		if p[2]+"/" != store.Functions {
			return p[1]
		}
	}
	return ""
}

// own is what stands in a node's store.
type own struct {
	records   map[string]string
	endpoints []vnet.Endpoint
}

func storeOf(h *lab.Host) own {
	o := own{records: map[string]string{}}
	h.View(func(tx store.Tx) error {
		var err error
		if o.endpoints, err = store.All[vnet.Endpoint](tx, store.Endpoints); err != nil {
			return err
		}
		return tx.Range("", func(key string, value []byte) error {
			o.records[key] = string(value)
			return nil
		})
	})
	return o
}

// tells is what the node should have told etcd: its endpoints, its blocks, and the list of both.
func (o own) tells(h *lab.Host) map[string]string {
	list := "holdings/" + h.Name + "/"
	told := map[string]string{}
	for _, e := range o.endpoints {
		text, _ := json.Marshal(e.Publish(vnet.NodeName(h.Name))) // it has no type that fails
		told[store.EndpointsOf(e.Ref())+h.Name+"/"+string(e.ID)] = string(text)
		told[list+store.EndpointsOf(e.Ref())+string(e.ID)] = string(text)
	}
	for key := range o.records {
		if strings.HasPrefix(key, store.Blocks) {
			told[key], told[list+key] = `{"node":"`+h.Name+`"}`, ""
		}
	}
	return told
}

// shared are the records that every node has as etcd has them.
var shared = []string{store.Tenants, store.Networks, store.Groups, store.Chains}

// knows is what the node has of the cluster's.
func (o own) knows() map[string]string {
	known := map[string]string{}
	for key, text := range o.records {
		for _, prefix := range append([]string{store.Remotes, store.PeersPrefix}, shared...) {
			switch {
			case !strings.HasPrefix(key, prefix):
			case prefix == store.PeersPrefix:
				known[key] = ""
			default:
				known[key] = text
			}
		}
	}
	return known
}

// wants is what the node should have of it: what is declared, the other nodes, and all endpoints of the tenants that have
// one here, but for those on nodes that are off, and those on a wire. Of other tenants it may keep for a while what it has.
func (o own) wants(h *lab.Host, there map[string]string) map[string]string {
	want := map[string]string{}
	for key, text := range there {
		for _, prefix := range shared {
			if strings.HasPrefix(key, prefix) {
				want[key] = text
			}
		}
		p := strings.Split(key, "/")
		switch p[0] + "/" {
		case store.Endpoints:
			_, off := there["off/"+p[3]]
			here := slices.ContainsFunc(o.endpoints, func(e vnet.Endpoint) bool { return string(e.Tenant) == p[1] })
			remote := store.Remotes + strings.TrimPrefix(key, store.Endpoints)
			var net vnet.Network
			_ = json.Unmarshal([]byte(there[store.NetworksOf(vnet.TenantName(p[1]))+p[2]]), &net)
			if net.IsProvider() {
				continue
			}
			if _, has := o.records[remote]; p[3] != h.Name && !off && (here || has) {
				want[remote] = text
			}
		case "nodes/":
			if p[1] != h.Name {
				want[store.PeersPrefix+p[1]] = ""
			}
		}
	}
	return want
}

// holder is the node that etcd says holds the block of the address, "" for none.
func (c *cluster) holder(network string, a netip.Addr) string {
	c.t.Helper()
	for key, text := range c.records(store.Blocks + network + "/") {
		if p, err := netip.ParsePrefix(strings.TrimPrefix(key, store.Blocks+network+"/")); err == nil && p.Contains(a) {
			return nodeOf(key, text)
		}
	}
	return ""
}
