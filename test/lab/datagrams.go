package lab

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Datagrams sends UDP datagrams from many source ports without a socket for each, and notes what comes back.
type Datagrams struct {
	c   *Container
	mac []byte
	k   *Capture
	out func(frame []byte)

	answered map[uint16]bool // by the port it was sent from
	seen     int             // frames of k
}

// Datagrams begins. The container's kernel does not know of the ports: what comes back is dropped before it answers.
func (c *Container) Datagrams() *Datagrams {
	c.tb.Helper()
	c.Sh("nft", "add table inet quiet; add chain inet quiet out { type filter hook output priority 0; }; add rule inet quiet out icmp type destination-unreachable drop")
	return &Datagrams{c: c, k: c.Capture(), out: c.Sender(), answered: map[uint16]bool{}}
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

// Answered tells whether something has come back for what was sent from a port.
func (d *Datagrams) Answered(from uint16) bool {
	d.k.mu.Lock()
	defer d.k.mu.Unlock()
	for _, f := range d.k.frames[d.seen:] {
		if len(f) > 42 && f[12] == 8 && f[13] == 0 && f[23] == 17 { // IPv4 without options, UDP
			d.answered[binary.BigEndian.Uint16(f[36:])] = true
		}
	}
	d.seen = len(d.k.frames)
	return d.answered[from]
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
