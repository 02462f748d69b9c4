package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/veth/netnstest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A wired is a host with a switch and a NIC, eth1, on a wire at whose other end is a machine with the addresses
// 10.1.0.1 and fd01::1, which answers. The test's goroutine is in the host's network namespace.
type wired struct {
	*Node
	t      *testing.T
	sw     *ovstest.Switch
	remote netns.NsHandle
}

// lan is the uplink of these tests.
func lan() vnet.Uplink {
	return vnet.Uplink{Name: "lan", NIC: "eth1", VLANs: vnet.VLANs{{First: 100, Last: 101}}}
}

func newWired(t *testing.T) wired {
	t.Helper()
	w := wired{t: t}
	netnstest.Enter(t)
	var err error
	w.remote, err = netns.Get()
	w.must(err)
	t.Cleanup(func() { w.remote.Close() })
	w.ip("link set lo up")
	netnstest.Enter(t)
	w.sw = ovstest.Start(t, ovstest.InNetNS(fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())))
	w.Node = Open(Config{Bridge: "br-tenet", OVSRunDir: w.sw.RunDir, DataDir: filepath.Join(t.TempDir(), "tenet"), Datapath: w.sw.Datapath}, nil)
	t.Cleanup(w.Close)
	w.ip("link set lo up")
	w.newNIC()
	w.configure()
	return w
}

// newNIC makes the NIC and the wire.
func (w wired) newNIC() {
	w.t.Helper()
	w.ip("link add eth1 address 02:00:00:00:00:11 type veth peer name wire")
	w.ip(fmt.Sprintf("link set wire netns /proc/%d/fd/%d", os.Getpid(), int(w.remote)))
	w.inRemote(func() {
		for _, c := range []string{"link set wire up", "addr replace 10.1.0.1/24 dev wire", "-6 addr replace fd01::1/64 dev wire nodad", "addr replace 203.0.113.1/32 dev lo"} {
			w.ip(c)
		}
		// On a wire frames have their checksum, and are no larger than the MTU.
		w.must(exec.CommandContext(w.t.Context(), "ethtool", "-K", "wire", "tx", "off", "tso", "off", "gso", "off").Run())
	})
}

// configure is what the host's network configuration does to the NIC.
func (w wired) configure() {
	w.t.Helper()
	for _, c := range []string{
		"link set eth1 up", "addr replace 10.1.0.5/24 brd + dev eth1 label eth1:web", "addr replace 10.1.7.5/24 dev eth1 valid_lft 3000 preferred_lft 2000",
		"-6 addr replace fd01::5/64 dev eth1", "route replace default via 10.1.0.1 dev eth1 metric 100",
		"route replace 10.9.0.0/16 via 10.1.0.1 dev eth1 table 100", "-6 route replace default via fd01::1 dev eth1 pref high",
	} {
		w.ip(c)
	}
	w.settled("eth1")
}

// settled waits until IPv6 has probed for the link's addresses.
func (w wired) settled(link string) {
	w.t.Helper()
	ovstest.Wait(w.t, "the addresses of "+link, func() bool { return w.ip("-6 addr show tentative dev "+link) == "" })
}

func (w wired) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w wired) ip(args string) string {
	w.t.Helper()
	out, err := exec.CommandContext(w.t.Context(), "ip", strings.Fields(args)...).CombinedOutput()
	if err != nil {
		w.t.Fatalf("ip %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// inRemote runs f in the machine at the other end.
func (w wired) inRemote(f func()) {
	w.t.Helper()
	here, err := netns.Get()
	w.must(err)
	defer here.Close()
	w.must(netns.Set(w.remote))
	defer func() { w.must(netns.Set(here)) }()
	f()
}

var (
	lifetime = regexp.MustCompile(`\d+sec`)
	number   = regexp.MustCompile(`^\d+: `)
)

// has is what the host has on a link, with the link called LINK.
func (w wired) has(link string) string {
	w.t.Helper()
	var all []string
	for _, show := range []string{"-o addr show scope global dev " + link, "-o -4 -d route show table all", "-o -6 -d route show table all"} {
		for line := range strings.Lines(w.ip(show)) {
			line = strings.Join(strings.Fields(lifetime.ReplaceAllString(number.ReplaceAllString(line, ""), "SECS")), " ")
			if strings.Contains(line, link) && !strings.Contains(line, "table local") && !strings.Contains(line, "fe80::/") && !strings.Contains(line, "multicast ff00") {
				all = append(all, strings.ReplaceAll(line, link, "LINK"))
			}
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n")
}

// settings are how the host's stack treats the NIC.
func (w wired) settings() string {
	w.t.Helper()
	var all []string
	for _, pattern := range []string{"/proc/sys/net/ipv4/conf/eth1/*", "/proc/sys/net/ipv6/conf/eth1/*"} {
		files, err := filepath.Glob(pattern)
		w.must(err)
		for _, f := range files {
			b, _ := os.ReadFile(f)
			all = append(all, f+" "+strings.TrimSpace(string(b)))
		}
	}
	return strings.Join(all, "\n")
}

// reaches fails the test unless the host and the machine on the wire, and what is behind it, reach one another.
func (w wired) reaches(when string) {
	w.t.Helper()
	for _, to := range []string{"10.1.0.1", "fd01::1", "203.0.113.1"} {
		if out, err := exec.CommandContext(w.t.Context(), "ping", "-n", "-i", "0.2", "-c", "1", "-w", "20", to).CombinedOutput(); err != nil {
			w.t.Fatalf("%s: no answer from %s: %v\n%s\n%s\n%s", when, to, err, out, w.ip("addr"), w.ip("route show table all"))
		}
	}
	w.inRemote(func() {
		for _, to := range []string{"10.1.0.5", "fd01::5"} {
			if out, err := exec.CommandContext(w.t.Context(), "ping", "-n", "-i", "0.2", "-c", "1", "-w", "20", to).CombinedOutput(); err != nil {
				w.t.Fatalf("%s: the wire has no answer from %s: %v\n%s", when, to, err, out)
			}
		}
	})
}

func (w wired) same(what, got, want string) {
	w.t.Helper()
	if got != want {
		w.t.Fatalf("%s: there is\n%s\nand should be\n%s", what, got, want)
	}
}

func (w wired) add() {
	w.t.Helper()
	if _, _, err := w.AddUplink(w.t.Context(), lan(), true); err != nil {
		w.t.Fatal(err)
	}
}

// stands fails the test unless the uplink is as it should be and the host has on it what it had on the NIC.
func (w wired) stands(when, before string) {
	w.t.Helper()
	differs, err := w.syncUplinks(w.t.Context(), w.Bridge, false)
	if err != nil || len(differs) > 0 {
		w.t.Fatalf("%s: %q, %v", when, differs, err)
	}
	w.same(when+", br-lan", w.has("br-lan"), before)
	w.same(when+", eth1", w.has("eth1"), "")
	w.reaches(when)
}

// gone fails the test unless nothing is left of the uplink and the NIC has what it had.
func (w wired) gone(when, before, settings string) {
	w.t.Helper()
	w.settled("eth1")
	w.same(when+", eth1", w.has("eth1"), before)
	w.same(when+", settings", w.settings(), settings)
	if got := w.sw.Run(w.t, "ovs-vsctl", "--bare", "--columns=name", "list", "interface"); got != "br-tenet" {
		w.t.Fatalf("%s: interfaces left: %s", when, got)
	}
	if left, err := w.Uplinks(w.t.Context()); err != nil || len(left) > 0 {
		w.t.Fatalf("%s: %+v, %v", when, left, err)
	}
	w.reaches(when)
}

func TestAnUplinkTakesTheHostAlongAndBringsItBack(t *testing.T) {
	w := newWired(t)
	before, settings := w.has("eth1"), w.settings()
	w.reaches("before")

	conversation := w.talk()
	u, made, err := w.AddUplink(t.Context(), lan(), true)
	if err != nil || !made || u.OFPort != vnet.FirstUplinkPort || u.Bridge != "br-tenet" {
		t.Fatalf("%+v, %t, %v", u, made, err)
	}
	w.stands("added", before)
	if got := w.sw.Run(t, "ovs-vsctl", "get", "port", "dn-lan", "trunks") + w.sw.Run(t, "ovs-vsctl", "get", "interface", "up-lan", "ofport"); got != "[0, 100, 101]256" {
		t.Errorf("the trunk is %s", got)
	}
	if mtu := w.ip("link show br-lan"); !strings.Contains(mtu, "mtu 1500") || !strings.Contains(mtu, "02:00:00:00:00:11") {
		t.Errorf("the bridge's link: %s", mtu)
	}
	if _, made, err := w.AddUplink(t.Context(), lan(), false); err != nil || made {
		t.Errorf("added again: %t, %v", made, err)
	}
	w.sw.Run(t, "ovs-vsctl", "del-port", "br-tenet", "up-lan")
	if _, made, err := w.AddUplink(t.Context(), lan(), false); err != nil || made {
		t.Errorf("added again to mend it: %t, %v", made, err)
	}
	w.stands("mended", before)
	list, err := w.Uplinks(t.Context())
	if err != nil || len(list) != 1 || list[0].Link != "up" || list[0].MTU != 1500 || len(list[0].Drift) > 0 || !slices.Contains(list[0].Addresses, "10.1.0.5/24") {
		t.Errorf("%+v, %v", list, err)
	}
	conversation.goesOn("after add")

	w.must(w.DelUplink(t.Context(), "lan"))
	w.gone("deleted", before, settings)
	conversation.goesOn("after del")
	if err := w.DelUplink(t.Context(), "lan"); !errors.Is(err, vnet.ErrNotFound) {
		t.Errorf("deleted again: %v", err)
	}
	for range 5 { // at once
		w.add()
		w.must(w.DelUplink(t.Context(), "lan"))
	}
	w.gone("added and deleted again", before, settings)
}

// A talk is a TCP connection through the NIC.
type talk struct {
	w    wired
	conn net.Conn
}

func (w wired) talk() talk {
	w.t.Helper()
	var l net.Listener
	w.inRemote(func() {
		var err error
		l, err = net.Listen("tcp", "203.0.113.1:7")
		w.must(err)
	})
	w.t.Cleanup(func() { l.Close() })
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	c, err := net.Dial("tcp", "203.0.113.1:7")
	w.must(err)
	w.t.Cleanup(func() { c.Close() })
	return talk{w, c}
}

// goesOn sends something there and back.
func (c talk) goesOn(when string) {
	c.w.t.Helper()
	sent := make([]byte, 100_000)
	go func() { _, _ = c.conn.Write(sent) }()
	if _, err := io.ReadFull(c.conn, sent); err != nil {
		c.w.t.Errorf("%s: the connection is lost: %v", when, err)
	}
}

func TestAnUplinkCutAnywhereKeepsTheHostOnTheNetworkAndIsFinishedOrUndone(t *testing.T) {
	w := newWired(t)
	program := filepath.Join(t.TempDir(), "node.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "tenetcut", "-o", program, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config, err := json.Marshal(w.Config)
	w.must(err)
	// The process is born on this thread, in the host's namespace, and killed after the step.
	cut := func(work, step string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, "-test.run=^TestUplinkWork$")
		cmd.Env = append(os.Environ(), "TENET_UPLINK_WORK="+work, "TENET_UPLINK_CONFIG="+string(config), "TENET_UPLINK_DATAPATH="+w.Datapath, "TENET_CUT="+step)
		out, err := cmd.CombinedOutput()
		exit := &exec.ExitError{}
		if !errors.As(err, &exit) || exit.ExitCode() != -1 {
			t.Fatalf("%s was not cut at %s: %v\n%s", work, step, err, out)
		}
		w.reaches(work + " cut at " + step)
	}
	before, settings := w.has("eth1"), w.settings()
	finish := map[string]func(when string){
		"add": func(when string) {
			if _, made, err := w.AddUplink(t.Context(), lan(), true); err != nil || !made {
				t.Fatalf("%s: made %t, %v", when, made, err)
			}
		},
		"sync": func(when string) {
			if differs, err := w.syncUplinks(t.Context(), w.Bridge, true); err != nil || len(differs) == 0 {
				t.Fatalf("%s: %q, %v", when, differs, err)
			}
		},
		"del": func(string) { w.must(w.DelUplink(t.Context(), "lan")) },
	}
	for _, step := range []string{"recorded", "bridged", "addressed", "plugged", "routed", "stripped", "joined"} {
		for _, then := range []string{"add", "sync", "del"} {
			when := "add cut at " + step + ", then " + then
			cut("add", "uplink-"+step)
			finish[then](when)
			if then != "del" {
				w.stands(when, before)
				finish["del"](when)
			}
			w.gone(when, before, settings)
		}
	}
	for _, step := range []string{"leaving", "addressed-back", "routed-back", "unplugged", "removed"} {
		for _, then := range []string{"add", "sync", "del"} {
			when := "del cut at " + step + ", then " + then
			w.add()
			cut("del", "uplink-"+step)
			finish[then](when)
			if then == "add" {
				w.stands(when, before)
				finish["del"](when)
			}
			w.gone(when, before, settings)
		}
	}
}

func TestTwoAddsAtOnceMakeOneUplink(t *testing.T) {
	w := newWired(t)
	before := w.has("eth1")
	home, err := netns.Get()
	w.must(err)
	defer home.Close()
	var wg sync.WaitGroup
	var mu sync.Mutex
	makers := 0
	for range 4 {
		wg.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
			if err := netns.Set(home); err != nil {
				t.Error(err)
				return
			}
			n := Open(w.Config, nil)
			defer n.Close()
			_, made, err := n.AddUplink(t.Context(), lan(), true)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if made {
				makers++
			}
		})
	}
	wg.Wait()
	if makers != 1 {
		t.Errorf("%d of them made it", makers)
	}
	w.stands("added", before)
}

func TestAnUplinkThatCannotBeIsToldAndNothingChanges(t *testing.T) {
	w := newWired(t)
	w.must(w.EnsureBridge(t.Context()))
	w.ip("link add bond0 type veth peer name bond1")
	for _, c := range [][]string{
		{"add-br", "br-theirs"},
		{"add-br", "br-other", "--", "set", "bridge", "br-other", "datapath_type=" + w.sw.Datapath, "--", "add-port", "br-other", "bond0"},
	} {
		w.sw.Run(t, append([]string{"ovs-vsctl"}, c...)...)
	}
	w.ip("link add br-link type veth peer name br-peer")
	snapshot := func() string {
		rows := w.sw.Run(t, "ovs-vsctl", "--columns=_uuid,name,external_ids", "list", "bridge") + w.sw.Run(t, "ovs-vsctl", "--columns=_uuid,name", "list", "interface")
		return strings.Join([]string{rows, w.has("eth1"), w.settings(), w.ip("-o link")}, "\n")
	}
	before := snapshot()
	named := func(name vnet.UplinkName, nic string) vnet.Uplink { return vnet.Uplink{Name: name, NIC: nic} }
	for what, c := range map[string]struct {
		u     vnet.Uplink
		force bool
		kind  error
		words []string
	}{
		"no such NIC":            {named("lan", "eth9"), true, vnet.ErrNotFound, []string{"eth9", "no such link"}},
		"the default route":      {lan(), false, vnet.ErrExists, []string{"eth1 carries the host's default route"}},
		"in a bridge":            {named("lan", "bond0"), true, vnet.ErrExists, []string{"bond0 is in bridge br-other already"}},
		"a bridge of tenet":      {named("lan", "br-tenet"), true, vnet.ErrExists, []string{"br-tenet is in bridge br-tenet already"}},
		"loopback":               {named("lan", "lo"), true, vnet.ErrInvalid, []string{"loopback"}},
		"name too long":          {named("thirteen-char", "eth1"), true, vnet.ErrInvalid, []string{"at most 12"}},
		"somebody else's bridge": {named("theirs", "eth1"), true, vnet.ErrExists, []string{"bridge br-theirs exists already"}},
		"the tenants' bridge":    {named("tenet", "eth1"), true, vnet.ErrExists, []string{"bridge br-tenet exists already"}},
		"somebody else's link":   {named("link", "eth1"), true, vnet.ErrExists, []string{"br-link exists already"}},
	} {
		_, made, err := w.AddUplink(t.Context(), c.u, c.force)
		if !errors.Is(err, c.kind) || made {
			t.Errorf("%s: %t, %v", what, made, err)
			continue
		}
		for _, word := range c.words {
			if !strings.Contains(err.Error(), word) {
				t.Errorf("%s: %v does not say %q", what, err, word)
			}
		}
		if now := snapshot(); now != before {
			t.Fatalf("%s: it was\n%s\nand is\n%s", what, before, now)
		}
		if list, err := w.Uplinks(t.Context()); err != nil || len(list) > 0 {
			t.Errorf("%s: %+v, %v", what, list, err)
		}
	}
	w.add()
	other := lan()
	other.VLANs = nil
	if _, _, err := w.AddUplink(t.Context(), other, true); !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "declared differently") {
		t.Errorf("an uplink that differs: %v", err)
	}
	if _, _, err := w.AddUplink(t.Context(), named("dmz", "eth1"), true); !errors.Is(err, vnet.ErrExists) {
		t.Errorf("the same NIC: %v", err)
	}
	w.must(w.Store.Update(t.Context(), func(tx store.Tx) error {
		_, err := store.DeclareNetwork(tx, vnet.Network{Tenant: "blue", Name: "wire", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.1.0.0/24")}}, Provider: vnet.Provider{Uplink: "lan", VLAN: 100}})
		return err
	}))
	if err := w.DelUplink(t.Context(), "lan"); !errors.Is(err, vnet.ErrExists) || !strings.Contains(err.Error(), "blue/wire") {
		t.Errorf("deleted under a network: %v", err)
	}
	w.reaches("after all that")
}

func TestASyncMovesTheHostAgainAfterWhatBringsItBackToTheNIC(t *testing.T) {
	w := newWired(t)
	before := w.has("eth1")
	w.add()
	for what, c := range map[string]struct {
		does func()
		says string
	}{
		"the bridge's link is made anew":                  {func() { w.restart(true) }, ""},
		"the network configuration is applied to the NIC": {w.configure4, "nic eth1 has address"},
		"the bridge is lost":                              {func() { w.sw.Run(w.t, "ovs-vsctl", "del-br", "br-lan") }, "bridge br-lan is missing"},
		"the NIC is taken out":                            {func() { w.sw.Run(w.t, "ovs-vsctl", "del-port", "br-lan", "eth1") }, "port eth1 of bridge br-lan is missing"},
		"the trunk is changed":                            {func() { w.sw.Run(w.t, "ovs-vsctl", "set", "port", "dn-lan", "trunks=5") }, "port dn-lan of bridge br-lan is set otherwise"},
		"the tenants' end is lost":                        {func() { w.sw.Run(w.t, "ovs-vsctl", "del-port", "br-tenet", "up-lan") }, "port up-lan of bridge br-tenet is missing"},
		"the fail mode is changed":                        {func() { w.sw.Run(w.t, "ovs-vsctl", "set-fail-mode", "br-lan", "secure") }, "fail mode secure"},
		"the machine has booted": {func() { // all links are new, and the network configuration has dressed the NIC
			w.ip("link del eth1")
			w.newNIC()
			w.configure()
			w.restart(true)
			w.must(w.Store.Update(t.Context(), func(tx store.Tx) error {
				return store.KeepUplinkHost(tx, "lan", map[string]any{"here": "another boot", "nic": nil, "has": nil, "nicIndex": 7, "bridgeIndex": 8})
			}))
		}, "has not been moved"},
	} {
		c.does()
		told, err := w.syncUplinks(t.Context(), w.Bridge, false)
		if err != nil || len(told) == 0 || !strings.Contains(strings.Join(told, "; "), c.says) {
			t.Fatalf("%s: told %q, %v", what, told, err)
		}
		done, err := w.syncUplinks(t.Context(), w.Bridge, true)
		if err != nil || !slices.Equal(done, told) {
			t.Fatalf("%s: %q, but done %q, %v", what, told, done, err)
		}
		w.stands(what, before)
	}
}

// restart kills ovs-vswitchd and starts another; clean: after the bridge's link, as far as the host can remove it.
func (w wired) restart(clean bool) {
	w.t.Helper()
	w.sw.KillVswitchd()
	switch {
	case clean && w.sw.Datapath == "system": // an internal port goes only with its datapath: be content with less
		w.ip("addr replace 10.1.0.5/24 brd + dev eth1 label eth1:web")
	case clean:
		w.ip("link del br-lan")
	}
	w.sw.StartVswitchd()
}

func TestTheHostStaysOnTheNetworkWhenTheSwitchIsKilled(t *testing.T) {
	w := newWired(t)
	before := w.has("eth1")
	w.add()
	w.restart(false)
	w.stands("ovs-vswitchd was killed", before) // without a sync
}

// configure4 is configure for who has IPv6 switched off on the NIC.
func (w wired) configure4() {
	w.ip("addr replace 10.1.0.5/24 brd + dev eth1 label eth1:web")
	w.ip("route append default via 10.1.0.1 dev eth1 metric 100")
}

func TestANICThatGoesAndComesBackIsShownAndPluggedAgain(t *testing.T) {
	w := newWired(t)
	before := w.has("eth1")
	w.add()
	w.ip("link del eth1")
	list, err := w.Uplinks(t.Context())
	if err != nil || len(list) != 1 || list[0].Link != "missing" || !slices.Contains(list[0].Drift, "nic eth1 is missing") {
		t.Fatalf("%+v, %v", list, err)
	}
	if differs, err := w.syncUplinks(t.Context(), w.Bridge, true); err != nil || len(differs) != 1 {
		t.Fatalf("%q, %v", differs, err)
	}
	w.newNIC()
	w.ip("link set eth1 up")
	if differs, err := w.syncUplinks(t.Context(), w.Bridge, true); err != nil || len(differs) == 0 {
		t.Fatalf("%q, %v", differs, err)
	}
	w.stands("it came back", before)
	w.ip("link del eth1")
	w.must(w.DelUplink(t.Context(), "lan"))
	if list, err := w.Uplinks(t.Context()); err != nil || len(list) > 0 {
		t.Errorf("%+v, %v", list, err)
	}
}
