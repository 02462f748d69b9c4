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
	ours := false
	err := n.EachBridge(ctx, func(n *Node) error {
		b, err := n.sw.Bridge(ctx, n.Bridge)
		if errors.Is(err, ovs.ErrNotFound) {
			return nil
		}
		if err != nil {
			return kind(err)
		}
		if b.Owner != n.DataDir {
			return nil // not for us to prepare
		}
		ours = true
		return n.prune(ctx)
	})
	if ours {
		err = errors.Join(err, kind(n.sw.SetRestoreWait(ctx, true)))
	}
	return err
}

// prune removes the rows whose link is gone, without waiting for ovs-vswitchd.
func (n *Node) prune(ctx context.Context) error {
	rows, err := n.sw.Ports(ctx, n.Bridge)
	if err != nil {
		return kind(err)
	}
	links, err := veth.List(ctx, linkAlias(n.Bridge))
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
	return kind(n.sw.UnplugAll(ctx, n.Bridge, dead))
}

// AfterSwitch restores the flows of every bridge of ours once ovs-vswitchd answers, and then
// lets it go, whether or not that worked: every bridge of the machine hangs on it. It returns
// what differed on all of them.
func (n *Node) AfterSwitch(ctx context.Context) (Drift, error) {
	if _, err := n.dial(ctx); err != nil {
		return Drift{}, err
	}
	restored, failed := n.restoreAll(ctx)
	// With traffic flowing again there is time for everything else.
	all, err := n.tidyAll(ctx, restored)
	return all, errors.Join(failed, err)
}

// restoreAll is what traffic waits for: AfterSwitch up to where ovs-vswitchd is let go. It returns
// what differed, by bridge.
func (n *Node) restoreAll(ctx context.Context) (map[string]Drift, error) {
	sw, err := n.dial(ctx)
	if err != nil {
		return nil, err
	}
	restored := map[string]Drift{}
	err = n.EachBridge(ctx, func(n *Node) error {
		d, err := n.restore(ctx)
		if err == nil {
			restored[n.Bridge] = d
		}
		if errors.Is(err, ovs.ErrNotFound) {
			return nil
		}
		return err
	})
	// Even when ctx has ended; who has cancelled it is not kept waiting.
	const letGo, soon = 10 * time.Second, 500 * time.Millisecond
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), letGo)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.Canceled) {
			time.AfterFunc(soon, cancel)
		}
	})()
	return restored, errors.Join(err, kind(sw.SetRestoreWait(last, false)))
}

// tidyAll does the rest of a Sync on the bridges that were restored, and returns all that differed.
func (n *Node) tidyAll(ctx context.Context, restored map[string]Drift) (Drift, error) {
	var all Drift
	err := n.EachBridge(ctx, func(n *Node) error {
		d, ok := restored[n.Bridge]
		if !ok {
			return nil
		}
		err := n.tidy(ctx, &d)
		all.add(d)
		return err
	})
	return all, err
}

// restore writes the flows and nothing else: it is what the traffic waits for.
func (n *Node) restore(ctx context.Context) (Drift, error) {
	bridge, err := n.sw.Bridge(ctx, n.Bridge)
	if err != nil {
		return Drift{}, kind(err)
	}
	if err := n.owns(bridge); err != nil {
		return Drift{}, err
	}
	if err := n.sw.AwaitBridge(ctx, n.Bridge); err != nil {
		return Drift{}, kind(err)
	}
	d, err := n.connectAll(ctx, true)
	if err == nil {
		n.Tally.found(d)
	}
	return d, err
}

// add sums up what differed on several bridges.
func (d *Drift) add(o Drift) {
	d.Endpoints = append(d.Endpoints, o.Endpoints...)
	d.Ports = append(d.Ports, o.Ports...)
	d.Links = append(d.Links, o.Links...)
	d.Unplugged = append(d.Unplugged, o.Unplugged...)
	d.MissingFlows += o.MissingFlows
	d.StrayFlows += o.StrayFlows
	d.Groups = append(d.Groups, o.Groups...)
	d.Meters = append(d.Meters, o.Meters...)
	d.Host = append(d.Host, o.Host...)
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
	n.Tally.found(full)
	full.MissingFlows += flows.MissingFlows
	full.StrayFlows += flows.StrayFlows
	full.Groups = append(full.Groups, flows.Groups...)
	full.Meters = append(full.Meters, flows.Meters...)
	full.Host = append(full.Host, flows.Host...)
	*d = full
	return err
}
