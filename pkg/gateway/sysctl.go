package gateway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// sysctl is one setting, below /proc/sys/net/<family>/conf
// (Documentation/networking/ip-sysctl.rst in the kernel).
type sysctl struct{ family, link, key, value string }

// sysctlPath is the file of a setting in the calling thread's namespace.
func sysctlPath(family, link, key string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, key)
}

// readSysctl reads one setting in the calling thread's namespace.
func readSysctl(family, link, key string) (string, error) {
	b, err := os.ReadFile(sysctlPath(family, link, key))
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", key, link, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// writeSysctl writes one setting in the calling thread's namespace.
func writeSysctl(s sysctl) error {
	// Not os.WriteFile: these files must exist, and are not to be truncated.
	f, err := os.OpenFile(sysctlPath(s.family, s.link, s.key), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(s.value)
	if closed := f.Close(); err == nil {
		err = closed
	}
	return err
}

// planSysctls compares settings with what they should be.
func planSysctls(set []sysctl) ([]change, error) {
	var changes []change
	for _, s := range set {
		got, err := readSysctl(s.family, s.link, s.key)
		if err != nil {
			return nil, err
		}
		if got == s.value {
			continue
		}
		changes = append(changes, change{
			what:    fmt.Sprintf("set %s's %s of %s to %s", s.family, s.key, s.link, s.value),
			differs: []string{fmt.Sprintf("%s has %s's %s=%s, not %s", s.link, s.family, s.key, got, s.value)},
			do:      func() error { return writeSysctl(s) },
		})
	}
	return changes, nil
}

// keepHeeding makes links heed router advertisements when the host forwards: a
// host that forwards ignores them where accept_ra is 1, and would lose the
// default route that it has by them.
func keepHeeding() error {
	links, err := os.ReadDir("/proc/sys/net/ipv6/conf")
	if err != nil {
		return fmt.Errorf("list links with IPv6: %w", err)
	}
	for _, l := range links {
		if l.Name() == "all" { // "all" does nothing, and is not what links have
			continue
		}
		got, err := readSysctl("ipv6", l.Name(), "accept_ra")
		if err == nil && got == "1" {
			err = writeSysctl(sysctl{"ipv6", l.Name(), "accept_ra", "2"})
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // links may go meanwhile
			return err
		}
	}
	return nil
}
