package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// logged is what a tenetd logs; it may be read while it is written.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until it has logged these words, and returns all.
func (l *logged) await(t *testing.T, words string) string {
	t.Helper()
	eventually(t, words, func() bool { return strings.Contains(l.String(), words) })
	return l.String()
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// begin runs a tenetd until the test ends, when it must end by itself.
func begin(t *testing.T, file string) *logged {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	errs := &logged{}
	ended := make(chan int)
	go func() { ended <- run(ctx, []string{"--config=" + file}, io.Discard, errs) }()
	t.Cleanup(func() {
		stop()
		select {
		case code := <-ended:
			if code != exitDone {
				t.Errorf("it ends with %d: %s", code, errs)
			}
		case <-time.After(20 * time.Second):
			t.Error("it does not end")
		}
	})
	return errs
}

// metricsAt is the address that a log says metrics are at.
func metricsAt(t *testing.T, errs *logged) string {
	t.Helper()
	const words = "msg=listens door=metrics at="
	_, rest, _ := strings.Cut(errs.await(t, words), words)
	return strings.Fields(rest)[0]
}

func httpGet(t *testing.T, url string) (int, string) {
	t.Helper()
	got, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	if err != nil {
		t.Fatal(err)
	}
	return got.StatusCode, string(body)
}

// A node of its own answers on its socket and over HTTP, from the same report; what takes a cluster it refuses, and says so.
func TestANodeOnItsOwnIsAsked(t *testing.T) {
	dir := t.TempDir()
	errs := begin(t, configured(t, dir, map[string]any{"metrics": "127.0.0.1:0"}))
	at := "http://" + metricsAt(t, errs)
	path := filepath.Join(dir, "sock")
	var r cluster.Report
	if err := socket.Call(t.Context(), path, socket.Request{Do: socket.Status}, &r); err != nil {
		t.Fatal(err)
	}
	if r.Cluster != nil || r.DataDir != dir || r.Version != version || len(r.Problems) != 1 || r.Problems[0].What != "OVSDB socket" {
		t.Errorf("%+v, want that there is no switch", r)
	}
	if code, body := httpGet(t, at+"/healthz"); code != http.StatusServiceUnavailable || body != "OVSDB socket: "+r.Problems[0].Error+"\n" {
		t.Errorf("status %d: %s", code, body)
	}
	if code, body := httpGet(t, at+"/metrics"); code != http.StatusOK || !strings.Contains(body, "tenet_healthy 0\n") {
		t.Errorf("status %d: %s", code, body)
	}
	for _, do := range []string{socket.Publish, socket.Need, socket.Declare, socket.Await} {
		err := socket.Call(t.Context(), path, socket.Request{Do: do}, nil)
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), "this node is one on its own") || vnet.Hint(err) == "" {
			t.Errorf("%s: %v", do, err)
		}
	}
	if err := socket.Call(t.Context(), path, socket.Request{Do: "dance"}, nil); !errors.Is(err, vnet.ErrInvalid) {
		t.Error(err)
	}
}

func TestMetricsMayBeOff(t *testing.T) {
	if log := begin(t, configured(t, t.TempDir(), nil)).await(t, "door=socket"); strings.Contains(log, "door=metrics") {
		t.Error(log)
	}
}

// That a port is taken is said once, and stops nothing; when it is free tenetd has it.
func TestAPortThatIsTaken(t *testing.T) {
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	errs := &logged{}
	tries := 0
	d := &daemon{Config: node.Config{}, log: slog.New(slog.NewTextHandler(errs, nil))}
	door := &door{
		name: "metrics", at: other.Addr().String(), log: d.log, again: time.Millisecond,
		listen: func(ctx context.Context, at string) (net.Listener, error) {
			if tries++; tries == 10 {
				other.Close()
			}
			return listenTCP(ctx, at)
		},
		serve: d.serveHTTP(&reports{look: told, turn: make(chan struct{}, 1)}),
	}
	ctx, stop := context.WithCancel(t.Context())
	door.open(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		door.keep(ctx)
	}()
	at := metricsAt(t, errs)
	if code, _ := httpGet(t, "http://"+at+"/healthz"); code != http.StatusOK {
		t.Errorf("status %d", code)
	}
	if n := strings.Count(errs.String(), "level=ERROR"); n != 1 || !strings.Contains(errs.String(), "address already in use") {
		t.Errorf("%d errors are logged: %s", n, errs)
	}
	stop()
	<-ended
	if _, err := net.Dial("tcp", at); err == nil {
		t.Error("it listens after its end")
	}
}

// A tenetd takes no other's socket away, if that runs.
func TestTheSocketOfAnother(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	begin(t, configured(t, one, nil)).await(t, "door=socket")
	path := filepath.Join(one, "sock")
	begin(t, configured(t, two, map[string]any{"socket": path})).await(t, "is another tenetd's")
	var r cluster.Report
	if err := socket.Call(t.Context(), path, socket.Request{Do: socket.Status}, &r); err != nil || r.DataDir != one {
		t.Errorf("%q answers, %v", r.DataDir, err)
	}
}

// A report does for all who ask soon, or who waited for it, and for nobody else; who has no time to wait for one gets none.
func TestAReportDoesForAllWhoAsk(t *testing.T) {
	looks := 0
	r := &reports{look: func() cluster.Report { looks++; return told() }, turn: make(chan struct{}, 1)}
	for _, tc := range []struct {
		begun, made time.Time
		want        int
	}{
		{time.Time{}, time.Time{}, 1},
		{time.Now().Add(time.Hour), time.Time{}, 1}, // as fresh as can be, however slow the machine is
		{time.Time{}, time.Now().Add(time.Hour), 1}, // it took long
		{time.Now().Add(-reportAge), time.Now(), 2},
	} {
		r.begun, r.made = tc.begun, tc.made
		if got, err := r.latest(t.Context()); err != nil || got.Version != told().Version || looks != tc.want {
			t.Errorf("begun at %s, made at %s: it looked %d times, want %d; %v", tc.begun, tc.made, looks, tc.want, err)
		}
	}
	r.turn <- struct{}{} // somebody looks, and it takes long
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := r.latest(ctx); !errors.Is(err, vnet.ErrUnavailable) {
		t.Error(err)
	}
}
