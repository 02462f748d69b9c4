package test

import (
	"net/netip"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestSyncMakesTheHostsLinkWholeAgain(t *testing.T) {
	w := newOutsideWorld(t, "nat")
	w.server.Serve(80)
	for _, damage := range [][]string{
		{"ovs-vsctl", "del-port", "tenet-gw"},
		{"ip", "link", "del", "tenet-gw"},
		{"ip", "link", "set", "tenet-gw", "down"},
		{"ip", "address", "flush", "dev", "tenet-gw"},
		{"nft", "flush", "ruleset"},
	} {
		if w.Datapath == "system" && damage[0] == "ip" && damage[2] == "del" {
			continue // the kernel's does not let anybody delete it
		}
		w.Sh(damage...)
		w.Sync()
		conn, who, err := w.a.Dial(netip.AddrPortFrom(w.server.IP4, 80), 0)
		lab.Must(t, err)
		if lab.Must(t, conn.Close()); who != "server" {
			t.Errorf("after %q it reaches %q", damage, who)
		}
		w.Itself().Reaches(w.b.Alias(w.b.IP4))
		lab.Must(t, w.a.Do("CHECK").Failed())
	}
}
