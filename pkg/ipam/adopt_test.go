package ipam_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/ipam"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// adopts checks which blocks a node that joins has to claim.
func (p pools) adopts(want string) {
	p.tb.Helper()
	before := p.dump()
	p.update(func(tx store.Tx) error {
		got, err := ipam.Adopt(tx, p.net)
		if list(got) != want {
			p.tb.Errorf("blocks to claim: %q, want %q", list(got), want)
		}
		return err
	})
	p.unchanged(before)
}

func (p pools) convert(blocks string) error {
	p.tb.Helper()
	var claimed []netip.Prefix
	for b := range strings.FieldsSeq(blocks) {
		claimed = append(claimed, netip.MustParsePrefix(b))
	}
	return p.s.Update(p.tb.Context(), func(tx store.Tx) error {
		return errors.Join(store.JoinCluster(tx, "node-1"), ipam.Convert(tx, p.net, claimed))
	})
}

// alone is a node on its own with addresses in use, at rest and of a foreign IPAM plugin.
func alone(t *testing.T) pools {
	t.Helper()
	p := declare(t, `{"prefix":"10.0.0.0/24","reserved":["10.0.0.64/27"]},{"prefix":"fd00::/64"}`)
	p.gives("10.0.0.2/24 fd00::2/64", "a")
	p.gives("10.0.0.3/24 fd00::3/64", "b")
	p.gives("10.0.0.100/24 fd00::4/64", "c", "10.0.0.100")
	p.gives("10.0.0.101/24 fd00::5/64", "d", "10.0.0.101")
	p.gives("10.0.0.40/24 fd00::6/64", "e", "10.0.0.40")
	if got, err := p.ask(foreign(p.net, "f", "10.0.0.70")); err != nil {
		t.Fatal(got, err)
	}
	for _, c := range []string{"b", "d", "e"} {
		p.release(c)
	}
	return p
}

func TestNodeThatJoinsKeepsWhatItsContainersHave(t *testing.T) {
	p := alone(t)
	p.adopts("10.0.0.0/29 10.0.0.64/29 10.0.0.96/29 fd00::/122")
	if err := p.convert("10.0.0.0/29 10.0.0.64/29 10.0.0.96/29 fd00::/122"); err != nil {
		t.Fatal(err)
	}
	p.adopts("")
	var kept []string
	for key := range p.dump() {
		for _, of := range []string{"pools/", "released/", "addresses/", "blocks/"} {
			if strings.HasPrefix(key, of) {
				kept = append(kept, key)
			}
		}
	}
	want := []string{
		"addresses/blue/web/10.0.0.100", "addresses/blue/web/10.0.0.2", "addresses/blue/web/10.0.0.70",
		"addresses/blue/web/fd00::2", "addresses/blue/web/fd00::4",
		"blocks/blue/web/10.0.0.0/29", "blocks/blue/web/10.0.0.64/29", "blocks/blue/web/10.0.0.96/29", "blocks/blue/web/fd00::/122",
	}
	if diff := cmp.Diff(want, slices.Sorted(slices.Values(kept))); diff != "" {
		t.Errorf("records of addresses (-want +got):\n%s", diff)
	}

	p.gives("10.0.0.2/24 fd00::2/64", "a")
	p.gives("10.0.0.3/24 fd00::3/64", "g") // at rest when the node joined
	p.release("a")
	p.gives("10.0.0.4/24 fd00::5/64", "h")
	p.gives("10.0.0.101/24 fd00::6/64", "i", "10.0.0.101")
	p.needs("", "10.0.0.40", request(p.net, "j", "10.0.0.40"))
	p.refuses(vnet.ErrExists, "taken by c/eth0", "j", "10.0.0.100")
}

func TestJoiningTwiceChangesNoMore(t *testing.T) {
	p := alone(t)
	const blocks = "10.0.0.0/29 10.0.0.64/29 10.0.0.96/29 fd00::/122"
	for range 2 {
		if err := p.convert(blocks); err != nil {
			t.Fatal(err)
		}
	}
	once := alone(t)
	if err := once.convert(blocks); err != nil {
		t.Fatal(err)
	}
	p.unchanged(once.dump())

	p.gives("10.0.0.3/24 fd00::3/64", "g")
	p.release("g")
	if err := p.convert(""); err != nil { // nothing more to claim
		t.Fatal(err)
	}
	p.gives("10.0.0.4/24 fd00::5/64", "h")
	p.gives("10.0.0.3/24 fd00::6/64", "g", "10.0.0.3")
}

// Between Adopt and Convert an address may have been handed out.
func TestJoiningWithoutABlockThatIsInUseIsRefused(t *testing.T) {
	p := alone(t)
	before := p.dump()
	err := p.convert("10.0.0.0/29 10.0.0.8/29")
	need, ok := errors.AsType[*ipam.NeedBlocks](err)
	if !ok || list(need.Addrs) != "10.0.0.100 fd00::2 fd00::4" || need.Network != p.net.Ref() || !errors.Is(err, vnet.ErrExhausted) {
		t.Errorf("got %v, want a NeedBlocks with the addresses in use elsewhere", err)
	}
	p.unchanged(before)
	if err := p.convert("10.0.0.0/29 10.0.0.96/29 fd00::/122 10.0.0.0/24"); !errors.Is(err, vnet.ErrInvalid) {
		t.Errorf("with what is no block: %v", err)
	}
	p.unchanged(before)
	if err := p.convert("10.0.0.0/29 10.0.0.96/29 fd00::/122"); err != nil { // the reserved 10.0.0.70 can do without
		t.Error(err)
	}
	p.adopts("10.0.0.64/29")
}

func TestBlockThatIsThereBeforeTheNodeConvertsIsUsedAsAWhole(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.0/24"}`)
	p.gives("10.0.0.2/24", "a")
	p.release("a")
	p.update(func(tx store.Tx) error { return store.JoinCluster(tx, "node-1") })
	p.put(store.Held, "10.0.0.0/29")
	p.gives("10.0.0.3/24", "b") // steps over 10.0.0.2, which rests in the subnet's queue
	if err := p.convert(""); err != nil {
		t.Fatal(err)
	}
	p.gives("10.0.0.2/24", "c")
	p.gives("10.0.0.4/24", "d")
}

func TestSubnetThatIsOneBlockConverts(t *testing.T) {
	p := declare(t, `{"prefix":"10.0.0.7/32"},{"prefix":"fd00::7/128"}`)
	p.gives("10.0.0.7/32 fd00::7/128", "a")
	p.adopts("10.0.0.7/32 fd00::7/128")
	p.release("a")
	p.adopts("")
	for range 2 {
		if err := p.convert("10.0.0.7/32 fd00::7/128"); err != nil {
			t.Fatal(err)
		}
		p.gives("10.0.0.7/32 fd00::7/128", "b")
		p.release("b")
	}
}
