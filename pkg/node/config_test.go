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

var defaults = node.Config{
	Bridge: "br-tenet", OVSRunDir: "/run/openvswitch", DataDir: "/var/lib/tenet", Name: hostname(), Encapsulation: "vxlan",
	Socket: "/run/tenet/tenetd.sock", Metrics: "127.0.0.1:9477", Etcd: node.Etcd{Prefix: "/tenet/v1/"},
}

func hostname() vnet.NodeName {
	host, _ := os.Hostname()
	return vnet.NodeName(host)
}

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

// The documented shape, whole.
func TestWholeConfiguration(t *testing.T) {
	got, err := load(t, `{"node": "n1", "vtep": "192.0.2.1", "encapsulation": "geneve", "bridge": "br0", "ovsRunDir": "/run/ovs", "dataDir": "/data",
		"socket": "/run/t.sock", "zones": "1000-30000", "metrics": "off",
		"etcd": {"endpoints": ["https://192.0.2.9:2379"], "caFile": "/ca", "certFile": "/cert", "keyFile": "/key", "username": "u", "passwordFile": "/pw", "prefix": "/p/"}}`)
	want := node.Config{
		Bridge: "br0", OVSRunDir: "/run/ovs", DataDir: "/data", VTEP: netip.MustParseAddr("192.0.2.1"), Name: "n1", Encapsulation: "geneve",
		Socket: "/run/t.sock", Metrics: "off", Etcd: node.Etcd{
			Endpoints: []string{"https://192.0.2.9:2379"}, CAFile: "/ca", CertFile: "/cert", KeyFile: "/key", Username: "u", PasswordFile: "/pw", Prefix: "/p/",
		},
	}
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
		{`{"vtep":"192.0.2.1/24"}`, "vtep: "},
		{`{"bridge":"a/b"}`, `bridge "a/b"`},
		{`{"bridge":"br-0123456789abc"}`, "at most 15"},
		{`{"dataDir":"data"}`, `dataDir "data"`},
		{`{"ovsRunDir":"./run"}`, `ovsRunDir "./run"`},
		{`{"encapsulation":"gre"}`, `encapsulation "gre": must be vxlan or geneve`},
		{`{"node":"a/b","etcd":{"endpoints":["https://192.0.2.1:2379"]}}`, `node "a/b"`},
		{`{"zones":"1-2"}`, "zones"},
		{`{"metrics":"9477"}`, "metrics"},
		{`{"socket":"x"}`, "socket"},
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
