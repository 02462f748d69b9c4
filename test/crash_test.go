package test

import (
	"os"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// A cut is kill -9 of the plugin after a step. The steps are those of plugins/tenet/add.go and pkg/node/remove.go.
type cut struct{ verb, step string }

var (
	cuts = []cut{
		{"ADD", "bridged"},
		{"ADD", "recorded"},
		{"ADD", "laid"},
		{"ADD", "plugged"},
		{"ADD", "connected"},
		{"ADD", "exposed"},
		{"DEL", "left"},
		{"DEL", "concealed"},
		{"DEL", "disconnected"},
		{"DEL", "forgotten-connections"},
		{"DEL", "unplugged"},
		{"DEL", "cableless"},
		{"DEL", "forgotten"},
	}
	cutsWithForeignIPAM = append([]cut{{"ADD", "delegated"}, {"ADD", "adopted"}, {"DEL", "released"}}, cuts...)
)

// recoveries are what may come after a cut; each of them alone leaves nothing.
var recoveries = []struct {
	name string
	run  func(t *testing.T, c *lab.Container)
}{
	{"DEL", func(_ *testing.T, c *lab.Container) { c.Del() }},
	{"GC", func(t *testing.T, c *lab.Container) {
		gc := *c
		gc.Conf = c.Conf.With("cni.dev/valid-attachments", []any{})
		lab.Must(t, gc.Do("GC").Failed())
	}},
	{"sync", func(_ *testing.T, c *lab.Container) { c.Sync() }},
	{"another ADD, then DEL", func(_ *testing.T, c *lab.Container) { c.Add(); c.Del() }},
}

func TestCrashAnywhereLeavesNothing(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t)
	// One address: if it leaks, the next ADD fails. So it does if the published port does.
	conf := h.Conf("red", "scarce", "10.9.0.0/30").With("gateway", "nat").With("runtimeConfig", map[string]any{
		"portMappings": []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}},
		"bandwidth":    map[string]any{"ingressRate": 20_000_000, "egressRate": 10_000_000},
	})
	crash(t, h, conf, cuts, func() []string { return nil })
}

func TestCrashAnywhereLeavesNoLeaseOfAForeignIPAMPlugin(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t)
	dir := t.TempDir()
	conf := h.Conf("red", "scarce", "10.9.0.0/30").With("ipam", map[string]any{
		"type": "host-local", "dataDir": dir, "ranges": []any{[]any{map[string]any{"subnet": "10.9.0.0/30"}}},
	})
	crash(t, h, conf, cutsWithForeignIPAM, func() []string { return leases(t, dir) })
}

func crash(t *testing.T, h *lab.Host, conf lab.Conf, cuts []cut, leases func() []string) {
	t.Helper()
	stays := h.Attach("stays", h.Conf("blue", "web", web4, web6))
	h.Attach("first", conf).Del() // from now on the network stands
	before := h.Snapshot().Lasting()
	for _, cut := range cuts {
		for _, recovery := range recoveries {
			t.Run(cut.verb+" cut after "+cut.step+", then "+recovery.name, func(t *testing.T) {
				h := h.For(t)
				c := h.Container("victim")
				c.Conf = conf
				if cut.verb == "DEL" {
					c.Add()
				}
				call := c.Call(cut.verb)
				call.Cut = cut.step
				a, err := h.Exec(call)
				lab.Must(t, err)
				if !a.Killed {
					t.Fatalf("%s never came to %q: %s", cut.verb, cut.step, a.Stdout)
				}
				recovery.run(t, c)
				lab.Same(t, before, h.Snapshot().Lasting())
				if l := leases(); len(l) > 0 {
					t.Errorf("leases are left: %q", l)
				}
				h.Attach("next", conf).Del()
			})
		}
	}
	lab.Must(t, stays.Do("CHECK").Failed())
}

// leases are the addresses that host-local has handed out.
func leases(t *testing.T, dir string) []string {
	t.Helper()
	networks, err := os.ReadDir(dir)
	lab.Must(t, err)
	var list []string
	for _, n := range networks {
		files, err := os.ReadDir(dir + "/" + n.Name())
		lab.Must(t, err)
		for _, f := range files {
			if f.Name() != "lock" && !strings.HasPrefix(f.Name(), "last_reserved_ip") {
				list = append(list, f.Name())
			}
		}
	}
	return list
}

// After a reboot of the host the store and the database are there, links and namespaces are not.
func TestCrashOfTheHostLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, how := range []struct {
		name string
		run  func(t *testing.T, c *lab.Container)
	}{recoveries[0], recoveries[1], recoveries[2], {"the start of ovs-vswitchd", func(_ *testing.T, c *lab.Container) {
		c.Sync("--before-switch")
		c.StartVswitchd()
		c.Sync("--after-switch")
	}}} {
		t.Run(how.name, func(t *testing.T) {
			h := lab.NewHost(t)
			dir := t.TempDir()
			own := h.Conf("blue", "web", web4, web6)
			foreign := own.With("ipam", map[string]any{"type": "host-local", "dataDir": dir, "ranges": []any{[]any{map[string]any{"subnet": web4}}}})
			h.Attach("first", own).Del()
			before := h.Snapshot().Lasting()
			c, d := h.Attach("c", own), h.Attach("d", foreign)
			h.KillVswitchd()
			for _, gone := range []*lab.Container{c, d} {
				h.Sh("ip", "link", "del", gone.Port())
				inAnotherBoot(h, gone)
			}
			if how.name != "the start of ovs-vswitchd" {
				h.StartVswitchd()
			}
			how.run(t, c)
			if how.name == "DEL" {
				d.Del()
			}
			if how.name != "the start of ovs-vswitchd" {
				h.Sync() // the flows that no container's life depends on
			}
			lab.Same(t, before, h.Snapshot().Lasting())
			if l := leases(t, dir); len(l) > 0 {
				t.Errorf("leases are left: %q", l)
			}
			again := h.Attach("c", own)
			again.Reaches(router4)
		})
	}
}

// inAnotherBoot makes a container's record look as if an earlier boot had written it.
func inAnotherBoot(h *lab.Host, c *lab.Container) {
	id := vnet.Attachment{Container: c.ID, IfName: c.IfName}.ID()
	h.Update(func(tx store.Tx) error {
		e, err := store.Endpoint(tx, id)
		if err != nil {
			return err
		}
		e.Boot = "00000000-0000-0000-0000-000000000000 net:[1]"
		return store.PutEndpoint(tx, &e)
	})
}
