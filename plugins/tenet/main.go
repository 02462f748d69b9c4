// Command tenet is a CNI plugin: it gives a container an interface in its tenant's network. A
// container runtime executes it; what it is given is described in the README.
package main

import (
	"context"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// version is set by the linker.
var version = "unknown"

func main() {
	cni.Main("tenet "+version+": virtual tenant networks on Open vSwitch", cni.ParseTenet, cni.Verbs{
		Add: func(ctx context.Context, r *cni.Request) (result types.Result, err error) { //nolint:nonamedreturns // onNode returns one
			err = onNode(r, func(n *node.Node) error {
				result, err = add(ctx, n, r)
				return err
			})
			return result, err
		},
		Del:    verb(del),
		Check:  verb(check),
		GC:     verb(gc),
		Status: verb(status),
	})
}

// verb gives one of ours the node that the configuration describes.
func verb(run func(context.Context, *node.Node, *cni.Request) error) func(context.Context, *cni.Request) error {
	return func(ctx context.Context, r *cni.Request) error {
		return onNode(r, func(n *node.Node) error { return run(ctx, n, r) })
	}
}

func onNode(r *cni.Request, run func(*node.Node) error) error {
	config, err := node.LoadConfig(r.Config)
	if err != nil {
		return err
	}
	config, err = config.Override(node.Config{Bridge: r.Bridge, OVSRunDir: r.OVSRunDir, DataDir: r.DataDir, Datapath: r.Datapath})
	if err != nil {
		return err
	}
	n := node.Open(config, cni.DelegateDel)
	defer n.Close()
	return run(n)
}

func attachment(r *cni.Request) vnet.Attachment {
	return vnet.Attachment{Container: r.ContainerID, IfName: r.IfName}
}
