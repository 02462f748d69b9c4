package node

import (
	"context"
	"errors"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/veth"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// BeforeSwitch prepares the start of ovs-vswitchd: it removes the rows whose link is gone (after
// a reboot that is all of them), and asks ovs-vswitchd to keep forwarding by what the kernel
// datapath still knows until AfterSwitch has restored the flows. Without a bridge of ours it
// does nothing: the request holds for every bridge.
func (n *Node) BeforeSwitch(ctx context.Context) error {
	sw, err := n.dial(ctx)
	if err != nil {
		return err
	}
	rows, err := sw.Ports(ctx, n.Bridge)
	if errors.Is(err, ovs.ErrNotFound) || errors.Is(err, ovs.ErrNotOurs) {
		return nil
	}
	if err != nil {
		return kind(err)
	}
	links, err := veth.List(ctx, linkAlias)
	if err != nil {
		return kind(err)
	}
	alive := make(map[string]bool, len(links))
	for _, link := range links {
		alive[link.Name] = true
	}
	var dead []string
	for _, row := range rows {
		if row.Type == "" && !alive[row.Name] {
			dead = append(dead, row.Name)
		}
	}
	return kind(errors.Join(sw.UnplugAll(ctx, n.Bridge, dead), sw.SetRestoreWait(ctx, true)))
}

// AfterSwitch restores the flows once ovs-vswitchd answers, and then lets it go, whether or
// not that worked: every bridge of the machine hangs on it.
func (n *Node) AfterSwitch(ctx context.Context) (Drift, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return Drift{}, err
	}
	var d Drift
	_, err = sw.Bridge(ctx, n.Bridge)
	if err == nil {
		if err = kind(sw.AwaitBridge(ctx, n.Bridge)); err == nil {
			d, err = n.restore(ctx)
		}
	} else if errors.Is(err, ovs.ErrNotFound) {
		err = nil
	}
	// Even when ctx has ended.
	const letGo = 10 * time.Second
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGo)
	defer cancel()
	err = errors.Join(err, kind(sw.SetRestoreWait(last, false)))
	if err != nil {
		return d, err
	}
	// With traffic flowing again there is time for everything else.
	return d, n.tidy(ctx, &d)
}

// restore writes the flows and nothing else: it is what the traffic waits for.
func (n *Node) restore(ctx context.Context) (Drift, error) {
	unlock, err := n.lockFlows(ctx)
	if err != nil {
		return Drift{}, err
	}
	defer unlock()
	c, err := n.openflow(ctx, n.Bridge)
	if err != nil {
		return Drift{}, err
	}
	defer c.Close()
	return n.syncFlows(ctx, c, true)
}

// tidy does the rest of a Sync, if there is a bridge, and adds to d what it found.
func (n *Node) tidy(ctx context.Context, d *Drift) error {
	flows := *d
	full, err := n.Diff(ctx)
	if errors.Is(err, vnet.ErrNotFound) {
		return nil
	}
	if err == nil && full.Count() > 0 {
		full, err = n.Sync(ctx)
	}
	full.MissingFlows += flows.MissingFlows
	full.StrayFlows += flows.StrayFlows
	*d = full
	return err
}
