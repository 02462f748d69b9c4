package ipam_test

import (
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

// join is declare in the store of a cluster's node that holds those blocks.
func join(t *testing.T, subnets string, blocks ...string) pools {
	t.Helper()
	p := declare(t, subnets)
	p.update(func(tx store.Tx) error { return store.JoinCluster(tx, "node-1") })
	p.put(store.Held, blocks...)
	return p
}

func (p pools) put(state store.BlockState, blocks ...string) {
	p.tb.Helper()
	p.update(func(tx store.Tx) error {
		for _, b := range blocks {
			if err := store.PutBlock(tx, p.net.Ref(), store.Block{Prefix: netip.MustParsePrefix(b), State: state}); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p pools) drop(block string) {
	p.tb.Helper()
	p.update(func(tx store.Tx) error { return store.DeleteBlock(tx, p.net.Ref(), netip.MustParsePrefix(block)) })
}

// dump returns every record.
func (p pools) dump() map[string]string {
	p.tb.Helper()
	all := map[string]string{}
	err := p.s.View(p.tb.Context(), func(tx store.Tx) error {
		return tx.Range("", func(key string, value []byte) error { all[key] = string(value); return nil })
	})
	if err != nil {
		p.tb.Fatal(err)
	}
	return all
}

func (p pools) unchanged(since map[string]string) {
	p.tb.Helper()
	if diff := cmp.Diff(since, p.dump()); diff != "" {
		p.tb.Errorf("store (-before +after):\n%s", diff)
	}
}

// needs checks which blocks must be claimed before a container gets what it asks for, and that it leaves no trace: not
// even in a transaction that goes on.
func (p pools) needs(subnets, addrs string, r ipam.Request) {
	p.tb.Helper()
	before := p.dump()
	p.update(func(tx store.Tx) error {
		got, err := ipam.Allocate(tx, r)
		need, ok := errors.AsType[*ipam.NeedBlocks](err)
		if !ok || !errors.Is(err, vnet.ErrExhausted) || vnet.Hint(err) == "" {
			p.tb.Errorf("%s: got %v, %v, want a NeedBlocks and a hint", r.Holder, got, err)
			return nil
		}
		if need.Network != p.net.Ref() || list(need.Subnets) != subnets || list(need.Addrs) != addrs {
			p.tb.Errorf("%s: needs %+v, want subnets %q, addresses %q", r.Holder, need, subnets, addrs)
		}
		for word := range strings.FieldsSeq(p.net.Ref().String() + " " + subnets + " " + addrs) {
			if !strings.Contains(err.Error(), word) {
				p.tb.Errorf("%s: %v does not name %s", r.Holder, err, word)
			}
		}
		return nil
	})
	p.unchanged(before)
}

func list[T fmt.Stringer](items []T) string {
	var out []string
	for _, i := range items {
		out = append(out, i.String())
	}
	return strings.Join(out, " ")
}

func foreign(n vnet.Network, container string, asked ...string) ipam.Request {
	r := request(n, container, asked...)
	r.Foreign = true
	return r
}

func TestMemberHandsOutWhatItHoldsAndSaysWhenItNeedsMore(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/27"},{"prefix":"fd00::/124"}`, "10.0.0.30/31", "10.0.0.8/31", "fd00::6/127")
	p.gives("10.0.0.8/27 fd00::6/124", "a")
	p.gives("10.0.0.9/27 fd00::7/124", "b")
	p.needs("fd00::/124", "", request(p.net, "c"))
	p.put(store.Held, "fd00::2/127")
	p.gives("10.0.0.30/27 fd00::2/124", "c") // .31 is nobody's
	p.needs("10.0.0.0/27", "", request(p.net, "d"))
	p.gives("10.0.0.8/27 fd00::6/124", "a") // what it has it keeps
	p.release("c")
	p.gives("10.0.0.30/27 fd00::3/124", "e")
	p.needs("10.0.0.0/27", "", request(p.net, "f")) // fd00::2 is free
}

func TestMemberWithoutABlockHandsOutNothing(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}`)
	p.needs("10.0.0.0/24 fd00::/64", "", request(p.net, "a"))
	p.needs("fd00::/64", "10.0.0.9", request(p.net, "a", "10.0.0.9"))
}

func TestSubnetsThatHaveNothingMoreToGiveAreNotAskedFor(t *testing.T) {
	const subnets = `{"prefix":"10.0.0.0/30"},{"prefix":"10.0.1.0/24"},{"prefix":"10.0.2.0/24","reserved":["10.0.2.0/24"]},{"prefix":"10.0.3.0/24"}`
	p := join(t, subnets, "10.0.0.2/32") // network, gateway and broadcast address have blocks of their own
	p.gives("10.0.0.2/30", "a")
	p.needs("10.0.1.0/24 10.0.3.0/24", "", request(p.net, "b"))

	// A block that is on its way back can be had again.
	p = join(t, `{"prefix":"10.0.0.0/30"}`, "10.0.0.2/32")
	p.put(store.Returning, "10.0.0.2/32")
	p.needs("10.0.0.0/30", "", request(p.net, "b"))
}

func TestReturningBlockGivesNothing(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24"}`, "10.0.0.8/29", "10.0.0.16/29")
	p.gives("10.0.0.8/24", "a")
	p.gives("10.0.0.9/24", "b")
	p.put(store.Returning, "10.0.0.8/29")
	p.release("b")
	p.gives("10.0.0.16/24", "c")
	p.needs("", "10.0.0.9", request(p.net, "d", "10.0.0.9"))
	p.needs("", "10.0.0.10", request(p.net, "d", "10.0.0.10"))
	p.put(store.Held, "10.0.0.8/29") // it was needed after all
	p.gives("10.0.0.9/24", "d", "10.0.0.9")
	p.gives("10.0.0.10/24", "e")
}

func TestNodeThatHoldsAllOfASubnetIsFullAndNeedsNoBlock(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/29"},{"prefix":"fd00::/64"}`, "10.0.0.0/31", "10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/31")
	for i, last := range []int{2, 3, 4, 5, 6} {
		p.put(store.Held, "fd00::40/122")
		p.gives(fmt.Sprintf("10.0.0.%d/29 fd00::4%d/64", last, i), fmt.Sprint("c", i))
	}
	before := p.dump()
	_, err := p.ask(request(p.net, "one more"))
	if _, ok := errors.AsType[*ipam.NeedBlocks](err); ok || !errors.Is(err, vnet.ErrExhausted) || !strings.Contains(err.Error(), "10.0.0.0/29 has no free address") {
		t.Errorf("got %v, want an ErrExhausted that names the subnet and needs no block", err)
	}
	p.unchanged(before)
}

// An address rests as long as it can, whichever block it is of.
func TestOldestReleaseOfAllBlocksIsReusedFirst(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/29"},{"prefix":"10.0.1.0/29"}`, "10.0.0.2/31", "10.0.0.4/31", "10.0.1.2/31")
	for i, want := range []string{"10.0.0.2/29", "10.0.0.3/29", "10.0.0.4/29"} {
		p.gives(want, fmt.Sprint("c", i))
	}
	for _, c := range []string{"c2", "c0", "c1"} {
		p.release(c)
	}
	p.gives("10.0.0.5/29", "d0") // never had, so before those
	p.gives("10.0.0.4/29", "d1")
	p.release("d1")
	p.gives("10.0.0.2/29", "d2")
	p.gives("10.0.0.3/29", "d3")
	p.gives("10.0.0.4/29", "d4")
	p.gives("10.0.1.2/29", "d5")
}

func TestRequestedAddressNeedsItsBlock(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24","reserved":["10.0.0.64/27"]},{"prefix":"fd00::/64"}`, "10.0.0.8/29", "fd00::/122")
	p.gives("10.0.0.9/24 fd00::2/64", "a", "10.0.0.9")
	p.needs("", "10.0.0.16 10.0.0.24 fd00::40", request(p.net, "b", "10.0.0.16", "10.0.0.8", "10.0.0.24", "fd00::40"))
	p.refuses(vnet.ErrExists, "taken by a/eth0", "b", "10.0.0.9", "10.0.0.16")
	p.refuses(vnet.ErrInvalid, "reserved", "b", "10.0.0.16", "10.0.0.65")
	p.refuses(vnet.ErrInvalid, "gateway", "b", "10.0.0.1")
	p.refuses(vnet.ErrInvalid, "in no subnet", "b", "10.0.1.1")
	p.put(store.Held, "10.0.0.16/29")
	p.gives("10.0.0.16/24 10.0.0.8/24 fd00::3/64", "b", "10.0.0.16", "10.0.0.8")
	p.release("b")
	p.gives("10.0.0.8/24 fd00::4/64", "c", "10.0.0.8") // out of the queue
	p.put(store.Returning, "10.0.0.8/29")
	p.gives("10.0.0.17/24 fd00::5/64", "d")
}

func TestForeignAddressNeedsItsBlockUnlessItIsReserved(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24","reserved":["10.0.0.12-10.0.0.23"]}`, "10.0.0.8/29")
	allowed := func(r ipam.Request, want string) {
		t.Helper()
		if got, err := p.ask(r); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", r.Holder, got, err, want)
		}
	}
	p.needs("", "10.0.0.24", foreign(p.net, "a", "10.0.0.24"))
	p.wantError(vnet.ErrInvalid, "gateway", foreign(p.net, "a", "10.0.0.1"))
	before := p.dump()
	allowed(foreign(p.net, "a", "10.0.0.9"), "10.0.0.9/24")
	allowed(foreign(p.net, "b", "10.0.0.12"), "10.0.0.12/24") // in a block that is held
	allowed(foreign(p.net, "c", "10.0.0.20"), "10.0.0.20/24") // in one that nobody can use
	p.wantError(vnet.ErrExists, "taken by c/eth0", foreign(p.net, "d", "10.0.0.20"))
	for _, c := range []string{"b", "c"} {
		p.release(c)
	}
	p.gives("10.0.0.8/24", "d")
	p.gives("10.0.0.10/24", "e")
	p.gives("10.0.0.11/24", "f")
	p.needs("10.0.0.0/24", "", request(p.net, "g"))
	for _, c := range []string{"a", "d", "e", "f"} {
		p.release(c)
	}
	p.drop("10.0.0.8/29")
	delete(before, "blocks/blue/web/10.0.0.8/29")
	p.unchanged(before)
}

// A block can be lost while addresses of it are in use, when a node was taken for dead.
func TestReleaseIntoABlockThatIsNotHeldLeavesNothing(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24"}`)
	before := p.dump()
	p.put(store.Held, "10.0.0.8/29")
	p.gives("10.0.0.8/24", "a")
	p.gives("10.0.0.9/24", "b")
	p.gives("10.0.0.10/24", "c")
	p.release("b")
	p.drop("10.0.0.8/29")
	p.gives("10.0.0.8/24", "a") // it has it still
	p.needs("10.0.0.0/24", "", request(p.net, "d"))
	p.release("a")
	p.put(store.Held, "10.0.0.8/29") // and here it is again, with one address in use
	p.gives("10.0.0.8/24", "d")
	p.gives("10.0.0.9/24", "e")
	p.gives("10.0.0.11/24", "f")
	p.drop("10.0.0.8/29")
	for _, c := range []string{"c", "d", "e", "f"} {
		p.release(c)
	}
	p.unchanged(before)
}

func TestFreeAndInUseAreCountedByBlock(t *testing.T) {
	p := join(t, `{"prefix":"10.0.0.0/24","reserved":["10.0.0.12-10.0.0.15"]},{"prefix":"10.0.1.0/24"},{"prefix":"fd00::/64"}`,
		"10.0.0.0/29", "10.0.0.8/29", "10.0.1.248/29", "fd00::/122")
	counts := func(free map[string]int, used map[string]int) {
		t.Helper()
		p.update(func(tx store.Tx) error {
			for subnet, want := range free {
				if got, err := ipam.Free(tx, p.net, netip.MustParsePrefix(subnet)); err != nil || got != want {
					t.Errorf("subnet %s: %d free, %v, want %d", subnet, got, err, want)
				}
			}
			for block, want := range used {
				if got, err := ipam.InUse(tx, p.net, netip.MustParsePrefix(block)); err != nil || got != want {
					t.Errorf("block %s: %d in use, %v, want %d", block, got, err, want)
				}
			}
			return nil
		})
	}
	counts(map[string]int{"10.0.0.0/24": 6 + 4, "10.0.1.0/24": 7, "fd00::/64": 62}, map[string]int{"10.0.0.0/29": 0, "10.0.0.16/29": 0, "fd00::/122": 0})
	p.gives("10.0.0.9/24 fd00::2/64", "a", "10.0.0.9")
	p.gives("10.0.0.2/24 fd00::3/64", "b")
	p.gives("10.0.0.3/24 fd00::4/64", "c")
	p.release("c")
	if _, err := p.ask(foreign(p.net, "d", "10.0.0.12")); err != nil {
		t.Fatal(err)
	}
	counts(map[string]int{"10.0.0.0/24": 5 + 3, "10.0.1.0/24": 7, "fd00::/64": 60}, map[string]int{"10.0.0.0/29": 1, "10.0.0.8/29": 2, "fd00::/122": 2})
	p.put(store.Returning, "10.0.0.8/29")
	counts(map[string]int{"10.0.0.0/24": 5}, map[string]int{"10.0.0.8/29": 2})
	p.drop("10.0.0.0/29")
	counts(map[string]int{"10.0.0.0/24": 0}, map[string]int{"10.0.0.0/29": 1})

	p.update(func(tx store.Tx) error {
		if _, err := ipam.Free(tx, p.net, netip.MustParsePrefix("10.0.2.0/24")); !errors.Is(err, vnet.ErrNotFound) {
			t.Errorf("of a subnet that is not the network's: %v", err)
		}
		for _, none := range []string{"10.0.0.0/24", "10.0.2.0/29", "fd00::/64"} {
			if _, err := ipam.InUse(tx, p.net, netip.MustParsePrefix(none)); !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("%s, which is no block: %v", none, err)
			}
		}
		return nil
	})
}

func TestDamagedBlockIsSaidNotGuessed(t *testing.T) {
	for key, value := range map[string]string{
		"blocks/blue/web/10.0.0.8/29":                    `{"prefix":"10.0.0.8/29","state":"lent"}`,
		"pools/blue/web/10.0.0.16/29":                    `{"next":7}`,
		"addresses/blue/web/10.0.0.8":                    `{"owner":7}`,
		"released/blue/web/10.0.0.8/29/0000000000000001": `10.0.0.16`,
		"released/blue/web/10.0.0.8/29/0000000000000000": `10.0.0.9`,
	} {
		p := join(t, `{"prefix":"10.0.0.0/24"}`, "10.0.0.8/29", "10.0.0.16/29")
		for i := range 16 {
			p.gives(fmt.Sprintf("10.0.0.%d/24", 8+i), fmt.Sprint("c", i))
		}
		p.release("c0")
		p.release("c8") // 10.0.0.16
		p.update(func(tx store.Tx) error { return tx.Put(key, []byte(value)) })
		p.refuses(vnet.ErrCorrupt, key, "b")
	}
}
