package test

import (
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// Paths that nobody has any more go from all bridges.
func TestCollectPathsOfEveryBridge(t *testing.T) {
	h := lab.NewHost(t)
	h.Attach("other", h.Conf("red", "web", web4))
	conf := h.Conf("blue", "web", web4).With("bridge", "br-two")
	w := chained{Host: h, t: t, conf: conf}
	w.shared()
	w.ctl("function", "drain", "blue/fw/fw1")
	ref := vnet.ChainRef{Tenant: "blue", Chain: "c"}
	w.Update(func(tx store.Tx) error {
		legs, err := store.Legs(tx, ref)
		for _, l := range legs {
			for i := range l.Paths {
				if p := &l.Paths[i]; p.Weight == 0 {
					p.Retired = p.Retired.Add(-time.Hour)
				}
			}
		}
		if err != nil {
			return err
		}
		return store.PutLegs(tx, ref, legs)
	})
	n := node.Open(node.Config{DataDir: h.DataDir, OVSRunDir: h.RunDir, Bridge: lab.Bridge}, nil)
	defer n.Close()
	lab.Must(t, lab.Inside(h.NetNS, func() error {
		removed, err := n.CollectPaths(t.Context())
		if removed == 0 {
			t.Error("nothing is removed: this test proves nothing")
		}
		return err
	}))
	lab.Must(t, h.Store().View(t.Context(), func(tx store.Tx) error {
		retired, err := paths.Retired(tx)
		if len(retired) > 0 {
			t.Errorf("paths are left: %v", retired)
		}
		return err
	}))
	if out := w.ctl("sync", "--dry-run"); strings.Count(out, "everything agrees") != 2 {
		t.Error(out)
	}
}
