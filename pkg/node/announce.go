package node

import (
	"context"
	"encoding/binary"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Announce tells those on the wire of a provider network where the endpoint's addresses are from
// now on: they may remember somebody who had one before. In other networks nobody need be told.
func (n *Node) Announce(ctx context.Context, net pipeline.Network, e vnet.Endpoint) error {
	if !net.IsProvider() {
		return nil
	}
	var frames [][]byte
	for _, p := range e.Addrs {
		if a := p.Addr(); a.Is4() {
			frames = append(frames, gratuitousARP(e.MAC, a))
		} else {
			frames = append(frames, unsolicitedNA(e.MAC, a))
		}
	}
	c, err := n.openflow(ctx, e.Bridge)
	if err != nil {
		return err
	}
	defer c.Close()
	return kind(c.Send(ctx, frames, net.ToWire()...))
}

// gratuitousARP is a request of a for itself, to all (RFC 5944, 4.6).
func gratuitousARP(mac vnet.MAC, a netip.Addr) []byte {
	const request = 1
	f := ethernet(vnet.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac, 0x0806)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, request) // Ethernet, IPv4, their address lengths (RFC 826)
	f = append(append(f, mac[:]...), a.AsSlice()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, a.AsSlice()...)
}

// unsolicitedNA is a neighbour advertisement of a to all nodes (RFC 4861, 7.2.6).
func unsolicitedNA(mac vnet.MAC, a netip.Addr) []byte {
	const icmpv6, advertisement, override, targetLLAddr = 58, 136, 0x20, 2
	all := netip.MustParseAddr("ff02::1")
	body := append([]byte{advertisement, 0, 0, 0, override, 0, 0, 0}, a.AsSlice()...)
	body = append(append(body, targetLLAddr, 1), mac[:]...)

	// The checksum covers the addresses, the length and the protocol (RFC 8200, 8.1).
	pseudo := append(append(a.AsSlice(), all.AsSlice()...), 0, 0, 0, byte(len(body)), 0, 0, 0, icmpv6)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))

	f := ethernet(vnet.MAC{0x33, 0x33, 0, 0, 0, 1}, mac, 0x86dd)
	f = append(f, 0x60, 0, 0, 0, 0, byte(len(body)), icmpv6, 255)
	f = append(append(f, a.AsSlice()...), all.AsSlice()...)
	return append(f, body...)
}

func ethernet(dst, src vnet.MAC, etherType uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst[:], src[:]...), etherType)
}

// checksum is the Internet's (RFC 1071), of an even number of bytes.
func checksum(b []byte) uint16 {
	sum := uint32(0)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
