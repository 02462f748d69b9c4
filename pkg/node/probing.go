package node

import (
	"context"
	"errors"
	"time"

	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/probe"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// wantedProbe is an instance that is to be probed, and how.
type wantedProbe struct {
	number    uint32
	name      string
	target    probe.Target
	probe     vnet.Probe
	ref       vnet.GroupRef
	container string
}

// equal reports whether nothing about it has changed.
func (w wantedProbe) equal(o wantedProbe) bool {
	return w.number == o.number && w.probe == o.probe && w.target.In == o.target.In && w.target.Out[0] == o.target.Out[0] &&
		w.target.Dst.String() == o.target.Dst.String() && w.target.From == o.target.From
}

// wantProbe says how to probe an instance. A transparent one gets a frame of an experimental EtherType, tagged like
// those of a path; a routed one an echo request from its network's gateway to where any default route leads.
func wantProbe(tx store.Tx, g vnet.Group, i vnet.Instance) (wantedProbe, error) {
	w := wantedProbe{number: i.Number, name: i.String(), probe: g.Probe, ref: i.Ref(), container: i.Container}
	w.target = probe.Target{
		In: i.Ingress.Port(), Out: []string{i.Egress.Port()}, EtherType: pipeline.ProbeType,
		Src: pipeline.ProbeMAC(false).HardwareAddr(), Dst: pipeline.ProbeMAC(true).HardwareAddr(),
	}
	if !g.Mode.Addressed() {
		return w, nil
	}
	in, err := store.Endpoint(tx, i.Ingress)
	if err != nil {
		return w, err
	}
	net, err := store.Network(tx, in.Ref())
	if err != nil {
		return w, err
	}
	w.target.Src, w.target.Dst = vnet.RouterMAC.HardwareAddr(), in.MAC.HardwareAddr()
	if i.Ingress != i.Egress {
		w.target.Out = append(w.target.Out, i.Ingress.Port()) // its routes decide by which
	}
	for _, p := range in.Addrs {
		s, ok := net.SubnetOf(p.Addr())
		if !ok {
			continue
		}
		w.target.From, w.target.To = net.HostAddr(s), pipeline.ProbeAddr4
		if p.Addr().Is6() {
			w.target.To = pipeline.ProbeAddr6
		}
		break
	}
	return w, nil
}

// probing is a goroutine that probes one instance.
type probing struct {
	wantedProbe
	stop context.CancelFunc
	done chan struct{}
}

// verdict is what probes say of an instance.
type verdict struct {
	wantedProbe
	hung bool
}

// probe starts and stops goroutines, so that just those are probed that are wanted.
func (a *agent) probe(ctx context.Context, wanted []wantedProbe) {
	keep := map[uint32]bool{}
	for _, w := range wanted {
		keep[w.number] = true
		if p := a.probes[w.number]; p != nil {
			if p.equal(w) {
				continue
			}
			p.end()
		}
		a.begin(ctx, w)
	}
	for number, p := range a.probes {
		if !keep[number] {
			p.end()
			delete(a.probes, number)
		}
	}
}

func (a *agent) begin(ctx context.Context, w wantedProbe) {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // of a pass; the goroutine outlives it
	p := &probing{w, stop, make(chan struct{})}
	a.probes[w.number] = p
	go func() {
		defer close(p.done)
		p.watch(ctx, a.verdicts)
	}()
}

func (p *probing) end() {
	p.stop()
	<-p.done
}

func (a *agent) stopProbes() {
	for _, p := range a.probes {
		p.end()
	}
}

// watch probes at the interval, and tells when the verdict is another.
func (p *probing) watch(ctx context.Context, verdicts chan<- verdict) {
	tick := time.NewTicker(time.Duration(p.probe.Interval))
	defer tick.Stop()
	var prober *probe.Prober
	defer func() {
		if prober != nil {
			_ = prober.Close()
		}
	}()
	lost, said := 0, false
	tell := func(hung bool) {
		select {
		case verdicts <- verdict{p.wantedProbe, hung}:
			said = hung
		case <-ctx.Done():
		}
	}
	tell(false) // what was said before is of another life
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if prober == nil {
			var err error
			if prober, err = probe.Open(p.target); err != nil {
				continue // its link has gone: that is seen by itself
			}
		}
		through, err := prober.Through(time.Duration(p.probe.Interval))
		switch {
		case err != nil:
			_ = prober.Close()
			prober = nil
		case through:
			if lost = 0; said {
				tell(false)
			}
		default:
			if lost++; lost >= p.probe.Threshold && !said {
				tell(true)
			}
		}
	}
}

// judge records a verdict, if it is another one, and plans the chains anew.
func (a *agent) judge(ctx context.Context, v verdict) {
	a.fresh(ctx, "record a verdict", func(ctx context.Context, n *Node) error {
		is := func(tx store.Tx) (vnet.Instance, error) {
			i, err := store.FindInstance(tx, v.ref, v.container)
			if err == nil && i.Number != v.number {
				err = vnet.NotFoundf("%s is another one by now", i)
			}
			return i, err
		}
		var i vnet.Instance
		err := n.Store.View(ctx, func(tx store.Tx) error {
			var err error
			i, err = is(tx)
			return err
		})
		if errors.Is(err, vnet.ErrNotFound) || err == nil && i.Hung == v.hung {
			return nil
		}
		if err != nil {
			return err
		}
		a.log.Warn("probes changed their verdict on a function", "function", v.name, "hung", v.hung)
		err = n.Store.Update(ctx, func(tx store.Tx) error {
			i, err := is(tx)
			if err != nil {
				return err
			}
			i.Hung = v.hung
			return store.PutInstance(tx, i)
		})
		if err != nil {
			return err
		}
		return n.SyncChains(ctx, n.Bridge)
	})
}
