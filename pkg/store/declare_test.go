package store_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// network reads a declaration.
func network(t *testing.T, text string) vnet.Network {
	t.Helper()
	var n vnet.Network
	if err := json.Unmarshal([]byte(text), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// declare declares a network in a transaction of its own.
func declare(t *testing.T, s store.Store, text string) (vnet.Network, error) {
	t.Helper()
	var n vnet.Network
	err := s.Update(t.Context(), func(tx store.Tx) error {
		var err error
		n, err = store.DeclareNetwork(tx, network(t, text))
		return err
	})
	return n, err
}

func empty(t *testing.T) store.Store {
	t.Helper()
	return store.OpenBolt(filepath.Join(t.TempDir(), "tenet"))
}

const web = `{"tenant":"blue","name":"web","vni":7,"mtu":1400,"subnets":[{"prefix":"10.0.0.0/24","reserved":["10.0.0.2-10.0.0.9"]},{"prefix":"fd00::/64"}]}`

func TestDeclaringTheSameNetworkAgainIsFine(t *testing.T) {
	s := empty(t)
	first, err := declare(t, s, web)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{
		web,
		`{"tenant":"blue","name":"web","gateway":"none","subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0.1","reserved":["10.0.0.2-10.0.0.9"]},{"prefix":"fd00::/64"}]}`,
	} {
		got, err := declare(t, s, again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, got, cmp.Comparer(func(a, b vnet.Subnet) bool { return a.Prefix == b.Prefix && a.Gateway == b.Gateway }), cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	}
}

func TestDeclarationThatConflictsNamesWhatStandsInTheWay(t *testing.T) {
	for what, test := range map[string]struct{ second, want string }{
		"another vni":              {`{"tenant":"blue","name":"web","vni":8,"subnets":[{"prefix":"10.0.0.0/24"}]}`, "vni: 8 is asked, 7 stands"},
		"another mtu":              {`{"tenant":"blue","name":"web","mtu":1300,"subnets":[{"prefix":"10.0.0.0/24"}]}`, "mtu: 1300 is asked, 1400 stands"},
		"another subnet":           {`{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.1.0/24"}]}`, "subnets: "},
		"without the reserved":     {`{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}]}`, "subnets: "},
		"vni of another network":   {`{"tenant":"red","name":"web","vni":7,"subnets":[{"prefix":"10.0.0.0/24"}]}`, "vni 7 belongs to network blue/web"},
		"overlap inside a tenant":  {`{"tenant":"blue","name":"db","subnets":[{"prefix":"10.0.0.128/25"}]}`, "subnet 10.0.0.128/25 overlaps subnet 10.0.0.0/24 of network blue/web"},
		"wider than another's":     {`{"tenant":"blue","name":"db","subnets":[{"prefix":"10.0.0.0/8"}]}`, "overlaps subnet 10.0.0.0/24"},
		"overlap in the other one": {`{"tenant":"blue","name":"db","subnets":[{"prefix":"10.9.0.0/24"},{"prefix":"fd00::/48"}]}`, "overlaps subnet fd00::/64"},
	} {
		s := empty(t)
		if _, err := declare(t, s, web); err != nil {
			t.Fatal(err)
		}
		_, err := declare(t, s, test.second)
		if !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want an ErrExists with %q", what, err, test.want)
		}
	}
}

func TestTwoTenantsMayUseTheSamePrefix(t *testing.T) {
	s := empty(t)
	blue, err := declare(t, s, `{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	red, err := declare(t, s, `{"tenant":"red","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	if blue.VNI == red.VNI || blue.VNI.Validate() != nil || red.VNI.Validate() != nil {
		t.Errorf("vnis %d and %d", blue.VNI, red.VNI)
	}
	view(t, s, func(tx store.Tx) error {
		b, err1 := store.Tenant(tx, "blue")
		r, err2 := store.Tenant(tx, "red")
		if b.Number == r.Number || b.Number == 0 || r.Number == 0 {
			t.Errorf("tenant numbers %d and %d", b.Number, r.Number)
		}
		return errors.Join(err1, err2)
	})
}

// Nodes of a fleet that declare by netconf do not speak to each other.
func TestNumberMadeFromTheNameIsTheSameOnEveryNode(t *testing.T) {
	const text = `{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`
	for range 2 {
		n, err := declare(t, empty(t), text)
		if err != nil || n.VNI != 12484649 {
			t.Errorf("vni %d, %v", n.VNI, err)
		}
	}
}

func TestChosenNumberStepsAsideForOneThatIsTaken(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, `{"tenant":"red","name":"web","vni":12484649,"subnets":[{"prefix":"10.0.0.0/24"}]}`); err != nil {
		t.Fatal(err)
	}
	n, err := declare(t, s, `{"tenant":"blue","name":"web","subnets":[{"prefix":"10.0.0.0/24"}]}`)
	if err != nil || n.VNI != 12484650 {
		t.Errorf("vni %d, %v", n.VNI, err)
	}
}

func TestNetworkAndTenantStandWhileTheyAreUsed(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	ref := vnet.Ref{Tenant: "blue", Network: "web"}
	refused := func(err error, want string) {
		t.Helper()
		if !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an ErrExists with %q", err, want)
		}
	}
	deleteNetwork := func(tx store.Tx) error { return store.DeleteNetwork(tx, ref) }
	deleteTenant := func(tx store.Tx) error { return store.DeleteTenant(tx, "blue") }

	e := endpoint("c1")
	update(t, s, func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
	refused(s.Update(t.Context(), deleteNetwork), "1 endpoints")
	update(t, s, func(tx store.Tx) error { return store.DeleteEndpoint(tx, e) })

	lease := store.Lease{Tenant: "blue", Network: "web", Holder: e.Attachment}
	update(t, s, func(tx store.Tx) error { return store.Save(tx, store.LeaseKey(e.ID), lease) })
	refused(s.Update(t.Context(), deleteNetwork), "one by c1/eth0")
	update(t, s, func(tx store.Tx) error { return tx.Delete(store.LeaseKey(e.ID)) })

	refused(s.Update(t.Context(), deleteTenant), "1 networks")
	update(t, s, deleteNetwork, deleteTenant)
	wantAll(t, s, map[string]string{"meta/next-ofport": "1025"})
	if err := s.Update(t.Context(), deleteNetwork); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("deleted twice: %v", err)
	}
}
