package veth

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestRemoveTwice(t *testing.T) {
	w := newWorld(t)
	w.lay(w.cable())
	for range 2 {
		must(t, Remove(ctx(t), "tcable"))
		if ok, err := Exists(ctx(t), "tcable"); ok || err != nil {
			t.Errorf("Exists says %v, %v", ok, err)
		}
		if out := w.runIn("ip", "-br", "link"); len(out) == 0 || slices.Contains(linkNames(w), "eth0") {
			t.Errorf("the container's end is there: %s", out)
		}
	}
}

// The kernel removes a namespace's links in its own time. Remove may come
// before, while or after.
func TestRemoveWhenTheNamespaceWentFirst(t *testing.T) {
	for range 10 {
		w := newWorld(t)
		w.lay(w.cable())
		must(t, unix.Unmount(w.container, unix.MNT_DETACH))
		must(t, Remove(ctx(t), "tcable"))
		if ok, err := Exists(ctx(t), "tcable"); ok || err != nil {
			t.Errorf("Exists says %v, %v", ok, err)
		}
	}
}

func TestRemoveLeavesOtherLinksAlone(t *testing.T) {
	w := newWorld(t)
	w.run("ip", "link", "add", "tcable", "type", "bridge")
	wantError(t, Remove(ctx(t), "tcable"), ErrExists, "kind bridge")
	if _, err := netlink.LinkByName("tcable"); err != nil {
		t.Error(err)
	}
	if ok, err := Exists(ctx(t), "tcable"); ok || err != nil {
		t.Errorf("Exists says %v, %v of a bridge", ok, err)
	}
}

// A link that merely bears the name as an alternative is not the cable.
func TestAlternativeNamesDoNotCount(t *testing.T) {
	w := newWorld(t)
	w.run("ip", "link", "add", "vital", "type", "veth", "peer", "name", "vital2")
	w.run("ip", "link", "property", "add", "dev", "vital", "altname", "tcable")
	must(t, Remove(ctx(t), "tcable"))
	if _, err := netlink.LinkByName("vital"); err != nil {
		t.Error(err)
	}
}

func TestListFindsOurs(t *testing.T) {
	w := newWorld(t)
	w.run("ip", "link", "add", "stranger", "type", "veth", "peer", "name", "stranger2")
	w.run("ip", "link", "add", "ours", "type", "bridge")
	w.run("ip", "link", "set", "ours", "alias", "tenet:bridge")
	a, b := w.cable(), w.cable4()
	b.Host, b.Container, b.Alias, b.Routes = "tsecond", "eth1", "tenet:other", nil
	laidA, laidB := w.lay(a), w.lay(b)

	got, err := List(ctx(t), "tenet:")
	must(t, err)
	slices.SortFunc(got, func(x, y End) int { return x.Index - y.Index })
	want := []End{
		{Name: "tcable", Alias: "tenet:someone", Index: laidA.HostIndex, MAC: laidA.HostMAC, Up: true, Works: true},
		{Name: "tsecond", Alias: "tenet:other", Index: laidB.HostIndex, MAC: laidB.HostMAC, Up: true, Works: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
	if none, err := List(ctx(t), "nobody:"); err != nil || none != nil {
		t.Errorf("List of nobody's is %v, %v", none, err)
	}
}

// linkNames are the links in the container.
func linkNames(w world) []string {
	w.tb.Helper()
	var names []string
	w.in(func() error {
		all, err := netlink.LinkList()
		for _, l := range all {
			names = append(names, l.Attrs().Name)
		}
		return err
	})
	return names
}
