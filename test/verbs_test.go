package test

import (
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/test/lab"
)

func TestEachVersionOfTheSpecificationIsSpoken(t *testing.T) {
	h := lab.NewHost(t)
	for _, v := range []struct {
		version      string
		check, newer bool // CHECK is of 0.4.0; GC and STATUS are of 1.1.0
	}{{"0.3.0", false, false}, {"0.3.1", false, false}, {"0.4.0", true, false}, {"1.0.0", true, false}, {"1.1.0", true, true}} {
		t.Run(v.version, func(t *testing.T) {
			h := h.For(t)
			c := h.Attach("c"+v.version, h.Conf("blue", "web", web4, web6).With("cniVersion", v.version))
			var result map[string]any
			lab.Must(t, json.Unmarshal(c.Do("ADD").Stdout, &result))
			if result["cniVersion"] != v.version {
				t.Errorf("the result is of version %v", result["cniVersion"])
			}
			checked := *c
			checked.Conf = c.Conf.With("prevResult", result)
			if a := checked.Do("CHECK"); v.check {
				lab.Must(t, a.Failed())
			} else {
				lab.Fails(t, a, lab.CodeVersion)
			}
			var versions struct {
				SupportedVersions []string `json:"supportedVersions"`
			}
			lab.Must(t, json.Unmarshal(c.Do("VERSION").Stdout, &versions))
			if want := []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}; !cmp.Equal(versions.SupportedVersions, want) {
				t.Errorf("supported are %v", versions.SupportedVersions)
			}
			gone := *c
			gone.Conf = c.Conf.With("cni.dev/valid-attachments", []any{map[string]any{"containerID": c.ID, "ifname": c.IfName}})
			for _, verb := range []string{"GC", "STATUS"} {
				if a := gone.Do(verb); v.newer {
					lab.Must(t, a.Failed())
				} else {
					lab.Fails(t, a, lab.CodeVersion)
				}
			}
			checked.Del()
		})
	}
	c := h.Container("older")
	c.Conf = h.Conf("blue", "web", web4).With("cniVersion", "0.2.0")
	lab.Fails(t, c.Do("ADD"), lab.CodeVersion)
}

func TestASecondADDReturnsTheFirstResult(t *testing.T) {
	h := lab.NewHost(t)
	c := h.Attach("c", h.Conf("blue", "web", web4, web6))
	before, first := h.Snapshot(), c.Result
	c.Add()
	if diff := cmp.Diff(first, c.Result); diff != "" {
		t.Errorf("another result (-first +second):\n%s", diff)
	}
	lab.Same(t, before, h.Snapshot())

	for what, conf := range map[string]lab.Conf{
		"another network": h.Conf("blue", "db", db4),
		"another tenant":  h.Conf("red", "web", web4, web6),
		"another name":    c.Conf.With("name", "other"),
		"another address": c.Conf.With("runtimeConfig", map[string]any{"ips": []string{"10.0.0.9"}}),
	} {
		other := *c
		other.Conf = conf
		t.Run(what, func(t *testing.T) {
			lab.Fails(t, other.Do("ADD"), lab.CodeConflict, "attached already")
			lab.Same(t, before, h.Snapshot())
		})
	}
	if lab.Must(t, c.Do("DEL").Failed()); len(h.Records().Lasting()) > 0 {
		t.Errorf("DEL leaves %q", h.Records().Lasting())
	}
}

// What a runtime may do with DEL: all of it succeeds, and nothing is left.
func TestDELNeedsNothingThatMayBeGone(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	never := h.Container("never")
	never.Conf = conf
	never.Del() // on a node where nothing has ever been attached
	if h.HasBridge() {
		t.Error("DEL made a bridge")
	}
	stays := h.Attach("stays", conf)
	before := h.Snapshot().Lasting()
	for what, del := range map[string]func(c *lab.Container) lab.Call{
		"as usual":            func(c *lab.Container) lab.Call { return c.Call("DEL") },
		"without CNI_NETNS":   func(c *lab.Container) lab.Call { call := c.Call("DEL"); call.NetNS = ""; return call },
		"of an older version": func(c *lab.Container) lab.Call { c.Conf = c.Conf.With("cniVersion", "0.3.1"); return c.Call("DEL") },
		"with the namespace unmounted": func(c *lab.Container) lab.Call {
			lab.Must(t, unix.Unmount(c.Path, unix.MNT_DETACH))
			return c.Call("DEL")
		},
		"with the namespace's file gone": func(c *lab.Container) lab.Call {
			lab.Must(t, unix.Unmount(c.Path, unix.MNT_DETACH))
			lab.Must(t, os.Remove(c.Path))
			return c.Call("DEL")
		},
		"with the interface gone": func(c *lab.Container) lab.Call { c.Sh("ip", "link", "del", "eth0"); return c.Call("DEL") },
		"with the port gone": func(c *lab.Container) lab.Call {
			c.Host.Sh("ovs-vsctl", "del-port", c.Port())
			return c.Call("DEL")
		},
		"with the flows gone": func(c *lab.Container) lab.Call {
			c.OFCtl("del-flows", "table=50,dl_dst="+c.MAC.String())
			return c.Call("DEL")
		},
		"without a network in the configuration": func(c *lab.Container) lab.Call {
			c.Conf = c.Conf.Without("subnets", "tenant", "network")
			return c.Call("DEL")
		},
	} {
		t.Run(what, func(t *testing.T) {
			h := h.For(t)
			c := h.Attach("c", conf)
			call := del(c)
			for range 2 { // the second time of what never was
				a, err := h.Exec(call)
				lab.Must(t, err)
				lab.Must(t, a.Failed())
				lab.Same(t, before, h.Snapshot().Lasting())
			}
		})
	}
	never.Del()
	lab.Same(t, before, h.Snapshot().Lasting())
	lab.Must(t, stays.Do("CHECK").Failed())
}

func TestGCIsScopedToItsNetwork(t *testing.T) {
	h := lab.NewHost(t)
	web, db := h.Conf("blue", "web", web4, web6), h.Conf("blue", "db", db4)
	kept, gone, other := h.Attach("kept", web), h.Attach("gone", web), h.Attach("other", db)
	h.Sh("ovs-vsctl", "add-port", lab.Bridge, "foreign", "--", "set", "interface", "foreign", "type=internal")
	before := h.Snapshot()
	gc := *gone
	gc.Conf = web.With("name", "somebody-else")
	lab.Must(t, gc.Do("GC").Failed())
	lab.Same(t, before, h.Snapshot()) // a name that has nothing here

	gc.Conf = web.With("cni.dev/valid-attachments", []any{map[string]any{"containerID": "kept", "ifname": "eth0"}})
	for range 2 {
		lab.Must(t, gc.Do("GC").Failed())
		after := h.Snapshot()
		for _, line := range after.Lasting() {
			if strings.Contains(line, gone.Port()) || strings.Contains(line, gone.MAC.String()) || strings.Contains(line, `"gone"`) {
				t.Errorf("it is still there: %s", line)
			}
		}
		for _, c := range []*lab.Container{kept, other} {
			lab.Must(t, c.Do("CHECK").Failed())
		}
		kept.Reaches(other.IP4)
		if !strings.Contains(h.Sh("ovs-vsctl", "list-ports", lab.Bridge), "foreign") {
			t.Error("somebody else's port is gone")
		}
	}
}

func TestAddressesAndMACsAreGivenAsAsked(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	c := h.Attach("capability", conf.With("runtimeConfig", map[string]any{"ips": []string{"10.0.0.50/24", "fd00:1::50"}, "mac": "0a:aa:00:00:00:50"}))
	d := h.Attach("args", conf, "IP=10.0.0.51", "MAC=0a:aa:00:00:00:51")
	if c.IP4 != netip.MustParseAddr("10.0.0.50") || c.IP6 != netip.MustParseAddr("fd00:1::50") || c.MAC.String() != "0a:aa:00:00:00:50" {
		t.Errorf("by capability: %v %v %v", c.IP4, c.IP6, c.MAC)
	}
	if d.IP4 != netip.MustParseAddr("10.0.0.51") || d.MAC.String() != "0a:aa:00:00:00:51" {
		t.Errorf("by CNI_ARGS: %v %v", d.IP4, d.MAC)
	}
	if got := d.Sh("ip", "-br", "link", "show", "eth0"); !strings.Contains(got, d.MAC.String()) {
		t.Errorf("the link has another MAC: %s", got)
	}
	c.Reaches(d.IP4)
}

func TestTheTenantMayComeFromTheNamespace(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("", "web", web4).Without("tenant").With("tenantFrom", "namespace").With("name", "k8s")
	pod := func(id, namespace string) *lab.Container {
		return h.Attach(id, conf, "IgnoreUnknown=1", "K8S_POD_NAMESPACE="+namespace, "K8S_POD_NAME="+id, "K8S_POD_INFRA_CONTAINER_ID=x")
	}
	a, b, stranger := pod("a", "blue"), pod("b", "blue"), pod("s", "red")
	a.Reaches(b.IP4)
	if stranger.IP4 != a.IP4 {
		t.Errorf("the namespaces share a pool: %v %v", stranger.IP4, a.IP4)
	}
	before := h.Drops()
	stranger.Send(lab.UDP(stranger, b, "to another namespace's pod"))
	h.Counts(t, before, "unknown-mac", 1)
	without := h.Container("without")
	without.Conf = conf
	stands := h.Snapshot()
	lab.Fails(t, without.Do("ADD"), lab.CodeConf, "K8S_POD_NAMESPACE")
	lab.Same(t, stands, h.Snapshot())
	a.Args = "" // DEL must not need it
	a.Del()
}
