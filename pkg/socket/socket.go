// Package socket is how a node's programs ask its tenetd: one JSON object each way over a Unix
// socket that root alone can open.
package socket

import (
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
	"sync"
	"syscall"
	"time"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// The things that can be asked.
const (
	Publish = "publish" // tell the other nodes of an endpoint, or that it has gone
	Need    = "need"    // get room for addresses
	Declare = "declare" // a network, to the cluster
	Await   = "await"   // until this node has what was changed at a revision of etcd under these prefixes; without any, under all
	CatchUp = "catchUp" // with all that is declared now
	Status  = "status"
)

// Request is what is asked. Do says what; the rest is for the one or the other.
type Request struct {
	Do       string          `json:"do"`
	Endpoint vnet.EndpointID `json:"endpoint,omitempty"`
	Network  *vnet.Network   `json:"network,omitempty"`
	Ref      *vnet.Ref       `json:"ref,omitempty"`
	Subnets  []netip.Prefix  `json:"subnets,omitempty"`
	Addrs    []netip.Addr    `json:"addrs,omitempty"`
	Revision int64           `json:"revision,omitempty"`
	Prefixes []string        `json:"prefixes,omitempty"`
}

// answer is what comes back.
type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *failure        `json:"error,omitempty"`
}

// failure is an error on its way through the socket: its kind and hint come with it.
type failure struct {
	Kind string `json:"kind,omitempty"`
	Text string `json:"text"`
	Hint string `json:"hint,omitempty"`
}

var kinds = map[string]error{
	"invalid": vnet.ErrInvalid, "notFound": vnet.ErrNotFound, "exists": vnet.ErrExists, "exhausted": vnet.ErrExhausted,
	"unavailable": vnet.ErrUnavailable, "corrupt": vnet.ErrCorrupt,
}

const maxMessage = 16 << 20

// Call asks the tenetd at path and reads its answer into result, unless that is nil. vnet.ErrUnavailable if none runs, or
// it does not answer before ctx ends; else the error that tenetd met, of its kind.
func Call(ctx context.Context, path string, r Request, result any) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		hint := "systemctl status tenetd"
		if errors.Is(err, fs.ErrPermission) {
			hint = "its socket is for root alone"
		}
		return vnet.WithHint(vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("tenetd: %w", err)), "%s", hint)
	}
	defer func() { _ = conn.Close() }()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	var a answer
	err = json.NewEncoder(conn).Encode(r)
	if err == nil {
		err = json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&a)
	}
	switch {
	case err != nil:
		return vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("tenetd: %s: %w", r.Do, errors.Join(context.Cause(ctx), err)))
	case a.Error != nil:
		return a.Error.err()
	case result == nil:
		return nil
	}
	if err := json.Unmarshal(a.Result, result); err != nil {
		return vnet.OfKind(vnet.ErrUnavailable, fmt.Errorf("tenetd: %s: its answer: %w", r.Do, err))
	}
	return nil
}

func (f failure) err() error {
	err := fmt.Errorf("tenetd: %s", f.Text)
	if kind, ok := kinds[f.Kind]; ok {
		err = vnet.OfKind(kind, err)
	}
	if f.Hint != "" {
		err = vnet.WithHint(err, "%s", f.Hint)
	}
	return err
}

func failureOf(err error) *failure {
	f := &failure{Text: err.Error(), Hint: vnet.Hint(err)}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			f.Kind = name
		}
	}
	return f
}

// Listen opens the socket at path, for root alone. The caller knows that no other tenetd of this node runs: a socket that
// a dead one left is replaced.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, vnet.OfKind(vnet.ErrUnavailable, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, vnet.OfKind(vnet.ErrUnavailable, err)
	}
	old := syscall.Umask(0o177)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	syscall.Umask(old)
	return l, vnet.OfKind(vnet.ErrUnavailable, err)
}

// Serve answers what is asked until ctx ends; then it closes l. Requests are answered side by side.
func Serve(ctx context.Context, l net.Listener, do func(context.Context, Request) (any, error)) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		all.Go(func() { serve(ctx, conn, do) })
	}
}

// serve answers one request. Who asked and has gone is not worked for any longer.
func serve(ctx context.Context, conn net.Conn, do func(context.Context, Request) (any, error)) {
	defer func() { _ = conn.Close() }()
	const patience = 5 * time.Second
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var r Request
	var a answer
	d := json.NewDecoder(io.LimitReader(conn, maxMessage))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		a.Error = failureOf(vnet.Invalidf("request: %v", err))
	} else {
		_ = conn.SetReadDeadline(time.Time{})
		go func() {
			_, _ = io.Copy(io.Discard, conn) // the line's end after a request may still be to come
			cancel()
		}()
		result, err := do(ctx, r)
		if err == nil && result != nil {
			a.Result, err = json.Marshal(result)
		}
		if err != nil {
			a.Error = failureOf(err)
		}
	}
	_ = conn.SetWriteDeadline(time.Now().Add(patience))
	_ = json.NewEncoder(conn).Encode(a)
}
