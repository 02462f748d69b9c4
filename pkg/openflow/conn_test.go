package openflow_test

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/openflow"
)

// soon is long enough for a socket and short enough to wait for.
const soon = 100 * time.Millisecond

// peer is a switch that does what the test tells it.
func peer(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "of") //nolint:usetesting // t.TempDir is too long for the path of a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "br0.mgmt")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { l.Close() })
	return path
}

// send writes a message given in hexadecimal; the blanks are for the eye.
func send(c net.Conn, message string) {
	b, err := hex.DecodeString(strings.ReplaceAll(message, " ", ""))
	if err != nil {
		panic(err)
	}
	_, _ = c.Write(b)
}

const hello = "06 00 0010 00000001 0001 0008 0000007e"

// silent swallows everything until the other side goes.
func silent(c net.Conn) { _, _ = io.Copy(io.Discard, c) }

// deaf says hello and reads no more, nor does it write.
func deaf(c net.Conn) {
	send(c, hello)
	_, _ = io.ReadFull(c, make([]byte, 16))
	// Close of the other side shows as an error of a write.
	for {
		time.Sleep(soon / 10)
		if _, err := c.Write([]byte("\x06\x03\x00\x08\x00\x00\x00\x00")); err != nil {
			return
		}
	}
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, path string) *openflow.Conn {
	t.Helper()
	c, err := openflow.Dial(within(t, time.Minute), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestNoSocket(t *testing.T) {
	_, err := openflow.Dial(t.Context(), filepath.Join(t.TempDir(), "br0.mgmt"))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "br0.mgmt") {
		t.Errorf("got %v", err)
	}
}

func TestNobodyListens(t *testing.T) {
	path := peer(t, silent)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path + "2", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	if _, err := openflow.Dial(t.Context(), path+"2"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

func TestASilentSwitchCostsNoMoreThanTheDeadline(t *testing.T) {
	t.Run("dial", func(t *testing.T) {
		_, err := openflow.Dial(within(t, soon), peer(t, silent))
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
	})
	greeted := func(c net.Conn) {
		send(c, hello)
		silent(c)
	}
	one, many := addAll(manyFlows(1)), addAll(manyFlows(20_000))
	calls := map[string]func(context.Context, *openflow.Conn) error{
		"flows": func(ctx context.Context, c *openflow.Conn) error {
			_, err := c.Flows(ctx, openflow.FlowFilter{})
			return err
		},
		"commit": func(ctx context.Context, c *openflow.Conn) error {
			return c.Commit(ctx, one)
		},
		"large commit": func(ctx context.Context, c *openflow.Conn) error {
			return c.Commit(ctx, many)
		},
	}
	for name, call := range calls {
		for kind, serve := range map[string]func(net.Conn){"silent": greeted, "deaf": deaf} {
			t.Run(name+" "+kind, func(t *testing.T) {
				c := connect(t, peer(t, serve))
				if err := call(within(t, 5*soon), c); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("got %v", err)
				}
				<-c.Done()
				if err := call(within(t, 5*soon), c); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
	t.Run("cancelled", func(t *testing.T) {
		c := connect(t, peer(t, greeted))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(soon, cancel)
		if _, err := c.Flows(ctx, openflow.FlowFilter{}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("waiting for another's turn", func(t *testing.T) {
		asked := make(chan struct{})
		c := connect(t, peer(t, func(c net.Conn) {
			send(c, hello)
			_, _ = io.ReadFull(c, make([]byte, 16+8)) // hello, and a request's header
			close(asked)
			silent(c)
		}))
		var first sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		first.Go(func() { _, _ = c.Flows(ctx, openflow.FlowFilter{}) })
		<-asked
		if _, err := c.Flows(within(t, soon), openflow.FlowFilter{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		select {
		case <-c.Done():
			t.Error("whoever only waited for a turn closed the connection")
		default:
		}
		cancel()
		first.Wait()
	})
}

func TestOnlyOpenFlow15IsSpoken(t *testing.T) {
	for name, test := range map[string]struct{ answer, want string }{
		"old":              {"04 00 0008 00000001", "does not speak OpenFlow 1.5"},
		"old with bitmap":  {"04 00 0010 00000001 0001 0008 00000012", "does not speak OpenFlow 1.5"},
		"newer without":    {"07 00 0010 00000001 0001 0008 00000080", "does not speak OpenFlow 1.5"},
		"refuses":          {"04 01 000c 00000001 0000 0000", "OFPHFC_INCOMPATIBLE"},
		"no hello":         {"06 05 0008 00000001", "message of type 5 instead of hello"},
		"no OpenFlow":      {"06 00 0004 00000001", "a message says it has 4 bytes"},
		"short error":      {"06 01 0008 00000001", "cut short"},
		"ends at once":     {"", "EOF"},
		"ends in a header": {"06 00 00", "unexpected EOF"},
		"ends in a body":   {"06 00 0010 00000001 0001", "ends early"},
	} {
		t.Run(name, func(t *testing.T) {
			path := peer(t, func(c net.Conn) {
				_, _ = io.ReadFull(c, make([]byte, 16))
				send(c, test.answer)
			})
			_, err := openflow.Dial(within(t, time.Minute), path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want …%s…", err, test.want)
			}
		})
	}
	for name, answer := range map[string]string{
		"1.5 without bitmap":        "06 00 0008 00000001",
		"unknown element first":     "06 00 0018 00000001 0007 0006 0000 0000 0001 0008 00000040",
		"newer with 1.5 in bitmap":  "07 00 0010 00000001 0001 0008 000000c0",
		"broken element, then none": "06 00 000c 00000001 0007 0000",
	} {
		t.Run(name, func(t *testing.T) {
			connect(t, peer(t, func(c net.Conn) {
				send(c, answer)
				silent(c)
			}))
		})
	}
}

func TestEchoRequestsAreAnsweredAllTheTime(t *testing.T) {
	answers := make(chan []byte)
	connect(t, peer(t, func(c net.Conn) {
		send(c, hello)
		_, _ = io.ReadFull(c, make([]byte, 16))
		for range 3 {
			send(c, "06 02 000c 0000002a 01020304")
			answer := make([]byte, 12)
			_, _ = io.ReadFull(c, answer)
			answers <- answer
		}
		close(answers)
		silent(c)
	}))
	for answer := range answers {
		if got := hex.EncodeToString(answer); got != "0603000c0000002a01020304" {
			t.Errorf("got %s", got)
		}
	}
}

func TestTheDeathOfTheSwitchShowsAtOnce(t *testing.T) {
	b := newBridge(t)
	b.KillVswitchd()
	select {
	case <-b.Done():
	case <-within(t, time.Minute).Done():
		t.Fatal("nothing noticed")
	}
	if _, err := b.Flows(t.Context(), openflow.FlowFilter{}); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

func TestAClosedConnectionSaysSo(t *testing.T) {
	b := newBridge(t)
	b.Close()
	b.Close()
	if _, err := b.Flows(t.Context(), openflow.FlowFilter{}); !errors.Is(err, openflow.ErrClosed) {
		t.Errorf("flows: %v", err)
	}
	if err := b.Commit(t.Context(), addAll(manyFlows(1))); !errors.Is(err, openflow.ErrClosed) {
		t.Errorf("commit: %v", err)
	}
}

func TestManyGoroutinesShareAConnection(t *testing.T) {
	b := newBridge(t)
	var all sync.WaitGroup
	for i := range uint8(20) {
		all.Go(func() {
			table := i + 1
			for range 10 {
				f := openflow.Flow{Table: table, Cookie: uint64(table)}
				if err := b.Commit(t.Context(), []openflow.Change{openflow.AddFlow(f)}); err != nil {
					t.Error(err)
				}
				got, err := b.Flows(t.Context(), openflow.FlowFilter{Table: &table})
				if err != nil || len(got) != 1 || got[0].String() != f.String() {
					t.Error(got, err)
				}
			}
		})
	}
	all.Wait()
}

// TestAnswersThatDoNotFitEndTheConnection is about a switch that is broken or hostile.
func TestAnswersThatDoNotFitEndTheConnection(t *testing.T) {
	for name, answer := range map[string]string{
		"another type":          "06 15 0008 XID",
		"another multipart":     "06 13 0010 XID 0002 0000 00000000",
		"no body":               "06 13 0008 XID",
		"a flow of 3 bytes":     "06 13 0013 XID 0001 0000 00000000 000000",
		"a flow too long":       "06 13 0028 XID 0001 0000 00000000 ffff 0000" + strings.Repeat("00", 20),
		"a flow without length": "06 13 0028 XID 0001 0000 00000000 0000 0000" + strings.Repeat("00", 20),
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, peer(t, func(c net.Conn) {
				send(c, hello)
				request := make([]byte, 16+56) // hello and request
				_, _ = io.ReadFull(c, request)
				send(c, "06 0c 0008 00000000") // a changed port, which nobody asked for
				send(c, strings.ReplaceAll(answer, "XID", hex.EncodeToString(request[16+4:16+8])))
				silent(c)
			}))
			if _, err := c.Flows(within(t, time.Minute), openflow.FlowFilter{}); err == nil || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			<-c.Done()
		})
	}
}

// TestABundleIsDiscardedWhenItsBarrierIsRefused: without the barrier's answer nobody knows what else was refused.
func TestABundleIsDiscardedWhenItsBarrierIsRefused(t *testing.T) {
	seen := make(chan uint16, 10)
	c := connect(t, peer(t, func(c net.Conn) {
		send(c, hello)
		_, _ = io.ReadFull(c, make([]byte, 16))
		for {
			var header [8]byte
			if _, err := io.ReadFull(c, header[:]); err != nil {
				return
			}
			body := make([]byte, binary.BigEndian.Uint16(header[2:])-8)
			_, _ = io.ReadFull(c, body)
			xid := hex.EncodeToString(header[4:])
			switch header[1] {
			case 20:
				send(c, "06 01 000c"+xid+"0001 0005")
			case 33:
				if flags := binary.BigEndian.Uint16(body[6:]); flags != 3 {
					t.Errorf("flags 0x%x are not atomic and ordered", flags)
				}
				seen <- binary.BigEndian.Uint16(body[4:])
				send(c, "06 21 0010"+xid+"00000001 0001 0003")
			}
		}
	}))
	err := c.Commit(within(t, time.Minute), addAll(manyFlows(3)))
	if err == nil || !strings.Contains(err.Error(), "OFPBRC_EPERM") {
		t.Errorf("got %v", err)
	}
	if open, end := <-seen, <-seen; open != 0 || end != 6 {
		t.Errorf("bundle controls %d, %d", open, end)
	}
}
