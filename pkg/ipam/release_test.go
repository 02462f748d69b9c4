package ipam_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestLeastRecentlyReleasedAddressIsReusedFirst(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/29"}`)
	p.gives("10.0.0.2/29", "a")
	p.release("a")
	p.gives("10.0.0.3/29", "b") // it rests while there are fresh ones
	p.gives("10.0.0.4/29", "c")
	p.gives("10.0.0.5/29", "d")
	p.gives("10.0.0.6/29", "e")
	p.release("d")
	p.release("b")
	p.gives("10.0.0.2/29", "f")
	p.release("f")
	p.gives("10.0.0.5/29", "g")
	p.gives("10.0.0.3/29", "h")
	p.gives("10.0.0.2/29", "i")
	p.refuses(vnet.ErrExhausted, "10.0.0.0/29", "j")
}

func TestReleaseTwiceIsFineAndAStaleOneTakesNothing(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.7/32"}`)
	p.release("nobody")
	p.gives("10.0.0.7/32", "a")
	p.release("a")
	p.release("a")
	p.gives("10.0.0.7/32", "b")
	p.release("a") // late: the address is another's by now
	p.refuses(vnet.ErrExists, "taken by b/eth0", "c", "10.0.0.7")
}

// A lease that was brought back from a copy must not free what another has.
func TestReleaseOfAnAddressThatBelongsToAnotherIsRefused(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24"}`)
	p.gives("10.0.0.2/24", "a")
	stale := request(p.net, "old")
	p.update(func(tx store.Tx) error {
		lease, err := store.Load[store.Lease](tx, store.LeaseKey(request(p.net, "a").Owner))
		return errors.Join(err, store.Save(tx, store.LeaseKey(stale.Owner), lease))
	})
	err := p.s.Update(t.Context(), func(tx store.Tx) error { return ipam.Release(tx, stale.Owner) })
	if !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "release of 10.0.0.2") || !strings.Contains(err.Error(), "a/eth0") {
		t.Errorf("got %v, want an ErrExists that names address and owner", err)
	}
	p.refuses(vnet.ErrExists, "taken by a/eth0", "c", "10.0.0.2")
}

func TestReleasedAddressCanBeRequestedAndIsNotHandedOutTwice(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/30"},{"prefix":"10.0.1.0/30"}`)
	p.gives("10.0.0.2/30", "a")
	p.release("a")
	p.gives("10.0.0.2/30", "b", "10.0.0.2") // out of the queue
	p.gives("10.0.1.2/30", "c")
	p.refuses(vnet.ErrExhausted, "10.0.0.0/30, 10.0.1.0/30", "d")
}

func TestRequestedAddressIsSteppedOverByTheOthers(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/29"}`)
	p.gives("10.0.0.3/29", "a", "10.0.0.3")
	p.gives("10.0.0.6/29", "z", "10.0.0.6") // the last one
	p.release("z")
	p.gives("10.0.0.2/29", "b")
	p.gives("10.0.0.4/29", "c")
	p.release("a")
	p.gives("10.0.0.5/29", "d")
	p.gives("10.0.0.6/29", "e")
	p.gives("10.0.0.3/29", "f")
	p.refuses(vnet.ErrExhausted, "", "g")
}

// Another IPAM plugin may hand out a reserved range: that is what it is reserved for.
func TestWhatAForeignPluginGaveStaysReservedWhenItComesBack(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/29","reserved":["10.0.0.4/30"]}`)
	foreign := request(p.net, "a", "10.0.0.5")
	foreign.Foreign = true
	for range 2 {
		if got, err := p.ask(foreign); err != nil || got != "10.0.0.5/29" {
			t.Fatalf("got %q, %v", got, err)
		}
		p.release("a")
	}
	gateway := request(p.net, "a", "10.0.0.1")
	gateway.Foreign = true
	p.wantError(vnet.ErrInvalid, "gateway", gateway)

	p.gives("10.0.0.2/29", "b")
	p.gives("10.0.0.3/29", "c")
	p.refuses(vnet.ErrExhausted, "10.0.0.0/29", "d")
}

func TestForeignAddressesAreAllThatIsTaken(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}`)
	r := request(p.net, "a", "10.0.0.9")
	r.Foreign = true
	if got, err := p.ask(r); err != nil || got != "10.0.0.9/24" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestDamagedPoolIsSaidNotGuessed(t *testing.T) {
	for key, value := range map[string]string{
		"released/blue/web/10.0.0.0/30/000000000000000":        `10.0.0.1`, // was never handed out
		"pools/blue/web/10.0.0.0/30":                           `{"next":"10.0.0.2","colour":"red"}`,
		"addresses/blue/web/10.0.0.2":                          `{"owner":7}`,
		"released/blue/web/10.0.0.0/30/0000000000000001":       `192.0.2.1`,
		"released/blue/web/10.0.0.0/30/0000000000000000":       `rubbish`,
		"leases/" + string(request(vnet.Network{}, "b").Owner): `[]`,
	} {
		p := declare(t, `{"prefix":"10.0.0.0/30"}`)
		p.gives("10.0.0.2/30", "a")
		p.release("a")
		p.update(func(tx store.Tx) error { return tx.Put(key, []byte(value)) })
		p.refuses(vnet.ErrCorrupt, key, "b")
	}
}
