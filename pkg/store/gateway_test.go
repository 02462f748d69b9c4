package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// published is an endpoint with a port of the host.
func published(t *testing.T, container, hostIP string, port int) vnet.Endpoint {
	t.Helper()
	m, err := vnet.ParsePortMapping(hostIP, port, 80, "tcp")
	if err != nil {
		t.Fatal(err)
	}
	e := endpoint(container)
	e.Ports = []vnet.PortMapping{m}
	return e
}

// record writes an endpoint as an ADD does.
func record(t *testing.T, s store.Store, e *vnet.Endpoint) error {
	t.Helper()
	return s.Update(t.Context(), func(tx store.Tx) error {
		return errors.Join(store.GiveAlias(tx, e), store.GiveMeters(tx, e), store.PublishPorts(tx, *e), store.PutEndpoint(tx, e))
	})
}

func TestEachNetworkHasAZoneAndAnAddressOfItsOwnUntilItIsDeleted(t *testing.T) {
	s := empty(t)
	web, db := vnet.Ref{Tenant: "blue", Network: "web"}, vnet.Ref{Tenant: "blue", Network: "db"}
	for _, text := range []string{`{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`, `{"tenant":"blue","name":"db","subnets":[{"prefix":"10.0.1.0/24"}]}`} {
		if _, err := declare(t, s, text); err != nil {
			t.Fatal(err)
		}
	}
	gateway := func(r vnet.Ref) store.Gateway {
		var g store.Gateway
		update(t, s, func(tx store.Tx) error {
			var err error
			g, err = store.DeclareGateway(tx, r)
			return err
		})
		return g
	}
	first, other, again := gateway(web), gateway(db), gateway(web)
	if first != again || first.Zone == other.Zone || first.Transit == other.Transit || first.Zone < vnet.FirstZone || first.Transit < vnet.FirstTransit {
		t.Errorf("got %v, %v and again %v", first, other, again)
	}
	update(t, s, func(tx store.Tx) error { return store.DeleteNetwork(tx, web) })
	view(t, s, func(tx store.Tx) error {
		if tx.Get("zones/1000") != nil || tx.Get("transits/3") != nil || tx.Get("gateways/blue/web") != nil {
			t.Error("its numbers outlive the network")
		}
		return nil
	})
	if _, err := declare(t, s, `{"tenant":"blue","name":"new","subnets":[{"prefix":"10.0.2.0/24"}]}`); err != nil {
		t.Fatal(err)
	}
	if g := gateway(vnet.Ref{Tenant: "blue", Network: "new"}); g.Transit == first.Transit {
		t.Errorf("the address %d is given again at once: the host may still know who had it", g.Transit)
	}
}

func TestWhatAnEndpointHadIsFreeWhenItHasGone(t *testing.T) {
	s := empty(t)
	e := published(t, "c1", "", 8080)
	e.Bandwidth = vnet.Bandwidth{Ingress: vnet.Limit{Rate: 1e6}, Egress: vnet.Limit{Rate: 1e6}}
	if err := record(t, s, &e); err != nil {
		t.Fatal(err)
	}
	if e.Transit == 0 || e.Bandwidth.Ingress.Meter == 0 || e.Bandwidth.Egress.Meter == e.Bandwidth.Ingress.Meter {
		t.Errorf("got %d and %+v", e.Transit, e.Bandwidth)
	}
	update(t, s, func(tx store.Tx) error { return store.DeleteEndpoint(tx, e) })
	wantAll(t, s, map[string]string{"meta/next-ofport": "1025", "meta/next-transit": "4"})
}

func TestAHostPortBelongsToOneEndpoint(t *testing.T) {
	for _, tc := range []struct {
		first, second string
		taken         bool
	}{
		{"", "", true},
		{"", "192.0.2.1", true},
		{"192.0.2.1", "", true},
		{"192.0.2.1", "192.0.2.1", true},
		{"0.0.0.0", "192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"192.0.2.1", "2001:db8::1", false},
	} {
		s := empty(t)
		one, two := published(t, "c1", tc.first, 8080), published(t, "c2", tc.second, 8080)
		if err := record(t, s, &one); err != nil {
			t.Fatal(err)
		}
		err := record(t, s, &two)
		if taken := errors.Is(err, vnet.ErrExists); taken != tc.taken || taken && !strings.Contains(err.Error(), "c1/eth0") {
			t.Errorf("%q, then %q: %v", tc.first, tc.second, err)
		}
	}
}

// A node has one link to the host. It moves only when nobody is on its bridge any more.
func TestTheHostIsLinkedToOneBridge(t *testing.T) {
	s := empty(t)
	claim := func(bridge string) bool {
		has := false
		update(t, s, func(tx store.Tx) error {
			var err error
			has, err = store.ClaimGateway(tx, bridge)
			return err
		})
		return has
	}
	for range 2 {
		if !claim("br-tenet") {
			t.Error("the first bridge has not got it")
		}
	}
	e := endpoint("c1")
	update(t, s, func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
	if claim("br-other") {
		t.Error("another bridge has it, with a container on the first")
	}
	update(t, s, func(tx store.Tx) error { return store.DeleteEndpoint(tx, e) })
	if !claim("br-other") {
		t.Error("it stays with a bridge that nobody is on")
	}
}

func TestRoutedNetworksOfTwoTenantsDoNotOverlap(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, `{"tenant":"blue","name":"pub","gateway":"routed","subnets":[{"prefix":"10.5.0.0/24"}]}`); err != nil {
		t.Fatal(err)
	}
	if _, err := declare(t, s, `{"tenant":"red","name":"pub","gateway":"routed","subnets":[{"prefix":"10.5.0.128/25"}]}`); !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "blue/pub") {
		t.Errorf("got %v", err)
	}
	if _, err := declare(t, s, `{"tenant":"red","name":"pub","gateway":"nat","subnets":[{"prefix":"10.5.0.128/25"}]}`); err != nil {
		t.Errorf("one that leaves by NAT may: %v", err)
	}
}
