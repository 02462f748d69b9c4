package uplink

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Settings are how the host's stack treats what it hears on a link: by file below /proc/sys/net, as
// "ipv6/accept_ra" (Documentation/networking/ip-sysctl.rst in the kernel), and the offloads that are on.
type Settings struct {
	Sysctls  map[string]string `json:"sysctls"`
	Offloads []string          `json:"offloads"`
}

// ReadSettings reads those of a link.
func ReadSettings(link string) (Settings, error) {
	s := Settings{Sysctls: map[string]string{}}
	for _, family := range []string{"ipv4", "ipv6"} {
		files, err := os.ReadDir(conf(family, link, ""))
		if err != nil && (family == "ipv4" || !errors.Is(err, fs.ErrNotExist)) {
			return s, fmt.Errorf("settings of %s: %w", link, err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o200 == 0 {
				continue
			}
			// One that cannot be read is not set: stable_secret.
			if b, err := os.ReadFile(conf(family, link, f.Name())); err == nil {
				s.Sysctls[family+"/"+f.Name()] = strings.TrimSpace(string(b))
			}
		}
	}
	var err error
	s.Offloads, err = offloads(link)
	return s, err
}

// Apply makes the link behave as another did: a NIC's bridge takes router advertisements if the NIC did.
func (s Settings) Apply(link string) error {
	return setSysctls(link, s.Sysctls)
}

// Restore takes back what Silence did to the link whose settings these were; what others changed meanwhile stays.
func (s Settings) Restore(link string) error {
	own := maps.Clone(s.Sysctls)
	maps.DeleteFunc(own, func(key, _ string) bool { return quiet[key] == "" })
	return errors.Join(setSysctls(link, own), setOffloads(link, s.Offloads, true))
}

// quiet are the settings of a link that belongs to a switch, which a userspace switch does not take the frames from the
// host's stack of:
//
//   - disable_ipv6: no IPv6 is received, and no router asked for;
//   - rp_filter: on a link without an address, strict or loose, no source has a way back, so every IPv4 packet is
//     dropped that comes by the bridge as well;
//   - arp_ignore=8: no ARP question is answered: the bridge answers.
var quiet = map[string]string{"ipv6/disable_ipv6": "1", "ipv4/rp_filter": "1", "ipv4/arp_ignore": "8"}

// Silence keeps the host's stack off a link that has nothing of the host any more. For a userspace switch, which reads
// frames as the NIC hands them to the stack, they must not be merged into larger ones either.
func Silence(link string, userspace bool) error {
	err := setSysctls(link, quiet)
	if userspace {
		err = errors.Join(err, setOffloads(link, merging(), false))
	}
	return err
}

// Loud says what a silenced link does that it should not.
func Loud(link string, userspace bool) ([]string, error) {
	s, err := ReadSettings(link)
	if err != nil {
		return nil, err
	}
	var loud []string
	for key, value := range quiet {
		if now, ok := s.Sysctls[key]; ok && now != value {
			loud = append(loud, fmt.Sprintf("%s=%s", key, now))
		}
	}
	if userspace {
		loud = append(loud, s.Offloads...)
	}
	slices.Sort(loud)
	return loud, nil
}

// setSysctls writes what differs. A setting that this kernel does not have is passed over.
func setSysctls(link string, want map[string]string) error {
	// IPv6 last, if it is to come: it begins at once to do what the others say.
	keys := slices.SortedFunc(maps.Keys(want), func(a, b string) int {
		last := func(k string) int {
			if k == "ipv6/disable_ipv6" {
				return 1
			}
			return 0
		}
		if d := last(a) - last(b); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for _, key := range keys {
		family, name, _ := strings.Cut(key, "/")
		if key == "ipv6/mtu" {
			continue // follows the link's
		}
		path := conf(family, link, name)
		now, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(now)) == want[key] {
			continue
		}
		// Not os.WriteFile: these files are not to be truncated.
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return fmt.Errorf("set %s of %s: %w", key, link, err)
		}
		_, err = f.WriteString(want[key])
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("set %s of %s to %s: %w", key, link, want[key], err)
		}
	}
	return nil
}

// conf is the file of a setting in the calling thread's namespace.
func conf(family, link, name string) string {
	return filepath.Join("/proc/sys/net", family, "conf", link, name)
}
