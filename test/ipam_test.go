package test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// hostLocal is a configuration whose addresses come from the reference plugin host-local, and its directory.
func hostLocal(t *testing.T, conf lab.Conf, subnet string) (lab.Conf, string) {
	t.Helper()
	dir := t.TempDir()
	return conf.With("ipam", map[string]any{
		"type": "host-local", "dataDir": dir, "ranges": []any{[]any{map[string]any{"subnet": subnet}}},
	}), dir
}

func TestAForeignIPAMPluginGivesTheAddressesAndGetsThemBack(t *testing.T) {
	h := lab.NewHost(t)
	conf, dir := hostLocal(t, h.Conf("blue", "web", web4), web4)
	a, b := h.Attach("a", conf), h.Attach("b", conf)
	a.Reaches(b.IP4)
	if got, want := leases(t, dir), []string{a.IP4.String(), b.IP4.String()}; !slices.Equal(got, want) {
		t.Errorf("leases %v, attached are %v", got, want)
	}
	lab.Must(t, a.Do("CHECK").Failed())
	lab.Must(t, a.Do("STATUS").Failed())
	before := h.Snapshot()
	a.Add() // a second ADD asks nobody for a second address
	lab.Same(t, before, h.Snapshot())

	a.Conf = h.Conf("blue", "web", web4) // DEL by the record, not by what the runtime says
	a.Del()
	a.Del()
	if got := leases(t, dir); !slices.Equal(got, []string{b.IP4.String()}) {
		t.Errorf("after DEL the leases are %v", got)
	}
	b.Conf = conf.With("cni.dev/valid-attachments", []any{})
	lab.Must(t, b.Do("GC").Failed())
	if got, left := leases(t, dir), h.Records().Lasting(); len(got)+len(left) > 0 {
		t.Errorf("after GC the leases are %v, the records %q", got, left)
	}
}

func TestAStaticAddressIsTakenAsItIs(t *testing.T) {
	h := lab.NewHost(t)
	static := func(address string) lab.Conf {
		return h.Conf("blue", "web", web4).With("ipam", map[string]any{
			"type": "static", "addresses": []any{map[string]any{"address": address, "gateway": "10.0.0.1"}},
		})
	}
	a := h.Attach("a", static("10.0.0.7/24"))
	if a.IP4 != netip.MustParseAddr("10.0.0.7") {
		t.Errorf("it has %s", a.IP4)
	}
	a.Reaches(router4)
	ours := h.Attach("ours", h.Conf("blue", "web", web4)) // the two IPAM plugins share the network
	a.Reaches(ours.IP4)
	before := h.Snapshot().Lasting()
	b := h.Container("b")
	b.Conf = static("10.0.0.7/24")
	lab.Fails(t, b.Do("ADD"), lab.CodeConflict, "10.0.0.7")
	lab.Same(t, before, h.Snapshot().Lasting())
}

// Whatever is wrong with a foreign plugin's answer, the ADD fails and leaves nothing, with the plugin neither.
func TestAFailedADDGivesForeignAddressesBack(t *testing.T) {
	h := lab.NewHost(t)
	stays := h.Attach("stays", h.Conf("blue", "web", web4, web6))
	small := h.Conf("blue", "small", "10.9.0.0/24")
	h.Attach("first", small).Del()
	before := h.Snapshot().Lasting()
	for _, tc := range []struct {
		what, subnet string
		change       func(lab.Conf) lab.Conf
		code         uint
		words        []string
	}{
		{"no address left", "10.9.0.0/30", func(c lab.Conf) lab.Conf { return c.With("runtimeConfig", map[string]any{"ips": []string{"10.9.0.9"}}) }, 999, []string{"host-local"}},
		{"an address outside the network", "10.77.0.0/24", nil, lab.CodeConf, []string{"10.77.0.2", "in no subnet of network blue/small"}},
		{"another gateway", "10.9.0.128/25", nil, lab.CodeConf, []string{"gateway 10.9.0.129"}},
		{"no such plugin", "10.9.0.0/24", func(c lab.Conf) lab.Conf { return c.With("ipam", map[string]any{"type": "nowhere"}) }, lab.CodeConf, []string{"nowhere"}},
	} {
		t.Run(tc.what, func(t *testing.T) {
			h := h.For(t)
			conf, dir := hostLocal(t, small, tc.subnet)
			if tc.change != nil {
				conf = tc.change(conf)
			}
			c := h.Container("c")
			c.Conf = conf
			lab.Fails(t, c.Do("ADD"), tc.code, tc.words...)
			lab.Same(t, before, h.Snapshot().Lasting())
			if l := leases(t, dir); len(l) > 0 {
				t.Errorf("leases are left: %v", l)
			}
		})
	}
	lab.Must(t, stays.Do("CHECK").Failed())
}
