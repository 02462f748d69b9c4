package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
	"github.com/tenet-cni/tenet/test/lab"
)

// Part cluster is what containers of a cluster wait for: how soon others can reach a new one, and it them, and what an ADD
// takes on a node of a cluster and on one that is on its own, which are measured in turn.

// clustered is what was measured.
type clustered struct {
	// From the moment at which ADD has returned. Reached is when one on another node that asks the new container all the
	// time has its first answer, which may be before; Reaches when the new container, which asks one on another node from
	// then on, has its.
	Reached []float64 `json:"reached_ms"`
	Reaches []float64 `json:"reaches_ms"`

	WithEtcd inPairs `json:"with_etcd"`
	Without  inPairs `json:"without_etcd"` // it is down, and tenetd knows
}

// inPairs are calls on a node of the cluster and on one of its own: those of one index are of one round.
type inPairs struct {
	Member    []sample `json:"member_add"`
	MemberDel []sample `json:"member_del"`
	Alone     []sample `json:"alone_add"`
	AloneDel  []sample `json:"alone_del"`
}

// meeting is three nodes on one underlay: the first two are a cluster's.
type meeting struct {
	settings

	here, there, alone *lab.Host
	etcd               *etcdtest.Cluster
	daemon             *lab.Daemon    // of the first
	other              *lab.Container // on the second
	fresh              *lab.Container // on the first, which comes and goes
	calls              int
	found              clustered
}

func measureCluster(ctx context.Context, set settings, r *report, start time.Time) error {
	if err := os.Setenv("TENET_BIN", set.bin); err != nil { // for package lab
		return err
	}
	h := &harness{ctx: ctx, dir: set.Dir}
	defer h.end()
	m := &meeting{settings: set}
	say("%s three nodes meet", elapsed(start))
	if err := h.try(func() { m.build(h) }); err != nil { //nolint:contextcheck // the harness has it
		return err
	}
	r.Cluster = &m.found
	for i := range set.Adds {
		if i%10 == 0 {
			say("%s how soon a container is reached: %d of %d", elapsed(start), i, set.Adds)
		}
		if err := h.try(func() { m.reached(ctx, h) }); err != nil {
			return err
		}
		if err := h.try(func() { m.reaches(ctx, h) }); err != nil {
			return err
		}
	}
	if err := m.addInTurn(ctx, h, &m.found.WithEtcd, start); err != nil {
		return err
	}
	say("%s etcd goes away", elapsed(start))
	if err := h.try(func() { m.etcd.Kill(0); m.daemon.Logs("etcd does not answer") }); err != nil {
		return err
	}
	return m.addInTurn(ctx, h, &m.found.Without, start)
}

// build makes the nodes, and on each a container that stays: nothing here is the first of its network.
func (m *meeting) build(h *harness) {
	fleet := lab.NewFleet(h, 3)
	m.here, m.there, m.alone = fleet.Nodes[0], fleet.Nodes[1], fleet.Nodes[2]
	m.etcd = etcdtest.Start(h, etcdtest.NetNS(fleet.Fabric.NetNS), etcdtest.Listen(fleet.Etcd()[0].String()))
	fleet.EtcdEndpoints = m.etcd.Endpoints()
	const quiet = "--log-level=info"
	for _, n := range []*lab.Host{m.here, m.there} {
		n.WriteConfig(nil)
		d := n.BeginTenetd(quiet)
		d.Logs("joined the cluster")
		m.daemon = cmp.Or(m.daemon, d)
	}
	m.alone.WriteConfig(map[string]any{"etcd": nil})
	for _, n := range []*lab.Host{m.here, m.alone} {
		_, err := n.Tenetctl("network", "add", "bench/net", "--subnet", subnet)
		lab.Must(h, err)
		n.Attach("stays", conf(n))
	}
	m.alone.BeginTenetd(quiet).Logs("the switch agrees")
	m.connect(h, fleet.Fabric.NetNS, netip.AddrPortFrom(fleet.Etcd()[1], serverPort))
	m.other = m.there.Attach("other", conf(m.there))
	m.fresh = m.here.Attach("fresh", conf(m.here))
	m.fresh.Del()
	// One that asks knows whom: what its kernel does until it has found that out, a question a second, is not tenet's.
	m.other.Sh("ip", "neigh", "replace", m.fresh.IP4.String(), "lladdr", m.fresh.MAC.String(), "dev", m.other.IfName, "nud", "permanent")
}

// connect gives the node on its own a connection, as the others have to etcd: who looks for connections that a container
// leaves behind pays for the first that a machine has.
func (m *meeting) connect(h *harness, netns string, at netip.AddrPort) {
	lab.Must(h, lab.Inside(netns, func() error {
		l, err := net.Listen("tcp", at.String()) //nolint:noctx // listens at once
		if err == nil {
			h.Cleanup(func() { _ = l.Close() })
		}
		return err
	}))
	conn, err := m.alone.Itself().Connect("tcp", at)
	lab.Must(h, err)
	h.Cleanup(func() { _ = conn.Close() })
}

func conf(h *lab.Host) lab.Conf { return h.Conf("bench", "net") }

// come attaches the container, always with the same address, and returns when ADD has returned.
func (m *meeting) come(h *harness) time.Time {
	m.calls++
	m.fresh.ID, m.fresh.Conf, m.fresh.Args = "fresh"+strconv.Itoa(m.calls), conf(m.here), "IP="+m.fresh.IP4.String()
	a, err := m.here.Exec(m.fresh.Call("ADD"))
	at := time.Now()
	lab.Must(h, err)
	lab.Must(h, a.Failed())
	return at
}

// goes takes it away, and waits until the other node has forgotten it.
func (m *meeting) goes(h *harness) {
	m.fresh.Del()
	id := vnet.Attachment{Container: m.fresh.ID, IfName: m.fresh.IfName}.ID()
	cookie := pipeline.RemoteOwner(vnet.Remote{Tenant: "bench", Network: "net", Node: vnet.NodeName(m.here.Name), ID: id}).Cookie()
	lab.Eventually(h, "the other node to forget the container", func() bool {
		return !slices.ContainsFunc(m.there.Flows(), func(f openflow.FlowStats) bool { return f.Cookie == cookie })
	})
}

func (m *meeting) reached(ctx context.Context, h *harness) {
	asks := m.asks(ctx, h, m.other, m.fresh.IP4)
	defer asks.stop()
	at := m.come(h) //nolint:contextcheck // the harness has it
	m.found.Reached = append(m.found.Reached, ms(asks.answered(h).Sub(at)))
	m.goes(h) //nolint:contextcheck // the harness has it
}

func (m *meeting) reaches(ctx context.Context, h *harness) {
	at := m.come(h) //nolint:contextcheck // the harness has it
	asks := m.asks(ctx, h, m.fresh, m.other.IP4)
	defer asks.stop()
	m.found.Reaches = append(m.found.Reaches, ms(asks.answered(h).Sub(at)))
	m.goes(h) //nolint:contextcheck // the harness has it
}

// asks has a container ask an address, from now on.
func (m *meeting) asks(ctx context.Context, h *harness, c *lab.Container, to netip.Addr) *asking {
	var a *asking
	c.In(func() error {
		var err error
		a, err = ask(ctx, to, uint16(m.calls))
		return err
	})
	if a == nil {
		h.Fatal("nobody asks")
	}
	return a
}

// addInTurn measures an ADD and its DEL on the cluster's node and on the other in turn, a different one first each time.
func (m *meeting) addInTurn(ctx context.Context, h *harness, to *inPairs, start time.Time) error {
	w := &world{settings: m.settings, harness: h}
	var nodes []inTurn
	for _, n := range []struct {
		host      *lab.Host
		add, dels *[]sample
	}{{m.here, &to.Member, &to.MemberDel}, {m.alone, &to.Alone, &to.AloneDel}} {
		one := inTurn{host: n.host, add: n.add, del: n.dels}
		var err error
		if one.node, err = openNamespace(n.host.NetNS); err != nil {
			return err
		}
		defer one.node.file.Close() //nolint:errcheck // nothing to lose
		if one.db, err = dialDatabase(n.host.Socket(), ovsBridge); err != nil {
			return err
		}
		defer one.db.conn.Close()                                                     //nolint:errcheck // nothing to lose
		if err := h.try(func() { one.c = n.host.Container("in-turn") }); err != nil { //nolint:contextcheck // the harness has it
			return err
		}
		nodes = append(nodes, one)
	}
	const warm = 2 // page cache and the like: thrown away
	for round := range warm + m.Rounds {
		if round == warm {
			for _, n := range nodes {
				*n.add, *n.del = nil, nil
			}
		}
		say("%s ADDs: round %d of %d", elapsed(start), max(0, round-warm)+1, m.Rounds)
		for i := range nodes {
			m.calls++
			if err := nodes[(round+i)%len(nodes)].once(ctx, w, m.calls); err != nil {
				return err
			}
		}
	}
	return nil
}

// inTurn is one of the nodes that are measured in turn.
type inTurn struct {
	host     *lab.Host
	node     namespace
	db       *database
	c        *lab.Container
	add, del *[]sample
}

func (n inTurn) once(ctx context.Context, w *world, call int) error {
	n.c.ID, n.c.Conf = "call"+strconv.Itoa(call), conf(n.host)
	for _, verb := range []struct {
		name string
		to   *[]sample
	}{{"ADD", n.add}, {"DEL", n.del}} {
		c := n.c.Call(verb.name)
		outcomes, err := w.measure(ctx, n.node, []command{{
			Args: []string{w.bin() + "/tenet"}, Stdin: c.Stdin,
			Env: []string{
				"CNI_COMMAND=" + c.Verb, "CNI_CONTAINERID=" + c.ID, "CNI_NETNS=" + c.NetNS, "CNI_IFNAME=" + c.IfName,
				"CNI_PATH=" + w.bin(), "PATH=" + os.Getenv("PATH"),
			},
		}})
		if err != nil {
			return fmt.Errorf("%s on %s: %w", verb.name, n.host.Name, err)
		}
		*verb.to = append(*verb.to, outcomes[0].sample())
		if err := n.db.settle(); err != nil {
			return err
		}
	}
	return nil
}

// print writes what containers wait for, and what an ADD takes.
func (c *clustered) print(to io.Writer) {
	t := newTable(to, "From ADD's return to the first answer, between two nodes, ms: less than nothing is before it")
	t.AppendHeader(table.Row{"", "ADDs", "p50", "p90", "p99", "most"})
	for _, way := range []struct {
		name string
		took []float64
	}{{"one elsewhere asks the new container all the time", c.Reached}, {"the new container asks one elsewhere", c.Reaches}} {
		row := table.Row{way.name, len(way.took)}
		for _, share := range []float64{0.5, 0.9, 0.99, 1} {
			row = append(row, fmt.Sprintf("%.1f", quantile(way.took, share)))
		}
		t.AppendRow(row)
	}
	t.Render()
	t = newTable(to, "On a node of the cluster and on one of its own, in turn, ms: median (p10); the median of the rounds' ratios")
	t.AppendHeader(table.Row{"", "member", "alone", "ratio", "CPU: member", "alone", "ratio"})
	for _, of := range []struct {
		name          string
		member, alone []sample
	}{
		{"ADD", c.WithEtcd.Member, c.WithEtcd.Alone},
		{"DEL", c.WithEtcd.MemberDel, c.WithEtcd.AloneDel},
		{"ADD without etcd", c.Without.Member, c.Without.Alone},
		{"DEL without etcd", c.Without.MemberDel, c.Without.AloneDel},
	} {
		row := table.Row{of.name}
		for _, values := range []func([]sample) []float64{walls, cpus} {
			member, alone := values(of.member), values(of.alone)
			row = append(row, spread(member), spread(alone), fmt.Sprintf("%.2f", median(ratios(member, alone))))
		}
		t.AppendRow(row)
	}
	t.Render()
}
