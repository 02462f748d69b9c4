// Command tenetd keeps a node's switch in step with what happens: it watches the ports of service
// functions, probes them, and restores the flows after a restart of ovs-vswitchd. It is the node's
// part in a cluster, and tells how the node is doing. Without it traffic goes on, and containers
// come and go.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	flag "github.com/spf13/pflag"

	"github.com/tenet-cni/tenet/pkg/cluster"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// version is set by the linker.
var version = "unknown"

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `usage: tenetd [--config FILE] [--data-dir DIR] [--ovs-run-dir DIR] [--bridge BRIDGE]
              [--log-level LEVEL]

tenetd watches the node's service functions. When the link of a function's port
goes down or comes back, the chains take another way within milliseconds; where a
group has a probe, a function that hangs is found, too. When ovs-vswitchd has been
restarted, its flows are restored, and a change of chains that was cut short is
finished. It logs to standard error and ends cleanly with SIGTERM. All it knows is
in the node's store: it may be killed at any time.

If the node's configuration names etcd, tenetd also makes the node one of a cluster.

It tells how the node is doing: Prometheus at /metrics, and with 200 or 503 at
/healthz, on the address "metrics" of the configuration (default 127.0.0.1:9477;
"off": nowhere), and tenetctl status and tenetctl top on its socket ("socket").

Examples:
  tenetd
  tenetd --config /etc/tenet/tenet.json --log-level debug
  curl -s http://127.0.0.1:9477/healthz

Options:
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errs io.Writer) int {
	var file string
	var over node.Config
	var level slog.Level
	options := cluster.Options{Version: version}
	var showVersion bool
	f := flag.NewFlagSet("tenetd", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.SortFlags = false
	f.StringVar(&file, "config", "", "node configuration `file` (default "+node.DefaultConfig+")")
	f.StringVar(&over.DataDir, "data-dir", "", "`directory` of the node's store (default /var/lib/tenet)")
	f.StringVar(&over.OVSRunDir, "ovs-run-dir", "", "run `directory` of Open vSwitch (default /run/openvswitch)")
	f.StringVar(&over.Bridge, "bridge", "", "the node's `bridge` (default br-tenet)")
	f.DurationVar(&options.Lease, "lease", defaultLease, "how long after tenetd was last heard of its node counts as off")
	f.DurationVar(&options.Grace, "grace", defaultGrace, "how long a node that is off keeps its addresses")
	f.DurationVar(&options.Rest, "rest", defaultRest, "how long a block of addresses that nobody has stays the node's")
	f.TextVar(&level, "log-level", slog.LevelInfo, "`level` to log: debug, info, warn or error")
	f.BoolVar(&showVersion, "version", false, "print the version")
	err := f.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "%s%s", usage, f.FlagUsages())
		return exitDone
	case err != nil || f.NArg() > 0:
		if err == nil {
			err = fmt.Errorf("%q: tenetd takes no arguments", f.Arg(0))
		}
		fmt.Fprintf(errs, "tenetd: %v\nhint: tenetd --help\n", err)
		return exitUsage
	case showVersion:
		fmt.Fprintf(out, "tenetd %s\n", version)
		return exitDone
	}
	config, err := node.LoadConfig(file)
	if err == nil {
		config, err = config.Override(over)
	}
	if err == nil {
		log := slog.New(slog.NewTextHandler(errs, &slog.HandlerOptions{Level: level}))
		log.Info("tenetd begins", "version", version, "bridge", config.Bridge, "dataDir", config.DataDir)
		if err = serve(ctx, config, options, log); err == nil {
			log.Info("tenetd ends")
			return exitDone
		}
	}
	fmt.Fprintf(errs, "tenetd: %v\n", err)
	if hint := vnet.Hint(err); hint != "" {
		fmt.Fprintf(errs, "hint: %s\n", hint)
	}
	return exitFailed
}

// How long nodes of a cluster wait for one another.
const (
	defaultLease = 15 * time.Second
	defaultGrace = 24 * time.Hour
	defaultRest  = 5 * time.Minute
)
