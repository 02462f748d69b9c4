package main

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// check compares what stands with the record, and the record with what the runtime was told.
func check(ctx context.Context, n *node.Node, r *cni.Request) error {
	at := attachment(r)
	e, err := n.Endpoint(ctx, at.ID())
	if errors.Is(err, vnet.ErrNotFound) {
		return vnet.Existsf("%s is not attached: there is no record of it", at)
	}
	if err != nil {
		return err
	}
	differs, err := n.Check(ctx, e)
	if err != nil {
		return err
	}
	told, err := toldDifferently(r, e)
	if err != nil {
		return err
	}
	if differs = append(differs, told...); len(differs) > 0 {
		return vnet.WithHint(vnet.Existsf("%s: %s", at, strings.Join(differs, "; ")), "repair it: tenetctl sync; what differs inside the container takes a DEL and an ADD")
	}
	if e.Delegate != nil {
		return cni.DelegateCheck(ctx, e)
	}
	return nil
}

// toldDifferently compares the record with the result that the runtime remembers.
func toldDifferently(r *cni.Request, e vnet.Endpoint) ([]string, error) {
	var differs []string
	if r.NetNS != e.NetNS {
		differs = append(differs, "CNI_NETNS is "+r.NetNS+", the record says "+e.NetNS)
	}
	if r.PrevResult == nil {
		return differs, nil
	}
	result, err := current.NewResultFromResult(r.PrevResult)
	if err != nil {
		return nil, vnet.Invalidf("prevResult: %v", err)
	}
	mine := slices.IndexFunc(result.Interfaces, func(i *current.Interface) bool { return i.Name == e.IfName && i.Sandbox != "" })
	if mine < 0 {
		return append(differs, "prevResult has no interface "+e.IfName), nil
	}
	if mac := result.Interfaces[mine].Mac; mac != "" && mac != e.MAC.String() {
		differs = append(differs, "prevResult has MAC "+mac+", the record "+e.MAC.String())
	}
	for _, ip := range result.IPs {
		if ip.Interface == nil || *ip.Interface != mine {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); !ok || !e.Has(a.Unmap()) {
			differs = append(differs, "prevResult has address "+ip.Address.String()+", the record does not")
		}
	}
	return differs, nil
}
