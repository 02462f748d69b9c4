// Package probe tells whether something lets packets through: it sends one into a link of the
// host and looks whether it comes back by another. It knows nothing of what is behind the links.
package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Target is what is probed: whoever is at the other end of the links.
type Target struct {
	In  string   // the link that packets are sent into
	Out []string // those by which they may come back; In can be one of them

	Src, Dst net.HardwareAddr
	// EtherType is that of the frame, unless From and To are valid: then it is an ICMP echo request from one to the other.
	EtherType uint16
	From, To  netip.Addr
}

// Prober probes a target, one packet at a time.
type Prober struct {
	target Target
	in     *packet.Conn
	out    []*packet.Conn
	seq    uint32
}

// Open opens the target's links, which must be in the caller's network namespace.
func Open(t Target) (*Prober, error) {
	p := &Prober{target: t}
	filter, err := t.filter()
	if err != nil {
		return nil, err
	}
	if p.in, err = listen(t.In, nil); err != nil {
		return nil, err
	}
	for _, name := range t.Out {
		c, err := listen(name, filter)
		if err != nil {
			return nil, errors.Join(err, p.Close())
		}
		p.out = append(p.out, c)
	}
	return p, nil
}

// nothing is a filter that lets no packet in.
var nothing = []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K}}

func listen(name string, filter []bpf.RawInstruction) (*packet.Conn, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	if filter == nil {
		filter = nothing
	}
	c, err := packet.Listen(link, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: filter})
	if err != nil {
		return nil, fmt.Errorf("link %s: %w", name, err)
	}
	return c, nil
}

// filter takes the target's probes among the packets that come in by a link, and nothing else: it may carry a lot.
func (t Target) filter() ([]bpf.RawInstruction, error) {
	const etherType, ip4Dst, ip6DstEnd = 12, 30, 50 // IEEE 802.3, 3.2; RFC 791, 3.1; RFC 8200, 3
	key, offset, kind := uint32(0), uint32(0), uint32(t.EtherType)
	switch {
	case t.To.Is4():
		b := t.To.As4()
		key, offset, kind = binary.BigEndian.Uint32(b[:]), ip4Dst, unix.ETH_P_IP
	case t.To.Is6():
		b := t.To.As16()
		key, offset, kind = binary.BigEndian.Uint32(b[12:]), ip6DstEnd, unix.ETH_P_IPV6
	}
	program := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.PACKET_OUTGOING, SkipTrue: 5},
		bpf.LoadAbsolute{Off: etherType, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: kind, SkipTrue: 3},
	}
	if offset == 0 { // the length of what was loaded is as good as any
		program = append(program, bpf.LoadConstant{Dst: bpf.RegA, Val: key})
	} else {
		program = append(program, bpf.LoadAbsolute{Off: offset, Size: 4})
	}
	program = append(program,
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: key, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0})
	return bpf.Assemble(program)
}

// Through sends one packet and reports whether it came back before the time was over or ctx ended. An error says that a
// link has gone.
func (p *Prober) Through(ctx context.Context, wait time.Duration) (bool, error) {
	p.seq++
	frame, err := p.target.frame(p.seq)
	if err != nil {
		return false, err
	}
	for _, c := range p.out {
		if err := c.SetReadDeadline(time.Now().Add(wait)); err != nil {
			return false, err
		}
	}
	defer context.AfterFunc(ctx, p.giveUp)()
	if _, err := p.in.WriteTo(frame, &packet.Addr{HardwareAddr: p.target.Dst}); err != nil {
		return false, fmt.Errorf("link %s: %w", p.target.In, err)
	}
	came := make(chan error, len(p.out))
	for _, c := range p.out {
		go func() { came <- await(c, token(p.seq)) }()
	}
	through := false
	var failed error
	for range p.out { // all of them, so that none reads on when the next is sent
		switch err := <-came; {
		case err == nil:
			through = true
			p.giveUp()
		case !errors.Is(err, os.ErrDeadlineExceeded):
			failed = err
		}
	}
	if through {
		return true, nil
	}
	return false, failed
}

// giveUp ends the waiting for the packet that is under way.
func (p *Prober) giveUp() {
	for _, c := range p.out {
		_ = c.SetReadDeadline(time.Unix(1, 0))
	}
}

// await reads until the packet has come in.
func await(c *packet.Conn, token []byte) error {
	for b := make([]byte, 2048); ; {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if bytes.Contains(b[:n], token) {
			return nil
		}
	}
}

// token is what tells a probe from the ones before.
func token(seq uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("tenet probe "), uint32(os.Getpid())), seq)
}

// frame is one probe.
func (t Target) frame(seq uint32) ([]byte, error) {
	eth := &layers.Ethernet{SrcMAC: t.Src, DstMAC: t.Dst, EthernetType: layers.EthernetType(t.EtherType)}
	parts := []gopacket.SerializableLayer{eth}
	payload := gopacket.Payload(append(token(seq), make([]byte, 32)...))
	switch {
	case t.To.Is4():
		eth.EthernetType = layers.EthernetTypeIPv4
		parts = append(parts,
			&layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolICMPv4, SrcIP: t.From.AsSlice(), DstIP: t.To.AsSlice()},
			&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: uint16(os.Getpid()), Seq: uint16(seq)})
	case t.To.Is6():
		eth.EthernetType = layers.EthernetTypeIPv6
		ip := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolICMPv6, SrcIP: t.From.AsSlice(), DstIP: t.To.AsSlice()}
		icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		if err := icmp.SetNetworkLayerForChecksum(ip); err != nil {
			return nil, err
		}
		parts = append(parts, ip, icmp, &layers.ICMPv6Echo{Identifier: uint16(os.Getpid()), SeqNumber: uint16(seq)})
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, append(parts, payload)...)
	return buf.Bytes(), err
}

// Close closes the links' sockets.
func (p *Prober) Close() error {
	var errs []error
	for _, c := range append(p.out, p.in) {
		if c != nil {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
