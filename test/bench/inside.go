package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// insideArg makes this program a process in a namespace for what must see that as its own and is no program: on the
// node with Open vSwitch the steps of an ADD, and sync; in a container a client's talk.
const insideArg = "inside"

// An order is what such a process is to do.
type order struct {
	Config    node.Config
	Datapath  string // which node.Config leaves out of its JSON
	Container string // to attach step by step
	LayFrom   int    // the endpoints to record and lay, in NetNS
	LayTo     int
	NetNS     string
	Talk      *talk
	Chains    []int  // how many to write and measure
	Peers     *peers // to write
	Runs      int    // of sync, if there is nothing to attach, lay or say
}

// synced is what sync did.
type synced struct {
	Endpoints int       `json:"endpoints"`
	Flows     int       `json:"flows"`
	Render    []float64 `json:"render_ms"`  // records and port numbers read, flows made
	Compare   []float64 `json:"compare_ms"` // rows, links and records compared, flows rendered, dumped and compared
	Sync      []float64 `json:"sync_ms"`    // the same, and sent
	CPU       float64   `json:"cpu_ms"`     // of the process, all its runs
	PeakKB    int64     `json:"peak_kb"`
}

// syncRuns is how often sync is measured.
const syncRuns = 5

const insidePatience = 5 * time.Minute

func inside() error {
	var o order
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return err
	}
	o.Config.Datapath = o.Datapath
	ctx, cancel := context.WithTimeout(context.Background(), insidePatience)
	defer cancel()
	var result any
	var err error
	switch {
	case o.Talk != nil:
		result, err = o.Talk.client(ctx)
	case o.Peers != nil:
		err = o.Peers.write(ctx)
	case len(o.Chains) > 0:
		result, err = o.chains(ctx)
	case o.Container != "":
		result, err = o.addSteps(ctx)
	case o.LayTo > 0:
		result, err = o.lay(ctx)
	default:
		result, err = o.sync(ctx)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// addSteps does what plugins/tenet does for an ADD, and returns how long each step took.
func (o order) addSteps(ctx context.Context) (map[string]float64, error) {
	n := node.Open(o.Config, nil)
	defer n.Close()
	want := o.want(vnet.Attachment{Container: o.Container, IfName: ifName})
	var r node.Recorded
	took := map[string]float64{}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"lock", func() error { _, err := n.LockAttachment(ctx, want.ID()); return err }},
		{"bridge", func() error { return n.EnsureBridge(ctx) }},
		{"record", func() (err error) { r, err = n.Record(ctx, want); return err }}, //nolint:nonamedreturns // shorter
		{"connect", func() error { return n.Connect(ctx, r.Endpoint, uint32(r.OFPort)) }},
		{"lay", func() error { return n.Lay(ctx, &r.Endpoint) }},
		{"plug", func() error { _, err := n.Plug(ctx, r.Endpoint); return err }},
		{"confirm", func() error { return n.Confirm(ctx, r.Endpoint) }},
	} {
		start := time.Now()
		if err := step.do(); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		took[step.name] = ms(time.Since(start))
	}
	return took, nil
}

func (o order) want(a vnet.Attachment) node.Want {
	return node.Want{Attachment: a, CNINetwork: "bench", Conf: "bench", NetNS: o.NetNS, Network: declaration(), Declare: true}
}

// lay does what ADD does for endpoints but for ports and flows, and returns the ports that they want.
func (o order) lay(ctx context.Context) ([]port, error) {
	n := node.Open(o.Config, nil)
	defer n.Close()
	if err := n.EnsureBridge(ctx); err != nil {
		return nil, err
	}
	var ports []port
	for i := o.LayFrom; i < o.LayTo; i++ {
		r, err := n.Record(ctx, o.want(vnet.Attachment{Container: fmt.Sprintf("crowd-%d", i), IfName: fmt.Sprintf("t%d", i)}))
		if err != nil {
			return nil, err
		}
		e := r.Endpoint
		if err := n.Lay(ctx, &e); err != nil {
			return nil, err
		}
		if err := n.Confirm(ctx, e); err != nil {
			return nil, err
		}
		ports = append(ports, port{e.ID.Port(), e.OFPort, map[string]string{
			ovs.OwnerKey: string(e.ID), "tenet-network": e.Ref().String(), "tenet-attachment": e.Attachment.String(),
		}})
	}
	return ports, nil
}

// stepNames are addSteps's, in order.
func stepNames() []string {
	return []string{"lock", "bridge", "record", "connect", "lay", "plug", "confirm"}
}

// sync makes the switch agree with the store, and then, Runs times, takes all flows away and measures it again.
func (o order) sync(ctx context.Context) (synced, error) {
	n := node.Open(o.Config, nil)
	defer n.Close()
	drift, err := n.Sync(ctx)
	if err == nil && drift.Count() > drift.MissingFlows+drift.StrayFlows+len(drift.Groups) {
		err = fmt.Errorf("%d endpoints, %d ports and %d links were not as populated, %d ports were missing",
			len(drift.Endpoints), len(drift.Ports), len(drift.Links), len(drift.Unplugged))
	}
	if err != nil {
		return synced{}, err
	}
	var s synced
	if err := n.Store.View(ctx, func(tx store.Tx) error {
		endpoints, err := store.All[vnet.Endpoint](tx, store.Endpoints)
		s.Endpoints = len(endpoints)
		return err
	}); err != nil {
		return s, err
	}
	for range o.Runs {
		if err := o.empty(ctx); err != nil {
			return s, err
		}
		start := time.Now()
		flows, err := n.Render(ctx)
		if err != nil {
			return s, err
		}
		rendered := time.Now()
		if _, err := n.Diff(ctx); err != nil {
			return s, err
		}
		compared := time.Now()
		drift, err := n.Sync(ctx)
		if err != nil {
			return s, err
		}
		s.Render, s.Compare = append(s.Render, ms(rendered.Sub(start))), append(s.Compare, ms(compared.Sub(rendered)))
		s.Sync = append(s.Sync, ms(time.Since(compared)))
		if s.Flows = len(flows); drift.MissingFlows != s.Flows {
			return s, fmt.Errorf("sync sent %d flows of %d", drift.MissingFlows, s.Flows)
		}
	}
	return s, nil
}

// empty takes every flow off the bridge, as a restart of ovs-vswitchd does.
func (o order) empty(ctx context.Context) error {
	c, err := openflow.Dial(ctx, filepath.Join(o.Config.OVSRunDir, o.Config.Bridge+".mgmt"))
	if err != nil {
		return err
	}
	return errors.Join(c.Commit(ctx, []openflow.Change{openflow.DeleteCookie(0, 0)}), c.Close())
}

// inside executes this program in a namespace.
func (w *world) inside(ctx context.Context, ns namespace, orders ...order) ([]outcome, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	commands := make([]command, len(orders))
	for i, o := range orders {
		o.Config = node.Config{Bridge: ovsBridge, OVSRunDir: w.sw.RunDir, DataDir: w.path("data")}
		o.Datapath = w.sw.Datapath
		stdin, err := json.Marshal(o)
		if err != nil {
			return nil, err
		}
		commands[i] = command{Args: []string{self, insideArg}, Env: os.Environ(), Stdin: stdin}
	}
	return w.measure(ctx, ns, commands)
}

// steps attaches one container step by step.
func (w *world) steps(ctx context.Context, list []*attachment) ([]sample, error) {
	outcomes, err := w.inside(ctx, w.ovsNode, order{Container: list[0].id, NetNS: list[0].ns.path})
	if err != nil {
		return nil, err
	}
	s := outcomes[0].sample()
	err = json.Unmarshal(outcomes[0].Stdout, &s.Parts)
	return []sample{s}, err
}

func (w *world) sync(ctx context.Context, runs int) (synced, error) {
	var s synced
	outcomes, err := w.inside(ctx, w.ovsNode, order{Runs: runs})
	if err != nil {
		return s, err
	}
	err = json.Unmarshal(outcomes[0].Stdout, &s)
	s.CPU, s.PeakKB = ms(outcomes[0].CPU), outcomes[0].PeakKB
	return s, err
}
