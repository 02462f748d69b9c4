package node_test

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var defaults = node.Config{Bridge: "br-tenet", OVSRunDir: "/run/openvswitch", DataDir: "/var/lib/tenet"}

var compareAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// load reads a configuration file of that text.
func load(t *testing.T, text string) (node.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "tenet.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return node.LoadConfig(file)
}

func TestOnlyTheDefaultConfigurationMayBeMissing(t *testing.T) {
	if _, err := os.Stat(node.DefaultConfig); errors.Is(err, os.ErrNotExist) {
		got, err := node.LoadConfig("")
		if diff := cmp.Diff(defaults, got, compareAddr); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	missing := filepath.Join(t.TempDir(), "tenet.json")
	if _, err := node.LoadConfig(missing); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), missing) {
		t.Errorf("got %v, want an ErrInvalid that names the file", err)
	}
	if _, err := node.LoadConfig(filepath.Dir(missing)); !errors.Is(err, vnet.ErrInvalid) {
		t.Errorf("a directory: got %v", err)
	}
}

func TestWhatTheConfigurationLeavesOutOrEmptyIsTheDefault(t *testing.T) {
	for _, text := range []string{`{}`, ` {"bridge":"","ovsRunDir":"","dataDir":"","vtep":"","etcd":{}} `, `{"etcd":{"endpoints":[]}}`} {
		got, err := load(t, text)
		if diff := cmp.Diff(defaults, got, compareAddr); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", text, err, diff)
		}
	}
}

// The documented shape, whole, is accepted as long as it asks for nothing that is not there yet.
func TestWholeConfigurationWithItsDefaultsIsAccepted(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(t, `{"node": "`+host+`", "vtep": "192.0.2.1", "encapsulation": "vxlan", "bridge": "br0", "ovsRunDir": "/run/ovs", "dataDir": "/data",
		"socket": "/run/tenet/tenetd.sock", "zones": "1000-30000", "metrics": "127.0.0.1:9477",
		"etcd": {"endpoints": [], "caFile": "", "certFile": "", "keyFile": "", "username": "", "passwordFile": "", "prefix": "/tenet/v1/"}}`)
	want := node.Config{Bridge: "br0", OVSRunDir: "/run/ovs", DataDir: "/data", VTEP: netip.MustParseAddr("192.0.2.1")}
	if diff := cmp.Diff(want, got, compareAddr); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestConfigurationThatCannotBeHonouredIsRefused(t *testing.T) {
	for _, test := range []struct{ text, want string }{
		{``, "EOF"},
		{`{`, "EOF"},
		{`[]`, "array"},
		{`{} {}`, "after the JSON object"},
		{`{"brigde":"br0"}`, `"brigde"`},
		{`{"datapath":"netdev"}`, `"datapath"`},
		{`{"etcd":{"endpoint":[]}}`, `"endpoint"`},
		{`{"bridge":7}`, "bridge"},
		{`{"vtep":"node1"}`, "node1"},
		{`{"bridge":"a/b"}`, `bridge "a/b"`},
		{`{"bridge":"br-0123456789abc"}`, "at most 15"},
		{`{"dataDir":"data"}`, `dataDir "data"`},
		{`{"ovsRunDir":"./run"}`, `ovsRunDir "./run"`},
		{`{"etcd":{"endpoints":["https://192.0.2.1:2379"]}}`, "etcd.endpoints: a cluster is not available in this version"},
		{`{"etcd":{"caFile":"/ca"}}`, `etcd.caFile "/ca": to choose it is not available in this version`},
		{`{"encapsulation":"geneve"}`, `encapsulation "geneve": to choose it is not available in this version, it is "vxlan"`},
		{`{"node":"not.this.machine"}`, "node"},
		{`{"zones":"1-2"}`, "zones"},
		{`{"metrics":":1"}`, "metrics"},
		{`{"socket":"/x"}`, "socket"},
	} {
		_, err := load(t, test.text)
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "tenet.json") {
			t.Errorf("%s: got %v, want an ErrInvalid with %q and the file's name", test.text, err, test.want)
		}
	}
}

func TestWhatIsGivenLaterWins(t *testing.T) {
	got, err := defaults.Override(node.Config{Bridge: "br0", Datapath: "netdev", VTEP: netip.MustParseAddr("::ffff:192.0.2.1")})
	want := defaults
	want.Bridge, want.Datapath, want.VTEP = "br0", "netdev", netip.MustParseAddr("192.0.2.1")
	if diff := cmp.Diff(want, got, compareAddr); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}
