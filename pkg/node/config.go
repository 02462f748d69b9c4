package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// DefaultConfig is where the node's configuration is looked for.
const DefaultConfig = "/etc/tenet/tenet.json"

// Config is a node's configuration.
type Config struct {
	Bridge    string `json:"bridge"`
	OVSRunDir string `json:"ovsRunDir"`
	DataDir   string `json:"dataDir"`
	// VTEP is the node's tunnel address; its link's MTU is the underlay's. Empty: the link of the default route.
	VTEP netip.Addr `json:"vtep,omitzero"`
	// Datapath is for the bridge's making only ("system", "netdev" or empty), and comes from the netconf.
	Datapath string `json:"-"`

	// Name is the node's in its cluster.
	Name          vnet.NodeName      `json:"node"`
	Encapsulation vnet.Encapsulation `json:"encapsulation"` // what it wants to receive
	Socket        string             `json:"socket"`        // where tenetd is asked
	Metrics       string             `json:"metrics"`       // HOST:PORT, where tenetd tells Prometheus; "off": nowhere
	Etcd          Etcd               `json:"etcd"`
}

// Etcd says how to reach the cluster's store.
type Etcd struct {
	Endpoints    []string `json:"endpoints"` // none: the node is one on its own
	CAFile       string   `json:"caFile"`
	CertFile     string   `json:"certFile"`
	KeyFile      string   `json:"keyFile"`
	Username     string   `json:"username"`
	PasswordFile string   `json:"passwordFile"`
	Prefix       string   `json:"prefix"`
}

// Clustered reports whether the node is to be one of a cluster.
func (c Config) Clustered() bool { return len(c.Etcd.Endpoints) > 0 }

// configFile is the file's whole shape: Config, and what has one value only.
type configFile struct {
	Config
	Zones string `json:"zones"`
}

const onlyZones = "1000-30000"

// defaultConfig is what a file need not say.
func defaultConfig() (Config, error) {
	host, err := os.Hostname()
	return Config{
		Bridge: "br-tenet", OVSRunDir: "/run/openvswitch", DataDir: "/var/lib/tenet", Name: vnet.NodeName(host), Encapsulation: vnet.VXLAN,
		Socket: "/run/tenet/tenetd.sock", Metrics: "127.0.0.1:9477", Etcd: Etcd{Prefix: "/tenet/v1/"},
	}, err
}

// LoadConfig reads the file, DefaultConfig if path is empty, over the defaults. Only the
// default file may be missing. Unknown keys are errors.
func LoadConfig(path string) (Config, error) {
	c, err := defaultConfig()
	if err != nil {
		return c, err
	}
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
		if strings.HasPrefix(err.Error(), "ParseAddr") { // which says not of what: it is the only address
			err = fmt.Errorf("vtep: %w: it is an address, without a length", err)
		}
		return c, vnet.WithHint(vnet.Invalidf("node configuration %s: %v", file, err), "compare it with conf/tenet.json of the source")
	}
	if len(bytes.TrimSpace(text[d.InputOffset():])) > 0 {
		return c, vnet.Invalidf("node configuration %s: something stands after the JSON object", file)
	}
	if f.Zones != "" && f.Zones != onlyZones {
		return c, vnet.Invalidf("node configuration %s: zones %q: to choose them is not available in this version, they are %q", file, f.Zones, onlyZones)
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
		{&c.Bridge, &over.Bridge},
		{&c.OVSRunDir, &over.OVSRunDir},
		{&c.DataDir, &over.DataDir},
		{&c.Datapath, &over.Datapath},
		{(*string)(&c.Name), (*string)(&over.Name)},
		{(*string)(&c.Encapsulation), (*string)(&over.Encapsulation)},
		{&c.Socket, &over.Socket},
		{&c.Metrics, &over.Metrics},
		{&c.Etcd.CAFile, &over.Etcd.CAFile},
		{&c.Etcd.CertFile, &over.Etcd.CertFile},
		{&c.Etcd.KeyFile, &over.Etcd.KeyFile},
		{&c.Etcd.Username, &over.Etcd.Username},
		{&c.Etcd.PasswordFile, &over.Etcd.PasswordFile},
		{&c.Etcd.Prefix, &over.Etcd.Prefix},
	} {
		if *key.from != "" {
			*key.to = *key.from
		}
	}
	if over.VTEP.IsValid() {
		c.VTEP = over.VTEP.Unmap()
	}
	if len(over.Etcd.Endpoints) > 0 {
		c.Etcd.Endpoints = over.Etcd.Endpoints
	}
	if c.Clustered() { // a host's name need not be one of ours as long as nobody asks for it
		if err := c.Name.Validate(); err != nil {
			return c, err
		}
	}
	if err := c.Encapsulation.Validate(); err != nil {
		return c, err
	}
	if _, _, err := net.SplitHostPort(c.Metrics); err != nil && c.Metrics != "off" {
		return c, vnet.Invalidf("metrics %q: must be HOST:PORT or off", c.Metrics)
	}
	const maxLinkName = 15 // IFNAMSIZ-1; the bridge has an internal port of its name
	if len(c.Bridge) > maxLinkName || bytes.ContainsAny([]byte(c.Bridge), "/ \t\n") || c.Bridge == "." || c.Bridge == ".." {
		return c, vnet.Invalidf("bridge %q: at most %d characters, without slash or space", c.Bridge, maxLinkName)
	}
	for _, dir := range []struct{ key, path string }{{"ovsRunDir", c.OVSRunDir}, {"dataDir", c.DataDir}, {"socket", c.Socket}} {
		if !filepath.IsAbs(dir.path) {
			return c, vnet.Invalidf("%s %q: must be an absolute path", dir.key, dir.path)
		}
	}
	return c, nil
}
