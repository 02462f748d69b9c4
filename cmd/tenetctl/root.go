package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// streams are what a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// app is one call of tenetctl: its streams and what the global flags say.
type app struct {
	streams

	config  string
	over    node.Config
	timeout time.Duration
	output  string
}

// run executes one command line and returns its exit code. An error is one line, and one more
// with what can be done about it.
func run(ctx context.Context, args []string, s streams) int {
	a := &app{streams: s}
	root := newRoot(a) //nolint:contextcheck // cobra hands each command the context of ExecuteContext
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(s.err, "tenetctl: %s\n", oneLine(err.Error()))
	if hint := hintFor(err); hint != "" {
		fmt.Fprintf(s.err, "hint: %s\n", oneLine(hint))
	}
	if errors.As(err, new(*usageError)) {
		return exitUsage
	}
	return exitFailed
}

// oneLine joins the lines of an error that several made.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

// hintFor returns the error's own hint, or one for its kind.
func hintFor(err error) string {
	switch hint := vnet.Hint(err); {
	case hint != "":
		return hint
	case errors.Is(err, fs.ErrPermission):
		return "run it as root"
	case errors.Is(err, context.DeadlineExceeded):
		return "give it more time (--timeout), or look who holds it up"
	case errors.Is(err, ovs.ErrUnavailable), errors.As(err, new(*net.OpError)):
		return "is Open vSwitch running, and is its run directory right (--ovs-run-dir)?"
	case errors.Is(err, vnet.ErrUnavailable):
		return "is it the right data directory (--data-dir)?"
	}
	return ""
}

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e *usageError) Unwrap() error { return e.error }

// usagef says what is wrong with the command line; the hint leads to the command's help.
func usagef(cmd *cobra.Command, format string, args ...any) error {
	return vnet.WithHint(&usageError{fmt.Errorf(format, args...)}, "%s --help", cmd.CommandPath())
}

func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:     "tenetctl",
		Version: version,
		Short:   "Tenants, networks, endpoints and service chains of this node",
		Long: `tenetctl shows and changes what the node's store holds (tenants, networks,
uplinks, endpoints, service chains and their functions), says how the switch is
doing and repairs it, and tells where a packet would go.

Networks are named TENANT/NETWORK, and groups and chains likewise. Endpoints are made by CNI, and are named by
their id, as CONTAINER/IFNAME, by a container's id or the beginning of it, or
as TENANT/NETWORK/ADDRESS.

Exit status: 0 done, 1 failed, 2 wrong usage. An error is one line on standard
error, mostly with a second one that starts with "hint:".`,
		Example: `  tenetctl network add blue/web --subnet 10.0.0.0/24
  tenetctl apply -f networks.yaml
  tenetctl endpoint list --tenant blue
  tenetctl trace 4f2c 10.0.0.9 tcp/443
  tenetctl status`,
		SilenceErrors: true, SilenceUsage: true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.check(cmd) },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usagef(cmd, "%w", err) })
	f := root.PersistentFlags()
	f.StringVar(&a.config, "config", "", "node configuration `file` (default "+node.DefaultConfig+")")
	f.StringVar(&a.over.DataDir, "data-dir", "", "`directory` of the node's store (default /var/lib/tenet)")
	f.StringVar(&a.over.OVSRunDir, "ovs-run-dir", "", "run `directory` of Open vSwitch (default /run/openvswitch)")
	f.StringVar(&a.over.Bridge, "bridge", "", "the node's bridge (default br-tenet)")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "how long the whole may take")
	f.StringVarP(&a.output, "output", "o", "table", "`format`: table, json or yaml")
	complete(root, "output", "table", "json", "yaml")
	root.AddCommand(
		newTenant(a), newNetwork(a), newUplink(a), newNode(a), newEndpoint(a), newGroup(a), newFunction(a), newChain(a), newApply(a),
		newStatus(a), newTop(a), newSync(a), newTrace(a), newVersion(a),
	)
	// What has no verb of its own answers a wrong or missing one.
	for _, group := range append(root.Commands(), root) {
		if group.HasSubCommands() {
			group.Args, group.RunE = cobra.ArbitraryArgs, wantVerb
		}
	}
	return root
}

// wantVerb answers a noun without a verb, or with one that there is not.
func wantVerb(cmd *cobra.Command, args []string) error {
	var verbs []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			verbs = append(verbs, c.Name())
		}
	}
	if len(args) == 0 {
		return usagef(cmd, "%ssay which of %s", called(cmd), strings.Join(verbs, ", "))
	}
	return usagef(cmd, "%s%q is none of %s", called(cmd), args[0], strings.Join(verbs, ", "))
}

// check looks at the global flags.
func (a *app) check(cmd *cobra.Command) error {
	switch a.output {
	case "table", "json", "yaml":
	default:
		return usagef(cmd, "output %q: must be table, json or yaml", a.output)
	}
	if a.timeout <= 0 {
		return usagef(cmd, "timeout %s: must be more than nothing", a.timeout)
	}
	return nil
}

// configuration is this node's, with what the flags say over it.
func (a *app) configuration() (node.Config, error) {
	config, err := node.LoadConfig(a.config)
	if err != nil {
		return config, err
	}
	return config.Override(a.over)
}

// on runs fn on this node, within the time that the whole may take.
func (a *app) on(ctx context.Context, fn func(context.Context, *node.Node) error) error {
	config, err := a.configuration()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	n := node.Open(config, cni.DelegateDel)
	defer n.Close()
	return fn(ctx, n)
}

// exactly accepts a number of arguments, named as in the usage line.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef(cmd, "%s%s is missing", called(cmd), names[len(args)])
		case len(args) > len(names):
			return usagef(cmd, "%s%q is one argument too many", called(cmd), args[len(names)])
		}
		if i := slices.Index(args, ""); i >= 0 {
			return usagef(cmd, "%s%s is empty", called(cmd), names[i])
		}
		return nil
	}
}

// called is how a message begins that is about the command: "network add: ".
func called(cmd *cobra.Command) string {
	_, verbs, found := strings.Cut(cmd.CommandPath(), " ")
	if !found {
		return ""
	}
	return verbs + ": "
}

func newVersion(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: exactly(),
		Long:    "version prints the version of tenetctl. That of the switch is in tenetctl status.",
		Example: "  tenetctl version",
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"version": version}, func(w io.Writer) {
				fmt.Fprintf(w, "tenetctl %s\n", version)
			})
		},
	}
}
