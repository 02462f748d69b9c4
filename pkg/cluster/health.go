package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/connectivity"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Whether etcd answers is learnt from what is asked of it anyhow, of which there is at least what keeps the lease, and from
// the connection to it: whoever waits for changes or for an answer is not told that this is lost. When a call has failed,
// or nothing has been heard for some time, it is asked for the sake of an answer. If there is none etcd is asked nothing
// but whether it is back, so that nobody waits for it in vain. A member that does not answer this is left for the next
// (pkg/etcd), with which watches and lease go on.

const (
	askPause   = 300 * time.Millisecond
	askWait    = time.Second
	quietPause = time.Second // how often is looked whether something is overdue
	longQuiet  = 3 * time.Second
	// deniedPause is longer, as etcd takes its time with passwords, and some person has to change something.
	deniedPause = 2 * time.Second
)

// heard notes that etcd answers.
func (a *Agent) heard() { a.connection(true) }

// connection notes whether etcd answers.
func (a *Agent) connection(up bool) {
	a.mu.Lock()
	if up && a.denied != nil { // it is some connection of before that lives on
		up = false
	}
	was := a.connected
	a.connected = up
	if up {
		a.heardAt = time.Now()
	}
	a.mu.Unlock()
	switch {
	case was == up:
	case up:
		a.log.Info("etcd answers")
		a.Kick()
	default:
		a.log.Warn("etcd does not answer: the node goes on with what it has")
		select {
		case a.lost <- struct{}{}:
		default:
		}
	}
}

// told gives an error of etcd its kind, and notes that it does not answer, if that is what it says.
func (a *Agent) told(ctx context.Context, err error) error {
	err = a.etcd.Error(err)
	a.note(ctx, err)
	return err
}

func (a *Agent) note(ctx context.Context, err error) {
	silent := errors.Is(err, vnet.ErrUnavailable) && !etcd.Refused(err)
	if silent && ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		a.connection(false)
	}
}

// update makes a transaction in etcd, and notes if that does not answer. It reports whether an error is the transaction's own.
func (a *Agent) update(ctx context.Context, fn func(store.Tx) error) (bool, error) {
	var own error
	err := a.etcd.Update(ctx, func(tx store.Tx) error {
		own = fn(tx)
		return own
	})
	if err == nil {
		return false, nil
	}
	is := own != nil && errors.Is(err, own)
	if !is {
		a.note(ctx, err)
	}
	return is, err
}

// watches notes, until ctx ends, when there is no connection to any of etcd's members.
func (a *Agent) watches(ctx context.Context) {
	conn := a.etcd.Client().ActiveConnection()
	for {
		state := conn.GetState()
		if state != connectivity.Ready {
			a.connection(false)
		}
		if !conn.WaitForStateChange(ctx, state) {
			return
		}
	}
}

// overdue reports whether etcd has not been heard of for so long that a lease would be in danger if its member is dead.
func (a *Agent) overdue() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.connected && time.Since(a.heardAt) > min(longQuiet, a.Lease/2) // it is asked each third of that
}

// asks asks etcd now and then whether it is the one of before and, once it has not answered or is overdue, until it answers.
func (a *Agent) asks(ctx context.Context, stop context.CancelCauseFunc) {
	quiet := time.NewTicker(quietPause)
	defer quiet.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.lost:
		case <-quiet.C:
			if !a.overdue() && time.Since(asked) < longQuiet {
				continue
			}
		}
		for ctx.Err() == nil {
			call, cancel := context.WithTimeout(ctx, askWait)
			err := a.etcd.Same(call)
			cancel()
			asked = time.Now()
			if errors.Is(err, etcd.ErrAnother) {
				a.log.Error("the node begins anew with etcd", "why", err, "hint", "if nobody has restored it, or replaced it, see to which etcd the endpoints lead")
				stop(fmt.Errorf("%w: %w", ErrAnew, err))
				return
			}
			refusal := a.refusal(err)
			a.failed(ctx, "ask etcd", refusal)
			wait := askPause
			if err == nil || refusal != nil {
				a.denies(refusal)
			}
			if err == nil {
				a.heard()
				break
			}
			a.connection(false)
			if refusal != nil {
				if a.renewed(ctx) {
					a.log.Info("etcd takes the password and the certificate that the node's files have by now")
					stop(ErrAnew)
					return
				}
				wait = deniedPause
			}
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
		}
	}
}

// Denial is that etcd does not take what the node shows it, such as its password.
type Denial struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
	Hint  string    `json:"hint,omitempty"`
}

func (d *Denial) String() string {
	return fmt.Sprintf("etcd refuses this node since %s, which goes on with what it has: %s", d.Since.Local().Format(time.DateTime), d.Why)
}

// denies notes what etcd says of this node's credentials, nil if it takes them.
func (a *Agent) denies(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case err == nil:
		a.denied = nil
	case a.denied == nil:
		a.denied = &Denial{Since: time.Now(), Why: err.Error(), Hint: vnet.Hint(err)}
	default:
		a.denied = &Denial{Since: a.denied.Since, Why: err.Error(), Hint: vnet.Hint(err)}
	}
}

// refusal is an error of etcd's that is more than silence, such as that it does not take the password any more: nil for
// others.
func (a *Agent) refusal(err error) error {
	if err = a.etcd.Error(err); errors.Is(err, vnet.ErrUnavailable) {
		return nil
	}
	return err
}
