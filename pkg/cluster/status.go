package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Report is what tenetd tells of its node: it answers socket.Status, and Prometheus is told the same.
type Report struct {
	Version string `json:"version"` // of tenetd
	node.Report

	Cluster *Status `json:"cluster"` // null: the node is one on its own
}

// Status is what the agent says of itself.
type Status struct {
	Node      vnet.NodeName `json:"node"`
	Joined    bool          `json:"joined"`
	Connected bool          `json:"connected"` // etcd answers
	Revision  int64         `json:"revision"`  // of etcd: the latest of which the node has something
	// Lag is for how many seconds the node may not have what etcd has: etcd has not been heard of, or what came from it has not
	// been taken over yet.
	Lag     float64         `json:"lag"`
	Refused string          `json:"refused,omitempty"`
	Denied  *Denial         `json:"denied,omitempty"`
	Nodes   int             `json:"nodes"`
	Silent  []vnet.NodeName `json:"silent"` // their tenetd has no lease, and nobody has found out yet that they are off
	Off     []vnet.NodeName `json:"off"`

	Published   int               `json:"published"`
	Unpublished int               `json:"unpublished"` // endpoints that etcd does not have, or not as they are now
	Conflicts   []string          `json:"conflicts"`
	Failures    map[string]string `json:"failures"`
}

// Status says how the node is doing in its cluster. It reads the node's store for it; if that cannot be read before ctx ends,
// no endpoint counts as unpublished.
func (a *Agent) Status(ctx context.Context) Status {
	l, err := a.local(ctx)
	if err != nil {
		l.endpoints = nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s := Status{
		Node: a.Name, Joined: a.joined, Connected: a.connected, Revision: a.revision, Lag: a.lag().Seconds(), Nodes: len(a.nodes), Denied: a.denied,
		Silent: []vnet.NodeName{}, Off: []vnet.NodeName{}, Published: len(a.published),
		Conflicts: slices.AppendSeq([]string{}, maps.Values(a.conflicts)), Failures: maps.Clone(a.failures),
	}
	slices.Sort(s.Conflicts)
	if a.refused != nil {
		s.Refused = a.refused.Error()
	}
	for _, name := range slices.Sorted(maps.Keys(a.nodes)) {
		switch {
		case a.alive[name]:
		case a.off[name]:
			s.Off = append(s.Off, name)
		default:
			s.Silent = append(s.Silent, name)
		}
	}
	for id, r := range l.endpoints {
		if p, ok := a.published[id]; !ok || p.again || p.text != text(r) {
			s.Unpublished++
		}
	}
	return s
}

// lag is Status.Lag. The agent's state must be locked.
func (a *Agent) lag() time.Duration {
	var lag time.Duration
	if !a.connected {
		lag = time.Since(a.heardAt)
	}
	since := func(pending time.Time) {
		if !pending.IsZero() {
			lag = max(lag, time.Since(pending))
		}
	}
	since(a.pending)
	for _, t := range a.tenants {
		since(t.pending)
	}
	return lag
}

// Cut says why the node hears nothing of its cluster, "" if it does. Traffic, and what the node knows, go on in any case.
func (s Status) Cut() string {
	away := time.Duration(s.Lag * float64(time.Second)).Round(time.Second)
	switch {
	case s.Refused != "":
		return "the cluster does not want this node: " + s.Refused
	case !s.Joined:
		return "the node has not joined its cluster yet"
	case s.Denied != nil:
		return s.Denied.String()
	case !s.Connected:
		return fmt.Sprintf("etcd has not answered for %s: the node goes on with what it has", away)
	}
	return ""
}
