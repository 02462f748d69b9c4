package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const bridgePlugin = "github.com/containernetworking/plugins/plugins/main/bridge@v1.9.1"

// namespace makes a network namespace that is gone after the test.
func namespace(t *testing.T, name string) string {
	t.Helper()
	name = fmt.Sprintf("tenet-ipam-%d-%s", os.Getpid(), name)
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", name).CombinedOutput(); err != nil {
		missing(t, "netns", fmt.Sprintf("no network namespace can be made: %v: %s", err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil { // the test's context has ended
			t.Errorf("%v: %s", err, out)
		}
	})
	return name
}

// The bridge plugin of containernetworking lays the cable, tenet-ipam gives the addresses; a
// private namespace stands for the host.
func TestUnderTheBridgePlugin(t *testing.T) {
	if os.Geteuid() != 0 {
		missing(t, "netns", "network namespaces need root")
	}
	bridge := filepath.Join(plugins(t, bridgePlugin), "bridge")
	host := namespace(t, "host")
	within := []string{"ip", "netns", "exec", host}
	dir := t.TempDir()
	text := strings.ReplaceAll(conf("net", dir, `"ipMasq":false,`), `[{"prefix":"10.0.0.0/24"}]`, `[{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}]`)
	do := func(verb, container, netns, text string) ([]byte, error) {
		t.Helper()
		if netns != "" {
			netns = "/run/netns/" + netns
		}
		return run(t, bridge, call{verb: verb, container: container, netns: netns, conf: text, within: within})
	}
	if _, err := do("STATUS", "", "", text); err != nil {
		t.Fatal(err)
	}
	c1, c2 := namespace(t, "c1"), namespace(t, "c2")
	out, err := do("ADD", "c1", c1, text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := addresses(t, out), "10.0.0.2/24 via 10.0.0.1, fd00::2/64 via fd00::1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	two, err := do("ADD", "c2", c2, text)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := addresses(t, two), "10.0.0.3/24 via 10.0.0.1, fd00::3/64 via fd00::1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, to := range []string{"10.0.0.1", "10.0.0.3", "fd00::3"} {
		ping := exec.CommandContext(t.Context(), "ip", "netns", "exec", c1, "ping", "-c1", "-W5", to)
		if out, err := ping.CombinedOutput(); err != nil {
			t.Errorf("ping %s: %v\n%s", to, err, out)
		}
	}
	checked := strings.TrimSuffix(text, "}") + `,"prevResult":` + string(out) + `}`
	if _, err := do("CHECK", "c1", c1, checked); err != nil {
		t.Error(err)
	}
	for range 2 {
		if _, err := do("DEL", "c1", c1, checked); err != nil {
			t.Error(err)
		}
	}
	if _, err := do("CHECK", "c1", c1, checked); err == nil {
		t.Error("CHECK after DEL went well")
	}
	// The bridge plugin has no GC: a runtime's call ends at tenet-ipam.
	collect := strings.Replace(text, `"ipMasq":false,`, `"cni.dev/valid-attachments":[],`, 1)
	ours := filepath.Join(filepath.Dir(bridge), "tenet-ipam")
	if _, err := run(t, ours, call{verb: "GC", conf: strings.ReplaceAll(collect, `"name":"net"`, `"name":"other"`)}); err != nil {
		t.Error(err)
	}
	if _, err := run(t, ours, call{verb: "CHECK", container: "c2", netns: "/x", conf: text}); err != nil {
		t.Errorf("another network's collection took it: %v", err)
	}
	if _, err := run(t, ours, call{verb: "GC", conf: collect}); err != nil {
		t.Error(err)
	}
	_, err = run(t, ours, call{verb: "CHECK", container: "c2", netns: "/x", conf: text})
	wantCode(t, err, 101, "c2/eth0 holds no address")
	if _, err := do("DEL", "c2", c2, text); err != nil { // its addresses are gone already
		t.Error(err)
	}
}
