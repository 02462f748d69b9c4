package store_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// oneRecord is a store with the same value at every key.
type oneRecord struct{ value []byte }

func (r oneRecord) Get(string) []byte        { return r.value }
func (r oneRecord) Put(string, []byte) error { return nil }
func (r oneRecord) Delete(string) error      { return nil }
func (r oneRecord) Range(prefix string, visit func(string, []byte) error) error {
	if err := visit(prefix+"x", r.value); !errors.Is(err, store.ErrStop) {
		return err
	}
	return nil
}

// Whatever stands in a record, reading it gives an ErrCorrupt that names the key, or something
// that can be used without a panic.
func FuzzRecord(f *testing.F) {
	for _, seed := range []string{
		``, `null`, `{}`, `[]`, `7`, `"x"`, `{"name":"blue","number":1}`, web,
		`{"tenant":"blue","network":"web","holder":{"container":"c","ifName":"e"},"cniNetwork":"n","addrs":["10.0.0.2"]}`,
		`{"container":"c","ifName":"e","id":"0123456789abcd","tenant":"blue","network":"web","state":"ready","mac":"0a:58:0a:00:00:02","addrs":["10.0.0.2/24"],"mtu":1450,"ofport":1024,"delegate":{"type":"x","conf":{}}}`,
		`{"tenant":"a","name":"b","subnets":[{"prefix":"","reserved":["0.0.0.0/0"]}]}`,
		`{"tenant":"blue","name":"in","groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"network":"web"},"destinationPorts":["80"]}]}`,
		`{"tenant":"blue","name":"fw","mode":"routed","onFailure":"open","probe":{"interval":"1s","threshold":3}}`,
		`{"tenant":"blue","group":"fw","container":"c","number":7,"ingress":"0123456789abcd","weight":1,"zone":1000}`,
		`[{"number":1,"groups":["fw"],"paths":[{"id":1,"hops":[{"group":"fw","instance":1}],"weight":10000}]}]`,
		`{"prefix":"10.0.0.8/29","state":"held","emptySince":"2026-01-02T03:04:05.6Z"}`, `{"owner":"0123456789abcd","seq":7}`,
		`resting since 2026-01-02T03:04:05.6Z`, `resting since ever`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		tx := oneRecord{value}
		corrupt := func(err error) {
			t.Helper()
			if err != nil && !errors.Is(err, vnet.ErrCorrupt) {
				t.Errorf("%q: %v", value, err)
			}
		}
		_, err := store.Tenant(tx, "blue")
		corrupt(err)
		_, err = store.Load[store.Lease](tx, "leases/x")
		corrupt(err)
		_, err = store.HasLiving(tx, vnet.Ref{Tenant: "blue", Network: "web"}, "br-tenet")
		corrupt(err)
		n, err := store.Network(tx, vnet.Ref{Tenant: "blue", Network: "web"})
		corrupt(err)
		if err == nil {
			useNetwork(n)
		}
		e, err := store.Load[vnet.Endpoint](tx, "endpoints/x")
		corrupt(err)
		if err == nil {
			_ = e.String() + e.ID.Port() + e.MAC.LinkLocal().String() + e.Ref().String()
			e.Has(netip.MustParseAddr("10.0.0.2"))
			_ = store.PutEndpoint(tx, &e)
			_ = store.DeleteEndpoint(tx, e)
		}
		_ = store.DeleteNetwork(tx, n.Ref())

		_, err = store.BlocksOf(tx, n.Ref())
		corrupt(err)
		_, err = store.AddrsInUse(tx, n.Ref())
		corrupt(err)
		_, err = store.CountRelease(tx, n.Ref())
		corrupt(err)
		corrupt(store.DeleteBlock(tx, n.Ref(), netip.MustParsePrefix("10.0.0.8/29")))

		c, err := store.Chain(tx, vnet.ChainRef{Tenant: "blue", Chain: "in"})
		corrupt(err)
		_, err = store.Group(tx, vnet.GroupRef{Tenant: "blue", Group: "fw"})
		corrupt(err)
		_, err = store.Legs(tx, c.Ref())
		corrupt(err)
		_, err = store.RestingPaths(tx)
		corrupt(err)
		_, err = store.Instances(tx, "")
		corrupt(err)
		_ = errors.Join(store.PutChain(tx, c), store.DeleteChain(tx, c.Ref()))
		if e.Function != nil {
			_ = store.JoinGroup(tx, e)
			_, _ = store.LeaveGroup(tx, e)
		}
	})
}

// useNetwork does with a network what is done with one.
func useNetwork(n vnet.Network) {
	for _, s := range n.Subnets {
		a := s.Next(s.Prefix.Addr())
		_ = s.Assignable(a)
		_, _ = n.SubnetOf(a)
		_ = s.BlockOf(a)
		_ = s.Usable(s.Block(s.Blocks() / 2))
		for _, r := range s.Reserved {
			_ = r.String()
			_ = s.Next(r.Last)
		}
	}
	if normal, err := n.Normal(); err == nil {
		_ = normal.Differs(n) + n.Differs(normal)
		_ = normal.CheckMTU(1450)
	}
}
