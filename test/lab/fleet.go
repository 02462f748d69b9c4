package lab

import (
	"net/netip"
	"strconv"
	"sync"
	"testing"
)

// A Fleet is several nodes and the underlay that they meet on.
type Fleet struct {
	Nodes  []*Host // n1, n2, …
	Fabric *Fabric
	// EtcdEndpoints are the URLs of the etcd cluster that nodes' configuration files name: who starts one sets them.
	EtcdEndpoints []string
}

// A FleetOption changes what NewFleet makes.
type FleetOption func(*Fabric)

// UnderlayMTU is the MTU of the fabric and of the nodes' NICs, instead of 1500.
func UnderlayMTU(n int) FleetOption { return func(f *Fabric) { f.mtu = n } }

// members is how many members an etcd cluster of a fleet may have.
const members = 3

// firstNode is added to a node's number for that of its addresses.
const firstNode = 10

// NewFleet starts n nodes with the underlay addresses 192.0.2.<10+i>/24 and 2001:db8:0:2::<10+i>/64, counted from 1, on
// the link Host.Underlay. Tenet's own switch and files are as NewHost leaves them, but that the userspace datapath's
// has a bridge br-phy.
func NewFleet(tb testing.TB, n int, opts ...FleetOption) *Fleet {
	tb.Helper()
	fleet := &Fleet{Nodes: make([]*Host, n)}
	Programs(tb) // once, and not by all of them
	each := func(do func(i int)) {
		tb.Helper()
		var all sync.WaitGroup
		for i := range n {
			all.Go(func() { do(i) })
		}
		all.Wait()
		switch { // what Fatal or Skip did in a goroutine has ended no more than that
		case tb.Failed():
			tb.FailNow()
		case tb.Skipped():
			tb.SkipNow()
		}
	}
	each(func(i int) { fleet.Nodes[i] = NewHost(tb) })
	fleet.Fabric = newFabric(tb, opts...)
	each(func(i int) {
		h := fleet.Nodes[i]
		h.Name, h.fleet = "n"+strconv.Itoa(i+1), fleet
		m := h.machine
		m.fabric, m.number = fleet.Fabric, i+1
		m.vtep, m.vtep6 = addresses(firstNode + m.number)
		h.wire()
		h.bridge()
		h.address()
	})
	return fleet
}

// Etcd are addresses of the fabric's namespace that nodes reach, for as many members of an etcd cluster.
func (f *Fleet) Etcd() []netip.Addr {
	var list []netip.Addr
	for n := range members {
		v4, _ := addresses(n + 1)
		list = append(list, v4)
	}
	return list
}

// Partition drops everything between two nodes, until Heal.
func (f *Fleet) Partition(a, b *Host) {
	a.tb.Helper()
	f.Fabric.part(a.Name, b.Name)
}

// CutFromEtcd drops everything between a node and the fabric's own addresses, until Heal. Other nodes it reaches.
func (f *Fleet) CutFromEtcd(h *Host) {
	h.tb.Helper()
	f.Fabric.cut(h.Name)
}

// CutMember drops everything between all nodes and one of the addresses that Etcd returns, until Heal. The others there
// reach it.
func (f *Fleet) CutMember(i int) {
	f.Fabric.tb.Helper()
	f.Fabric.lose(f.Etcd()[i])
}

// Heal ends every Partition, CutFromEtcd and CutMember.
func (f *Fleet) Heal() {
	f.Fabric.tb.Helper()
	f.Fabric.heal()
}
