package veth

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// sysctl is one setting of one link, below /proc/sys/net/<family>/conf
// (Documentation/networking/ip-sysctl.rst in the kernel).
type sysctl struct{ link, key, value string }

// sysctlPath is the file of a setting in the calling thread's namespace.
func sysctlPath(family, link, key string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, key)
}

// setSysctls writes all of set, in order, in the calling thread's namespace.
func setSysctls(family string, set []sysctl) error {
	for _, s := range set {
		// Not os.WriteFile: these files must exist, and are not to be truncated.
		f, err := os.OpenFile(sysctlPath(family, s.link, s.key), os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("set %s of %s: %w", s.key, s.link, err)
		}
		_, err = f.WriteString(s.value)
		if closed := f.Close(); err == nil {
			err = closed
		}
		if err != nil {
			return fmt.Errorf("set %s of %s to %s: %w", s.key, s.link, s.value, err)
		}
	}
	return nil
}

// readSysctl reads one setting in the calling thread's namespace.
func readSysctl(family, link, key string) (string, error) {
	b, err := os.ReadFile(sysctlPath(family, link, key))
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", key, link, err)
	}
	return strings.TrimSpace(string(b)), nil
}
