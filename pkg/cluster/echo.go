package cluster

import (
	"errors"
	"strings"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// echoes are what etcd says in this node's name, as it was last heard: records that nobody else writes by the rules. What is
// not as the node told it is told once more, as others go by it.
type echoes struct {
	texts map[string]string // by key
	odd   map[string]int    // those that are not what they should be: at how many looks one after the other
}

// oftenOdd is at how many looks something has to be odd: what is told is heard of before etcd's answer is, or some time after.
const oftenOdd = 2

func newEchoes() echoes { return echoes{texts: map[string]string{}} }

// hear notes what a record has come to; nil: it has gone.
func (e *echoes) hear(key string, value []byte) {
	if value == nil {
		delete(e.texts, key)
		return
	}
	e.texts[key] = string(value)
}

// look counts what is odd: of the keys that should be there, and of those that are. The text of one that is not there is empty.
func (e *echoes) look(should []string, sound func(key, text string) bool) {
	odd := map[string]int{}
	see := func(key, text string) {
		if !sound(key, text) {
			odd[key] = e.odd[key] + 1
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
	e.odd = odd
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

// compareEchoes sees to it that what etcd has in this node's name is told once more where it is not what this node told.
func (a *Agent) compareEchoes() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.connected {
		return
	}
	again := a.compareEndpoints()
	if a.functions != nil && a.compareFunctions() {
		a.functions, again = nil, true
	}
	if again {
		a.Kick()
	}
}

// compareEndpoints reports whether some are to be told of once more. Of what this node has no endpoint of that is only said: it
// may be an impostor's.
func (a *Agent) compareEndpoints() bool {
	told := map[string]published{}
	of := map[vnet.TenantName][]string{}
	for _, p := range a.published {
		key := endpointKey(p.remote)
		told[key] = p
		if t := a.tenants[p.remote.Tenant]; t != nil && t.isKnown() { // else it may still be to be heard of
			of[p.remote.Tenant] = append(of[p.remote.Tenant], key)
		}
	}
	again := false
	for _, t := range a.tenants {
		t.own.look(of[t.name], func(key, text string) bool { return text != "" && told[key].text == text })
		for key, looks := range t.own.odd {
			p, ours := told[key]
			r, _ := parseEndpoint(key)
			log := a.log.With("tenant", r.Tenant, "network", r.Network, "endpoint", r.ID, "node", r.Node)
			switch {
			case ours && looks%oftenOdd == 0:
				log.Warn("etcd has not what this node told of an endpoint: it is told again")
				a.published[r.ID] = published{remote: p.remote}
				again = true
			case !ours && looks == oftenOdd:
				log.Error("an endpoint's record is left out of account", "why", "it is in this node's name, which has no such endpoint", "whose", "node "+string(a.Name))
			}
		}
	}
	return again
}

// compareFunctions reports whether this node's are to be told of once more.
func (a *Agent) compareFunctions() bool {
	should := make([]string, 0, len(a.functions))
	for key := range a.functions {
		should = append(should, key)
	}
	a.echoes.look(should, func(key, text string) bool {
		want, ours := a.functions[key]
		var is vnet.Instance
		if err := store.DecodeShared(key, []byte(text), &is); err != nil {
			return errors.Is(err, vnet.ErrUnavailable) // a newer tenet's, which this one left alone
		}
		is.Drained = want.Drained // the cluster's word
		return ours && is == want
	})
	again := false
	for key, looks := range a.echoes.odd {
		if looks%oftenOdd == 0 {
			a.log.Warn("etcd has not what this node told of its service functions: it is told again", "key", key)
			again = true
		}
	}
	return again
}
