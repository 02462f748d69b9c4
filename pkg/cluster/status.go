package cluster

import (
	"maps"
	"slices"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Status is what the agent says of itself.
type Status struct {
	Node      vnet.NodeName     `json:"node"`
	Joined    bool              `json:"joined"`
	Connected bool              `json:"connected"` // etcd answers
	Revision  int64             `json:"revision"`  // of etcd, that the node has
	Refused   string            `json:"refused,omitempty"`
	Nodes     int               `json:"nodes"`
	Off       []vnet.NodeName   `json:"off"`
	Published int               `json:"published"`
	Conflicts []string          `json:"conflicts"`
	Failures  map[string]string `json:"failures"`
}

func (a *Agent) status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{
		Node: a.Name, Joined: a.joined, Connected: a.connected, Revision: a.revision, Nodes: len(a.nodes),
		Off: slices.Sorted(maps.Keys(a.off)), Published: len(a.published),
		Conflicts: slices.Sorted(maps.Values(a.conflicts)), Failures: maps.Clone(a.failures),
	}
	if a.refused != nil {
		s.Refused = a.refused.Error()
	}
	return s
}
