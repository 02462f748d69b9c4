package ovs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

// soon is a deadline for calls that are expected to run into it.
const soon = 300 * time.Millisecond

// enough is such a deadline that leaves the database time to say what it waits for.
const enough = 2 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func dial(t testing.TB, sw *ovstest.Switch) *ovs.Switch {
	t.Helper()
	s, err := ovs.Dial(t.Context(), sw.RunDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// bridged is a switch with our bridge br0 on it.
func bridged(t testing.TB, opts ...ovstest.Option) (*ovstest.Switch, *ovs.Switch) {
	t.Helper()
	sw := ovstest.Start(t, opts...)
	s := dial(t, sw)
	ensure(t, s, sw)
	return sw, s
}

func ensure(t testing.TB, s *ovs.Switch, sw *ovstest.Switch) {
	t.Helper()
	if _, err := s.EnsureBridge(t.Context(), ovs.BridgeSpec{Name: "br0", Owner: "test", Datapath: sw.Datapath}); err != nil {
		t.Fatal(err)
	}
}

func plug(t testing.TB, s *ovs.Switch, p ovs.Port) int {
	t.Helper()
	n, err := s.Plug(t.Context(), "br0", p)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// want fails the test unless err is of the kind and says all of the words.
func want(t *testing.T, err, kind error, words ...string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Fatalf("the error is %v, want one of kind %v", err, kind)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error does not say %q: %v", w, err)
		}
	}
}

func TestDialNamesTheSocketThatDoesNotWork(t *testing.T) {
	serve := func(t *testing.T, dir string, answer string) {
		t.Helper()
		l, err := net.Listen("unix", filepath.Join(dir, "db.sock"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				t.Cleanup(func() { c.Close() })
				if answer == "" {
					continue
				}
				_, _ = c.Read(make([]byte, 1<<16)) // the request
				_, _ = c.Write([]byte(answer))
			}
		}()
	}
	for _, tc := range []struct {
		name, says string
		prepare    func(t *testing.T, dir string)
	}{
		{"missing", "no such file", func(*testing.T, string) {}},
		{"a file", "not a socket", func(t *testing.T, dir string) {
			t.Helper()
			if err := os.WriteFile(filepath.Join(dir, "db.sock"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"left behind by a dead server", "connection refused", func(t *testing.T, dir string) {
			t.Helper()
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "db.sock"), Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			l.SetUnlinkOnClose(false)
			l.Close()
		}},
		{"silent", "does not answer", func(t *testing.T, dir string) { t.Helper(); serve(t, dir, "") }},
		{"not JSON", "ended", func(t *testing.T, dir string) { t.Helper(); serve(t, dir, "220 hello\n") }},
		{"not OVSDB", "no result", func(t *testing.T, dir string) {
			t.Helper()
			serve(t, dir, `{"id":1,"result":"hello","error":null}`)
		}},
		{"closing", "ended", func(t *testing.T, dir string) {
			t.Helper()
			l, err := net.Listen("unix", filepath.Join(dir, "db.sock"))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					c.Close()
				}
			}()
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "ovs") //nolint:usetesting // short enough for a socket
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.RemoveAll(dir) })
			tc.prepare(t, dir)
			patience := time.Minute
			if tc.name == "silent" {
				patience = soon
			}
			_, err = ovs.Dial(within(t, patience), dir)
			want(t, err, ovs.ErrUnavailable, tc.says, filepath.Join(dir, "db.sock"))
		})
	}
}

func TestACallAfterTheDatabaseDiedIsUnavailableAndDoneIsClosed(t *testing.T) {
	sw, s := bridged(t)
	sw.StopDB()
	<-s.Done()
	_, err := s.Ports(t.Context(), "br0")
	want(t, err, ovs.ErrUnavailable, "ports of br0", sw.Socket())
	sw.StartDB()
	if _, err := dial(t, sw).Ports(t.Context(), "br0"); err != nil {
		t.Error(err)
	}
}

func TestAProbeOfTheServerIsAnswered(t *testing.T) {
	dir, err := os.MkdirTemp("", "ovs") //nolint:usetesting // short enough for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "db.sock"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	answered := make(chan map[string]any, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		dec := json.NewDecoder(c)
		var request, reply map[string]any
		_ = dec.Decode(&request)
		_, _ = c.Write([]byte(`{"method":"update","id":null,"params":[]}{"id":"echo","method":"echo","params":["ping"]}`))
		_ = dec.Decode(&reply)
		_, _ = c.Write([]byte(`{"id":1,"error":null,"result":[{"rows":[{"_uuid":["uuid","c163b48c-6491-46c4-bea4-2fc9a369f278"]}]}]}`))
		answered <- reply
	}()
	s, err := ovs.Dial(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r := <-answered; r["id"] != "echo" || fmt.Sprint(r["result"]) != "[ping]" {
		t.Errorf("the probe got %v", r)
	}
}

func TestCloseEndsACallThatWaits(t *testing.T) {
	sw, s := bridged(t)
	sw.KillVswitchd()
	got := make(chan error)
	go func() {
		_, err := s.Plug(t.Context(), "br0", ovs.Port{Name: "p1", Owner: "me"})
		got <- err
	}()
	ovstest.Wait(t, "the row", func() bool {
		_, err := dial(t, sw).Port(t.Context(), "br0", "p1")
		return err == nil
	})
	s.Close()
	want(t, <-got, ovs.ErrUnavailable, "closed")
}

func TestAnEmptyDatabaseIsUnavailable(t *testing.T) {
	sw := ovstest.Start(t)
	sw.KillVswitchd()
	sw.Run(t, "ovsdb-client", "transact", "unix:"+sw.Socket(), `["Open_vSwitch",{"op":"delete","table":"Open_vSwitch","where":[]}]`)
	_, err := ovs.Dial(t.Context(), sw.RunDir)
	want(t, err, ovs.ErrUnavailable, "ovs-vsctl init", sw.Socket())
}
