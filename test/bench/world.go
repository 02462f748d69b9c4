package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/test/lab"
)

const (
	ovsBridge   = "br-tenet"
	linuxBridge = "cni0"
)

// A world is two nodes on one machine, each in a namespace of its own so that neither hears the other's link events: one
// with Open vSwitch, one with a Linux bridge. They have the same number of ports.
type world struct {
	settings

	dir     string
	sw      *ovstest.Switch
	harness *harness
	db      *database

	ovsNode, linuxNode namespace
	crowd              namespace // the containers of the ports that are there already
	containers         []namespace
	servers            []net.Listener
	populated          int // how many those ports are
	calls              int // makes container ids and addresses
}

func newWorld(ctx context.Context, s settings) (*world, error) {
	w := &world{settings: s, harness: &harness{ctx: ctx}}
	if err := w.build(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) build(ctx context.Context) error {
	var err error
	if w.dir, err = os.MkdirTemp(w.Dir, "tenet-bench"); err != nil {
		return err
	}
	if err := os.WriteFile(w.path("add-port"), []byte(addPort), 0o700); err != nil {
		return err
	}
	err = w.harness.try(func() { w.sw = ovstest.Start(w.harness, ovstest.Real()) }) //nolint:contextcheck // the harness has it
	if err != nil {
		return err
	}
	if w.ovsNode, err = openNamespace(w.sw.NetNS); err != nil {
		return err
	}
	for _, n := range []*namespace{&w.linuxNode, &w.crowd} {
		if *n, err = newNamespace(); err != nil {
			return err
		}
	}
	for range max(w.Parallel, 1) {
		n, err := newNamespace()
		if err != nil {
			return err
		}
		w.containers = append(w.containers, n)
	}
	if err := w.makeLinuxBridge(); err != nil {
		return fmt.Errorf("%s: %w", linuxBridge, err)
	}
	if _, err := w.sync(ctx, 0); err != nil { // makes the bridge
		return err
	}
	w.db, err = dialDatabase(w.sw.Socket(), ovsBridge)
	return err
}

// close takes the world down: ovs-vswitchd first, which would follow each link as it goes.
func (w *world) close() {
	if w.db != nil {
		_ = w.db.conn.Close()
	}
	w.harness.end()
	for _, l := range w.servers {
		_ = l.Close()
	}
	for _, n := range append(w.containers, w.ovsNode, w.linuxNode, w.crowd) {
		if n.file != nil {
			_ = n.file.Close()
		}
	}
	if err := os.RemoveAll(w.dir); err != nil {
		say("%v", err)
	}
}

// programs builds what is measured into dir, all in the same way, and the meter.
func programs(ctx context.Context, dir string) error {
	root, err := goTool(ctx, "", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return err
	}
	if _, err := goTool(ctx, root, "build", "-trimpath", "-ldflags=-s -w", "-o", dir+"/",
		"./plugins/tenet", "./cmd/tenetctl", "./cmd/tenetd", "./test/bench/meter"); err != nil {
		return err
	}
	for _, plugin := range []string{"main/bridge", "ipam/host-local"} {
		if err := lab.Install(dir, plugin); err != nil {
			return err
		}
	}
	return nil
}

func goTool(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

// bin is the CNI_PATH.
func (w *world) bin() string { return w.settings.bin }

// makeLinuxBridge makes the bridge that the plugin "bridge" would make with its first ADD.
func (w *world) makeLinuxBridge() error {
	h, err := w.linuxNode.netlink()
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = linuxBridge
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return err
	}
	return setUp(h, linuxBridge)
}

func (n namespace) netlink() (*netlink.Handle, error) {
	return netlink.NewHandleAt(handleOf(n), unix.NETLINK_ROUTE)
}

func setUp(h *netlink.Handle, name string) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	return h.LinkSetUp(link)
}
