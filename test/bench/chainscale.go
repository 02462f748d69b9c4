package main

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// chainScale is what so many chains take, of four hops each, with a classifier of their own.
type chainScale struct {
	Chains  int     `json:"chains"`
	Flows   int     `json:"flows"`      // what they add
	Render  float64 `json:"render_ms"`  // records read, flows made
	Install float64 `json:"install_ms"` // rendered, compared and sent to a switch that has none
	Nothing float64 `json:"nothing_ms"` // nothing to do: rendered and compared
	Change  float64 `json:"change_ms"`  // one chain loses a hop; less the wait for the datapath
}

// scaleTenant has the functions, which part chains has made for the lane of four hops.
const scaleTenant = "led4"

// chains writes so many chains into the store, and measures.
func (o order) chains(ctx context.Context) ([]chainScale, error) {
	n := node.Open(o.Config, nil)
	defer n.Close()
	before, err := n.Render(ctx)
	if err != nil {
		return nil, err
	}
	var all []chainScale
	for _, count := range o.Chains {
		err := n.Store.Update(ctx, func(tx store.Tx) error {
			for i := range count {
				if err := store.PutChain(tx, scaleChain(i, 4)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if _, err := n.Sync(ctx); err != nil { // and gives them their paths
			return nil, err
		}
		s := chainScale{Chains: count}
		took := func(do func() error) (float64, error) {
			start := time.Now()
			err := do()
			return ms(time.Since(start)), err
		}
		sync := func() error { _, err := n.Sync(ctx); return err }
		if s.Render, err = took(func() error {
			flows, err := n.Render(ctx)
			s.Flows = len(flows) - len(before)
			return err
		}); err != nil {
			return nil, err
		}
		if err := o.empty(ctx); err != nil {
			return nil, err
		}
		if s.Install, err = took(sync); err != nil {
			return nil, err
		}
		if s.Nothing, err = took(sync); err != nil {
			return nil, err
		}
		err = n.Store.Update(ctx, func(tx store.Tx) error { return store.PutChain(tx, scaleChain(0, 3)) })
		if err != nil {
			return nil, err
		}
		if s.Change, err = took(func() error { return n.SyncChains(ctx, o.Config.Bridge) }); err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

func scaleChain(i, hops int) vnet.Chain {
	c := vnet.Chain{Tenant: scaleTenant, Name: vnet.ChainName(fmt.Sprintf("scale%d", i)), Priority: 1}
	for h := range hops {
		c.Groups = append(c.Groups, vnet.GroupName(fmt.Sprintf("g%d", h)))
	}
	to := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)}), 32)
	c.Classifiers = []vnet.Classifier{{
		From: vnet.Selector{Any: true}, To: vnet.Selector{Prefix: to}, Protocol: vnet.TCP, DestinationPorts: vnet.PortRanges{{First: 80, Last: 80}},
	}}
	return c
}
