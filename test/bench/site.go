package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A site is the one real node of a cluster, and its etcd.
type site struct {
	*world

	peers  peers
	etcd   *etcdtest.Cluster
	daemon *daemon // nil: none runs
	flows  *openflow.Conn
	found  *scaled
}

// networksHere are those that the real node has a container in.
const networksHere = 20

func newSite(ctx context.Context, set settings, nodes int) (*site, error) {
	w, err := newWorld(ctx, set)
	if err != nil {
		return nil, err
	}
	s := &site{world: w, peers: peers{Nodes: nodes}}
	s.found = &scaled{Nodes: nodes, Networks: s.peers.networks(), Endpoints: s.peers.endpoints()}
	if err := s.build(ctx); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// build makes the cluster, of which the real node is none yet.
func (s *site) build(ctx context.Context) error {
	// On the loopback, with its data in memory: a faster etcd than most nodes have, so that what is seen is tenet.
	if err := s.harness.try(func() { s.etcd = etcdtest.Start(s.harness, etcdtest.NetNS(s.sw.NetNS)) }); err != nil { //nolint:contextcheck // the harness has it
		return err
	}
	const ttl = 60 // seconds
	lease, err := s.etcd.Client().Grant(ctx, ttl)
	if err != nil {
		return err
	}
	kept, err := s.etcd.Client().KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	go func() {
		for range kept { // until the client is closed
		}
	}()
	s.peers.Endpoints, s.peers.Lease = s.etcd.Endpoints(), int64(lease.ID)
	if _, err := s.inside(ctx, s.ovsNode, order{Peers: &s.peers}); err != nil {
		return err
	}
	got, err := s.etcd.Client().Get(ctx, etcdPrefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	s.found.Keys = got.Count
	if err := s.makeUnderlay(); err != nil { //nolint:contextcheck // the harness has it
		return err
	}
	config, err := json.Marshal(map[string]any{
		"node": realNode, "vtep": vtep(-1), "bridge": ovsBridge, "ovsRunDir": s.sw.RunDir, "dataDir": s.path("data"),
		"socket": s.path("tenetd.sock"), "metrics": "off", "etcd": map[string]any{"endpoints": s.etcd.Endpoints(), "prefix": etcdPrefix},
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(s.path("tenet.json"), config, 0o600); err != nil {
		return err
	}
	s.flows, err = openflow.Dial(ctx, filepath.Join(s.sw.RunDir, ovsBridge+".mgmt"))
	return err
}

// makeUnderlay gives the node an address on a bridge of its own, where a userspace datapath's tunnels look for it. Nobody
// is at its other end.
func (s *site) makeUnderlay() error {
	const bridge = "br-phy"
	if _, err := s.sw.Output("ovs-vsctl", "add-br", bridge, "--", "set", "Bridge", bridge, "datapath_type="+s.sw.Datapath); err != nil {
		return err
	}
	return s.ovsNode.dress(bridge, vtep(-1).String()+"/15")
}

func (s *site) close() {
	if err := s.daemon.stop(); err != nil {
		say("%v", err)
	}
	if s.flows != nil {
		s.flows.Close()
	}
	s.world.close()
}

// begin starts tenetd, and waits until it has what etcd has now and the switch has flows with these cookies. Then all must
// be as it should.
func (s *site) begin(ctx context.Context, cookies []uint64) (begun, error) {
	var b begun
	now, err := s.etcd.Client().Get(ctx, etcdPrefix)
	if err != nil {
		return b, err
	}
	start := time.Now()
	if s.daemon, err = s.startTenetd("--config=" + s.path("tenet.json")); err != nil {
		return b, err
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	mirrored := make(chan time.Time, 1)
	go func() {
		r := socket.Request{Do: socket.Await, Revision: now.Header.Revision}
		for socket.Call(waiting, s.path("tenetd.sock"), r, nil) != nil && waiting.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		mirrored <- time.Now()
	}()
	if err := s.daemon.await(ctx, "the node to have the cluster", func() (bool, error) {
		select {
		case at := <-mirrored:
			b.Mirrored = ms(at.Sub(start))
		default:
		}
		for len(cookies) > 0 {
			flows, err := s.flows.Flows(ctx, openflow.FlowFilter{Cookie: cookies[0], CookieMask: ^uint64(0)})
			if err != nil || len(flows) == 0 {
				return false, err
			}
			if cookies = cookies[1:]; len(cookies) == 0 {
				b.Flows = ms(time.Since(start))
			}
		}
		return b.Mirrored > 0, nil
	}); err != nil {
		return b, err
	}
	if b.memory, err = s.daemon.memory(); err != nil {
		return b, err
	}
	return b, s.agrees(ctx)
}

// agrees fails unless the switch has what the node's store says, and no more.
func (s *site) agrees(ctx context.Context) error {
	at := []string{s.bin() + "/tenetctl", "--config=" + s.path("tenet.json")}
	out, err := s.run(ctx, append(at, "sync", "--dry-run")...)
	if err == nil && !strings.Contains(out, "everything agrees") {
		err = fmt.Errorf("the switch does not have what it should: %s", out)
	}
	return err
}

// stop ends tenetd.
func (s *site) stop() error {
	d := s.daemon
	s.daemon = nil
	return d.stop()
}

func (s *site) beginEmpty(ctx context.Context) error {
	if err := os.RemoveAll(s.path("data")); err != nil {
		return err
	}
	last := pipeline.PeerOwner(s.peers.node(s.peers.Nodes - 1).Name).Cookie()
	var err error
	s.found.Empty, err = s.begin(ctx, []uint64{last})
	return err
}

// attachAll attaches a container in each network that is to be here.
func (s *site) attachAll(ctx context.Context) error {
	work, err := s.countWork(ctx, networksHere)
	if err != nil {
		return err
	}
	for _, network := range s.peers.here() {
		ns, err := s.newContainer()
		if err != nil {
			return err
		}
		s.calls++
		samples, err := s.tenetIn(network).add(ctx, []*attachment{{id: "here" + strconv.Itoa(s.calls), ns: ns}})
		if err != nil {
			return fmt.Errorf("ADD: %w", err)
		}
		s.found.First = append(s.found.First, samples...)
		if err := s.db.settle(); err != nil {
			return err
		}
	}
	table := uint8(pipeline.Destination)
	if err := s.daemon.await(ctx, "the others' endpoints to be reached", func() (bool, error) {
		flows, err := s.flows.Flows(ctx, openflow.FlowFilter{Table: &table})
		return len(flows) >= networksHere*(1+s.peers.ofNetwork()), err
	}); err != nil {
		return err
	}
	time.Sleep(afterwards)
	if s.found.FirstWork, err = work(); err != nil {
		return err
	}
	return s.asWritten(ctx)
}

// asWritten fails unless the records of the real node are what this program would have written for it.
func (s *site) asWritten(ctx context.Context) error {
	c := s.etcd.Client()
	for _, network := range s.peers.here() {
		ref := s.peers.ref(network)
		got, err := c.Get(ctx, etcdPrefix+store.EndpointsOf(ref)+realNode+"/", clientv3.WithPrefix())
		if err != nil {
			return err
		}
		if len(got.Kvs) != 1 {
			return fmt.Errorf("%d endpoints of node %s are in network %s", len(got.Kvs), realNode, ref)
		}
		var r vnet.Remote
		if err := json.Unmarshal(got.Kvs[0].Value, &r); err != nil {
			return err
		}
		records, err := told(r)
		if err != nil {
			return err
		}
		block := s.peers.network(network).Subnets[0].BlockOf(r.Addrs[0].Addr())
		for _, want := range append(records, holds(realNode, ref, block)...) {
			stands, err := c.Get(ctx, etcdPrefix+want.key)
			if err == nil && (len(stands.Kvs) != 1 || !bytes.Equal(stands.Kvs[0].Value, []byte(want.value))) {
				err = fmt.Errorf("etcd's record %s is not %q", want.key, want.value)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// tenetIn is the plugin for a network.
func (s *site) tenetIn(network int) subject {
	r := s.peers.ref(network)
	plugin, _ := s.plugin(tenetName, s.ovsNode, "tenet", map[string]any{
		"tenant": r.Tenant, "network": r.Network, "config": s.path("tenet.json"), "datapath": s.sw.Datapath,
	})
	return plugin
}

// addOneMore measures an ADD, and its DEL, in one of the networks here.
func (s *site) addOneMore(ctx context.Context, round int, keep func(adds, dels []sample)) error {
	here := s.peers.here()
	return s.measured(ctx, s.tenetIn(here[round%len(here)]), 1, keep)
}

// beginAgain starts tenetd anew, after something has changed in every network here, and then on a switch that has also
// forgotten all.
func (s *site) beginAgain(ctx context.Context) error {
	var before []vnet.Remote
	for i := range 2 * s.Starts {
		if err := s.stop(); err != nil {
			return err
		}
		var fresh []vnet.Remote
		var cookies []uint64
		for _, network := range s.peers.here() {
			r := s.peers.endpoint(network, s.peers.nodeOf(network, 0), fmt.Sprintf("new%d-%d", network, i), firstNumber+s.peers.ofNetwork())
			fresh, cookies = append(fresh, r), append(cookies, pipeline.RemoteOwner(r).Cookie())
		}
		for _, r := range before {
			if err := s.tell(ctx, r, true); err != nil {
				return err
			}
		}
		for _, r := range fresh {
			if err := s.tell(ctx, r, false); err != nil {
				return err
			}
		}
		before = fresh
		to := &s.found.Starts
		if i >= s.Starts {
			to = &s.found.Forgot
			if err := s.flows.Commit(ctx, []openflow.Change{openflow.DeleteCookie(0, 0)}); err != nil {
				return err
			}
		}
		b, err := s.begin(ctx, cookies)
		if err != nil {
			return err
		}
		*to = append(*to, b)
	}
	all, err := s.flows.Flows(ctx, openflow.FlowFilter{})
	s.found.Flows = len(all)
	return err
}

// tell has another node tell of an endpoint, or that it has gone.
func (s *site) tell(ctx context.Context, r vnet.Remote, gone bool) error {
	records, err := told(r)
	if err != nil {
		return err
	}
	var ops []clientv3.Op
	for _, record := range records {
		if gone {
			ops = append(ops, clientv3.OpDelete(etcdPrefix+record.key))
		} else {
			ops = append(ops, clientv3.OpPut(etcdPrefix+record.key, record.value))
		}
	}
	_, err = s.etcd.Client().Txn(ctx).Then(ops...).Commit()
	return err
}
