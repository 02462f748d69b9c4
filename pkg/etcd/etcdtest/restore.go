package etcdtest

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Snapshot saves all that the cluster has, and returns the file.
func (c *Cluster) Snapshot() string {
	c.tb.Helper()
	from, err := c.client.Snapshot(c.tb.Context())
	if err != nil {
		c.tb.Fatalf("etcdtest: snapshot: %v", err)
	}
	defer from.Close() //nolint:errcheck // it was read to its end
	to, err := os.CreateTemp(c.dir, "snapshot")
	if err != nil {
		c.tb.Fatalf("etcdtest: snapshot: %v", err)
	}
	_, err = io.Copy(to, from)
	if failed := to.Close(); err == nil {
		err = failed
	}
	if err != nil {
		c.tb.Fatalf("etcdtest: snapshot: %v", err)
	}
	return to.Name()
}

// Restore kills all members, and starts them again with what is in the file, or with nothing if that is "". For whoever uses it
// the cluster is still the same: it has the identity that it had.
func (c *Cluster) Restore(snapshot string) {
	c.tb.Helper()
	var peers []string
	for _, m := range c.members {
		m.kill()
		peers = append(peers, m.name+"="+m.peerURL())
	}
	for _, m := range c.members {
		if err := os.RemoveAll(m.dir); err != nil {
			c.tb.Fatalf("etcdtest: restore: %v", err)
		}
		if snapshot == "" {
			continue
		}
		restore := exec.CommandContext(c.tb.Context(), "etcdctl", "snapshot", "restore", snapshot, "--name", m.name, "--data-dir", m.dir,
			"--initial-cluster", strings.Join(peers, ","), "--initial-cluster-token", filepath.Base(c.dir), "--initial-advertise-peer-urls", m.peerURL())
		restore.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := restore.CombinedOutput(); err != nil {
			c.tb.Fatalf("etcdtest: restore: %v\n%s", err, out)
		}
	}
	for i := range c.members {
		c.Start(i)
	}
}
