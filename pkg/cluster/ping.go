package cluster

import (
	"context"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

// ping sends an echo request to the address and reports whether it was answered in time. That none can be sent counts as
// no answer from there, and is an error, too.
func ping(ctx context.Context, to netip.Addr, wait time.Duration) (bool, error) {
	network, protocol := "ip4:icmp", 1 // IANA, protocol numbers
	var request, reply icmp.Type = ipv4.ICMPTypeEcho, ipv4.ICMPTypeEchoReply
	if to.Is6() {
		network, protocol, request, reply = "ip6:ipv6-icmp", 58, ipv6.ICMPTypeEchoRequest, ipv6.ICMPTypeEchoReply
	}
	conn, err := icmp.ListenPacket(network, "")
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	id, seq := os.Getpid()&0xffff, int(rand.N(uint32(1<<16)))
	message, err := (&icmp.Message{Type: request, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte("tenet")}}).Marshal(nil)
	if err != nil {
		return false, err
	}
	end := time.Now().Add(wait)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(end) {
		end = deadline
	}
	if err := conn.SetDeadline(end); err != nil {
		return false, err
	}
	if _, err := conn.WriteTo(message, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return false, err
	}
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return false, nil // its time is up
		}
		m, err := icmp.ParseMessage(protocol, buffer[:n])
		if err != nil || m.Type != reply {
			continue
		}
		echo, ok := m.Body.(*icmp.Echo)
		addr, isIP := from.(*net.IPAddr)
		if !ok || !isIP || echo.ID != id || echo.Seq != seq {
			continue
		}
		if a, _ := netip.AddrFromSlice(addr.IP); a.Unmap() == to {
			return true, nil
		}
	}
}
