package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// status says what an ADD would miss: code 50, or 51 if what runs already may be cut off too.
func status(ctx context.Context, n *node.Node, r *cni.Request) error {
	var lines []string
	var hint string
	code := types.ErrPluginNotAvailable
	if os.Geteuid() != 0 {
		lines = append(lines, "permissions: not root")
	}
	for _, m := range n.Missing(ctx) {
		lines = append(lines, fmt.Sprintf("%s: %v", m.What, m.Err))
		if m.Stops {
			code = types.ErrLimitedConnectivity
		}
		if hint == "" {
			hint = vnet.Hint(m.Err)
		}
	}
	if len(lines) > 0 {
		return types.NewError(code, strings.Join(lines, "; "), hint)
	}
	return r.DelegateVerb(ctx, "STATUS")
}
