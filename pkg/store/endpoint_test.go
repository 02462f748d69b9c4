package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// endpoint makes one of network blue/web.
func endpoint(container string) vnet.Endpoint {
	a := vnet.Attachment{Container: container, IfName: "eth0"}
	return vnet.Endpoint{Attachment: a, ID: a.ID(), Tenant: "blue", Network: "web", Bridge: "br-tenet", State: vnet.Ready}
}

func TestEndpointIsFoundByItsIDAlone(t *testing.T) {
	s := empty(t)
	e := endpoint("c1")
	e.MAC = vnet.MAC{0x0a, 0x58, 10, 0, 0, 2}
	update(t, s, func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
	view(t, s, func(tx store.Tx) error {
		got, err := store.Endpoint(tx, e.ID)
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if _, err := store.Endpoint(tx, "nobody"); !errors.Is(err, vnet.ErrNotFound) {
			t.Errorf("nobody: %v", err)
		}
		return err
	})
	for range 2 {
		update(t, s, func(tx store.Tx) error { return store.DeleteEndpoint(tx, e) })
		wantAll(t, s, map[string]string{"meta/next-ofport": "1025"})
	}
}

func TestMACBelongsToOneEndpointOfANetwork(t *testing.T) {
	one, two, elsewhere := endpoint("c1"), endpoint("c2"), endpoint("c3")
	one.MAC = vnet.MAC{0x0a, 0x58, 10, 0, 0, 2}
	two.MAC, elsewhere.MAC, elsewhere.Tenant = one.MAC, one.MAC, "red"
	s := empty(t)
	update(t, s, func(tx store.Tx) error {
		return errors.Join(store.PutEndpoint(tx, &one), store.PutEndpoint(tx, &one), store.PutEndpoint(tx, &elsewhere))
	})
	err := s.Update(t.Context(), func(tx store.Tx) error { return store.PutEndpoint(tx, &two) })
	if !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), one.MAC.String()) || !strings.Contains(err.Error(), string(one.ID)) {
		t.Errorf("got %v, want an ErrExists that names MAC and holder", err)
	}
}

// A DEL may come late, and twice: what it removes must still be its own.
func TestLateRemovalTakesNothingFromWhoeverCameAfter(t *testing.T) {
	gone, next := endpoint("c1"), endpoint("c2")
	gone.MAC = vnet.MAC{0x0a, 0x58, 10, 0, 0, 2}
	s := empty(t)
	update(t, s,
		func(tx store.Tx) error { return store.PutEndpoint(tx, &gone) },
		func(tx store.Tx) error { return store.DeleteEndpoint(tx, gone) },
		func(tx store.Tx) error {
			next.MAC, next.OFPort = gone.MAC, gone.OFPort
			return store.PutEndpoint(tx, &next)
		},
		func(tx store.Tx) error { return store.DeleteEndpoint(tx, gone) })
	view(t, s, func(tx store.Tx) error {
		if !store.MACTaken(tx, next.Ref(), next.MAC) {
			t.Error("the MAC of the next endpoint is free")
		}
		_, err := store.Endpoint(tx, next.ID)
		return err
	})
	err := s.Update(t.Context(), func(tx store.Tx) error { return store.PutEndpoint(tx, &gone) })
	if !errors.Is(err, vnet.ErrExists) {
		t.Errorf("a removed endpoint came back with what another has by now: %v", err)
	}
}

func TestEndpointIsInOneNetwork(t *testing.T) {
	e := endpoint("c1")
	s := empty(t)
	update(t, s, func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
	e.Network = "db"
	if err := s.Update(t.Context(), func(tx store.Tx) error { return store.PutEndpoint(tx, &e) }); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("got %v", err)
	}
}

func TestClosureThatRunsTwiceKeepsItsPortNumber(t *testing.T) {
	s := empty(t)
	one, two := endpoint("c1"), endpoint("c2")
	again := errors.New("run it again")
	if err := s.Update(t.Context(), func(tx store.Tx) error { return errors.Join(store.PutEndpoint(tx, &one), again) }); !errors.Is(err, again) {
		t.Fatal(err)
	}
	update(t, s, func(tx store.Tx) error { return errors.Join(store.PutEndpoint(tx, &one), store.PutEndpoint(tx, &two)) })
	if one.OFPort == 0 || one.OFPort == two.OFPort {
		t.Errorf("numbers %d and %d", one.OFPort, two.OFPort)
	}
}

func TestPortNumbersComeRoundAndAreNeverInUseTwice(t *testing.T) {
	const first, last = 0x400, 0xfeff
	put := func(tx store.Tx, container string) int {
		e := endpoint(container)
		if err := store.PutEndpoint(tx, &e); err != nil {
			t.Error(err)
		}
		return e.OFPort
	}
	for counter, want := range map[string][]int{
		"":         {first, first + 1},
		"1030":     {1030, 1031},
		"65278":    {last - 1, last, first}, // round the end
		"65279":    {last, first},
		"99999999": {first}, // damaged: costs nothing but order
		"rubbish":  {first},
		"-5":       {first},
	} {
		s := empty(t)
		update(t, s, func(tx store.Tx) error {
			if counter != "" {
				if err := tx.Put("meta/next-ofport", []byte(counter)); err != nil {
					return err
				}
			}
			for i, number := range want {
				if got := put(tx, string(rune('a'+i))); got != number {
					t.Errorf("counter %q: got %d, want %d", counter, got, number)
				}
			}
			return nil
		})
	}
	s := empty(t)
	update(t, s, func(tx store.Tx) error {
		held := put(tx, "holder")
		if err := tx.Put("meta/next-ofport", []byte("1024")); err != nil {
			return err
		}
		if got := put(tx, "next"); got == held || got != held+1 {
			t.Errorf("got %d while %d is in use", got, held)
		}
		return nil
	})
}

func TestAllPortNumbersInUseIsSaid(t *testing.T) {
	s := empty(t)
	err := s.Update(t.Context(), func(tx store.Tx) error {
		e := endpoint("c1")
		return store.PutEndpoint(allTaken{tx}, &e)
	})
	if !errors.Is(err, vnet.ErrExhausted) || errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "all 64256 port numbers") {
		t.Errorf("got %v", err)
	}
}

// allTaken is a store in which every key has a value.
type allTaken struct{ store.Tx }

func (allTaken) Get(string) []byte { return []byte("1024") }

func TestNetworkLivesHereWhileOneEndpointStays(t *testing.T) {
	s := empty(t)
	e := endpoint("c1")
	for state, want := range map[vnet.State]bool{vnet.Pending: true, vnet.Ready: true, vnet.Leaving: false} {
		e.State = state
		update(t, s, func(tx store.Tx) error { return store.PutEndpoint(tx, &e) })
		view(t, s, func(tx store.Tx) error {
			here, err := store.HasLiving(tx, e.Ref(), "br-tenet")
			there, err2 := store.HasLiving(tx, e.Ref(), "br-other")
			if here != want || there {
				t.Errorf("%s: here %v, on another bridge %v", state, here, there)
			}
			return errors.Join(err, err2)
		})
	}
}
