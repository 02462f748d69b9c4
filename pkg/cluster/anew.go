package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// An etcd that is not the one that it was, or that was set back to what it had some time ago, knows little of what the nodes
// have, and watches wait for what it will not say. All that an agent knows may be wrong then. So it ends, and another goes on
// in its place, with nothing but the node's store: it joins, and tells what is here.
//
// The other nodes do the same, each when it notices. Before they have, nothing can be told from what etcd lacks. So until the
// cluster has settled nothing that is in the store is taken for gone, no new blocks are claimed, as those that nobody seems to
// hold may be somebody's, and no block is lost to another, who may be about to find out that it has given it back long ago.

// ErrAnew is how Run ends when another agent is to go on in the place of this one: Anew makes it.
var ErrAnew = errors.New("the node begins anew with its cluster")

// settleTime is how long others have to notice, and to tell what is theirs. They ask each few seconds, if they can.
const settleTime = 15 * time.Second

// Anew returns the agent that goes on when Run has ended with ErrAnew.
func (a *Agent) Anew(why error) (*Agent, error) {
	n, err := New(a.Config, a.Options, a.Release, a.log)
	if err != nil {
		return nil, err
	}
	n.Tally, n.untold = a.Tally, a.untold
	if errors.Is(why, etcd.ErrAnother) || a.settling() {
		n.settled, n.until = make(chan struct{}), time.Now().Add(settleTime)
	}
	return n, nil
}

// settling reports whether etcd may lack what others have.
func (a *Agent) settling() bool {
	select {
	case <-a.settled:
		return false
	default:
		return true
	}
}

var errSettles = vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, errors.New("etcd was replaced, and the nodes are about to tell it what they have")), "it takes no longer than %s", settleTime)

// mirrored is etcd's Mirror, but nothing counts as gone as long as the cluster settles.
func (a *Agent) mirrored(ctx context.Context, settled <-chan struct{}, prefixes []string, connected func(bool), apply func(ctx context.Context, whole bool, events []etcd.Event, revision int64) error) error {
	if a.settling() {
		spell, end := context.WithCancel(ctx)
		defer end()
		go func() {
			select {
			case <-settled:
				end()
			case <-spell.Done():
			}
		}()
		err := a.etcd.Mirror(spell, prefixes, connected, func(_ context.Context, _ bool, events []etcd.Event, revision int64) error {
			return apply(ctx, false, events, revision) // to its end
		})
		if spell.Err() == nil || ctx.Err() != nil {
			return err
		}
	}
	return a.etcd.Mirror(ctx, prefixes, connected, apply)
}

// settles ends the time for others: what etcd has not by now it does not have.
func (a *Agent) settles() {
	if a.settling() {
		close(a.settled)
		a.log.Info("the cluster has settled: what etcd does not have by now counts as gone")
	}
}

// renewed reports whether etcd takes what the files say that the configuration names, as they are now.
func (a *Agent) renewed(ctx context.Context) bool {
	s, err := etcd.Open(etcd.Config(a.Etcd))
	if err != nil {
		return false
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = s.Client().Get(ctx, s.Prefix()+nodeKey(a.Name))
	return err == nil
}
