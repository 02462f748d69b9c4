package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Where etcd was, another may be all at once, or itself as it was some time ago: it was begun anew with nothing, or restored
// from a snapshot. No watch is told of that. It waits at the revision that it had come to, of which the other one knows nothing,
// and which will be about something else. So what etcd has been heard to say is noted, and Same compares.

// ErrAnother is that etcd is not the one that it was, or as it was some time ago: what was read from it says nothing any more.
var ErrAnother = errors.New("etcd is another one, or was set back: it does not know what it has said before")

// past is what a Store has heard of its etcd.
type past struct {
	mu sync.Mutex
	said
}

type said struct {
	cluster  uint64 // 0: nothing yet
	revision int64  // the highest
	last     mark   // of those mirrored
	kept     mark   // to be asked about first, if it is one
}

// mark is a record that stood in etcd at the revision at which it was written. The zero mark is none.
type mark struct {
	key      string // with the prefix
	revision int64
}

// heard notes an answer's header. Answers may overtake each other.
func (p *past) heard(h *pb.ResponseHeader) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cluster == 0 {
		p.cluster = h.GetClusterId()
	}
	p.revision = max(p.revision, h.GetRevision())
}

// mirrored notes what stands in etcd, or stood a moment ago.
func (p *past) mirrored(prefix string, events []Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		if e.Value != nil && e.Revision > p.last.revision {
			p.last = mark{prefix + e.Key, e.Revision}
		}
	}
}

// watches notes that watches begin, perhaps anew, since the connection broke: what comes by them may be of another etcd.
func (p *past) watches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == (mark{}) {
		p.kept = p.last
	}
}

// known returns what is known now, to be compared with what is asked after it, and what is to be asked about.
func (p *past) known() (said, mark) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept != (mark{}) {
		return p.said, p.kept
	}
	return p.said, p.last
}

// asked notes that etcd has it, or that it has forgotten all of that time, as it does now and then.
func (p *past) asked(m mark, forgotten bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == m {
		p.kept = mark{}
	}
	if forgotten && p.last == m {
		p.last = mark{}
	}
}

// Same asks etcd whether it is the one that has told this Store all that it has told: else ErrAnother. One that was set back may
// by now have come to higher revisions than those. So it is also asked for what was mirrored last, as it was then.
func (s *Store) Same(ctx context.Context) error {
	was, about := s.past.known() // before it is asked: what is read then is as new at least
	var got *clientv3.GetResponse
	var err error
	if about != (mark{}) {
		got, err = s.client.Get(ctx, about.key, clientv3.WithRev(about.revision))
		if errors.Is(err, rpctypes.ErrFutureRev) {
			return fmt.Errorf("%w: its revision is lower than %d", ErrAnother, about.revision)
		}
		if errors.Is(err, rpctypes.ErrCompacted) {
			s.past.asked(about, true)
			about = mark{}
		}
	}
	if about == (mark{}) {
		got, err = s.client.Get(ctx, s.prefix)
	}
	switch {
	case err != nil:
		return err
	case was.cluster != 0 && got.Header.GetClusterId() != was.cluster:
		return fmt.Errorf("%w: it is cluster %x and was %x", ErrAnother, got.Header.GetClusterId(), was.cluster)
	case got.Header.GetRevision() < was.revision:
		return fmt.Errorf("%w: its revision is %d and was %d", ErrAnother, got.Header.GetRevision(), was.revision)
	case about != (mark{}) && (len(got.Kvs) == 0 || got.Kvs[0].ModRevision != about.revision):
		return fmt.Errorf("%w: at revision %d it was not %s that was written", ErrAnother, about.revision, strings.TrimPrefix(about.key, s.prefix))
	}
	s.past.asked(about, false)
	return nil
}
