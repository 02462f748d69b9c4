package lab

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Datagrams sends UDP datagrams from many source ports without a socket for each, and counts what comes back.
type Datagrams struct {
	c   *Container
	mac []byte
	k   *Capture
	out func(frame []byte)
	got int
	at  int
}

// Datagrams begins. The container's kernel does not know of the ports: what comes back is dropped before it answers.
func (c *Container) Datagrams() *Datagrams {
	c.tb.Helper()
	c.Sh("nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; add rule inet quiet out icmp type destination-unreachable drop")
	return &Datagrams{c: c, k: c.Capture(), out: c.Sender()}
}

// Send sends one from a source port.
func (d *Datagrams) Send(to netip.AddrPort, from uint16, payload string) {
	d.c.tb.Helper()
	ip := IP4(d.c.IP4, to.Addr())
	u := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(to.Port())}
	Must(d.c.tb, u.SetNetworkLayerForChecksum(ip))
	if d.mac == nil {
		d.mac = d.c.neighbour(to.Addr())
	}
	d.out(Frame(Eth(d.c.MAC, d.mac, layers.EthernetTypeIPv4), ip, u, gopacket.Payload(payload)))
}

// Got is how many datagrams have come back.
func (d *Datagrams) Got() int {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	for _, f := range d.k.frames[d.at:] {
		if len(f) > 42 && f[12] == 8 && f[13] == 0 && f[23] == 17 { // IPv4, UDP
			d.got++
		}
	}
	d.at = len(d.k.frames)
	return d.got
}

// neighbour is the MAC that the container's kernel knows for an address of its network.
func (c *Container) neighbour(a netip.Addr) []byte {
	c.tb.Helper()
	c.Pings(a)
	words := strings.Fields(c.Sh("ip", "neigh", "show", a.String()))
	for i, w := range words {
		if w == "lladdr" && i+1 < len(words) {
			m, err := net.ParseMAC(words[i+1])
			Must(c.tb, err)
			return m
		}
	}
	c.tb.Fatalf("%s does not know who has %s", c.ID, a)
	return nil
}

// DatapathFlows is how many flows the datapath has.
func (h *Host) DatapathFlows(tb testing.TB) int {
	tb.Helper()
	return strings.Count(h.Run(tb, "ovs-appctl", "dpctl/dump-flows"), "recirc_id")
}
