package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
)

// Part chains holds chains against the floor: the same client, server and functions, Linux bridges in containers, joined by
// static flows from port to port. A lane by hand has these flows, which come before any of tenet's, and the chain's does not.

// chainHops are the lengths of chains that are measured.
var chainHops = []int{1, 2, 4}

func chainLane(hops int) string { return fmt.Sprintf("chain, %d hops", hops) }
func handLane(hops int) string  { return fmt.Sprintf("by hand, %d hops", hops) }

// Lanes of a tenant that has a chain which does not want their traffic, and of load that three functions share.
const (
	besideLane = "beside a chain"
	sharedLane = "chain, 2 hops, 3 functions in each"
)

func measureChains(ctx context.Context, w *world, r *report, start time.Time) error {
	say("%s chains: laying functions", elapsed(start))
	lanes, err := w.chainLanes(ctx)
	if err != nil {
		return err
	}
	if err := w.measureLanes(ctx, r, lanes, start); err != nil {
		return err
	}
	say("%s chains: a thousand of them", elapsed(start))
	r.ChainScale, err = w.scaleChains(ctx)
	return err
}

func (w *world) chainLanes(ctx context.Context) ([]lane, error) {
	plain, err := w.ends(ctx, tenetLane, "", "plain")
	if err != nil {
		return nil, err
	}
	lanes := []lane{plain.lane}
	for _, hops := range chainHops {
		e, err := w.ends(ctx, chainLane(hops), handLane(hops), fmt.Sprintf("led%d", hops))
		if err != nil {
			return nil, err
		}
		ports, err := w.lead(ctx, e, hops, 1, serverPort)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		wire := append(append([]string{e.clientPort}, ports...), e.serverPort)
		hand, led := e.lane, e.lane
		hand.name, hand.against = handLane(hops), ""
		hand.prepare = func(ctx context.Context) error { return w.wire(ctx, wire, true) }
		led.prepare = func(ctx context.Context) error { return w.wire(ctx, wire, false) }
		lanes = append(lanes, hand, led)
	}
	for _, l := range []struct {
		name, against, tenant string
		each                  int
		port                  int
	}{
		{sharedLane, handLane(2), "shared", 3, serverPort},
		{besideLane, tenetLane, "beside", 1, serverPort + 100},
	} {
		e, err := w.ends(ctx, l.name, l.against, l.tenant)
		if err == nil {
			_, err = w.lead(ctx, e, 2, l.each, l.port)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		lanes = append(lanes, e.lane)
	}
	return lanes, w.db.settle()
}

// ends is a lane with its tenant, and the OpenFlow port numbers of client and server.
type ends struct {
	lane

	tenant                 string
	clientPort, serverPort string
}

// ends lays a client and a server of a tenant of their own.
func (w *world) ends(ctx context.Context, name, against, tenant string) (ends, error) {
	e := ends{lane: lane{name: name, against: against, trips: true}, tenant: tenant}
	join := w.joinTenet(map[string]any{"tenant": tenant})
	var err error
	if e.client, _, err = join(ctx); err == nil {
		e.clientPort, err = w.lastPort(ctx)
	}
	if err != nil {
		return e, fmt.Errorf("%s: client: %w", name, err)
	}
	server, addr, err := join(ctx)
	if err == nil {
		err = errors.Join(w.serve(server), w.echo(server))
	}
	if err == nil {
		e.serverPort, err = w.lastPort(ctx)
	}
	e.to = netip.AddrPortFrom(addr, serverPort)
	if err != nil {
		return e, fmt.Errorf("%s: server: %w", name, err)
	}
	return e, nil
}

// lastPort is the number of the port that was added last: numbers go up.
func (w *world) lastPort(ctx context.Context) (string, error) {
	out, err := w.run(ctx, "ovs-vsctl", "--bare", "--columns=ofport", "find", "Interface", "type=\"\"")
	last := 0
	for word := range strings.FieldsSeq(out) {
		if n, err := strconv.Atoi(word); err == nil && n < 0xff00 {
			last = max(last, n)
		}
	}
	return strconv.Itoa(last), err
}

// function is a container that bridges between two ports of a group, and returns their numbers.
func (w *world) function(ctx context.Context, tenant, group string) (string, string, error) {
	ns, err := w.newContainer()
	if err != nil {
		return "", "", err
	}
	w.calls++
	var ports []string
	for _, port := range []string{"ingress", "egress"} {
		plugin, _ := w.tenet(map[string]any{"tenant": tenant, "serviceFunction": map[string]any{"group": group, "port": port}})
		a := &attachment{id: "f" + strconv.Itoa(w.calls), ifName: port, ns: ns}
		if _, err := plugin.add(ctx, []*attachment{a}); err != nil {
			return "", "", err
		}
		number, err := w.lastPort(ctx)
		if err != nil {
			return "", "", err
		}
		ports = append(ports, number)
	}
	err = ns.do(func() error {
		out, err := exec.CommandContext(ctx, "sh", "-ec", `ip link add bridge type bridge stp_state 0 mcast_snooping 0
			for link in ingress egress bridge; do echo 1 >/proc/sys/net/ipv6/conf/$link/disable_ipv6; done
			ip link set ingress master bridge; ip link set egress master bridge; ip link set bridge up`).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return ports[0], ports[1], err
}

// groups makes so many groups of so many functions, and returns the ports of the first function of each.
func (w *world) groups(ctx context.Context, tenant string, hops, each int) ([]string, []string, error) {
	var names, ports []string
	for h := range hops {
		name := fmt.Sprintf("g%d", h)
		if err := w.tenetctl(ctx, "group", "add", tenant+"/"+name); err != nil {
			return nil, nil, err
		}
		names = append(names, name)
		for i := range each {
			in, out, err := w.function(ctx, tenant, name)
			if err != nil {
				return nil, nil, fmt.Errorf("function: %w", err)
			}
			if i == 0 {
				ports = append(ports, in, out)
			}
		}
	}
	return names, ports, nil
}

// wire joins each two ports with static flows, or parts them, and waits until the datapath has taken that in.
func (w *world) wire(ctx context.Context, ports []string, join bool) error {
	for i := 0; i < len(ports); i += 2 {
		for _, way := range [][2]string{{ports[i], ports[i+1]}, {ports[i+1], ports[i]}} {
			flow, command := "table=0,priority=65000,in_port="+way[0], []string{"--strict", "del-flows"}
			if join {
				flow, command = flow+",actions=output:"+way[1], []string{"add-flow"}
			}
			if _, err := w.run(ctx, append(append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, command...), ovsBridge, flow)...); err != nil {
				return err
			}
		}
	}
	_, err := ovs.Control(ctx, w.sw.RunDir, "revalidator/wait")
	return err
}

// lead has tenet lead what goes to a port of the lane's server, and returns the ports of the first function of each hop.
func (w *world) lead(ctx context.Context, e ends, hops, each, port int) ([]string, error) {
	names, ports, err := w.groups(ctx, e.tenant, hops, each)
	if err != nil {
		return nil, err
	}
	args := []string{"chain", "add", e.tenant + "/c", "--group", strings.Join(names, ","), "--from", "any", "--to", e.to.Addr().String()}
	return ports, w.tenetctl(ctx, append(args, "--protocol", "tcp", "--port", fmt.Sprintf("%d-%d", port, port+1))...)
}

// tenetctl runs the operator's program on the node.
func (w *world) tenetctl(ctx context.Context, args ...string) error {
	at := []string{w.bin() + "/tenetctl", "--data-dir=" + w.path("data"), "--ovs-run-dir=" + w.sw.RunDir, "--bridge=" + ovsBridge}
	_, err := w.run(ctx, append(at, args...)...)
	return err
}

// run runs a program beside the switch and returns what it prints.
func (w *world) run(ctx context.Context, args ...string) (string, error) {
	var out []byte
	err := w.ovsNode.do(func() error {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the benchmark's own commands
		cmd.Env = w.sw.Env()
		var err error
		if out, err = cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
		}
		return nil
	})
	return string(out), err
}

// scaleChains measures what very many chains take.
func (w *world) scaleChains(ctx context.Context) ([]chainScale, error) {
	outcomes, err := w.inside(ctx, w.ovsNode, order{Chains: []int{10, 100, 1000}})
	if err != nil {
		return nil, err
	}
	var scale []chainScale
	return scale, json.Unmarshal(outcomes[0].Stdout, &scale)
}
