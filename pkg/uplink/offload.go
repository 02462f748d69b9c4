package uplink

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// merging are the offloads by which a link hands several frames on as one. ovs-vswitchd reads no frame that is longer
// than the MTU, and drops it.
func merging() []string { return []string{"gro", "lro"} }

// flagLRO is ETH_FLAG_LRO of include/uapi/linux/ethtool.h.
const flagLRO = 1 << 15

// offloads are those of merging that are on.
func offloads(link string) ([]string, error) {
	var on []string
	gro, err := ethtool(link, unix.ETHTOOL_GGRO, 0)
	if err == nil && gro != 0 {
		on = append(on, "gro")
	}
	flags, err2 := ethtool(link, unix.ETHTOOL_GFLAGS, 0)
	if err2 == nil && flags&flagLRO != 0 {
		on = append(on, "lro")
	}
	if err := errors.Join(err, err2); err != nil {
		return nil, fmt.Errorf("offloads of %s: %w", link, err)
	}
	return on, nil
}

// setOffloads switches some on or off.
func setOffloads(link string, which []string, on bool) error {
	var want uint32
	if on {
		want = 1
	}
	if slices.Contains(which, "gro") {
		if _, err := ethtool(link, unix.ETHTOOL_SGRO, want); err != nil {
			return fmt.Errorf("set gro of %s to %t: %w", link, on, err)
		}
	}
	if slices.Contains(which, "lro") {
		flags, err := ethtool(link, unix.ETHTOOL_GFLAGS, 0)
		if err == nil && (flags&flagLRO != 0) != on {
			_, err = ethtool(link, unix.ETHTOOL_SFLAGS, flags^flagLRO)
		}
		if err != nil {
			return fmt.Errorf("set lro of %s to %t: %w", link, on, err)
		}
	}
	return nil
}

// ethtool is ioctl(SIOCETHTOOL) with a struct ethtool_value, netdevice(7).
func ethtool(link string, cmd, data uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is in it
	value := struct{ cmd, data uint32 }{cmd, data}
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(req.name[:unix.IFNAMSIZ-1], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	switch errno {
	case 0:
		return value.data, nil
	case unix.EOPNOTSUPP:
		return 0, nil // the driver has none of it
	}
	return 0, errno
}
