package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/socket"
)

// An ADD that cannot do without etcd waits a moment for it: another member may be about to answer. It does not wait long, nor does
// anybody who can do without.
func TestWhoNeedsEtcdWaitsAMomentForIt(t *testing.T) {
	w := newWorld(t, etcdtest.Start(t), `{"prefix":"10.0.0.0/24"}`)
	d := w.member(1).started()
	ref := w.net.Ref()
	need := func() error {
		_, err := d.Answer(t.Context(), socket.Request{Do: socket.Need, Ref: &ref})
		return err
	}
	d.connection(false)
	if _, err := d.Answer(t.Context(), socket.Request{Do: socket.CatchUp}); !errors.Is(err, errAway) {
		t.Errorf("who can do without: %v", err)
	}
	if err := need(); !errors.Is(err, errAway) {
		t.Errorf("etcd does not answer: %v", err)
	}
	time.AfterFunc(100*time.Millisecond, d.heard)
	if err := need(); err != nil {
		t.Errorf("etcd answers soon: %v", err)
	}
}
