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

// A lane is one way for traffic, from a client in a namespace to a server in another. One more is a line in lanes.
type lane struct {
	name    string
	against string // the lane to hold it against; none: it is one to hold others against
	client  namespace
	to      netip.AddrPort // of the server, as the client knows it
	trips   bool           // whether it echoes, on the port above

	prepare func(context.Context) error // if set, what is to be done before it is measured
}

// The lanes' names.
const (
	normalLane     = "NORMAL"
	tenetLane      = "tenet"
	masqueradeLane = "NORMAL + masquerade"
	natLane        = "tenet, gateway nat"
)

const (
	normalBridge  = "br-normal"
	normalGateway = "10.66.255.254"
)

// lanes lays what is measured. All go through the same ovs-vswitchd and its one datapath, over the same cables.
func (w *world) lanes(ctx context.Context) ([]lane, error) {
	if err := w.makeNormalBridge(); err != nil { //nolint:contextcheck // the harness has it
		return nil, fmt.Errorf("%s: %w", normalBridge, err)
	}
	outside, err := w.outside()
	if err != nil {
		return nil, fmt.Errorf("outside: %w", err)
	}
	var lanes []lane
	for _, l := range []struct {
		lane

		join   func(context.Context) (namespace, netip.Addr, error) // how its containers are attached
		server netip.Addr                                           // none: one more container
	}{
		{lane: lane{name: normalLane}, join: w.joinNormal},
		{lane: lane{name: tenetLane, against: normalLane}, join: w.joinTenet(nil)},
		{lane: lane{name: masqueradeLane}, join: w.joinNormal, server: outside},
		{lane: lane{name: natLane, against: masqueradeLane}, join: w.joinTenet(map[string]any{"tenant": "outgoing", "gateway": "nat"}), server: outside},
	} {
		if l.client, _, err = l.join(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		if !l.server.IsValid() {
			var ns namespace
			if ns, l.server, err = l.join(ctx); err == nil {
				err = w.serve(ns)
			}
			if err != nil {
				return nil, fmt.Errorf("%s: server: %w", l.name, err)
			}
		}
		l.to = netip.AddrPortFrom(l.server, serverPort)
		lanes = append(lanes, l.lane)
	}
	return lanes, w.db.settle()
}

// makeNormalBridge makes a bridge of one flow, which switches by what it has learnt: the least that Open vSwitch can be.
// The node is the gateway of its containers.
func (w *world) makeNormalBridge() error {
	if _, err := w.sw.Output("ovs-vsctl", "add-br", normalBridge, "--", "set", "Bridge", normalBridge, "datapath_type="+w.sw.Datapath); err != nil {
		return err
	}
	return w.ovsNode.dress(normalBridge, normalGateway+"/16")
}

// joinNormal is a new container on that bridge. Its cable is as tenet lays them, so that what differs is the flows.
func (w *world) joinNormal(ctx context.Context) (namespace, netip.Addr, error) {
	ns, err := w.newContainer()
	if err != nil {
		return ns, netip.Addr{}, err
	}
	w.calls++
	number := byte(w.calls)
	addr := netip.AddrFrom4([4]byte{10, 66, 0, number})
	cable := veth.Cable{
		Host: fmt.Sprintf("normal%d", number), Container: ifName, NetNS: ns.path, MTU: mtu, Userspace: w.sw.Datapath == "netdev",
		MAC: net.HardwareAddr{2, 0, 0, 66, 0, number}, Addrs: []netip.Prefix{netip.PrefixFrom(addr, 16)},
		Routes: []veth.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr(normalGateway)}},
	}
	err = w.ovsNode.do(func() error {
		_, err := veth.Lay(ctx, cable)
		return err
	})
	if err != nil {
		return ns, addr, err
	}
	_, err = w.sw.Output("ovs-vsctl", "add-port", normalBridge, cable.Host) //nolint:contextcheck // the harness has it
	return ns, addr, err
}

// joinTenet is a new container in tenet's network; more is more of the plugin's configuration.
func (w *world) joinTenet(more map[string]any) func(context.Context) (namespace, netip.Addr, error) {
	plugin, _ := w.tenet(more)
	return func(ctx context.Context) (namespace, netip.Addr, error) {
		ns, err := w.newContainer()
		if err != nil {
			return ns, netip.Addr{}, err
		}
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
