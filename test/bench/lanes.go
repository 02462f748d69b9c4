package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"github.com/tenet-cni/tenet/pkg/veth"
)

// A lane is one way for traffic, from a client in a namespace to a server in another. One more is what lays it, and a
// line in lanes.
type lane struct {
	name    string
	against string // the lane to hold it against; none: it is one to hold others against
	client  namespace
	to      netip.AddrPort // of the server, as the client knows it
}

// The lanes' names.
const (
	normalLane = "NORMAL"
	tenetLane  = "tenet"
)

const normalBridge = "br-normal"

// lanes lays what is measured. All go through the same ovs-vswitchd and its one datapath, over the same cables.
func (w *world) lanes(ctx context.Context) ([]lane, error) {
	var lanes []lane
	for _, lay := range []func(context.Context) (lane, error){w.layNormal, w.layTenet} {
		l, err := lay(ctx)
		if err != nil {
			return nil, err
		}
		lanes = append(lanes, l)
	}
	return lanes, w.db.settle()
}

// layTenet is two containers in a network without a way out.
func (w *world) layTenet(ctx context.Context) (lane, error) {
	client, _, err := w.attach(ctx, nil)
	if err != nil {
		return lane{}, fmt.Errorf("%s: %w", tenetLane, err)
	}
	server, addr, err := w.attach(ctx, nil)
	if err == nil {
		err = w.serve(server)
	}
	return lane{tenetLane, normalLane, client, netip.AddrPortFrom(addr, serverPort)}, err
}

// layNormal is two containers on a bridge of one flow, which switches by what it has learnt: the least that Open vSwitch
// can be. Their cables are those that tenet lays, so that what differs is the flows.
func (w *world) layNormal(ctx context.Context) (lane, error) {
	if _, err := w.sw.Output("ovs-vsctl", "add-br", normalBridge, "--", "set", "Bridge", normalBridge, "datapath_type="+w.sw.Datapath); err != nil { //nolint:contextcheck // the harness has it
		return lane{}, err
	}
	l := lane{name: normalLane}
	for i := range 2 {
		ns, err := w.newContainer()
		if err != nil {
			return l, err
		}
		addr := netip.AddrFrom4([4]byte{10, 66, 0, byte(i + 1)})
		cable := veth.Cable{
			Host: "normal" + strconv.Itoa(i), Container: ifName, NetNS: ns.path, MTU: mtu, Userspace: w.sw.Datapath == "netdev",
			MAC: net.HardwareAddr{2, 0, 0, 66, 0, byte(i + 1)}, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 16)},
		}
		err = w.ovsNode.do(func() error {
			_, err := veth.Lay(ctx, cable)
			return err
		})
		if err != nil {
			return l, err
		}
		if _, err := w.sw.Output("ovs-vsctl", "add-port", normalBridge, cable.Host); err != nil { //nolint:contextcheck // the harness has it
			return l, err
		}
		if i == 0 {
			l.client = ns
			continue
		}
		l.to = netip.AddrPortFrom(addr, serverPort)
		if err := w.serve(ns); err != nil {
			return l, err
		}
	}
	return l, nil
}

// attach is a new container with its address in tenet's network; more is more of the plugin's configuration.
func (w *world) attach(ctx context.Context, more map[string]any) (namespace, netip.Addr, error) {
	ns, err := w.newContainer()
	if err != nil {
		return ns, netip.Addr{}, err
	}
	plugin, _ := w.tenet(more)
	w.calls++
	a := &attachment{id: strconv.Itoa(w.calls), ns: ns}
	if _, err := plugin.add(ctx, []*attachment{a}); err != nil {
		return ns, netip.Addr{}, fmt.Errorf("ADD: %w", err)
	}
	var result struct {
		IPs []struct{ Address netip.Prefix }
	}
	err = json.Unmarshal(a.result, &result)
	if err == nil && len(result.IPs) == 0 {
		err = errors.New("no address")
	}
	if err != nil {
		return ns, netip.Addr{}, fmt.Errorf("ADD answered %s: %w", a.result, err)
	}
	return ns, result.IPs[0].Address.Addr(), nil
}

// newContainer is one more namespace that goes with the world. Its ports are free for new connections again a second
// after the old ones: tens of thousands are opened within the minute that they otherwise rest.
func (w *world) newContainer() (namespace, error) {
	n, err := newNamespace()
	if err != nil {
		return n, err
	}
	w.containers = append(w.containers, n)
	return n, n.do(func() error { return os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("1"), 0o600) })
}
