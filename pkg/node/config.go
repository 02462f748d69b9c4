package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// DefaultConfig is where the node's configuration is looked for.
const DefaultConfig = "/etc/tenet/tenet.json"

// Config is a node's configuration: the file's keys that one node without a cluster uses.
type Config struct {
	Bridge    string `json:"bridge"`
	OVSRunDir string `json:"ovsRunDir"`
	DataDir   string `json:"dataDir"`
	// VTEP is the node's tunnel address; its link's MTU is the underlay's. Empty: the link of the default route.
	VTEP netip.Addr `json:"vtep,omitzero"`
	// Datapath is for the bridge's making only ("system", "netdev" or empty), and comes from the netconf.
	Datapath string `json:"-"`
}

// configFile is the file's whole shape: Config, and what only a cluster's node uses.
type configFile struct {
	Config
	Node          string `json:"node"`
	Encapsulation string `json:"encapsulation"`
	Socket        string `json:"socket"`
	Zones         string `json:"zones"`
	Metrics       string `json:"metrics"`
	Etcd          struct {
		Endpoints    []string `json:"endpoints"`
		CAFile       string   `json:"caFile"`
		CertFile     string   `json:"certFile"`
		KeyFile      string   `json:"keyFile"`
		Username     string   `json:"username"`
		PasswordFile string   `json:"passwordFile"`
		Prefix       string   `json:"prefix"`
	} `json:"etcd"`
}

// checkLater refuses what is not there yet, rather than leave a node without what it asks for:
// such keys may have their default value only.
func (f configFile) checkLater() error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	if len(f.Etcd.Endpoints) > 0 {
		return vnet.WithHint(vnet.Invalidf("etcd.endpoints: a cluster is not available in this version"), "leave them empty: each node works on its own")
	}
	for _, key := range []struct{ name, given, only string }{
		{"node", f.Node, host},
		{"encapsulation", f.Encapsulation, "vxlan"},
		{"socket", f.Socket, "/run/tenet/tenetd.sock"},
		{"zones", f.Zones, "1000-30000"},
		{"metrics", f.Metrics, "127.0.0.1:9477"},
		{"etcd.caFile", f.Etcd.CAFile, ""},
		{"etcd.certFile", f.Etcd.CertFile, ""},
		{"etcd.keyFile", f.Etcd.KeyFile, ""},
		{"etcd.username", f.Etcd.Username, ""},
		{"etcd.passwordFile", f.Etcd.PasswordFile, ""},
		{"etcd.prefix", f.Etcd.Prefix, "/tenet/v1/"},
	} {
		if key.given != "" && key.given != key.only {
			return vnet.Invalidf("%s %q: to choose it is not available in this version, it is %q", key.name, key.given, key.only)
		}
	}
	return nil
}

// LoadConfig reads the file, DefaultConfig if path is empty, over the defaults. Only the
// default file may be missing. Unknown keys are errors.
func LoadConfig(path string) (Config, error) {
	c := Config{Bridge: "br-tenet", OVSRunDir: "/run/openvswitch", DataDir: "/var/lib/tenet"}
	file := path
	if file == "" {
		file = DefaultConfig
	}
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) && path == "" {
		return c, nil
	}
	if err != nil {
		return c, vnet.OfKind(vnet.ErrInvalid, fmt.Errorf("node configuration: %w", err))
	}
	var f configFile
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return c, vnet.Invalidf("node configuration %s: %v", file, err)
	}
	if len(bytes.TrimSpace(text[d.InputOffset():])) > 0 {
		return c, vnet.Invalidf("node configuration %s: something stands after the JSON object", file)
	}
	if err := f.checkLater(); err != nil {
		return c, fmt.Errorf("node configuration %s: %w", file, err)
	}
	over, err := c.Override(f.Config)
	if err != nil {
		return c, fmt.Errorf("node configuration %s: %w", file, err)
	}
	return over, nil
}

// Override returns c with what over gives, validated.
func (c Config) Override(over Config) (Config, error) {
	for _, key := range []struct{ to, from *string }{
		{&c.Bridge, &over.Bridge}, {&c.OVSRunDir, &over.OVSRunDir}, {&c.DataDir, &over.DataDir}, {&c.Datapath, &over.Datapath},
	} {
		if *key.from != "" {
			*key.to = *key.from
		}
	}
	if over.VTEP.IsValid() {
		c.VTEP = over.VTEP.Unmap()
	}
	const maxLinkName = 15 // IFNAMSIZ-1; the bridge has an internal port of its name
	if len(c.Bridge) > maxLinkName || bytes.ContainsAny([]byte(c.Bridge), "/ \t\n") || c.Bridge == "." || c.Bridge == ".." {
		return c, vnet.Invalidf("bridge %q: at most %d characters, without slash or space", c.Bridge, maxLinkName)
	}
	for _, dir := range []struct{ key, path string }{{"ovsRunDir", c.OVSRunDir}, {"dataDir", c.DataDir}} {
		if !filepath.IsAbs(dir.path) {
			return c, vnet.Invalidf("%s %q: must be an absolute path", dir.key, dir.path)
		}
	}
	return c, nil
}
