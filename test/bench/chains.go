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
	sharedHops = 2
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
	plain, beside, err := w.besideLanes(ctx)
	if err != nil {
		return nil, err
	}
	lanes := []lane{plain, beside}
	for _, hops := range chainHops {
		e, err := w.ends(ctx, chainLane(hops), handLane(hops), fmt.Sprintf("led%d", hops))
		if err != nil {
			return nil, err
		}
		groups, ports, err := w.groups(ctx, e.tenant, hops)
		if err == nil {
			err = w.lead(ctx, e, groups, serverPort)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		wire := append(append([]string{e.clientPort}, ports...), e.serverPort)
		hand, led := e.lane, e.lane
		hand.name, hand.against = handLane(hops), ""
		hand.prepare = func(ctx context.Context) error { return w.wire(ctx, wire, true) }
		led.prepare = func(ctx context.Context) error { return w.wire(ctx, wire, false) }
		if lanes = append(lanes, hand, led); hops != sharedHops {
			continue
		}
		share, err := w.sharing(ctx, e.tenant, groups)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", sharedLane, err)
		}
		shared := led
		shared.name = sharedLane
		shared.prepare = func(ctx context.Context) error { return errors.Join(led.prepare(ctx), share(ctx, true)) }
		lanes[len(lanes)-1].prepare = func(ctx context.Context) error { return errors.Join(led.prepare(ctx), share(ctx, false)) }
		lanes = append(lanes, shared)
	}
	return lanes, w.db.settle()
}

// besideLanes are a tenant's traffic without a chain, and the same beside a chain that does not want it.
func (w *world) besideLanes(ctx context.Context) (lane, lane, error) {
	e, err := w.ends(ctx, tenetLane, "", "plain")
	if err != nil {
		return lane{}, lane{}, err
	}
	groups, _, err := w.groups(ctx, e.tenant, 2)
	stands := false
	chain := func(wanted bool) func(context.Context) error {
		return func(ctx context.Context) error {
			was := stands
			stands = wanted
			switch {
			case wanted && !was:
				return w.lead(ctx, e, groups, serverPort+100)
			case was && !wanted:
				return w.tenetctl(ctx, "chain", "del", e.tenant+"/c")
			}
			return nil
		}
	}
	plain, beside := e.lane, e.lane
	plain.prepare = chain(false)
	beside.name, beside.against, beside.prepare = besideLane, tenetLane, chain(true)
	return plain, beside, err
}

// sharing gives each group two more functions, which are drained, and returns what lets new connections come to them, or not.
func (w *world) sharing(ctx context.Context, tenant string, groups []string) (func(context.Context, bool) error, error) {
	var more []string
	for _, g := range groups {
		for range 2 {
			id, _, err := w.function(ctx, tenant, g)
			if err != nil {
				return nil, err
			}
			more = append(more, tenant+"/"+g+"/"+id)
		}
	}
	share := func(ctx context.Context, wanted bool) error {
		verb := map[bool]string{true: "undrain", false: "drain"}[wanted]
		for _, f := range more {
			if err := w.tenetctl(ctx, "function", verb, f); err != nil {
				return err
			}
		}
		return nil
	}
	return share, share(ctx, false)
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

// function is a container that bridges between two ports of a group, and returns its id and their numbers.
func (w *world) function(ctx context.Context, tenant, group string) (string, []string, error) {
	ns, err := w.newContainer()
	if err != nil {
		return "", nil, err
	}
	w.calls++
	id := "f" + strconv.Itoa(w.calls)
	var ports []string
	for _, port := range []string{"ingress", "egress"} {
		plugin, _ := w.tenet(map[string]any{"tenant": tenant, "serviceFunction": map[string]any{"group": group, "port": port}})
		if _, err := plugin.add(ctx, []*attachment{{id: id, ifName: port, ns: ns}}); err != nil {
			return id, nil, err
		}
		number, err := w.lastPort(ctx)
		if err != nil {
			return id, nil, err
		}
		ports = append(ports, number)
	}
	return id, ports, ns.do(func() error {
		out, err := exec.CommandContext(ctx, "sh", "-ec", `ip link add bridge type bridge stp_state 0 mcast_snooping 0
			for link in ingress egress bridge; do echo 1 >/proc/sys/net/ipv6/conf/$link/disable_ipv6; done
			ip link set ingress master bridge; ip link set egress master bridge; ip link set bridge up`).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
}

// groups makes so many groups of one function, and returns their names, and the functions' ports.
func (w *world) groups(ctx context.Context, tenant string, hops int) ([]string, []string, error) {
	var names, ports []string
	for h := range hops {
		name := fmt.Sprintf("g%d", h)
		if err := w.tenetctl(ctx, "group", "add", tenant+"/"+name); err != nil {
			return nil, nil, err
		}
		_, both, err := w.function(ctx, tenant, name)
		if err != nil {
			return nil, nil, fmt.Errorf("function: %w", err)
		}
		names, ports = append(names, name), append(ports, both...)
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

// lead has tenet lead what goes to a port of the lane's server.
func (w *world) lead(ctx context.Context, e ends, groups []string, port int) error {
	args := []string{"chain", "add", e.tenant + "/c", "--group", strings.Join(groups, ","), "--from", "any", "--to", e.to.Addr().String()}
	return w.tenetctl(ctx, append(args, "--protocol", "tcp", "--port", fmt.Sprintf("%d-%d", port, port+1))...)
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
