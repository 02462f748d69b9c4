package test

import (
	"os"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestSTATUSSaysWhatAnADDWouldMiss(t *testing.T) {
	for _, tc := range []struct {
		what  string
		spoil func(h *lab.Host, conf lab.Conf) lab.Conf
		code  uint
		words []string
	}{
		{"nothing, before the first ADD", func(_ *lab.Host, c lab.Conf) lab.Conf { return c }, 0, nil},
		{"nothing, after it", func(h *lab.Host, c lab.Conf) lab.Conf { h.Attach("c", c); return c }, 0, nil},
		{"ovsdb-server", func(h *lab.Host, c lab.Conf) lab.Conf { h.StopDB(); return c }, lab.CodeUnavailable, []string{"OVSDB socket", "db.sock"}},
		{"the run directory", func(h *lab.Host, c lab.Conf) lab.Conf { return c.With("ovsRunDir", h.RunDir+"/nowhere") }, lab.CodeUnavailable, []string{"OVSDB socket", "nowhere/db.sock"}},
		{"ovs-vswitchd, before the first ADD", func(h *lab.Host, c lab.Conf) lab.Conf { h.KillVswitchd(); return c }, lab.CodeUnavailable, []string{"ovs-vswitchd"}},
		{"ovs-vswitchd, with containers", func(h *lab.Host, c lab.Conf) lab.Conf {
			h.Attach("c", c)
			h.KillVswitchd()
			return c
		}, lab.CodeLimited, []string{"management socket of br-tenet"}},
		{"a bridge of its own", func(h *lab.Host, c lab.Conf) lab.Conf {
			h.Sh("ovs-vsctl", "add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type="+h.Datapath)
			return c.With("bridge", "br-other")
		}, lab.CodeUnavailable, []string{"bridge br-other", "not tenet's"}},
		{"a place for its store", func(h *lab.Host, c lab.Conf) lab.Conf { return c.With("dataDir", h.RunDir+"/conf.db/data") }, lab.CodeUnavailable, []string{"store"}},
		{"a store that can be read", func(h *lab.Host, c lab.Conf) lab.Conf { corrupt(h); return c }, lab.CodeUnavailable, []string{"store"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			h := lab.NewHost(t)
			c := h.Container("status")
			c.Conf = tc.spoil(h, h.Conf("blue", "web", web4))
			lab.Fails(t, c.Do("STATUS"), tc.code, tc.words...)
		})
	}
}

// corrupt puts something else in the store's place.
func corrupt(h *lab.Host) {
	if err := os.MkdirAll(h.DataDir, 0o700); err != nil {
		panic(err)
	}
	if err := os.WriteFile(h.Store().Path(), []byte("this was a database once\n"), 0o600); err != nil {
		panic(err)
	}
}
