package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// What etcd has in this node's name, of endpoints and functions, nobody else may write but for whether a function is drained.
// Others go by it: where it is not what this node told it is told again, and what this node did not tell is deleted.

// echoes are what was last heard of such records.
type echoes struct {
	texts map[string]string // by key
	odd   map[string]int    // those that were not what they should be, at how many looks in a row
}

// looksBeforeAsking is how many looks have to find something odd before etcd is asked: what is told is often heard of before
// etcd's answer is, or after a look.
const looksBeforeAsking = 2

// hear notes what a record has come to; nil: it has gone.
func (e *echoes) hear(key string, value []byte) {
	if value == nil {
		delete(e.texts, key)
		return
	}
	if e.texts == nil {
		e.texts = map[string]string{}
	}
	e.texts[key] = string(value)
}

// look returns what is odd by now: of the keys that should be there, and of those that are. The text of one that is not there is
// empty.
func (e *echoes) look(should []string, sound func(key, text string) bool) []string {
	before := e.odd
	e.odd = map[string]int{}
	var ask []string
	see := func(key, text string) {
		if sound(key, text) {
			return
		}
		if e.odd[key] = before[key] + 1; e.odd[key] >= looksBeforeAsking {
			ask = append(ask, key)
		}
	}
	for _, key := range should {
		if _, is := e.texts[key]; !is {
			see(key, "")
		}
	}
	for key, text := range e.texts {
		see(key, text)
	}
	return ask
}

// hearFunctions notes what has become of the records of this node's functions. The order is locked.
func (a *Agent) hearFunctions(whole bool, changes map[string][]byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if whole {
		clear(a.echoes.texts)
	}
	for key, value := range changes {
		if names := strings.Split(key, "/"); strings.HasPrefix(key, store.Functions) && len(names) == 5 && names[3] == string(a.Name) {
			a.echoes.hear(key, value)
		}
	}
}

// compareEchoes puts right what etcd has in this node's name, as long as it is this node's to write.
func (a *Agent) compareEchoes(ctx context.Context) error {
	endpoints, functions := a.oddEchoes()
	var errs []error
	for t, keys := range endpoints {
		for _, key := range keys {
			errs = append(errs, a.compareEndpoint(ctx, t, key))
		}
	}
	if len(functions) > 0 {
		errs = append(errs, a.compareFunctions(ctx, functions))
	}
	return errors.Join(errs...)
}

// knowsTold reports whether it is known what etcd was told: it is, under the lease under which it was asked that. The agent is locked.
func (a *Agent) knowsTold() bool { return a.lease != 0 && a.lease == a.toldUnder }

// oddEchoes are the keys of which etcd has to be asked.
func (a *Agent) oddEchoes() (map[*tenant][]string, []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.knowsTold() {
		return nil, nil
	}
	told := map[string]published{}
	of := map[vnet.TenantName][]string{}
	for _, p := range a.published {
		key := endpointKey(p.remote)
		told[key] = p
		if t := a.tenants[p.remote.Tenant]; t != nil && t.isKnown() { // else it may still be to be heard of
			of[t.name] = append(of[t.name], key)
		}
	}
	endpoints := map[*tenant][]string{}
	for _, t := range a.tenants {
		endpoints[t] = t.own.look(of[t.name], func(key, text string) bool {
			p, ours := told[key]
			return ours && (p.again || p.text == text)
		})
	}
	if a.functions == nil { // they are told anyhow
		return endpoints, nil
	}
	should := make([]string, 0, len(a.functions))
	for key := range a.functions {
		should = append(should, key)
	}
	return endpoints, a.echoes.look(should, a.functionStands)
}

// compareEndpoint puts a record right if it is not what this node told. Nobody tells of the endpoint meanwhile.
func (a *Agent) compareEndpoint(ctx context.Context, t *tenant, key string) error {
	r, _ := parseEndpoint(key)
	defer a.lockPublished(r.ID)()
	got, err := a.etcd.Client().Get(ctx, a.etcd.Prefix()+key)
	if err != nil {
		return a.told(ctx, err)
	}
	var is []byte
	if len(got.Kvs) > 0 {
		is = got.Kvs[0].Value
	}
	a.mu.Lock()
	if !a.knowsTold() {
		a.mu.Unlock()
		return nil
	}
	t.own.hear(key, is)
	p, ours := a.published[r.ID]
	ours = ours && endpointKey(p.remote) == key
	if ours && p.text != string(is) {
		p.again = true
		a.published[r.ID] = p
		a.Kick()
	}
	a.mu.Unlock()
	log := a.log.With("tenant", r.Tenant, "network", r.Network, "endpoint", r.ID)
	switch {
	case ours && p.again:
		log.Warn("etcd has not what this node told of an endpoint: it is told again")
	case !ours && is != nil:
		log.Warn("etcd has an endpoint in this node's name that it did not tell of: its record is deleted")
		_, err = a.change(ctx, nil, []clientv3.Op{clientv3.OpDelete(a.etcd.Prefix() + key), clientv3.OpDelete(a.etcd.Prefix() + heldEndpointKey(r))})
	}
	return err
}

// functionStands reports whether a function's record is what this node told. The agent is locked.
func (a *Agent) functionStands(key, text string) bool {
	want, ours := a.functions[key]
	var is vnet.Instance
	if !ours || store.DecodeShared(key, []byte(text), &is) != nil {
		return !ours && text == ""
	}
	is.Drained = want.Drained // the cluster's word
	return is == want
}

// compareFunctions has functions told of once more whose records are not what this node told, and deletes those that it did not
// tell of: paths would lead there. Nobody tells of functions meanwhile.
func (a *Agent) compareFunctions(ctx context.Context, keys []string) error {
	a.serves.Lock()
	defer a.serves.Unlock()
	texts := map[string][]byte{}
	err := a.etcd.View(ctx, func(tx store.Tx) error {
		for _, key := range keys {
			texts[key] = bytes.Clone(tx.Get(key))
		}
		return nil
	})
	if err != nil {
		a.note(ctx, err)
		return err
	}
	var strange []string
	anew := false
	a.mu.Lock()
	if a.functions == nil || !a.knowsTold() {
		a.mu.Unlock()
		return nil
	}
	for key, text := range texts {
		a.echoes.hear(key, text)
		if a.functionStands(key, string(text)) {
			continue
		}
		if _, ours := a.functions[key]; !ours {
			a.log.Warn("etcd has a service function in this node's name that it did not tell of: its record is deleted", "key", key)
			strange = append(strange, key)
			continue
		}
		a.log.Warn("etcd has not what this node told of a service function: it is told again", "key", key)
		anew = true
	}
	if anew {
		a.functions = nil
		a.Kick()
	}
	a.mu.Unlock()
	if len(strange) == 0 {
		return nil
	}
	_, err = a.update(ctx, Planned(func(tx store.Tx) error {
		err := a.inSession(tx)
		for _, key := range strange {
			err = errors.Join(err, dropFunction(tx, a.Name, key))
		}
		return err
	}))
	return err
}
