package socket_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// patience bounds every wait. Nothing waits it out unless it is broken.
const patience = 20 * time.Second

type handler = func(context.Context, socket.Request) (any, error)

// server is a tenetd as far as its socket goes.
type server struct {
	t    *testing.T
	path string
	stop context.CancelFunc
	done chan error
}

// start serves at a path of its own until the test ends. wrap may be nil.
func start(t *testing.T, do handler, wrap func(net.Listener) net.Listener) *server {
	t.Helper()
	s := &server{t: t, path: filepath.Join(t.TempDir(), "run", "tenetd.sock"), done: make(chan error, 1)}
	l, err := socket.Listen(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	if wrap != nil {
		l = wrap(l)
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(t.Context())
	go func() { s.done <- socket.Serve(ctx, l, do) }()
	t.Cleanup(func() { s.stop() })
	return s
}

// end ends the server and returns when it has ended.
func (s *server) end() {
	s.t.Helper()
	s.stop()
	if err := wait(s.t, "the server to end", s.done); err != nil {
		s.t.Errorf("the server ended with %v", err)
	}
}

// call asks with some patience.
func (s *server) call(r socket.Request, result any) error {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return socket.Call(ctx, s.path, r, result)
}

// raw connects without manners.
func (s *server) raw() *net.UnixConn {
	s.t.Helper()
	conn, err := net.Dial("unix", s.path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	return conn.(*net.UnixConn)
}

func wait[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("waited for %s in vain", what)
		panic("unreachable")
	}
}

// echo answers with the request.
func echo(_ context.Context, r socket.Request) (any, error) { return r, nil }

func wantEcho(t *testing.T, s *server) {
	t.Helper()
	var got socket.Request
	if err := s.call(socket.Request{Do: socket.Await, Revision: 7}, &got); err != nil || got.Revision != 7 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestRequestAndAnswerArriveWhole(t *testing.T) {
	s := start(t, echo, nil)
	want := socket.Request{
		Do: "everything", Endpoint: vnet.Attachment{Container: "c", IfName: "eth0"}.ID(),
		Network: &vnet.Network{Tenant: "blue", Name: "web", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}},
		Ref:     &vnet.Ref{Tenant: "blue", Network: vnet.NetworkName(strings.Repeat("<web>", 100_000))}, // more than goes into a socket at once
		Subnets: []netip.Prefix{netip.MustParsePrefix("fd00::/64")}, Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}, Revision: 1 << 62,
	}
	var got socket.Request
	if err := s.call(want, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := s.call(want, nil); err != nil {
		t.Errorf("an answer that nobody wants: %v", err)
	}
}

func TestSocketIsForRootAlone(t *testing.T) {
	before := umask()
	s := start(t, echo, nil)
	for path, want := range map[string]fs.FileMode{s.path: fs.ModeSocket | 0o600, filepath.Dir(s.path): fs.ModeDir | 0o700} {
		if info, err := os.Stat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v, want %v", path, info.Mode(), err, want)
		}
	}
	if after := umask(); after != before {
		t.Errorf("what else the program makes has the mask %o, before %o", after, before)
	}
}

func umask() int {
	mask := syscall.Umask(0o077)
	syscall.Umask(mask)
	return mask
}

func TestErrorKeepsItsKindAndHint(t *testing.T) {
	for what, test := range map[string]struct {
		err  error
		kind error
	}{
		"invalid":     {vnet.Invalidf("tenant %q", "x"), vnet.ErrInvalid},
		"notFound":    {vnet.NotFoundf("network x"), vnet.ErrNotFound},
		"exists":      {vnet.Existsf("vni 1"), vnet.ErrExists},
		"exhausted":   {fmt.Errorf("subnet s: %w", vnet.ErrExhausted), vnet.ErrExhausted},
		"unavailable": {vnet.OfKind(vnet.ErrUnavailable, errors.New("etcd: no answer")), vnet.ErrUnavailable},
		"corrupt":     {fmt.Errorf("record k: %w", vnet.ErrCorrupt), vnet.ErrCorrupt},
		"none":        {errors.New("100 % broken: \"<a>\" & \n b"), nil},
	} {
		t.Run(what, func(t *testing.T) {
			for _, hint := range []string{"", "see <this>: 100 %s"} {
				err := test.err
				if hint != "" {
					err = fmt.Errorf("outer: %w", vnet.WithHint(err, "%s", hint))
				}
				got := start(t, func(context.Context, socket.Request) (any, error) { return "half", err }, nil).call(socket.Request{Do: "x"}, nil)
				if got == nil || got.Error() != "tenetd: "+err.Error() || vnet.Hint(got) != hint {
					t.Errorf("got %v (hint %q), want %v (%q)", got, vnet.Hint(got), err, hint)
				}
				for _, kind := range []error{vnet.ErrInvalid, vnet.ErrNotFound, vnet.ErrExists, vnet.ErrExhausted, vnet.ErrUnavailable, vnet.ErrCorrupt} {
					if errors.Is(got, kind) != errors.Is(test.kind, kind) {
						t.Errorf("%v is a %v: %v", got, kind, errors.Is(got, kind))
					}
				}
			}
		})
	}
}

func TestTenetdThatDoesNotRunIsUnavailable(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	alive := start(t, echo, nil)
	for what, test := range map[string]struct {
		ctx  context.Context
		path string
		also error
	}{
		"never there":     {t.Context(), filepath.Join(dir, "none"), fs.ErrNotExist},
		"dead":            {t.Context(), dead, syscall.ECONNREFUSED},
		"no time to wait": {ended, alive.path, context.Canceled},
	} {
		err := socket.Call(test.ctx, test.path, socket.Request{Do: socket.Status}, nil)
		if !errors.Is(err, vnet.ErrUnavailable) || !errors.Is(err, test.also) || vnet.Hint(err) != "systemctl status tenetd" {
			t.Errorf("%s: %v (hint %q)", what, err, vnet.Hint(err))
		}
	}
}

func TestStrangerIsToldWhoseTheSocketIs(t *testing.T) {
	s := start(t, echo, nil)
	if os.Geteuid() != 0 {
		if err := os.Chmod(s.path, 0); err != nil {
			t.Fatal(err)
		}
	}
	err := stranger(t, func() error { return s.call(socket.Request{Do: socket.Status}, nil) })
	if !errors.Is(err, vnet.ErrUnavailable) || !errors.Is(err, fs.ErrPermission) || !strings.Contains(vnet.Hint(err), "root alone") {
		t.Errorf("%v (hint %q)", err, vnet.Hint(err))
	}
}

// stranger does it as one who is not root.
func stranger(t *testing.T, do func() error) error {
	t.Helper()
	if os.Geteuid() != 0 {
		return do()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and the thread ends with this
		const nobody = 65534
		if err := unix.Setfsuid(nobody); err != nil {
			done <- err
			return
		}
		done <- do()
	}()
	return wait(t, "the stranger", done)
}

func TestCallEndsWithItsContext(t *testing.T) {
	gone := make(chan error, 1)
	asked := make(chan struct{}, 1)
	s := start(t, func(ctx context.Context, _ socket.Request) (any, error) {
		asked <- struct{}{}
		<-ctx.Done()
		gone <- ctx.Err()
		return nil, ctx.Err()
	}, nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	answered := make(chan error, 1)
	go func() { answered <- socket.Call(ctx, s.path, socket.Request{Do: socket.Await}, nil) }()
	wait(t, "the request", asked)
	why := errors.New("the container has gone")
	cancel(why)
	if err := wait(t, "the call to end", answered); !errors.Is(err, vnet.ErrUnavailable) || !errors.Is(err, why) || !strings.Contains(err.Error(), socket.Await) {
		t.Errorf("canceled: %v", err)
	}
	if err := wait(t, "the server to notice", gone); !errors.Is(err, context.Canceled) {
		t.Errorf("the server's: %v", err)
	}
	soon, cancelSoon := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancelSoon()
	if err := socket.Call(soon, s.path, socket.Request{Do: socket.Await}, nil); !errors.Is(err, vnet.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("out of time: %v", err)
	}
	wait(t, "the server to notice", gone)
}

func TestServerThatGoesAwayIsUnavailable(t *testing.T) {
	for what, answer := range map[string]string{"at once": "", "amid its answer": `{"result":{"do":"sta`, "talking nonsense": "\x00\xff"} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_ = json.NewDecoder(conn).Decode(new(any))
			_, _ = io.WriteString(conn, answer)
			conn.Close()
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		err = socket.Call(ctx, path, socket.Request{Do: socket.Status}, nil)
		if !errors.Is(err, vnet.ErrUnavailable) || ctx.Err() != nil {
			t.Errorf("%s: %v", what, err)
		}
		cancel()
	}
	s := start(t, func(context.Context, socket.Request) (any, error) { return "text", nil }, nil)
	if err := s.call(socket.Request{Do: socket.Status}, new(int)); !errors.Is(err, vnet.ErrUnavailable) {
		t.Errorf("an answer of another kind: %v", err)
	}
	if err := s.call(socket.Request{Do: socket.Status}, new(string)); err != nil {
		t.Error(err)
	}
}

func TestServerEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	s := start(t, func(ctx context.Context, _ socket.Request) (any, error) {
		close(asked)
		<-ctx.Done()
		return nil, vnet.OfKind(vnet.ErrUnavailable, context.Cause(ctx))
	}, nil)
	answered := make(chan error, 1)
	go func() { answered <- s.call(socket.Request{Do: socket.Await}, nil) }()
	wait(t, "the request", asked)
	s.end()
	if err := wait(t, "the answer", answered); !errors.Is(err, vnet.ErrUnavailable) || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("who was being answered got %v", err)
	}
	if err := s.call(socket.Request{Do: socket.Status}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after its end: %v", err)
	}
}

// Whatever one asks, others are answered, and at the same time.
func TestRequestsAreAnsweredSideBySide(t *testing.T) {
	const many = 32
	var all, ready sync.WaitGroup
	ready.Add(many)
	s := start(t, func(_ context.Context, r socket.Request) (any, error) {
		ready.Done()
		ready.Wait()
		return r.Revision, nil
	}, nil)
	for i := range int64(many) {
		all.Go(func() {
			var got int64
			if err := s.call(socket.Request{Do: socket.Await, Revision: i}, &got); err != nil || got != i {
				t.Errorf("%d: got %d, %v", i, got, err)
			}
		})
	}
	all.Wait()
}

func TestNonsenseIsRefusedAndHurtsNobody(t *testing.T) {
	s := start(t, func(_ context.Context, r socket.Request) (any, error) {
		if r.Do != socket.Await {
			t.Errorf("got as far as %v", r)
		}
		return r, nil
	}, nil)
	for what, request := range map[string]string{
		"no JSON":           "GET / HTTP/1.1\r\n\r\n",
		"no object":         `["do"]`,
		"of another kind":   `{"do": 7}`,
		"no address":        `{"do": "need", "addrs": ["10.0.0.256"]}`,
		"an unknown field":  `{"do": "need", "undo": true}`,
		"nothing":           "",
		"half":              `{"do": "ne`,
		"no text":           "\xff\xfe\x00",
		"deep":              `{"network": ` + strings.Repeat("[", 100_000),
		"a number too long": `{"revision": 99999999999999999999}`,
	} {
		conn := s.raw()
		_, _ = io.WriteString(conn, request) // the server may have answered by then
		_ = conn.CloseWrite()
		var a struct {
			Error struct{ Kind, Text string }
		}
		if err := json.NewDecoder(conn).Decode(&a); err != nil || a.Error.Kind != "invalid" || !strings.Contains(a.Error.Text, "request") {
			t.Errorf("%s: got %v, %v", what, a, err)
		}
		wantEcho(t, s)
	}
	t.Run("who leaves at once", func(*testing.T) {
		s.raw().Close()
		wantEcho(t, s)
	})
}

func TestRequestWithoutEndIsCutOff(t *testing.T) {
	s := start(t, echo, nil)
	conn := s.raw()
	_, err := io.WriteString(conn, `{"do": "`)
	sent, chunk := 0, bytes.Repeat([]byte("x"), 1<<20)
	for err == nil && sent < 256 {
		_, err = conn.Write(chunk)
		sent++
	}
	if !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after %d MB: %v", sent, err)
	}
	wantEcho(t, s)
	if err := s.call(socket.Request{Do: strings.Repeat("x", 17<<20)}, nil); err == nil {
		t.Error("17 MB were taken")
	}
	if err := s.call(socket.Request{Do: strings.Repeat("x", 1<<20)}, nil); err != nil {
		t.Errorf("1 MB: %v", err)
	}
}

// pipes is a listener for connections in memory, whose time can be a bubble's.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { close(p); return nil }
func (p pipes) Addr() net.Addr { return nil }

// Who connects and says nothing, says little by little, or does not read, is let go.
func TestSilentOnesAreLetGo(t *testing.T) {
	for what, talk := range map[string]func(net.Conn){
		"says nothing": func(net.Conn) {},
		"says it little by little": func(conn net.Conn) {
			_, err := io.WriteString(conn, `{"do":"`)
			for err == nil {
				time.Sleep(time.Second) // the bubble's
				_, err = io.WriteString(conn, "x")
			}
		},
		"does not read": func(conn net.Conn) { _, _ = io.WriteString(conn, `{"do":"status"}`) },
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithCancel(t.Context())
				l, done := make(pipes), make(chan error, 1)
				go func() { done <- socket.Serve(ctx, l, echo) }()
				near, far := net.Pipe()
				closed := make(chan struct{})
				l <- &watched{far, closed}
				go talk(near)
				select {
				case <-closed:
				case <-time.After(time.Minute):
					t.Error("it is waited for")
				}
				near.Close()
				stop()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// watched tells when it is closed.
type watched struct {
	net.Conn

	closed chan struct{}
}

func (w *watched) Close() error {
	close(w.closed)
	return w.Conn.Close()
}

// Whoever is being worked for may take as long as it takes.
func TestLongWorkIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		l, done := make(pipes), make(chan error, 1)
		go func() {
			done <- socket.Serve(ctx, l, func(ctx context.Context, _ socket.Request) (any, error) {
				select {
				case <-time.After(time.Hour):
					return "done", nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
		}()
		near, far := net.Pipe()
		l <- far
		go func() { _, _ = io.WriteString(near, `{"do":"await"}`+"\n") }()
		if got, err := io.ReadAll(near); err != nil || string(got) != `{"result":"done"}`+"\n" {
			t.Errorf("got %q, %v", got, err)
		}
		near.Close()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestListenTakesThePlaceOfADeadOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- socket.Serve(ctx, l, echo) }()
	if err := socket.Call(t.Context(), path, socket.Request{Do: socket.Status}, nil); err != nil {
		t.Error(err)
	}
	stop()
	if err := wait(t, "the server to end", done); err != nil {
		t.Error(err)
	}
}

func TestSocketThatCannotBeOpenedIsUnavailable(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"below a file":       filepath.Join(file, "s"),
		"a directory in use": dir,
		"too long a path":    filepath.Join(dir, strings.Repeat("x", 200)),
	} {
		l, err := socket.Listen(t.Context(), path)
		if !errors.Is(err, vnet.ErrUnavailable) || l != nil {
			t.Errorf("%s: %v, %v", what, l, err)
		}
	}
	if _, err := os.Stat(file); err != nil {
		t.Error(err)
	}
}

func TestServerEndsAfterThoseWhomItAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		l, done, worked := make(pipes), make(chan error, 1), make(chan struct{}, 1)
		go func() {
			done <- socket.Serve(ctx, l, func(ctx context.Context, _ socket.Request) (any, error) {
				<-ctx.Done()
				time.Sleep(time.Minute) // the bubble's
				worked <- struct{}{}
				return nil, ctx.Err()
			})
		}()
		near, far := net.Pipe()
		l <- far
		go func() { _, _ = io.WriteString(near, `{"do":"await"}`+"\n") }()
		synctest.Wait()
		stop()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		if err := <-done; err != nil || len(worked) != 1 {
			t.Errorf("ended with %v, while it still worked: %v", err, len(worked) == 0)
		}
		synctest.Wait()
		near.Close()
	})
}
