package gateway

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Holder names the process that has a port of the host open, as in "process
// sshd (pid 812)"; "" if none has. A zero ip is every address of the host, and
// an unspecified one every address of its family: then any one that is held
// counts. A socket on "::" counts for IPv4 too, since most take both.
func Holder(protocol string, ip netip.Addr, port uint16) (string, error) {
	wrong := func(err error) (string, error) {
		return "", fmt.Errorf("look who has %s port %d: %w", protocol, port, err)
	}
	open, err := sockets(protocol)
	if err != nil {
		return wrong(err)
	}
	i := slices.IndexFunc(open, func(s socket) bool { return s.local.Port() == port && collide(s.local.Addr(), ip) })
	if i < 0 {
		return "", nil
	}
	who, err := owner(open[i].inode)
	if err != nil {
		return wrong(err)
	}
	return who, nil
}

// collide tells whether a socket bound to bound would get what is for ip.
func collide(bound, ip netip.Addr) bool {
	switch {
	case !ip.IsValid(), bound == netip.IPv6Unspecified():
		return true
	case bound.Is4() != ip.Is4():
		return false
	}
	return bound == ip || bound.IsUnspecified() || ip.IsUnspecified()
}

// socket is one that waits for whoever comes.
type socket struct {
	local netip.AddrPort
	inode string
}

// sockets lists the sockets of the calling thread's namespace that wait for
// whoever comes: listening ones of TCP, unconnected ones of UDP (proc(5)).
func sockets(protocol string) ([]socket, error) {
	if protocol == "sctp" {
		return endpoints()
	}
	var all []socket
	for _, file := range []string{protocol, protocol + "6"} {
		lines, err := readTable(file)
		if err != nil {
			return nil, err
		}
		for _, f := range lines { // sl local_address rem_address st ...
			const listens, unconnected = "0A", "07"
			if len(f) < 10 || f[3] != listens && f[3] != unconnected {
				continue
			}
			local, err := parseLocal(f[1])
			if err != nil {
				return nil, fmt.Errorf("/proc/net/%s: %q: %w", file, f[1], err)
			}
			all = append(all, socket{local, f[9]})
		}
	}
	return all, nil
}

// endpoints lists the sockets of SCTP. Those of a kernel without it are none.
func endpoints() ([]socket, error) {
	lines, err := readTable("sctp/eps")
	if err != nil {
		return nil, err
	}
	var all []socket
	for _, f := range lines { // ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS
		if len(f) < 9 {
			continue
		}
		port, err := strconv.ParseUint(f[5], 10, 16)
		if err != nil {
			return nil, fmt.Errorf("/proc/net/sctp/eps: %w", err)
		}
		for _, text := range f[8:] {
			if a, err := netip.ParseAddr(text); err == nil {
				all = append(all, socket{netip.AddrPortFrom(a, uint16(port)), f[7]})
			}
		}
	}
	return all, nil
}

// readTable reads the lines of a table of the calling thread's namespace
// (/proc/net is that of the process), without its head. A table that is not
// there is empty: the kernel lacks the family or the protocol.
func readTable(file string) ([][]string, error) {
	b, err := os.ReadFile(filepath.Join("/proc/thread-self/net", file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var lines [][]string
	for _, line := range strings.Split(strings.TrimSpace(string(b)), "\n")[1:] {
		lines = append(lines, strings.Fields(line))
	}
	return lines, nil
}

// parseLocal reads "0100007F:1F90": words of 4 bytes in the machine's order,
// and the port in hexadecimal.
func parseLocal(text string) (netip.AddrPort, error) {
	ip, port, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(ip)
	if err != nil {
		return netip.AddrPort{}, err
	}
	var b []byte
	for word := range slices.Chunk(words, 4) {
		if len(word) == 4 {
			b = binary.NativeEndian.AppendUint32(b, binary.BigEndian.Uint32(word))
		}
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return netip.AddrPort{}, errors.New("not an address")
	}
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(a.Unmap(), uint16(n)), err
}

// owner names a process that has the socket open.
func owner(inode string) (string, error) {
	want := "socket:[" + inode + "]"
	fds, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return "", err
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fd); err != nil || to != want {
			continue // it may go while we look
		}
		pid := strings.Split(fd, "/")[2]
		name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		if err != nil {
			continue
		}
		return fmt.Sprintf("process %s (pid %s)", bytes.TrimSpace(name), pid), nil
	}
	return "the kernel, or a process that cannot be seen", nil
}
