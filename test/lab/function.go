package lab

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// A Function is a container that serves in a group of functions, with two ports: in0 and out0.
type Function struct{ In, Out *Container }

// FunctionConf is a configuration with which a container becomes a port of a function.
func (c Conf) FunctionConf(group, port string, weight int) Conf {
	f := map[string]any{"group": group, "port": port}
	if weight > 0 {
		f["weight"] = weight
	}
	return c.With("serviceFunction", f)
}

// Function attaches a container with two ports to a group. What its mode asks of the container, Bridges, Routes or
// Masquerades does.
func (h *Host) Function(id string, conf Conf, group string, weight int) *Function {
	h.tb.Helper()
	in := h.Container(id)
	in.IfName, in.Conf = "in0", conf.FunctionConf(group, "ingress", weight)
	out := *in
	out.IfName, out.Conf = "out0", conf.FunctionConf(group, "egress", weight)
	f := &Function{in, &out}
	f.Add()
	return f
}

// Add attaches both ports.
func (f *Function) Add() {
	f.In.tb.Helper()
	f.In.Add()
	f.Out.Add()
}

// Del detaches both ports.
func (f *Function) Del() {
	f.In.tb.Helper()
	f.In.Del()
	f.Out.Del()
}

// Bridges makes the function a Linux bridge between its ports, which learns MACs.
func (f *Function) Bridges() *Function {
	f.In.tb.Helper()
	f.In.Sh("ip", "link", "add", "bridge", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
	for _, link := range []string{"in0", "out0", "bridge"} {
		f.sysctl("net.ipv6.conf." + link + ".disable_ipv6=1")
	}
	f.In.Sh("ip", "link", "set", "in0", "master", "bridge")
	f.In.Sh("ip", "link", "set", "out0", "master", "bridge")
	f.In.Sh("ip", "link", "set", "bridge", "up")
	return f
}

// Hangs makes a transparent function hang while its ports are up.
func (f *Function) Hangs() { f.In.Sh("ip", "link", "set", "in0", "nomaster") }

// Recovers cures it.
func (f *Function) Recovers() { f.In.Sh("ip", "link", "set", "in0", "master", "bridge") }

func (f *Function) sysctl(setting string) {
	f.In.tb.Helper()
	f.In.Sh("sysctl", "-qw", setting)
}

// Routes makes the function a router: what comes in by one port leaves by the other, whatever its addresses.
func (f *Function) Routes() *Function {
	f.In.tb.Helper()
	for _, s := range []string{"net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"} {
		f.sysctl(s)
	}
	for _, link := range []string{"all", "in0", "out0"} {
		f.sysctl("net.ipv4.conf." + link + ".rp_filter=0")
		f.sysctl("net.ipv4.conf." + link + ".send_redirects=0")
	}
	for _, family := range []string{"-4", "-6"} {
		gateway := f.gateway(family == "-6")
		if !gateway.IsValid() {
			continue
		}
		for table, way := range [][2]string{{"in0", "out0"}, {"out0", "in0"}} {
			number := strconv.Itoa(100 + table)
			f.In.Sh("ip", family, "rule", "add", "iif", way[0], "lookup", number)
			f.In.Sh("ip", family, "route", "add", "default", "via", gateway.String(), "dev", way[1], "onlink", "table", number)
		}
	}
	return f
}

// gateway is that of its network.
func (f *Function) gateway(is6 bool) netip.Addr {
	for _, ip := range f.In.Result.IPs {
		if a, ok := netip.AddrFromSlice(ip.Gateway); ok && a.Unmap().Is6() == is6 {
			return a.Unmap()
		}
	}
	return netip.Addr{}
}

// Masquerades makes the function a router that gives what it forwards its own address, by nftables.
func (f *Function) Masquerades() *Function {
	f.In.tb.Helper()
	f.Routes()
	f.nft("add table inet nat; add chain inet nat post { type nat hook postrouting priority 100; }; add rule inet nat post oifname out0 masquerade")
	return f
}

// nft runs nftables' commands in the function.
func (f *Function) nft(commands string) {
	f.In.tb.Helper()
	f.In.Sh("nft", commands)
}

// Filters makes a function's kernel drop what matches, in nftables' words, of what it forwards ("inet") or bridges ("bridge").
func (f *Function) Filters(family string, matches ...string) {
	f.In.tb.Helper()
	commands := []string{"add table %[1]s filter", "add chain %[1]s filter forward { type filter hook forward priority 0; }"}
	for _, m := range matches {
		commands = append(commands, "add rule %[1]s filter forward "+m+" drop")
	}
	f.nft(fmt.Sprintf(strings.Join(commands, "; "), family))
}

// Link sets a port of the function up or down.
func (c *Container) Link(state string) {
	c.tb.Helper()
	c.Sh("ip", "link", "set", c.IfName, state)
}
