package veth

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unfinished are the offloads (names of the kernel's netdev_features_strings) by
// which a veth end hands on frames that are not finished: without their checksum,
// or several in one. TCP's segmentation is not among them, the kernel switches it
// off with the checksums; SCTP's it leaves on, and UDP's too as late as Linux 6.1.
func unfinished() []string {
	return []string{"tx-checksum-ip-generic", "tx-checksum-sctp", "tx-sctp-segmentation", "tx-udp-segmentation"}
}

// withoutOffload switches them off on a link of the calling thread's namespace.
func withoutOffload(name string) error {
	on, err := offloads(name, true)
	if err == nil && len(on) > 0 { // the kernel answers a wish that it did not grant with success
		err = fmt.Errorf("%v stayed on", on)
	}
	if err != nil {
		return fmt.Errorf("switch off transmit offloads of %s: %w", name, err)
	}
	return nil
}

// offloaded are those of unfinished that are on, on a link of the calling
// thread's namespace.
func offloaded(name string) ([]string, error) {
	on, err := offloads(name, false)
	if err != nil {
		return nil, fmt.Errorf("read transmit offloads of %s: %w", name, err)
	}
	return on, nil
}

// The structs of include/uapi/linux/ethtool.h. safchain/ethtool does the same,
// but with four buffers of a megabyte, and with pointers kept in integers, which
// Go's growing stacks leave behind.
const (
	stringsFeature = 4  // ETH_SS_FEATURES
	stringLen      = 32 // ETH_GSTRING_LEN
	mostStrings    = 8 * 32
)

type featureNames struct {
	cmd, set, count uint32
	data            [mostStrings][stringLen]byte
}

type featureCount struct {
	cmd, _ uint32
	sets   uint64
	count  uint32
	_      uint32
}

type featureGet struct {
	cmd, words uint32
	block      [mostStrings / 32]struct{ available, requested, active, fixed uint32 }
}

type featureSet struct {
	cmd, words uint32
	block      [mostStrings / 32]struct{ valid, requested uint32 }
}

// offloads says which of unfinished are on, after switching them off if it is
// told to. An offload that the kernel does not know is an error: its name may
// have changed.
func offloads(link string, switchOff bool) ([]string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is in it

	count := featureCount{cmd: unix.ETHTOOL_GSSET_INFO, sets: 1 << stringsFeature}
	if err := ethtoolIoctl(fd, link, unsafe.Pointer(&count)); err != nil {
		return nil, fmt.Errorf("count offloads: %w", err)
	}
	if count.count > mostStrings {
		return nil, fmt.Errorf("the kernel has %d offloads, there is room for %d", count.count, mostStrings)
	}
	names := featureNames{cmd: unix.ETHTOOL_GSTRINGS, set: stringsFeature, count: count.count}
	if err := ethtoolIoctl(fd, link, unsafe.Pointer(&names)); err != nil {
		return nil, fmt.Errorf("name offloads: %w", err)
	}
	words := (count.count + 31) / 32
	bits := map[string]int{}
	off := featureSet{cmd: unix.ETHTOOL_SFEATURES, words: words}
	for _, name := range unfinished() {
		bit := slices.IndexFunc(names.data[:count.count], func(b [stringLen]byte) bool {
			return string(bytes.TrimRight(b[:], "\x00")) == name
		})
		if bit < 0 {
			return nil, errors.New("the kernel does not know " + name)
		}
		bits[name] = bit
		off.block[bit/32].valid |= 1 << (bit % 32)
	}
	if switchOff {
		if err := ethtoolIoctl(fd, link, unsafe.Pointer(&off)); err != nil {
			return nil, err
		}
	}
	now := featureGet{cmd: unix.ETHTOOL_GFEATURES, words: words}
	if err := ethtoolIoctl(fd, link, unsafe.Pointer(&now)); err != nil {
		return nil, fmt.Errorf("read offloads: %w", err)
	}
	var on []string
	for _, name := range unfinished() {
		if bit := bits[name]; now.block[bit/32].active&(1<<(bit%32)) != 0 {
			on = append(on, name)
		}
	}
	return on, nil
}

// ethtoolIoctl is ioctl(SIOCETHTOOL) with a struct ifreq, netdevice(7).
func ethtoolIoctl(fd int, link string, data unsafe.Pointer) error {
	req := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: data}
	copy(req.name[:unix.IFNAMSIZ-1], link)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&req)))
	if errno != 0 {
		return errno
	}
	return nil
}
