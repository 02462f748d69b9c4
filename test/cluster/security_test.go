package cluster

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// Nobody but root asks tenetd, even where its socket's directory is open to all.
func TestTheSocketIsForRootAlone(t *testing.T) {
	h := lab.NewHost(t)
	made, open := filepath.Join(t.TempDir(), "run", "tenet"), filepath.Join(t.TempDir(), "open")
	lab.Must(t, os.Mkdir(open, 0o755))
	for dir, perm := range map[string]fs.FileMode{made: 0o700, open: 0o755} {
		path := filepath.Join(dir, "tenetd.sock")
		h.WriteConfig(map[string]any{"socket": path})
		old := syscall.Umask(0) // what it has from who starts it
		d := h.BeginTenetd()
		syscall.Umask(old)
		lab.Eventually(t, "the socket", func() bool { _, err := os.Stat(path); return err == nil })
		for what, want := range map[string]fs.FileMode{dir: perm, path: 0o600} {
			i, err := os.Stat(what)
			lab.Must(t, err)
			if i.Mode().Perm() != want {
				t.Errorf("%s has the mode %s, want %s", what, i.Mode().Perm(), want)
			}
		}
		lab.Must(t, os.Chmod(dir, 0o755))
		for p := filepath.Dir(dir); p != "/tmp" && p != "/"; p = filepath.Dir(p) {
			lab.Must(t, os.Chmod(p, 0o755)) // directories of a test are its owner's
		}
		for uid, want := range map[int]error{0: nil, 65534: unix.EACCES} {
			if err := asUser(h, uid, path); !errors.Is(err, want) {
				t.Errorf("user %d asks: %v, want %v", uid, err, want)
			}
		}
		d.Terminate()
		if _, err := os.Stat(path); err == nil {
			t.Error("the socket outlives it")
		}
	}
}

// asUser connects to a Unix socket as another user, with what the file system lets that one do.
func asUser(h *lab.Host, uid int, path string) error {
	return lab.Inside(h.NetNS, func() error {
		_, _ = unix.SetfsuidRetUid(uid) // of this thread, which ends with the call; without the user's capabilities, too
		conn, err := net.Dial("unix", path)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// vxlan is a frame as it is in VXLAN (RFC 7348, 5), geneve as in Geneve without options (RFC 8926, 3.4).
func vxlan(vni vnet.VNI, frame []byte) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{8, 0, 0, 0}, uint32(vni)<<8), frame...))
}

func geneve(vni vnet.VNI, frame []byte) string {
	return string(append(binary.BigEndian.AppendUint32([]byte{0, 0, 0x65, 0x58}, uint32(vni)<<8), frame...))
}

// syn opens a TCP connection by a bare frame.
func syn(c *lab.Container, to netip.AddrPort) []byte {
	tcp := &layers.TCP{SrcPort: 50_000, DstPort: layers.TCPPort(to.Port()), Seq: 1, SYN: true, Window: 1024}
	if a := to.Addr(); a.Is4() {
		ip := lab.IP4(c.IP4, a)
		ip.Protocol = layers.IPProtocolTCP
		lab.Sums(tcp, ip)
		return lab.Frame(lab.Eth(c.MAC, lab.Router, layers.EthernetTypeIPv4), ip, tcp)
	}
	ip := lab.IP6(c.IP6, to.Addr(), layers.IPProtocolTCP, 64)
	lab.Sums(tcp, ip)
	return lab.Frame(lab.Eth(c.MAC, lab.Router, layers.EthernetTypeIPv6), ip, tcp)
}

// synInPieces is syn as fragments, of which no switch sees what port they are for: with data, since trackers take none of
// fragments that are much smaller than they need be.
func synInPieces(c *lab.Container, to netip.AddrPort) [][]byte {
	tcp := &layers.TCP{SrcPort: 50_001, DstPort: layers.TCPPort(to.Port()), Seq: 1, SYN: true, Window: 1024}
	ip := lab.IP4(c.IP4, to.Addr())
	ip.Protocol, ip.Id = layers.IPProtocolTCP, to.Port()
	lab.Sums(tcp, ip)
	segment := lab.Frame(tcp, gopacket.Payload(make([]byte, 1600)))
	const first = 1400
	head, tail := *ip, *ip
	head.Flags, tail.FragOffset = layers.IPv4MoreFragments, first/8
	eth := lab.Eth(c.MAC, lab.Router, layers.EthernetTypeIPv4)
	return [][]byte{lab.Frame(eth, &head, gopacket.Payload(segment[:first])), lab.Frame(eth, &tail, gopacket.Payload(segment[first:]))}
}

// A container with a way out reaches what is there, but of the cluster's own things none: not etcd, nor what tenetd tells.
func TestContainersDoNotReachWhatTheClusterIsMadeOf(t *testing.T) {
	t.Parallel()
	c := onEtcd(t, lab.NewFleet(t, 2), 3)
	c.EtcdEndpoints = c.EtcdEndpoints[:1] // by which the nodes know of the others
	for _, h := range c.Nodes {
		c.begin(h, map[string]any{"metrics": "[::]:9477"})
	}
	c.allJoined()
	n1, n2 := c.Nodes[0], c.Nodes[1]
	c.network(n1, "blue/out", "--subnet", web4, "--subnet", web6, "--gateway", "nat")
	host := c.Etcd()[0] // etcd's
	also := netip.MustParseAddr("2001:db8:0:2::1")
	for _, a := range []netip.Addr{host, also} {
		echo(t, c.Fabric.NetNS, netip.AddrPortFrom(a, 8080))
	}
	for _, h := range []*lab.Host{n1, n2} {
		e := h.Attach("on-"+h.Name, h.Conf("blue", "out"))
		for _, a := range []netip.Addr{host, also} {
			lab.Eventually(t, e.ID+" to reach another port of etcd's host", func() bool { return e.Exchange("tcp", netip.AddrPortFrom(a, 8080), "hello") == nil })
		}
		for _, own := range []netip.AddrPort{netip.AddrPortFrom(host, 2379), netip.MustParseAddrPort("127.0.0.1:9477"), netip.AddrPortFrom(h.VTEP(), 9477)} {
			conn, err := h.Itself().Connect("tcp", own)
			lab.Must(t, err) // or what follows proves nothing
			conn.Close()
		}
		answers := e.Capture()
		before := h.Drops()
		e.Send(syn(e, netip.AddrPortFrom(host, 2379)), syn(e, netip.AddrPortFrom(host, 2380)), syn(e, netip.AddrPortFrom(c.Etcd()[2], 2379)))
		h.Counts(t, before, "etcd", 3)
		if conn, err := e.Connect("tcp", netip.AddrPortFrom(host, 2379)); err == nil {
			conn.Close()
			t.Errorf("%s reaches etcd", e.ID)
		}
		e.Send(synInPieces(e, netip.AddrPortFrom(host, 2379))...)
		e.Send(synInPieces(e, netip.AddrPortFrom(host, 2380))...)
		e.Send(synInPieces(e, netip.AddrPortFrom(host, 8080))...)
		lab.Eventually(t, "a connection that is opened in pieces", func() bool {
			return len(answers.Frames(func(frame []byte) bool { from, to := accepts(frame); return from == 8080 && to == 50_001 })) > 0
		})
		for _, a := range []string{"127.0.0.1", "::1", h.VTEP().String(), h.VTEP6().String(), "10.0.0.1", "fd00:1::1", e.Alias(e.IP4).String(), e.Alias(e.IP6).String()} {
			e.Send(syn(e, netip.AddrPortFrom(netip.MustParseAddr(a), 9477)))
		}
		lab.Must(t, e.Exchange("tcp", netip.AddrPortFrom(host, 8080), "hello"))
		for _, frame := range answers.Frames(func([]byte) bool { return true }) {
			if from, _ := accepts(frame); from != 0 && from != 8080 {
				t.Errorf("port %d accepts %s's connection: %x", from, e.ID, frame)
			}
		}
	}
	c.settled()
}

// accepts returns the ports, from and to, of a frame that accepts a TCP connection, zeros of others.
func accepts(frame []byte) (uint16, uint16) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.NoCopy)
	tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok || !tcp.SYN || !tcp.ACK {
		return 0, 0
	}
	return uint16(tcp.SrcPort), uint16(tcp.DstPort)
}

// vniOf is the VNI of a network.
func vniOf(h *lab.Host, tenant, network string) vnet.VNI {
	var n vnet.Network
	h.View(func(tx store.Tx) error {
		var err error
		n, err = store.Network(tx, vnet.Ref{Tenant: vnet.TenantName(tenant), Network: vnet.NetworkName(network)})
		return err
	})
	return n.VNI
}

// besieged is a cluster of two nodes, with one of red on each, which a frame in a tunnel could be of.
type besieged struct {
	*cluster

	n1, n2     *lab.Host
	from, to   *lab.Container // on n1 and n2
	hears      *lab.Capture   // the latter
	known, not vnet.VNI       // of red/web, and one that nobody has
}

func besiege(t *testing.T) besieged {
	t.Helper()
	c := newCluster(t, 2, 1)
	w := besieged{cluster: c, n1: c.Nodes[0], n2: c.Nodes[1]}
	w.network(w.n1, "red/web", "--subnet", "10.0.3.0/24")
	w.from, w.to = w.n1.Attach("from", w.n1.Conf("red", "web")), w.n2.Attach("to", w.n2.Conf("red", "web"))
	lab.Eventually(t, "the two to meet", func() bool { return w.from.Pings(w.to.IP4) })
	w.hears = w.to.Capture()
	w.known = vniOf(w.n2, "red", "web")
	w.not = w.known ^ 1
	return w
}

// inner is a frame that would be welcome.
func (w besieged) inner(token string) []byte { return lab.UDP(w.from, w.to, token) }

// quiet fails the test if anything with the token has come to the one on n2. An honest datagram comes after it.
func (w besieged) quiet(what, token string) {
	w.t.Helper()
	lab.Settled(w.t, w.from, w.to, w.hears)
	if w.hears.Count(token) > 0 {
		w.t.Errorf("%s arrives", what)
	}
}

// What is in a tunnel is taken from nodes alone, and for networks that are here.
func TestATunnelIsTakenFromNodesAlone(t *testing.T) {
	w := besiege(t)
	vtep := netip.AddrPortFrom(w.n2.VTEP(), 4789)
	stranger := w.Stranger()
	for _, a := range []netip.Addr{w.n2.VTEP(), w.n2.VTEP6()} {
		lab.Eventually(t, "a stranger to reach "+a.String(), func() bool { return stranger.Pings(a) })
	}

	// It is well-formed: from a node it would be delivered.
	said := lab.Token("a node")
	w.n1.Itself().SendUDP(vtep, vxlan(w.known, w.inner(said)))
	w.hears.Await(said)

	for _, sent := range []struct {
		what   string
		from   *lab.Container
		vni    vnet.VNI
		counts string
	}{
		{"a stranger's frame", stranger, w.known, "unknown-vtep"},
		{"a stranger's frame for nobody", stranger, w.not, "unknown-vtep"},
		{"a node's frame for a network that is not here", w.n1.Itself(), w.not, "unknown-vni"},
		{"a node's frame for no hop of a chain", w.n1.Itself(), 0xF00021, "unknown-vni"},
	} {
		before := w.n2.Drops()
		said := lab.Token("forged")
		for range 3 {
			sent.from.SendUDP(vtep, vxlan(sent.vni, w.inner(said)))
		}
		w.n2.Counts(t, before, sent.counts, 3)
		w.quiet(sent.what, said)
	}
	// Where no tunnel is received.
	said = lab.Token("elsewhere")
	stranger.SendUDP(netip.AddrPortFrom(w.n2.VTEP6(), 4789), vxlan(w.known, w.inner(said)))
	w.n1.Itself().SendUDP(netip.AddrPortFrom(w.n2.VTEP6(), 4789), vxlan(w.known, w.inner(said)))
	stranger.SendUDP(netip.AddrPortFrom(w.n2.VTEP(), 6081), geneve(w.known, w.inner(said)))
	w.n1.Itself().SendUDP(netip.AddrPortFrom(w.n2.VTEP(), 6081), geneve(w.known, w.inner(said)))
	w.quiet("what was sent where no tunnel is", said)
	w.settled()
}

// A container reaches no tunnel, though what it sends leaves with a node's address.
func TestContainersReachNoTunnel(t *testing.T) {
	w := besiege(t)
	w.network(w.n1, "blue/out", "--subnet", web4, "--subnet", web6, "--gateway", "nat")
	stranger := w.Stranger()
	stranger.Tell(7000)
	blue := w.n1.Attach("blue", w.n1.Conf("blue", "out"))
	for _, a := range []netip.Addr{stranger.IP4, stranger.IP6} {
		lab.Eventually(t, "the container to reach the underlay", func() bool {
			told, err := blue.Ask("udp", netip.AddrPortFrom(a, 7000), 0, 16)
			return err == nil && (told.Seen.Addr() == w.n1.VTEP() || told.Seen.Addr() == w.n1.VTEP6()) // or what follows proves nothing
		})
	}
	wire := w.n2.Wire().Capture()
	before := w.n1.Drops()
	said := lab.Token("injected")
	sent := 0
	for _, h := range []*lab.Host{w.n1, w.n2} {
		for _, a := range []netip.Addr{h.VTEP(), h.VTEP6()} {
			blue.SendUDP(netip.AddrPortFrom(a, 4789), vxlan(w.known, w.inner(said)))
			blue.SendUDP(netip.AddrPortFrom(a, 6081), geneve(w.known, w.inner(said)))
			sent += 2
		}
	}
	w.n1.Counts(t, before, "tunnel", uint64(sent))
	// In fragments, of which the first alone says what it is.
	for _, a := range []netip.Addr{w.n2.VTEP(), w.n2.VTEP6()} {
		blue.SendUDP(netip.AddrPortFrom(a, 4789), vxlan(w.known, w.inner(strings.Repeat("=", 3000)+said)))
	}
	w.quiet("what a container sent to a tunnel", said)
	if n := wire.Count(said); n > 0 {
		t.Errorf("%d packets of it leave the node", n)
	}

	taken := w.n1.Container("taken")
	taken.Conf = lab.Published(w.n1.Conf("blue", "out"), lab.Port("udp", 4789, 53))
	lab.Fails(t, taken.Do("ADD"), lab.CodeConflict, "udp port 4789 of the host is its tunnels'")
	w.settled()
}
