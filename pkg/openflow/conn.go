package openflow

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// ErrClosed is wrapped by what a connection returns after Close.
var ErrClosed = errors.New("connection closed")

// Conn is an OpenFlow connection to one bridge. It may be used by several goroutines; they take turns.
//
// It reads all the time: it answers the switch's echo requests, and it notices at once that the switch is gone (Done).
// A call that its context cuts off closes the connection, since the answers still to come belong to nobody.
type Conn struct {
	path string
	conn net.Conn

	turn chan struct{} // holds one token: whose turn it is to talk
	xid  uint32        // the last one used; belongs to the turn
	out  chan []byte   // to the writing goroutine
	echo chan []byte   // to the writing goroutine: one answer may wait there
	call atomic.Pointer[call]

	once sync.Once
	err  error // why the connection ended; set before done is closed
	done chan struct{}
}

// call is the conversation that is going on.
type call struct {
	first, last uint32 // its messages
	answers     chan message
	over        chan struct{}
}

// Dial opens the management socket of a bridge and agrees with the switch on OpenFlow 1.5. The context counts for
// Dial only. An error of the socket itself can be asked for with errors.Is, as os.ErrNotExist or syscall.ECONNREFUSED.
func Dial(ctx context.Context, path string) (*Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("dial openflow switch: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	if err := shakeHands(nc); err != nil {
		_ = nc.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("greet openflow switch at %s: %w", path, err)
	}
	if !stop() {
		_ = nc.Close()
		return nil, fmt.Errorf("greet openflow switch at %s: %w", path, ctx.Err())
	}
	c := &Conn{
		path: path,
		conn: nc,
		turn: make(chan struct{}, 1),
		out:  make(chan []byte),
		echo: make(chan []byte, 1),
		done: make(chan struct{}),
	}
	c.turn <- struct{}{}
	go c.read()
	go c.write()
	return c, nil
}

// shakeHands exchanges HELLO (OpenFlow 1.5.1, 6.3.1 and 7.5.1). Ours says in its bitmap that 1.5 is all we speak.
func shakeHands(nc net.Conn) error {
	hello, err := message{typ: typeHello, body: []byte{0, 1, 0, 8, 0, 0, 0, 1 << version}}.append(nil)
	if err != nil {
		return err
	}
	if _, err := nc.Write(hello); err != nil {
		return err
	}
	m, err := readMessage(nc)
	if err != nil {
		return err
	}
	switch {
	case m.typ == typeError:
		return refusal(m)
	case m.typ != typeHello:
		return fmt.Errorf("message of type %d instead of hello", m.typ)
	case !speaks(m, version):
		return fmt.Errorf("it does not speak OpenFlow 1.5 (its newest wire version is %d): add OpenFlow15 to the "+
			"bridge's protocols", m.version)
	}
	return nil
}

// speaks says whether the sender of this HELLO can talk in a version: its bitmap counts, and without one every version
// up to that in the header.
func speaks(hello message, version uint8) bool {
	const versionBitmap = 1
	for b := hello.body; len(b) >= 4; {
		length := int(binary.BigEndian.Uint16(b[2:]))
		if length < 4 || length > len(b) {
			break
		}
		if binary.BigEndian.Uint16(b) == versionBitmap {
			return length >= 8 && binary.BigEndian.Uint32(b[4:])>>version&1 == 1
		}
		b = b[min((length+7)/8*8, len(b)):]
	}
	return hello.version >= version
}

// refusal is the *Error in an OFPT_ERROR.
func refusal(m message) error {
	e, err := decodeError(m.body)
	if err != nil {
		return err
	}
	return e
}

// Close ends the connection. A bundle that is under way is discarded by the switch.
func (c *Conn) Close() error {
	c.end(ErrClosed)
	return nil
}

// Done is closed when the connection has ended, because of Close or because the switch is gone.
func (c *Conn) Done() <-chan struct{} { return c.done }

// end closes the connection for this reason; the first one counts.
func (c *Conn) end(err error) {
	c.once.Do(func() {
		c.err = fmt.Errorf("openflow switch at %s: %w", c.path, err)
		close(c.done)
		_ = c.conn.Close()
	})
}

// read hands each message to the call that it belongs to, until the connection ends.
func (c *Conn) read() {
	for {
		m, err := readMessage(c.conn)
		if err != nil {
			c.end(err)
			return
		}
		if m.typ == typeEchoRequest {
			c.answer(m)
			continue
		}
		// Others than answers, a changed port for one, are nobody's concern here.
		if call := c.call.Load(); call != nil && m.xid-call.first <= call.last-call.first {
			select {
			case call.answers <- m:
			case <-call.over:
			case <-c.done:
			}
		}
	}
}

// answer answers an echo request, but never waits for the writer, who may wait for the switch to read, who may wait
// for us. A switch that asks again before it has its answer gets one answer for both.
func (c *Conn) answer(m message) {
	m.typ = typeEchoReply
	if b, err := m.append(nil); err == nil {
		select {
		case c.echo <- b:
		default:
		}
	}
}

// write sends what it is given, until the connection ends.
func (c *Conn) write() {
	for {
		var b []byte
		select {
		case b = <-c.out:
		case b = <-c.echo:
		case <-c.done:
			return
		}
		if _, err := c.conn.Write(b); err != nil {
			c.end(err)
			return
		}
	}
}

// begin waits for this goroutine's turn and gives the way to end it.
func (c *Conn) begin(ctx context.Context) (func(), error) {
	select {
	case <-c.done:
		return nil, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-c.turn:
		return func() { c.turn <- struct{}{} }, nil
	}
}

// converse sends messages with the transaction ids first to last and hands each answer to take, until that says it was
// the last one. It listens while it sends: the switch stops reading when it cannot get rid of its answers.
func (c *Conn) converse(ctx context.Context, first, last uint32, send []byte, take func(message) (bool, error)) error {
	const chunk = 64 << 10
	call := &call{first: first, last: last, answers: make(chan message, 64), over: make(chan struct{})}
	c.call.Store(call)
	defer close(call.over)
	defer c.call.Store(nil)
	for {
		var out chan<- []byte
		next := send[:min(chunk, len(send))]
		if len(next) > 0 {
			out = c.out
		}
		select {
		case out <- next:
			send = send[len(next):]
		case m := <-call.answers:
			over, err := take(m)
			if err != nil {
				c.end(err)
			}
			if over || err != nil {
				return err
			}
		case <-c.done:
			return c.err
		case <-ctx.Done():
			c.end(ctx.Err())
			return ctx.Err()
		}
	}
}

// Flows asks the switch for the flows that stand, in no order. Parts of flows that this package does not know come as
// Unknown actions and as terms of an unknown field.
func (c *Conn) Flows(ctx context.Context, filter FlowFilter) ([]FlowStats, error) {
	request, err := filter.request()
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	var flows []FlowStats
	err = c.multipart(ctx, request, func(b []byte) error {
		more, err := decodeFlows(b)
		flows = append(flows, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read flows: %w", err)
	}
	return flows, nil
}

// multipart sends the body of a multipart request and hands the body of each part of the answer to take.
func (c *Conn) multipart(ctx context.Context, request []byte, take func([]byte) error) error {
	end, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	c.xid++
	send, err := message{typ: typeMultipartRequest, xid: c.xid, body: request}.append(nil)
	if err != nil {
		return err
	}
	var refused error
	err = c.converse(ctx, c.xid, c.xid, send, func(m message) (bool, error) {
		switch {
		case m.typ == typeError:
			refused = refusal(m)
			return true, nil
		case m.typ != typeMultipartReply || len(m.body) < 8 || !bytes.HasPrefix(m.body, request[:2]): // of the same type
			return false, fmt.Errorf("an answer of type %d that does not fit", m.typ)
		}
		return binary.BigEndian.Uint16(m.body[2:])&multipartMore == 0, take(m.body[8:])
	})
	return errors.Join(err, refused)
}
