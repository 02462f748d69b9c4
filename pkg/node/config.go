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
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return c, vnet.Invalidf("node configuration %s: %v", file, err)
	}
	return c.Override(Config{})
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
