package store_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var webRef = vnet.Ref{Tenant: "blue", Network: "web"}

func block(prefix string) store.Block {
	return store.Block{Prefix: netip.MustParsePrefix(prefix), State: store.Held}
}

func putBlock(b store.Block) func(store.Tx) error {
	return func(tx store.Tx) error { return store.PutBlock(tx, webRef, b) }
}

func deleteBlock(prefix string) func(store.Tx) error {
	return func(tx store.Tx) error { return store.DeleteBlock(tx, webRef, netip.MustParsePrefix(prefix)) }
}

// wantBlocks compares the blocks of blue/web.
func wantBlocks(t *testing.T, want ...store.Block) func(store.Tx) error {
	t.Helper()
	return func(tx store.Tx) error {
		got, err := store.BlocksOf(tx, webRef)
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); diff != "" {
			t.Errorf("blocks (-want +got):\n%s", diff)
		}
		return err
	}
}

func TestNodeIsAMemberUnderOneNameUntilItHoldsNothing(t *testing.T) {
	s := empty(t)
	join := func(as vnet.NodeName) func(store.Tx) error {
		return func(tx store.Tx) error { return store.JoinCluster(tx, as) }
	}
	member := func(want vnet.NodeName) func(store.Tx) error {
		return func(tx store.Tx) error {
			if got, ok := store.Member(tx); got != want || ok != (want != "") {
				t.Errorf("member as %q, %v, want %q", got, ok, want)
			}
			return nil
		}
	}
	refused := func(err, kind error, want string) {
		t.Helper()
		if !errors.Is(err, kind) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %v with %q", err, kind, want)
		}
	}
	view(t, s, member(""))
	refused(s.Update(t.Context(), join("")), vnet.ErrInvalid, "name")
	update(t, s, join("node-1.example"), join("node-1.example"), member("node-1.example"))
	refused(s.Update(t.Context(), join("node-2")), vnet.ErrExists, "this node is node-1.example")

	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	update(t, s, putBlock(block("10.0.0.8/29")))
	refused(s.Update(t.Context(), store.LeaveCluster), vnet.ErrExists, "blue/web/10.0.0.8/29")
	update(t, s, deleteBlock("10.0.0.8/29"), store.LeaveCluster, store.LeaveCluster, member(""), join("node-2"), member("node-2"))
}

func TestBlocksAreKeptInTheOrderOfTheirAddresses(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	returning := block("10.0.0.16/29")
	returning.State = store.Returning
	update(t, s, putBlock(block("fd00::40/122")), putBlock(block("10.0.0.8/29")), putBlock(block("10.0.0.16/29")), putBlock(block("10.0.0.128/29")))
	update(t, s, putBlock(returning), deleteBlock("10.0.0.128/29"), deleteBlock("10.0.0.128/29"))
	view(t, s, wantBlocks(t, block("10.0.0.8/29"), returning, block("fd00::40/122")),
		wants("blocks/blue/web/10.0.0.8/29", `{"prefix":"10.0.0.8/29","state":"held"}`),
		wants("blocks/blue/web/10.0.0.16/29", `{"prefix":"10.0.0.16/29","state":"returning"}`))
}

func TestWhatIsNoBlockOfTheNetworkIsRefused(t *testing.T) {
	s := empty(t)
	if err := s.Update(t.Context(), putBlock(block("10.0.0.8/29"))); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("of no network: got %v", err)
	}
	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	for _, b := range []store.Block{
		block("10.0.0.0/24"), block("10.0.0.8/30"), block("10.0.0.9/29"), block("10.0.1.0/29"), block("fd00::/64"),
		{Prefix: netip.MustParsePrefix("10.0.0.8/29")},
		{Prefix: netip.MustParsePrefix("10.0.0.8/29"), State: "lost"},
		{State: store.Held},
	} {
		if err := s.Update(t.Context(), putBlock(b)); !errors.Is(err, vnet.ErrInvalid) {
			t.Errorf("%v: got %v, want an ErrInvalid", b, err)
		}
	}
	view(t, s, wantBlocks(t))
}

func TestBlockGoesWithWhatIsFreeInItAndNothingElse(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	stays := map[string]string{
		"pools/blue/web/10.0.0.16/29":                     `{}`,
		"released/blue/web/10.0.0.16/29/0000000000000001": `10.0.0.17`,
		"addresses/blue/web/10.0.0.17":                    `{"seq":1}`,
		"addresses/blue/web/10.0.0.9":                     `{"owner":"c1"}`,
		"addresses/red/web/10.0.0.8":                      `{"seq":1}`,
		"released/red/web/10.0.0.8/29/0000000000000001":   `10.0.0.8`,
	}
	before := map[string]string{}
	view(t, s, func(tx store.Tx) error {
		return tx.Range("", func(key string, value []byte) error { before[key] = string(value); return nil })
	})
	delete(before, "meta/version")
	update(t, s, putBlock(block("10.0.0.8/29")), putBlock(block("10.0.0.16/29")),
		put("pools/blue/web/10.0.0.8/29", `{}`),
		put("released/blue/web/10.0.0.8/29/0000000000000002", `10.0.0.8`), put("addresses/blue/web/10.0.0.8", `{"seq":2}`),
		put("released/blue/web/10.0.0.8/29/0000000000000003", `10.0.0.9`), // damage: it is in use
		put("released/blue/web/10.0.0.8/29/0000000000000004", `10.0.0.10`),
		put("release-counts/blue/web", "4"))
	for key, value := range stays {
		update(t, s, put(key, value))
		before[key] = value
	}
	update(t, s, deleteBlock("10.0.0.8/29"))
	before["blocks/blue/web/10.0.0.16/29"] = `{"prefix":"10.0.0.16/29","state":"held"}`
	before["release-counts/blue/web"] = "4" // the other block's queue goes on
	wantAll(t, s, before)

	update(t, s, deleteBlock("10.0.0.16/29"))
	for _, key := range []string{
		"blocks/blue/web/10.0.0.16/29", "release-counts/blue/web", "addresses/blue/web/10.0.0.17",
		"pools/blue/web/10.0.0.16/29", "released/blue/web/10.0.0.16/29/0000000000000001",
	} {
		delete(before, key)
	}
	wantAll(t, s, before)
}

func TestNetworkGoesWithItsBlocks(t *testing.T) {
	s := empty(t)
	if _, err := declare(t, s, web); err != nil {
		t.Fatal(err)
	}
	update(t, s, putBlock(block("10.0.0.8/29")), func(tx store.Tx) error {
		n, err := store.CountRelease(tx, webRef)
		if n != 1 {
			t.Errorf("the first release is number %d", n)
		}
		return err
	})
	update(t, s, func(tx store.Tx) error { return store.DeleteNetwork(tx, webRef) }, func(tx store.Tx) error { return store.DeleteTenant(tx, "blue") })
	wantAll(t, s, map[string]string{})
}

func TestAddressesInUseAreThoseWithAnOwner(t *testing.T) {
	s := empty(t)
	update(t, s, put("addresses/blue/web/10.0.0.9", `{"owner":"c1"}`), put("addresses/blue/web/10.0.0.8", `{"seq":2}`),
		put("addresses/blue/web2/10.0.0.7", `{"owner":"c2"}`), put("addresses/blue/web/fd00::9", `{"owner":"c1"}`))
	view(t, s, func(tx store.Tx) error {
		got, err := store.AddrsInUse(tx, webRef)
		if diff := cmp.Diff([]netip.Addr{netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9")}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return err
	})
}

func TestDamagedBlockIsSaidNotGuessed(t *testing.T) {
	for key, value := range map[string]string{
		"blocks/blue/web/10.0.0.8/29":                    `{"prefix":"10.0.0.8/29","state":"lost"}`,
		"blocks/blue/web/10.0.0.16/29":                   `{"prefix":"10.0.0.8/29","state":"held"}`,
		"blocks/blue/web/10.0.0.24/29":                   `{"prefix":"10.0.0.24/29","state":"held","colour":"red"}`,
		"released/blue/web/10.0.0.8/29/0000000000000001": `192.0.2.1`,
		"released/blue/web/10.0.0.8/29/0000000000000002": `rubbish`,
		"addresses/blue/web/ten":                         `{"owner":"c1"}`,
		"addresses/blue/web/10.0.0.8":                    `{"owner":7}`,
		"release-counts/blue/web":                        `-1`,
	} {
		s := empty(t)
		update(t, s, put(key, value), put("released/blue/web/10.0.0.8/29/0000000000000003", "10.0.0.8"))
		said := false
		for _, use := range []func(store.Tx) error{
			func(tx store.Tx) error { _, err := store.BlocksOf(tx, webRef); return err },
			func(tx store.Tx) error { _, err := store.AddrsInUse(tx, webRef); return err },
			func(tx store.Tx) error { _, err := store.CountRelease(tx, webRef); return err },
			deleteBlock("10.0.0.8/29"),
		} {
			err := s.Update(t.Context(), use)
			if err != nil && (!errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), key)) {
				t.Errorf("%s: got %v, want an ErrCorrupt that names the key", key, err)
			}
			said = said || err != nil
		}
		if !said {
			t.Errorf("%s: nobody noticed", key)
		}
	}
}
