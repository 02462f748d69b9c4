package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// How long a member is given to answer before another is asked: not long at first, because one that hangs or is cut
// off says nothing; then longer, because all may be slow.
const (
	firstPatience = time.Second
	lastPatience  = 4 * time.Second
	pauseBetween  = 50 * time.Millisecond
)

// The client would ask all members in turn, and one that hangs every time, until after 13 seconds gRPC's keepalive
// ends the connection. So it is told of one member, and of the next when that has not answered.
type members struct {
	mu  sync.Mutex
	all []string
	at  int
	use func(endpoint string)
}

func newMembers(client *clientv3.Client) *members {
	m := &members{all: client.Endpoints(), use: func(e string) { client.SetEndpoints(e) }}
	rand.Shuffle(len(m.all), func(i, j int) { m.all[i], m.all[j] = m.all[j], m.all[i] }) // as nodes share the load
	m.use(m.all[0])
	return m
}

// present is the number of the member that is asked now.
func (m *members) present() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.at
}

// leave goes on to the next member, if nobody has left this one meanwhile.
func (m *members) leave(at int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == at && len(m.all) > 1 {
		m.at = (at + 1) % len(m.all)
		m.use(m.all[m.at])
	}
}

// try calls do once, with so much patience, and leaves the member if that brought no answer. A refusal is an answer.
func (s *Store) try(ctx context.Context, patience time.Duration, do func(context.Context) error) error {
	at := s.members.present()
	ctx, cancel := context.WithTimeout(clientv3.WithRequireLeader(ctx), patience)
	defer cancel()
	err := do(ctx)
	if err != nil && !answered(err) && !errors.Is(err, context.Canceled) {
		s.members.leave(at)
	}
	return err
}

func answered(err error) bool { return err == nil || passing(err) || asRefusal(err) != nil }

// insist calls do, which may be done any number of times, until there is an answer or ctx ends.
func (s *Store) insist(ctx context.Context, do func(context.Context) error) error {
	var why error
	for patience := firstPatience; ; {
		err := s.try(ctx, patience, do)
		if answered(err) {
			return err
		}
		if errors.Is(err, context.DeadlineExceeded) {
			patience = min(2*patience, lastPatience)
		} else if !errors.Is(err, context.Canceled) {
			why = err
		}
		if ended := pause(ctx, pauseBetween); ended != nil {
			return because(ended, why)
		}
	}
}

// because says why nothing had come of it when ctx ended.
func because(ended, why error) error {
	if why == nil {
		return fmt.Errorf("no answer: %w", ended)
	}
	return fmt.Errorf("%w: %w", plain(why), ended)
}

// pause waits for about as long as told, or for the end of ctx, whose error it returns.
func pause(ctx context.Context, about time.Duration) error {
	t := time.NewTimer(about/2 + rand.N(about))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
