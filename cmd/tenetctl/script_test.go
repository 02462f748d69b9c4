package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/socket"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tenetctl": func() {
			// A session reads as an operator types it; the node is in the session's own directory.
			work := os.Getenv("WORK")
			os.Args = append([]string{"tenetctl", "--data-dir", filepath.Join(work, "data"), "--ovs-run-dir", filepath.Join(work, "run")}, os.Args[1:]...)
			main()
		},
		"attach": attach,
	})
}

// TestSessions runs the sessions in testdata/script, which are the README's examples as well.
// They need no switch.
func TestSessions(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireUniqueNames: true, UpdateScripts: *update,
		Setup: func(e *testscript.Env) error {
			path, err := exec.LookPath("tenetctl")
			e.Setenv("TENETCTL", path) // for a session without a PATH
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "record": record, "serve": serve, "tenetd": tenetd, "uplink": uplink},
	})
}

// exits CODE COMMAND... runs a command and looks at its exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		failed, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		code = failed.ExitCode()
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

// record CONTAINER/IFNAME TENANT/NETWORK [RUNTIMECONFIG] writes an endpoint's record, as the
// first step of an ADD does that a runtime adds this to.
func record(ts *testscript.TestScript, _ bool, args []string) {
	var w node.Want
	if len(args) > 2 {
		conf, err := cni.ParseTenet([]byte(`{"runtimeConfig":`+args[2]+`,"tenant":"t"}`), "")
		ts.Check(err)
		w.Ports, err = conf.PortMappings()
		ts.Check(err)
		w.Bandwidth, err = conf.Bandwidth()
		ts.Check(err)
	}
	recordAs(ts, args[0], args[1], w)
}

// serve CONTAINER/IFNAME TENANT/NETWORK GROUP PORT records an endpoint that is a port of a service function.
func serve(ts *testscript.TestScript, _ bool, args []string) {
	recordAs(ts, args[0], args[1], node.Want{Function: &vnet.FunctionPort{Group: vnet.GroupName(args[2]), Port: vnet.PortRole(args[3]), Weight: 1}})
}

func recordAs(ts *testscript.TestScript, attachment, network string, w node.Want) {
	ref, err := parseRef(network)
	ts.Check(err)
	container, ifName, _ := strings.Cut(attachment, "/")
	n := node.Open(node.Config{Bridge: "br-tenet", DataDir: filepath.Join(ts.Getenv("WORK"), "data")}, nil)
	defer n.Close()
	ctx := context.Background()
	w.Attachment = vnet.Attachment{Container: container, IfName: ifName}
	w.CNINetwork, w.NetNS = "net1", "/run/netns/"+container
	w.Network = vnet.Network{Tenant: ref.Tenant, Name: ref.Network}
	r, err := n.Record(ctx, w)
	if !errors.Is(err, vnet.ErrUnavailable) { // there is no switch to forget the network's old connections
		ts.Check(err)
	}
	ts.Check(n.Confirm(ctx, r.Endpoint))
}

// tenetd REPORT has somebody answer for the tenetd of the configuration tenet.json, which it writes, with what is in the
// file, until the session ends. ! tenetd ends it. The node is to be one of a cluster.
func tenetd(ts *testscript.TestScript, neg bool, args []string) {
	at := ts.MkAbs("tenetd.sock")
	if neg {
		ts.Check(os.Remove(at))
		return
	}
	report := ts.ReadFile(args[0])
	config := fmt.Sprintf(`{"node": "n1", "socket": %q, "etcd": {"endpoints": ["http://192.0.2.1:2379"]}}`, at)
	ts.Check(os.WriteFile(ts.MkAbs("tenet.json"), []byte(config), 0o600))
	ctx, stop := context.WithCancel(context.Background())
	ts.Defer(stop)
	l, err := socket.Listen(ctx, at)
	ts.Check(err)
	go func() {
		_ = socket.Serve(ctx, l, func(_ context.Context, r socket.Request) (any, error) {
			if r.Do != socket.Status {
				return nil, vnet.Invalidf("request %q", r.Do)
			}
			return json.RawMessage(report), nil
		})
	}()
}

// uplink NAME NIC VLANS... writes an uplink's record; no switch has its NIC.
func uplink(ts *testscript.TestScript, _ bool, args []string) {
	vlans, err := vnet.ParseVLANs(args[2:]...)
	ts.Check(err)
	n := node.Open(node.Config{Bridge: "br-tenet", DataDir: filepath.Join(ts.Getenv("WORK"), "data")}, nil)
	defer n.Close()
	ts.Check(n.Store.Update(context.Background(), func(tx store.Tx) error {
		_, err := store.DeclareUplink(tx, vnet.Uplink{Name: vnet.UplinkName(args[0]), NIC: args[1], VLANs: vlans, Bridge: "br-tenet"}, "")
		return err
	}))
}
