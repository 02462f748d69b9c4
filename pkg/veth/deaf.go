package veth

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The host's stack is made deaf by a BPF program of two instructions at the
// link's tcx ingress hook (Linux 6.6), which drops every frame. Packet sockets,
// through which a userspace switch reads, get theirs before that hook. Unlike
// the ingress qdisc, which ovs-vswitchd removes when it configures policing, a
// tcx program stays until the link goes, and with the link it goes.

// tcxDrop is TCX_DROP of the kernel's include/uapi/linux/bpf.h.
const tcxDrop = 2

// deafName is the program's name as bpftool shows it; at most 15 bytes.
const deafName = "veth_deaf"

// bpfInsn is struct bpf_insn.
type bpfInsn struct {
	code     uint8
	regs     uint8
	off      int16
	constant int32
}

// bpfLoad, bpfAttach and bpfQuery are the beginnings of the members of union
// bpf_attr that belong to BPF_PROG_LOAD, BPF_PROG_ATTACH and BPF_PROG_QUERY:
// the kernel takes what is missing for zero.
type bpfLoad struct {
	kind, insnCount uint32
	insns, license  uint64
	_               [24]byte // the verifier's log, kernel version, flags
	name            [16]byte
}

type bpfAttach struct{ ifindex, prog, hook uint32 }

type bpfQuery struct {
	ifindex, hook uint32
	_             [16]byte // flags, and where to put the programs' ids
	count         uint32
	_             [100]byte // the kernel writes a revision in here whatever size it is told
}

// bpf is bpf(2). The verifier gives up with EAGAIN when a signal is pending, and Go's runtime sends
// itself signals: that is tried again, more often than anybody's luck is bad.
func bpf[T bpfLoad | bpfAttach | bpfQuery](cmd uintptr, attr *T) (int, error) {
	const attempts = 100
	var errno unix.Errno
	for range attempts {
		var r uintptr
		r, _, errno = unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(attr)), unsafe.Sizeof(*attr))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EAGAIN, unix.EINTR:
		default:
			return -1, errno
		}
	}
	return -1, errno
}

// deafen drops everything that comes in on the link with that index, in the
// calling thread's namespace, after packet sockets have had it. False: this
// kernel does not have that, or does not allow it.
func deafen(index int) (bool, error) {
	insns := []bpfInsn{
		{code: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, constant: tcxDrop}, // r0 = TCX_DROP
		{code: unix.BPF_JMP | unix.BPF_EXIT},
	}
	license := []byte("Dual MIT/GPL\x00")
	load := bpfLoad{
		kind: unix.BPF_PROG_TYPE_SCHED_CLS, insnCount: uint32(len(insns)),
		insns: uint64(uintptr(unsafe.Pointer(&insns[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	copy(load.name[:], deafName)
	prog, err := bpf(unix.BPF_PROG_LOAD, &load)
	runtime.KeepAlive(insns)
	runtime.KeepAlive(license)
	if err != nil {
		return false, unlessMissing("load the program", err)
	}
	defer unix.Close(prog) //nolint:errcheck // the link holds the program from here on
	_, err = bpf(unix.BPF_PROG_ATTACH, &bpfAttach{ifindex: uint32(index), prog: uint32(prog), hook: unix.BPF_TCX_INGRESS})
	if err != nil {
		return false, unlessMissing("attach the program", err)
	}
	return true, nil
}

// deafCount tells how many programs there are at the link's tcx ingress hook;
// false if this kernel has no such hook.
func deafCount(index int) (int, bool, error) {
	q := bpfQuery{ifindex: uint32(index), hook: unix.BPF_TCX_INGRESS}
	if _, err := bpf(unix.BPF_PROG_QUERY, &q); err != nil {
		return 0, false, unlessMissing("ask for the programs", err)
	}
	return int(q.count), true, nil
}

// unlessMissing is nil for the errors by which a kernel says that it has no
// BPF, does not know the hook (EINVAL), or has it locked.
func unlessMissing(doing string, err error) error {
	for _, missing := range []error{unix.ENOSYS, unix.EINVAL, unix.EPERM, unix.EOPNOTSUPP} {
		if errors.Is(err, missing) {
			return nil
		}
	}
	return fmt.Errorf("%s: %w", doing, err)
}
