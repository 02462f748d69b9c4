package ipam_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// pools is one network in a store of its own, and the owners who ask it for addresses.
type pools struct {
	tb  testing.TB
	s   *store.Bolt
	net vnet.Network
}

// declare makes network blue/web of the subnets, which are written as in a netconf.
func declare(t *testing.T, subnets string) pools {
	t.Helper()
	return declareIn(t, t.TempDir(), subnets)
}

func declareIn(t *testing.T, dir, subnets string) pools {
	t.Helper()
	p := pools{t, store.OpenBolt(dir), vnet.Network{}}
	if err := json.Unmarshal([]byte(`{"tenant":"blue","name":"web","subnets":[`+subnets+`]}`), &p.net); err != nil {
		t.Fatal(err)
	}
	p.update(func(tx store.Tx) error {
		var err error
		p.net, err = store.DeclareNetwork(tx, p.net)
		return err
	})
	return p
}

func (p pools) update(fn func(store.Tx) error) {
	p.tb.Helper()
	if err := p.s.Update(p.tb.Context(), fn); err != nil {
		p.tb.Fatal(err)
	}
}

func request(n vnet.Network, container string, asked ...string) ipam.Request {
	a := vnet.Attachment{Container: container, IfName: "eth0"}
	r := ipam.Request{Network: n, Owner: a.ID(), Holder: a, CNINetwork: "net"}
	for _, text := range asked {
		r.Addrs = append(r.Addrs, netip.MustParseAddr(text))
	}
	return r
}

// ask makes one request in a transaction of its own.
func (p pools) ask(r ipam.Request) (string, error) {
	var got []string
	err := p.s.Update(p.tb.Context(), func(tx store.Tx) error {
		prefixes, err := ipam.Allocate(tx, r)
		for _, prefix := range prefixes {
			got = append(got, prefix.String())
		}
		return err
	})
	return strings.Join(got, " "), err
}

// gives checks what a container gets.
func (p pools) gives(want, container string, asked ...string) {
	p.tb.Helper()
	got, err := p.ask(request(p.net, container, asked...))
	if err != nil {
		p.tb.Errorf("%s: %v", container, err)
	}
	if got != want {
		p.tb.Errorf("%s: got %q, want %q", container, got, want)
	}
}

// refuses checks why a container gets nothing.
func (p pools) refuses(kind error, text, container string, asked ...string) {
	p.tb.Helper()
	p.wantError(kind, text, request(p.net, container, asked...))
}

func (p pools) wantError(kind error, text string, r ipam.Request) {
	p.tb.Helper()
	if got, err := p.ask(r); !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		p.tb.Errorf("%s: got %q, %v, want %v with %q", r.Holder, got, err, kind, text)
	}
}

func (p pools) release(container string) {
	p.tb.Helper()
	p.update(func(tx store.Tx) error { return ipam.Release(tx, request(p.net, container).Owner) })
}

func TestEachContainerGetsAnAddressOfEachFamily(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}`)
	p.gives("10.0.0.2/24 fd00::2/64", "a")
	p.gives("10.0.0.3/24 fd00::3/64", "b")

	declare(t, `{"prefix":"10.0.0.0/24"}`).gives("10.0.0.2/24", "a")
	declare(t, `{"prefix":"fd00::/64"}`).gives("fd00::2/64", "a")
}

func TestEveryAddressIsHandedOutOnceAndThenTheSubnetIsNamed(t *testing.T) {
	for subnets, want := range map[string]string{
		`{"prefix":"10.0.0.0/29"}`:                                               "10.0.0.2/29 10.0.0.3/29 10.0.0.4/29 10.0.0.5/29 10.0.0.6/29",
		`{"prefix":"10.0.0.0/29","gateway":"10.0.0.3"}`:                          "10.0.0.1/29 10.0.0.2/29 10.0.0.4/29 10.0.0.5/29 10.0.0.6/29",
		`{"prefix":"10.0.0.0/29","reserved":["10.0.0.0/30","10.0.0.6"]}`:         "10.0.0.4/29 10.0.0.5/29",
		`{"prefix":"10.0.0.0/30"}`:                                               "10.0.0.2/30",
		`{"prefix":"10.0.0.0/31"}`:                                               "10.0.0.0/31 10.0.0.1/31",
		`{"prefix":"10.0.0.7/32"}`:                                               "10.0.0.7/32",
		`{"prefix":"10.0.0.0/30"},{"prefix":"10.0.1.0/31"}`:                      "10.0.0.2/30 10.0.1.0/31 10.0.1.1/31",
		`{"prefix":"fd00::/126"}`:                                                "fd00::2/126 fd00::3/126",
		`{"prefix":"fd00::/127"}`:                                                "fd00::/127 fd00::1/127",
		`{"prefix":"fd00::7/128"}`:                                               "fd00::7/128",
		`{"prefix":"fd00::/64","reserved":["fd00::-fd00::ffff:ffff:ffff:fffe"]}`: "fd00::ffff:ffff:ffff:ffff/64",
	} {
		p := declare(t, subnets)
		var got []string
		for i := range 20 {
			addr, err := p.ask(request(p.net, fmt.Sprint("c", i)))
			if err == nil {
				got = append(got, addr)
				continue
			}
			for _, s := range p.net.Subnets {
				if !errors.Is(err, vnet.ErrExhausted) || !strings.Contains(err.Error(), s.Prefix.String()) || vnet.Hint(err) == "" {
					t.Errorf("%s: got %v, want an ErrExhausted that names the subnet, and a hint", subnets, err)
				}
			}
		}
		if diff := cmp.Diff(want, strings.Join(got, " ")); diff != "" {
			t.Errorf("%s (-want +got):\n%s", subnets, diff)
		}
	}
}

// Half an address pair is of no use: nothing may be kept of it.
func TestExhaustedFamilyLeavesTheOtherUntouched(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/29"},{"prefix":"fd00::/128"}`)
	p.gives("10.0.0.2/29 fd00::/128", "a")
	p.refuses(vnet.ErrExhausted, "fd00::/128", "b")
	p.release("a")
	p.gives("10.0.0.3/29 fd00::/128", "c")
}

func TestSameOwnerAskingAgainGetsTheSame(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}`)
	for range 3 {
		p.gives("10.0.0.2/24 fd00::2/64", "a")
		p.gives("10.0.0.2/24 fd00::2/64", "a", "10.0.0.2")
		p.gives("10.0.0.9/24 fd00::3/64", "b", "10.0.0.9")
		p.gives("10.0.0.9/24 fd00::3/64", "b")
	}
	p.refuses(vnet.ErrExists, "already holds 10.0.0.2 and fd00::2, not 10.0.0.5", "a", "10.0.0.5")
	other := request(p.net, "a")
	other.Network.Name = "db"
	p.wantError(vnet.ErrExists, "already holds addresses of network blue/web", other)
}

func TestRequestedAddressIsGivenOrItIsSaidWhyNot(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24","reserved":["10.0.0.8/29"]},{"prefix":"10.0.1.0/24"},{"prefix":"fd00::/64"}`)
	p.gives("10.0.0.50/24 fd00::2/64", "a", "10.0.0.50")
	p.gives("fd00::50/64 10.0.0.2/24", "b", "fd00::50")
	p.gives("10.0.1.7/24 10.0.0.7/24 fd00::3/64", "c", "10.0.1.7", "10.0.0.7")
	p.refuses(vnet.ErrExists, "address 10.0.0.50 is taken by a/eth0", "d", "10.0.0.50")
	p.refuses(vnet.ErrInvalid, "in no subnet of network blue/web", "d", "10.0.2.1")
	p.refuses(vnet.ErrInvalid, "reserved range 10.0.0.8-10.0.0.15", "d", "10.0.0.9")
	p.refuses(vnet.ErrInvalid, "gateway", "d", "10.0.0.1")
	p.refuses(vnet.ErrInvalid, "network, broadcast", "d", "10.0.0.0")
	p.refuses(vnet.ErrInvalid, "network, broadcast", "d", "10.0.0.255")
	p.refuses(vnet.ErrExists, "taken", "d", "10.0.0.60", "10.0.0.60")
	p.gives("10.0.0.3/24 fd00::4/64", "d") // of all that was refused nothing was kept
}
