package main

import (
	"context"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/test/lab"
)

// asking is an echo request each millisecond to one address, until the first answer.
type asking struct {
	end    context.CancelFunc
	done   sync.WaitGroup
	answer chan time.Time // when the kernel was given it
}

// ask begins, by a socket in the namespace that the thread is in. The kernel at the other end answers.
func ask(ctx context.Context, to netip.Addr, id uint16) (*asking, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, err
	}
	for option, value := range map[int]int{unix.SO_TIMESTAMPNS: 1, unix.SO_RCVBUF: 1 << 20} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, value); err != nil {
			_ = unix.Close(fd)
			return nil, err
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	a := &asking{answer: make(chan time.Time, 1)}
	ctx, a.end = context.WithCancel(ctx)
	var both sync.WaitGroup
	both.Go(func() { sendEach(ctx, fd, to, id) })
	both.Go(func() { a.receive(ctx, fd, to, id) })
	a.done.Go(func() {
		both.Wait()
		_ = unix.Close(fd)
	})
	return a, nil
}

func sendEach(ctx context.Context, fd int, to netip.Addr, id uint16) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	at := &unix.SockaddrInet4{Addr: to.As4()}
	for sequence := uint16(0); ; sequence++ {
		_ = unix.Sendto(fd, echoRequest(id, sequence), unix.MSG_DONTWAIT, at) // there may be no way yet
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// echoRequest is one of ICMP (RFC 792).
func echoRequest(id, sequence uint16) []byte {
	b := []byte{8, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(b, id), sequence)
	sum := uint32(8<<8) + uint32(id) + uint32(sequence)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// receive waits for the first answer.
func (a *asking) receive(ctx context.Context, fd int, from netip.Addr, id uint16) {
	packet, control := make([]byte, 1500), make([]byte, 128)
	for ctx.Err() == nil {
		n, c, _, _, err := unix.Recvmsg(fd, packet, control, 0)
		if err != nil || n < 28 || packet[20] != 0 || binary.BigEndian.Uint16(packet[24:]) != id || netip.AddrFrom4([4]byte(packet[12:16])) != from {
			continue
		}
		a.answer <- receivedAt(control[:c])
		return
	}
}

// receivedAt is the time that SO_TIMESTAMPNS has added to a packet (socket(7)), now if there is none.
func receivedAt(control []byte) time.Time {
	messages, _ := unix.ParseSocketControlMessage(control)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) == 16 { // a struct timespec of 64 bits
			return time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		}
	}
	return time.Now()
}

// answered waits for the first answer, and returns when it came.
func (a *asking) answered(h *harness) time.Time {
	select {
	case at := <-a.answer:
		return at
	case <-time.After(lab.Patience()):
		h.Fatal("an echo request each millisecond, and no answer")
	}
	return time.Time{}
}

func (a *asking) stop() {
	a.end()
	a.done.Wait()
}
