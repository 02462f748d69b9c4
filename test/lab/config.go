package lab

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
)

// WriteConfig writes the node's configuration file, and returns its path: from then on programs are told of the file, and
// nothing that is in it. A key of extra takes the place of ours, or, if its value is nil, away.
func (h *Host) WriteConfig(extra map[string]any) string {
	h.tb.Helper()
	keys := map[string]any{
		"bridge": Bridge, "ovsRunDir": h.RunDir, "dataDir": h.DataDir,
		"socket": filepath.Join(h.RunDir, "tenetd.sock"), "metrics": "127.0.0.1:9477", // each node has a loopback of its own
	}
	if h.fleet != nil {
		keys["node"], keys["vtep"] = h.Name, h.VTEP()
		keys["etcd"] = map[string]any{"endpoints": append([]string{}, h.fleet.EtcdEndpoints...)}
	}
	maps.Copy(keys, extra)
	maps.DeleteFunc(keys, func(_ string, value any) bool { return value == nil })
	text, err := json.MarshalIndent(keys, "", "  ")
	Must(h.tb, err)
	h.Config = filepath.Join(filepath.Dir(h.DataDir), "tenet.json")
	Must(h.tb, os.WriteFile(h.Config, text, 0o600))
	return h.Config
}

// told is how tenetctl and tenetd are told which node they are on.
func (h *Host) told() []string {
	if h.Config != "" {
		return []string{"--config=" + h.Config}
	}
	// What has no option of its own: nodes have a network namespace each, and see the same files.
	file := filepath.Join(h.RunDir, "tenet.json")
	Must(h.tb, os.WriteFile(file, fmt.Appendf(nil, `{"socket": %q}`, filepath.Join(h.RunDir, "tenetd.sock")), 0o600))
	return []string{"--config=" + file, "--data-dir=" + h.DataDir, "--ovs-run-dir=" + h.RunDir, "--bridge=" + Bridge}
}
