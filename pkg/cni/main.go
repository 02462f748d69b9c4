package cni

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Verbs are what a plugin does. Each has a deadline and ends early on SIGTERM or SIGINT.
type Verbs struct {
	Add    func(ctx context.Context, r *Request) (types.Result, error)
	Del    func(ctx context.Context, r *Request) error
	Check  func(ctx context.Context, r *Request) error
	GC     func(ctx context.Context, r *Request) error
	Status func(ctx context.Context, r *Request) error
}

// Request is one call: the configuration and where it is for.
type Request struct {
	*NetConf
	ContainerID string
	IfName      string
	NetNS       string
	ArgsText    string // CNI_ARGS
	Path        string // CNI_PATH
}

// Time that a verb may take. ADD undoes what it did within a deadline of its own after that.
const verbTimeout = 30 * time.Second

// Main runs the verb that the environment asks for and exits non-zero if it failed; the error
// goes to standard output as CNI wants it.
func Main(about string, parse func(stdin []byte, args string) (*NetConf, error), v Verbs) {
	// skel would look at CNI_NETNS once more after a successful DEL, and fail it if the
	// namespace has become an ordinary file. ADD looks before it does anything.
	if err := os.Setenv("CNI_NETNS_OVERRIDE", "1"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	run := func(verb func(context.Context, *Request) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, verbTimeout)
			defer cancel()
			conf, err := parse(args.StdinData, args.Args)
			if err != nil {
				return Error(err)
			}
			return Error(verb(ctx, &Request{conf, args.ContainerID, args.IfName, args.Netns, args.Args, args.Path}))
		}
	}
	add := run(func(ctx context.Context, r *Request) error {
		result, err := v.Add(ctx, r)
		if err != nil {
			return err
		}
		return types.PrintResult(result, r.CNIVersion)
	})
	skel.PluginMainFuncs(skel.CNIFuncs{Add: add, Del: run(v.Del), Check: run(v.Check), GC: run(v.GC), Status: run(v.Status)}, Versions, about)
}
