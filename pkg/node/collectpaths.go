package node

import (
	"context"
	"errors"
	"math/big"
	"strings"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/paths"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// pathRest is how long a path that gets no new connection stands at least: one may be on its way to be tracked.
const pathRest = 10 * time.Second

// CollectPaths takes away the paths that get no new connection and that no connection has any more, and reports how many.
func (n *Node) CollectPaths(ctx context.Context) (int, error) {
	before := time.Now().Add(-pathRest)
	var retired []vnet.Path
	err := n.Store.View(ctx, func(tx store.Tx) error {
		if _, member := store.Member(tx); member {
			return nil // others may have connections on them
		}
		var err error
		retired, err = paths.Retired(tx)
		return err
	})
	if err != nil || len(retired) == 0 || !retired[0].Retired.Before(before) {
		return 0, err
	}
	used, known, err := n.UsedPaths(ctx)
	if err != nil || !known {
		return 0, err
	}
	removed := 0
	err = n.Store.Update(ctx, func(tx store.Tx) error {
		removed, err = paths.Collect(tx, used, before)
		return err
	})
	if err != nil || removed == 0 {
		return removed, err
	}
	return removed, n.eachOurs(ctx, func(n *Node) error { return n.SyncChains(ctx, n.Bridge) })
}

// UsedPaths returns the paths that connections have on any bridge; false: nobody can say which.
func (n *Node) UsedPaths(ctx context.Context) (map[vnet.PathID]bool, bool, error) {
	used, asked := map[vnet.PathID]bool{}, map[string]bool{}
	known := true
	err := n.EachBridge(ctx, func(n *Node) error {
		b, err := n.sw.Bridge(ctx, n.Bridge)
		if errors.Is(err, ovs.ErrNotFound) {
			return nil // nor are there connections
		}
		if err != nil {
			return kind(err)
		}
		if asked[datapath(b)] { // bridges share it
			return nil
		}
		asked[datapath(b)] = true
		tracked, err := ovs.Control(ctx, n.OVSRunDir, "dpctl/dump-conntrack", datapath(b))
		switch {
		case noAnswer(err):
			known = false
			return nil
		case err != nil:
			return kind(err)
		}
		addUsedPaths(used, tracked)
		return nil
	})
	return used, known, err
}

// addUsedPaths reads the labels of tracked connections. In a client's zone bits 64 to 87 are the path, in a function's bits
// 72 to 95: which of them a zone is matters little, since a path too many that is kept does no harm.
func addUsedPaths(used map[vnet.PathID]bool, tracked string) {
	for line := range strings.Lines(tracked) {
		label, ok := labelIn(line)
		if !ok {
			continue
		}
		for _, at := range []uint{64, 72} {
			bits := new(big.Int).Rsh(label, at)
			used[vnet.PathID(bits.Uint64()&0xffffff)] = true
		}
	}
}

// labelIn reads the label in a line of dpctl/dump-conntrack.
func labelIn(line string) (*big.Int, bool) {
	_, rest, found := strings.Cut(line, "labels=0x")
	if !found {
		return nil, false
	}
	text, _, _ := strings.Cut(rest, ",")
	return new(big.Int).SetString(strings.TrimSpace(text), 16)
}
