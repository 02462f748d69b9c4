package lab

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/store"
)

// Bridge is the name of every host's bridge.
const Bridge = "br-tenet"

// A Host is one node: a switch in a namespace of its own, a data directory, and the programs.
type Host struct {
	*ovstest.Switch

	tb      testing.TB
	Bin     string // CNI_PATH
	DataDir string
	Name    string // in a Fleet; elsewhere empty
	// Config is the configuration file that programs are told of; empty: they are told of all by options and keys.
	Config string

	fleet   *Fleet // nil outside
	machine *machine
}

// A machine is what a host has in common with its copies for subtests.
type machine struct {
	daemons []*Daemon // that were started since the power came on

	// On the underlay.

	fabric      *Fabric // nil: it is on none
	number      int
	vtep, vtep6 netip.Addr
}

// NewHost starts a node's switch. The plugin makes the bridge with the first ADD.
func NewHost(tb testing.TB) *Host {
	tb.Helper()
	h := &Host{Switch: ovstest.Start(tb, ovstest.Real()), tb: tb, machine: &machine{}}
	h.Bin = Programs(tb)
	h.DataDir = filepath.Join(tb.TempDir(), "data")
	return h
}

// For is the same host for a subtest.
func (h *Host) For(tb testing.TB) *Host {
	sub := *h
	sub.tb = tb
	return &sub
}

// Cleanup runs f at the test's end.
func (h *Host) Cleanup(f func()) { h.tb.Cleanup(f) }

// Store is the host's store.
func (h *Host) Store() *store.Bolt { return store.OpenBolt(h.DataDir) }

// Update changes the store as an operator's command does.
func (h *Host) Update(fn func(store.Tx) error) {
	h.tb.Helper()
	Must(h.tb, h.Store().Update(h.tb.Context(), fn))
}

// View reads the store.
func (h *Host) View(fn func(store.Tx) error) {
	h.tb.Helper()
	Must(h.tb, h.Store().View(h.tb.Context(), fn))
}

// Sh runs a program in the host's namespace and returns what it prints; any failure fails the test.
func (h *Host) Sh(args ...string) string {
	h.tb.Helper()
	return h.Run(h.tb, args...)
}

// OFCtl is ovs-ofctl on the bridge.
func (h *Host) OFCtl(verb string, args ...string) string {
	h.tb.Helper()
	return h.Sh(append([]string{"ovs-ofctl", "-O", "OpenFlow15", verb, Bridge}, args...)...)
}
