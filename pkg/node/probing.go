package node

import (
	"context"
	"errors"
	"log/slog"
	"maps"
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
	ingress   vnet.EndpointID
	target    probe.Target
	probe     vnet.Probe
	ref       vnet.GroupRef
	container string
	hung      bool // what was recorded of it
}

// equal reports whether nothing about the probe has changed, nor what is recorded of the instance: an ADD may have said
// that it has to prove itself first.
func (w wantedProbe) equal(o wantedProbe) bool {
	return w.number == o.number && w.hung == o.hung && w.probe == o.probe && w.target.In == o.target.In && w.target.Out[0] == o.target.Out[0] &&
		w.target.Dst.String() == o.target.Dst.String() && w.target.From == o.target.From
}

// wantProbe says how to probe an instance. A transparent one gets a frame of an experimental EtherType, tagged like
// those of a path; a routed one an echo request from its network's gateway to where any default route leads.
func wantProbe(tx store.Tx, g vnet.Group, i vnet.Instance) (wantedProbe, error) {
	w := wantedProbe{number: i.Number, name: i.String(), ingress: i.Ingress, probe: g.Probe, ref: i.Ref(), container: i.Container, hung: i.Hung}
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
	log  *slog.Logger
	stop context.CancelFunc
	done chan struct{}

	prober *probe.Prober // nil: to be opened
}

// verdict is what probes say of an instance.
type verdict struct {
	wantedProbe
	hung bool
}

// probe starts and stops goroutines, so that just those are probed that are wanted.
func (a *agent) probe(ctx context.Context, wanted []wantedProbe) {
	keep := map[uint32]bool{}
	var begin []wantedProbe
	for _, w := range wanted {
		if p := a.probes[w.number]; p != nil && p.equal(w) {
			keep[w.number] = true
		} else {
			begin = append(begin, w)
		}
	}
	ended := maps.Clone(a.probes)
	maps.DeleteFunc(ended, func(number uint32, _ *probing) bool { return keep[number] })
	for _, p := range ended {
		p.stop()
	}
	for number, p := range ended {
		<-p.done
		delete(a.probes, number)
		delete(a.unrecorded, number)
	}
	for _, w := range begin {
		a.begin(ctx, w)
	}
}

func (a *agent) begin(ctx context.Context, w wantedProbe) {
	ctx, stop := context.WithCancel(ctx)
	p := &probing{wantedProbe: w, log: a.log, stop: stop, done: make(chan struct{})}
	a.probes[w.number] = p
	delete(a.unrecorded, w.number)
	go func() {
		defer close(p.done)
		p.watch(ctx, a.verdicts)
	}()
}

// watch probes at the interval until ctx ends, and tells when the verdict is another than the one recorded.
func (p *probing) watch(ctx context.Context, verdicts chan<- verdict) {
	interval := time.Duration(p.probe.Interval)
	first := interval
	if p.hung { // it may have recovered long ago
		first = 0
	}
	next := time.NewTimer(first)
	defer next.Stop()
	defer p.close()
	lost, said := 0, p.hung
	blind := blindness{log: p.log, of: p.wantedProbe}
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		next.Reset(interval)
		through, err := p.ask(ctx, min(interval, time.Second))
		if ctx.Err() != nil {
			return
		}
		blind.note(err)
		switch {
		case err != nil:
			continue
		case through:
			lost = 0
		default:
			lost++
		}
		hung := !through && (said || lost >= p.probe.Threshold)
		if hung == said {
			continue
		}
		select {
		case verdicts <- verdict{p.wantedProbe, hung}:
			said = hung
		case <-ctx.Done():
			return
		}
	}
}

// ask sends one probe and reports whether it came back in time.
func (p *probing) ask(ctx context.Context, wait time.Duration) (bool, error) {
	if p.prober == nil {
		var err error
		if p.prober, err = probe.Open(p.target); err != nil {
			return false, err
		}
	}
	through, err := p.prober.Through(ctx, wait)
	if err != nil {
		p.close()
	}
	return through, err
}

func (p *probing) close() {
	if p.prober != nil {
		_ = p.prober.Close()
		p.prober = nil
	}
}

// blindness is that no probe can be sent. A link that has gone is noticed by itself, and soon; if it lasts, it is logged once.
type blindness struct {
	log   *slog.Logger
	of    wantedProbe
	since time.Time
	said  bool
}

func (b *blindness) note(err error) {
	const patience = 3 * lookPause
	switch {
	case err == nil:
		b.since, b.said = time.Time{}, false
	case b.since.IsZero():
		b.since = time.Now()
	case !b.said && time.Since(b.since) >= patience:
		b.log.Error("cannot probe a function", "tenant", b.of.ref.Tenant, "function", b.of.name, "endpoint", b.of.ingress, "error", err)
		b.said = true
	}
}

// judge records a verdict, if it is another one, and plans the chains anew. What fails is done again with the next look.
func (a *agent) judge(ctx context.Context, v verdict) {
	delete(a.unrecorded, v.number)
	changed := false
	if !a.fresh(ctx, "record a verdict", func(ctx context.Context, n *Node) error {
		var err error
		changed, err = n.recordVerdict(ctx, v)
		return err
	}) {
		a.unrecorded[v.number] = v
		return
	}
	if changed {
		a.log.Warn("probes changed their verdict on a function", "tenant", v.ref.Tenant, "function", v.name, "endpoint", v.ingress, "hung", v.hung)
		a.chains(ctx)
	}
}

// recordVerdict writes the verdict to the store, and reports whether that changed anything. An instance that has gone needs none.
func (n *Node) recordVerdict(ctx context.Context, v verdict) (bool, error) {
	write := func(tx store.Tx) error {
		i, err := store.FindInstance(tx, v.ref, v.container)
		switch {
		case errors.Is(err, vnet.ErrNotFound), err == nil && (i.Number != v.number || i.Hung == v.hung):
			return nil
		case err != nil:
			return err
		}
		i.Hung = v.hung
		return store.PutInstance(tx, i)
	}
	err := n.Store.View(ctx, func(tx store.Tx) error { return write(readOnly{tx}) })
	if !errors.Is(err, errWrites) {
		return false, err
	}
	return true, n.Store.Update(ctx, write)
}
