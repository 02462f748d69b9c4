package ovs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"
)

var errClosed = errors.New("closed by this process")

// A conn speaks JSON-RPC 1.0 over a Unix socket, as ovsdb-server (RFC 7047 section 4) and the control sockets of
// OVS's daemons do. Calls may overlap. Each returns when its context ends, whatever the other side does.
type conn struct {
	peer string // what listens, and where, for the text of errors
	net  net.Conn
	send chan struct{} // holds a token while nobody writes
	done chan struct{} // closed when the connection has ended

	mu      sync.Mutex
	next    uint64
	pending map[uint64]chan<- message
	err     error // why it ended
}

// A message is a request, a reply or a notification.
type message struct {
	Method string          `json:"method,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
	Error  json.RawMessage `json:"error,omitempty"`
	ID     json.RawMessage `json:"id"`
}

func dial(ctx context.Context, daemon, path string) (*conn, error) {
	peer := daemon + " at " + path
	if fi, err := os.Stat(path); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("connect to %s: not a socket: %w", peer, ErrUnavailable)
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w: %w", peer, ErrUnavailable, cause(err))
	}
	c := &conn{
		peer: peer, net: nc, send: make(chan struct{}, 1), done: make(chan struct{}),
		pending: map[uint64]chan<- message{},
	}
	c.send <- struct{}{}
	go c.read() //nolint:contextcheck // the connection outlives the dialling
	return c, nil
}

// cause strips the "dial unix /path: connect:" that net puts round an errno: the caller names the path.
func cause(err error) error {
	if sys, ok := errors.AsType[*os.SyscallError](err); ok {
		return sys.Err
	}
	return err
}

// call sends a request and returns its result. An error that the other side sent is a *remoteError.
func (c *conn) call(ctx context.Context, method string, params any) (json.RawMessage, error) {
	p, err := json.Marshal(params)
	if err != nil {
		return nil, err
	}
	reply := make(chan message, 1)
	id, err := c.enlist(reply)
	if err != nil {
		return nil, err
	}
	defer c.forget(id)
	req := message{Method: method, Params: p, ID: json.RawMessage(strconv.FormatUint(id, 10))}
	if err := c.write(ctx, req); err != nil {
		return nil, err
	}
	var m message
	select {
	case m = <-reply:
	case <-c.done:
		select { // the reply may have been the last thing that came
		case m = <-reply:
		default:
			return nil, c.ended()
		}
	case <-ctx.Done():
		return nil, c.silent(ctx)
	}
	if len(m.Error) > 0 && string(m.Error) != "null" {
		return nil, &remoteError{peer: c.peer, method: method, body: m.Error}
	}
	return m.Result, nil
}

func (c *conn) enlist(reply chan<- message) (uint64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return 0, c.err
	}
	c.next++
	c.pending[c.next] = reply
	return c.next, nil
}

func (c *conn) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// write sends one message. A message cut short by the context spoils the stream, so it ends the connection.
func (c *conn) write(ctx context.Context, m message) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	select {
	case <-c.send:
	case <-c.done:
		return c.ended()
	case <-ctx.Done():
		return c.silent(ctx)
	}
	defer func() { c.send <- struct{}{} }()
	if ctx.Err() != nil {
		return c.silent(ctx)
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		_ = c.net.SetWriteDeadline(time.Unix(1, 0))
	})
	_, err = c.net.Write(b)
	if !stop() { // the deadline is this call's, and must not hit the next
		<-interrupted
		_ = c.net.SetWriteDeadline(time.Time{})
	}
	switch {
	case err != nil && ctx.Err() != nil:
		c.close(fmt.Errorf("it stopped reading: %w", ctx.Err()))
		return c.silent(ctx)
	case err != nil:
		c.close(cause(err))
		return c.ended()
	}
	return nil
}

// read hands replies to their callers until the connection ends.
func (c *conn) read() {
	dec := json.NewDecoder(c.net)
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			c.close(err)
			return
		}
		if m.Method == "echo" { // RFC 7047 4.1.11: a probe; who does not answer is disconnected
			go c.answer(m)
			continue
		}
		var id uint64
		if m.Method != "" || json.Unmarshal(m.ID, &id) != nil {
			continue // a notification, which this package asks for nowhere
		}
		c.mu.Lock()
		reply := c.pending[id]
		delete(c.pending, id)
		c.mu.Unlock()
		if reply != nil {
			reply <- m
		}
	}
}

func (c *conn) answer(probe message) {
	ctx, cancel := context.WithTimeout(context.Background(), maxWait) //nolint:forbidigo // belongs to no caller
	defer cancel()
	_ = c.write(ctx, message{Result: probe.Params, Error: json.RawMessage("null"), ID: probe.ID})
}

// close ends the connection; the first reason stays.
func (c *conn) close(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	c.err = fmt.Errorf("connection to %s ended: %w: %w", c.peer, ErrUnavailable, why)
	_ = c.net.Close()
	close(c.done)
}

func (c *conn) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *conn) silent(ctx context.Context) error {
	return fmt.Errorf("%s does not answer: %w: %w", c.peer, ErrUnavailable, ctx.Err())
}

// A remoteError is what the other side answered instead of a result.
type remoteError struct {
	peer, method string
	body         json.RawMessage
}

// Is says that the other side refused.
func (e *remoteError) Is(target error) bool { return target == ErrRefused }

func (e *remoteError) Error() string {
	var text string
	if json.Unmarshal(e.body, &text) != nil {
		text = string(e.body)
	}
	return fmt.Sprintf("%s: %s: %s", e.peer, e.method, text)
}
