package test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/test/lab"
)

// A mistake is an ADD that must be refused without a trace: its code, and words that say what is wrong.
type mistake struct {
	what  string
	make  func(h *lab.Host, c *lab.Container)
	code  uint
	words []string
}

func conf(change func(lab.Conf) lab.Conf) func(*lab.Host, *lab.Container) {
	return func(_ *lab.Host, c *lab.Container) { c.Conf = change(c.Conf) }
}

func with(key string, value any) func(*lab.Host, *lab.Container) {
	return conf(func(c lab.Conf) lab.Conf { return c.With(key, value) })
}

func subnets(list ...string) []any {
	var subnets []any
	for _, s := range list {
		subnets = append(subnets, map[string]any{"prefix": s})
	}
	return subnets
}

var mistakes = []mistake{
	{"no namespace", func(_ *lab.Host, c *lab.Container) { c.Path += "-nowhere" }, lab.CodeNetNS, []string{"no such file"}},
	{"a namespace that is a file", func(h *lab.Host, c *lab.Container) { c.Path = h.RunDir + "/conf.db" }, lab.CodeNetNS, []string{"a regular file"}},
	{"a namespace that is a directory", func(h *lab.Host, c *lab.Container) { c.Path = h.RunDir }, lab.CodeNetNS, []string{"a directory"}},
	{"a namespace of another kind", func(_ *lab.Host, c *lab.Container) { c.Path = "/proc/self/ns/mnt" }, lab.CodeNetNS, []string{"another kind"}},
	{"the host's own namespace", func(_ *lab.Host, c *lab.Container) { c.Path = "/proc/self/ns/net" }, lab.CodeNetNS, []string{"the node's own"}},
	{"an interface name of 16 characters", func(_ *lab.Host, c *lab.Container) { c.IfName = "eth0123456789abc" }, lab.CodeArgs, []string{"interface name"}},
	{"an interface name with a slash", func(_ *lab.Host, c *lab.Container) { c.IfName = "eth/0" }, lab.CodeArgs, []string{"interface name"}},
	{"a container id with a slash", func(_ *lab.Host, c *lab.Container) { c.ID = "a/b" }, lab.CodeArgs, []string{"containerID"}},
	{"CNI_ARGS without equals sign", func(_ *lab.Host, c *lab.Container) { c.Args = "IP" }, lab.CodeArgs, []string{"IP"}},
	{"CNI_ARGS that nobody knows", func(_ *lab.Host, c *lab.Container) { c.Args = "FOO=bar" }, lab.CodeArgs, []string{"FOO"}},

	{"an unknown key", with("tennant", "blue"), lab.CodeConf, []string{`"tennant"`}},
	{"a key of another type", with("subnets", "10.0.0.0/24"), lab.CodeConf, []string{"subnets"}},
	{"no tenant", conf(func(c lab.Conf) lab.Conf { return c.Without("tenant") }), lab.CodeConf, []string{"tenant is missing"}},
	{"a tenant with a slash", with("tenant", "../blue"), lab.CodeConf, []string{"not allowed"}},
	{"a network that nobody declared", conf(func(c lab.Conf) lab.Conf { return c.Without("subnets").With("network", "nowhere") }), lab.CodeConf, []string{"blue/nowhere does not exist"}},
	{"a prefix that is none", with("subnets", subnets("10.0.0.0/33")), lab.CodeConf, []string{"10.0.0.0/33"}},
	{"host bits in the prefix", with("subnets", subnets("10.0.0.7/24")), lab.CodeConf, []string{"10.0.0.7/24"}},
	{"a gateway outside its subnet", with("subnets", []any{map[string]any{"prefix": web4, "gateway": "10.0.9.1"}}), lab.CodeConf, []string{"10.0.9.1"}},
	{"an overlap in one tenant", conf(func(c lab.Conf) lab.Conf { return c.With("network", "db").With("subnets", subnets("10.0.0.128/25")) }), lab.CodeConflict, []string{"overlaps", "blue/web"}},
	{"a network declared differently", with("subnets", subnets("10.0.0.0/25")), lab.CodeConflict, []string{"declared differently", "subnets"}},
	{"another VNI than before", with("vni", 4711), lab.CodeConflict, []string{"vni: 4711 is asked"}},
	{"the VNI of another network", conf(func(c lab.Conf) lab.Conf {
		return c.With("network", "db").With("subnets", subnets(db4)).With("vni", 77)
	}), lab.CodeConflict, []string{"vni 77 belongs to network green/seven"}},
	{"a VNI that is too large", with("vni", 1<<24), lab.CodeConf, []string{"vni"}},
	{"an MTU above the underlay's", conf(func(c lab.Conf) lab.Conf {
		return c.With("network", "db").With("subnets", subnets(db4)).With("mtu", 1451)
	}), lab.CodeConf, []string{"mtu 1451"}},
	{"an MTU below IPv6's", conf(func(c lab.Conf) lab.Conf {
		return c.With("network", "db").With("subnets", subnets(db6)).With("mtu", 1279)
	}), lab.CodeConf, []string{"mtu 1279"}},
	{"a gateway mode that is not there", with("gateway", "masquerade"), lab.CodeConf, []string{"masquerade", "none, nat or routed"}},
	{"another gateway mode than before", with("gateway", "nat"), lab.CodeConflict, []string{`gateway: "nat" is asked, "none" stands`}},
	{"a routed prefix that the host has", declares("10.200.0.0/24", "gateway", "routed"), lab.CodeConflict, []string{"10.200.0.0/24", "overlaps a route of the host"}},
	{"a routed prefix in one that the host has", declares("10.200.0.128/25", "gateway", "routed"), lab.CodeConflict, []string{"10.200.0.128/25", "overlaps a route of the host"}},
	{"a routed prefix that another tenant has", declares("10.201.0.0/25", "gateway", "routed"), lab.CodeConflict, []string{"10.201.0.0/24", "green/routed", "the host routes both"}},
	{"an egress address of another node", declares("10.0.9.0/24", "gateway", "nat", "egressAddress", "192.0.2.77"), lab.CodeConf, []string{"192.0.2.77", "not an address of this node"}},
	{"an egress address without NAT", declares("10.0.9.0/24", "egressAddress", "10.200.0.1"), lab.CodeConf, []string{"egressAddress"}},
	{"an uplink that is not there", declares("10.0.9.0/24", "provider", map[string]any{"uplink": "lan", "vlan": 7}), lab.CodeConf, []string{"uplink lan does not exist"}},

	{"host port 0", publishes(0, 80), lab.CodeConf, []string{"hostPort 0"}},
	{"host port 65536", publishes(65536, 80), lab.CodeConf, []string{"hostPort 65536"}},
	{"container port 0", publishes(8080, 0), lab.CodeConf, []string{"containerPort 0"}},
	{"a host port that another container has", publishes(7777, 80), lab.CodeConflict, []string{"7777", "published by seven/eth0", "green/seven"}},
	{"rate 0", with("runtimeConfig", map[string]any{"bandwidth": map[string]any{"ingressRate": 0, "ingressBurst": 8}}), lab.CodeConf, []string{"ingressRate is 0"}},
	{"an absurd rate", with("runtimeConfig", map[string]any{"bandwidth": map[string]any{"egressRate": 1 << 50}}), lab.CodeConf, []string{"egressRate"}},

	{"an address outside", with("runtimeConfig", map[string]any{"ips": []string{"192.0.2.1"}}), lab.CodeConf, []string{"192.0.2.1"}},
	{"an address that is none", with("runtimeConfig", map[string]any{"ips": []string{"10.0.0"}}), lab.CodeConf, []string{"10.0.0"}},
	{"the gateway's address", func(_ *lab.Host, c *lab.Container) { c.Args = "IP=10.0.0.1" }, lab.CodeConf, []string{"is the gateway"}},
	{"the broadcast address", func(_ *lab.Host, c *lab.Container) { c.Args = "IP=10.0.0.255" }, lab.CodeConf, []string{"broadcast"}},
	{"an address that is taken", func(_ *lab.Host, c *lab.Container) { c.Args = "IP=10.0.0.2" }, lab.CodeConflict, []string{"10.0.0.2"}},
	{"no address left", conf(func(c lab.Conf) lab.Conf {
		return c.With("tenant", "green").With("network", "full").With("subnets", subnets("10.9.0.0/30"))
	}), lab.CodeExhausted, []string{"no free address"}},
	{"a MAC that is taken", func(_ *lab.Host, c *lab.Container) { c.Args = "MAC=0a:58:0a:00:00:02" }, lab.CodeConflict, []string{"0a:58:0a:00:00:02"}},
	{"a multicast MAC", func(_ *lab.Host, c *lab.Container) { c.Args = "MAC=01:00:5e:00:00:01" }, lab.CodeConf, []string{"multicast"}},
	{"the router's MAC", func(_ *lab.Host, c *lab.Container) { c.Args = "MAC=0a:58:00:00:00:01" }, lab.CodeConf, []string{"gateway"}},

	{"a bridge that is not ours", with("bridge", "br-other"), lab.CodeConflict, []string{"br-other"}},
	{"a bridge name of 16 characters", with("bridge", "br-0123456789abc"), lab.CodeConf, []string{"bridge"}},
	{"a relative data directory", with("dataDir", "data"), lab.CodeConf, []string{"dataDir"}},
	{"no OVSDB socket", with("ovsRunDir", "/nowhere"), lab.CodeLater, []string{"/nowhere/db.sock"}},
	{"an OVSDB socket that is a file", func(_ *lab.Host, c *lab.Container) { c.Conf = c.Conf.With("ovsRunDir", fakeRunDir(c, false)) }, lab.CodeLater, []string{"db.sock"}},
	{"a data directory below a file", func(h *lab.Host, c *lab.Container) { c.Conf = c.Conf.With("dataDir", h.RunDir+"/conf.db/data") }, lab.CodeLater, []string{"conf.db"}},
}

// declares makes the configuration declare a network of its own, with that subnet and further keys.
func declares(prefix string, keys ...any) func(*lab.Host, *lab.Container) {
	return conf(func(c lab.Conf) lab.Conf {
		c = c.With("network", "new").With("subnets", subnets(prefix))
		for i := 0; i < len(keys); i += 2 {
			c = c.With(keys[i].(string), keys[i+1]) //nolint:forcetypeassert // the test's own mistake
		}
		return c
	})
}

func publishes(host, container int) func(*lab.Host, *lab.Container) {
	return with("runtimeConfig", mapping(host, container))
}

func mapping(host, container int) map[string]any {
	return map[string]any{"portMappings": []any{map[string]any{"hostPort": host, "containerPort": container, "protocol": "tcp"}}}
}

func TestBadInputChangesNothing(t *testing.T) {
	h := lab.NewHost(t)
	stays := h.Attach("stays", h.Conf("blue", "web", web4, web6))
	h.Sh("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
	h.Sh("ip", "address", "add", "10.200.0.1/24", "dev", "wire0")
	h.Sh("ip", "link", "set", "wire0", "up")
	h.Attach("routed", h.Conf("green", "routed", "10.201.0.0/24").With("gateway", "routed"))
	h.Attach("seven", h.Conf("green", "seven", "10.7.0.0/24").With("vni", 77).With("runtimeConfig", mapping(7777, 80)))
	h.Attach("full", h.Conf("green", "full", "10.9.0.0/30"))
	h.Sh("ovs-vsctl", "add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type="+h.Datapath)
	for _, m := range mistakes {
		t.Run(m.what, func(t *testing.T) {
			h := h.For(t)
			c := h.Container("c")
			c.Conf = h.Conf("blue", "web", web4, web6)
			path := c.Path
			m.make(h, c)
			before := append(h.Snapshot(), inside(t, path))
			lab.Fails(t, c.Do("ADD"), m.code, m.words...)
			lab.Same(t, before, append(h.Snapshot(), inside(t, path)))
		})
	}
	// This one is only seen after the address was given, which rests now.
	t.Run("an interface name that is taken", func(t *testing.T) {
		c := h.For(t).Container("c")
		c.Conf = h.Conf("blue", "web", web4, web6)
		c.Sh("ip", "link", "add", "eth0", "type", "veth", "peer", "eth1")
		before := append(h.Snapshot(), inside(t, c.Path)).Lasting()
		lab.Fails(t, c.Do("ADD"), lab.CodeConflict, "eth0")
		lab.Same(t, before, append(h.Snapshot(), inside(t, c.Path)).Lasting())
	})
	for what, stdin := range map[string]string{"nothing": "", "no JSON": "{", "a list": "[]", "a number": "7"} {
		t.Run(what+" on standard input", func(t *testing.T) {
			before := h.Snapshot()
			call := lab.Call{Verb: "ADD", ID: "c", NetNS: stays.Path, IfName: "eth0", Stdin: []byte(stdin)}
			a, err := h.Exec(call)
			lab.Must(t, err)
			if a.Err == nil {
				t.Errorf("ADD succeeds: %s", a.Stdout)
			}
			lab.Same(t, before, h.Snapshot())
		})
	}
	lab.Must(t, stays.Do("CHECK").Failed())
}

// inside is what a container sees of links, addresses and routes.
func inside(t *testing.T, netns string) string {
	t.Helper()
	var text []string
	for _, what := range []string{"link", "addr", "route"} {
		out, err := lab.RunIn(t, netns, "ip", "-o", what)
		lab.Must(t, err)
		text = append(text, out)
	}
	return strings.Join(text, "\n")
}

// fakeRunDir is a run directory whose db.sock is no socket, or one that never answers.
func fakeRunDir(c *lab.Container, silent bool) string {
	dir, err := os.MkdirTemp("", "tenet-fake")
	if err == nil {
		c.Cleanup(func() { _ = os.RemoveAll(dir) })
		if silent {
			var l net.Listener
			if l, err = net.Listen("unix", filepath.Join(dir, "db.sock")); err == nil {
				c.Cleanup(func() { _ = l.Close() })
			}
		} else {
			err = os.WriteFile(filepath.Join(dir, "db.sock"), nil, 0o600)
		}
	}
	if err != nil {
		panic(err)
	}
	return dir
}

// A runtime must get its answer in time, whatever hangs.
func TestWhatDoesNotAnswerEndsInTryAgainLater(t *testing.T) {
	t.Parallel() // it waits for the plugin's own deadlines
	var waiting sync.WaitGroup
	for what, hang := range map[string]func(h *lab.Host, c *lab.Container){
		"an OVSDB socket that nobody serves": func(_ *lab.Host, c *lab.Container) { c.Conf = c.Conf.With("ovsRunDir", fakeRunDir(c, true)) },
		"a stopped ovs-vswitchd":             func(h *lab.Host, _ *lab.Container) { stopped(h, "ovs-vswitchd") },
		"a stopped ovsdb-server":             func(h *lab.Host, _ *lab.Container) { stopped(h, "ovsdb-server") },
		"a store that another process holds": func(h *lab.Host, c *lab.Container) { holdStore(h, c) },
	} {
		h := lab.NewHost(t)
		stays := h.Attach("stays", h.Conf("blue", "web", web4, web6))
		c := h.Container("c")
		c.Conf = stays.Conf
		hang(h, c)
		waiting.Go(func() {
			start := time.Now()
			a, err := h.Exec(c.Call("ADD"))
			if err != nil || a.Code() != lab.CodeLater {
				t.Errorf("%s: %v %v, want code %d", what, err, a.Failed(), lab.CodeLater)
			}
			t.Logf("%s: it ends after %s", what, time.Since(start).Round(time.Millisecond))
			if out, err := lab.RunIn(t, h.NetNS, "ip", "link", "show", c.Port()); err == nil {
				t.Errorf("%s: its link is left: %s", what, out)
			}
		})
	}
	waiting.Wait()
}

func stopped(h *lab.Host, daemon string) {
	pid := h.PidOf(daemon)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		panic(err)
	}
	h.Cleanup(func() { _ = unix.Kill(pid, unix.SIGCONT) })
}

// holdStore locks the store as any process does that uses it.
func holdStore(h *lab.Host, c *lab.Container) {
	unlock, err := store.Lock(context.Background(), h.DataDir, "store")
	if err != nil {
		panic(err)
	}
	c.Cleanup(unlock)
}

func TestACorruptStoreIsReportedAndLeftAlone(t *testing.T) {
	h := lab.NewHost(t)
	c := h.Container("c")
	c.Conf = h.Conf("blue", "web", web4)
	corrupt(h)
	before, err := os.ReadFile(h.Store().Path())
	lab.Must(t, err)
	for _, verb := range []string{"ADD", "DEL", "CHECK", "GC"} {
		lab.Fails(t, c.Do(verb), lab.CodeIO, "corrupt", h.Store().Path())
	}
	after, err := os.ReadFile(h.Store().Path())
	if err != nil || string(after) != string(before) {
		t.Errorf("the file was changed: %q %v", after, err)
	}
}
