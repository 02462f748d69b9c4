package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
)

// As long as endpoints that etcd told of cannot be taken over the node lags behind.
func TestEndpointsThatCannotBeTakenOverAreLag(t *testing.T) {
	s := newEtcdSays(t)
	s.connected = true
	lag := func() time.Duration {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.lag()
	}
	came := []etcd.Event{s.endpoint("n2", "e", 5)}
	cut, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.applyEndpoints(cut, s.tenants["blue"], false, came); err == nil || lag() == 0 {
		t.Errorf("nothing could be taken over (%v), and the node lags by %s", err, lag())
	}
	must(t, s.applyEndpoints(t.Context(), s.tenants["blue"], false, came))
	if lag() != 0 {
		t.Errorf("all is taken over, and the node lags by %s", lag())
	}
}
