// Package conf_test holds the examples of this folder to the code that will read them.
package conf_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
)

// Every network configuration is one that a runtime can load and that our plugins accept.
func TestNetworkConfigurationsAreValid(t *testing.T) {
	files, err := filepath.Glob("*/*.conf*")
	if err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, file := range files {
		list, err := load(file)
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		if list == nil {
			continue
		}
		for _, plugin := range list.Plugins {
			conf, err := whole(plugin.Bytes, list.Name, list.CNIVersion)
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			const args = "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue"
			switch {
			case plugin.Network.Type == "tenet":
				for capability := range plugin.Network.Capabilities {
					if !slices.Contains([]string{"ips", "mac", "portMappings", "bandwidth"}, capability) {
						t.Errorf("%s: capability %q is none of the plugin's: it would go unheard", file, capability)
					}
				}
				parsed, err := cni.ParseTenet(conf, args)
				if err != nil {
					t.Errorf("%s: %v", file, err)
				} else if _, declares, err := parsed.Declaration(); err != nil || !declares {
					t.Errorf("%s: declares a network: %v, %v", file, declares, err)
				}
			case plugin.Network.IPAM.Type == cni.OurIPAM:
				if _, err := cni.ParseIPAM(conf, args); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
			tried++
		}
	}
	if tried < 5 {
		t.Errorf("only %d configurations were found", tried)
	}
}

// load reads a list, or a single configuration as a list; nil for files of other programs.
func load(file string) (*libcni.NetworkConfigList, error) {
	switch dir := filepath.Dir(file); {
	case filepath.Ext(file) == ".conflist":
		return libcni.ConfListFromFile(file)
	case dir == "rkt":
		conf, err := libcni.ConfFromFile(file) //nolint:staticcheck // single configurations are what is tried here
		if err != nil {
			return nil, err
		}
		return libcni.ConfListFromConf(conf) //nolint:staticcheck // as above
	}
	return nil, nil
}

// whole gives a plugin's part of a list the name and version that a runtime gives it.
func whole(part []byte, name, version string) ([]byte, error) {
	var conf map[string]any
	if err := json.Unmarshal(part, &conf); err != nil {
		return nil, err
	}
	conf["name"], conf["cniVersion"] = name, version
	return json.Marshal(conf)
}

// The example of a node's configuration is accepted, and says what the defaults are.
func TestNodeConfigurationIsTheDefault(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "tenet.json")
	if err := os.WriteFile(empty, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	defaults, err := node.LoadConfig(empty)
	if err != nil {
		t.Fatal(err)
	}
	example, err := node.LoadConfig("tenet.json")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(example, defaults) {
		t.Errorf("conf/tenet.json gives %+v, the defaults are %+v", example, defaults)
	}
}
