package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// outcome is what happened to one object.
type outcome struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Outcome string `json:"outcome"` // "created", "unchanged" or "deleted"
}

func newApply(a *app) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make what manifests declare", Args: exactly(),
		Long: `apply makes the tenants and networks that a file declares: YAML or JSON, one or
more documents. All of a file is made, or nothing. What is there already stays
as it is; what is there and differs is an error that names the field.

A network's manifest, with all its keys (zero, empty and absent mean the default):

  kind: Network
  tenant: blue
  name: web
  vni: 0                      # 0: one is made from the name
  subnets:
  - prefix: 10.0.0.0/24
    gateway: 10.0.0.1         # default: the first address
    reserved: [10.0.0.2-10.0.0.9]
  - prefix: fd00:1::/64
  gateway: none               # nothing leaves the tenant; nat and routed: see network add
  egressAddress: ""           # the node's address that it is seen as, with gateway nat
  provider: {}                # {uplink: lan, vlan: 100}: a VLAN of an uplink; vlan 0: untagged
  mtu: 0                      # 0: the underlay's less the tunnel header
  multicast: false            # true: members get broadcast and multicast
  dns:                        # what containers are told about names
    nameservers: [10.0.0.53]
    domain: blue.example
    search: [blue.example]
    options: [ndots:1]

and a tenant's:

  kind: Tenant
  name: blue`,
		Example: `  tenetctl apply -f networks.yaml
  tenetctl network list -o yaml | tenetctl apply --data-dir /tmp/other -f -`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef(cmd, "apply: -f FILE is missing")
			}
			outcomes := []outcome{}
			var errs []error
			for _, file := range files {
				more, err := a.apply(cmd.Context(), file)
				if err != nil {
					errs = append(errs, fmt.Errorf("apply %s: %w", file, err))
				}
				outcomes = append(outcomes, more...)
			}
			return errors.Join(append(errs, a.printOutcomes(outcomes))...)
		},
	}
	cmd.Flags().StringArrayVarP(&files, "filename", "f", nil, "`file` to read, - for standard input (repeatable)")
	return cmd
}

func (a *app) apply(ctx context.Context, file string) ([]outcome, error) {
	text, err := a.read(file)
	if err != nil {
		return nil, err
	}
	manifests, err := parseManifests(text)
	if err != nil {
		return nil, err
	}
	return a.declare(ctx, manifests)
}

func (a *app) read(file string) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(a.in)
	}
	return os.ReadFile(file)
}

// add declares one object of the command line.
func (a *app) add(ctx context.Context, m manifest) error {
	outcomes, err := a.declare(ctx, []manifest{m})
	if err != nil {
		return err
	}
	return a.printOutcomes(outcomes)
}

// declare makes what manifests declare, all or nothing, and says what became of each.
func (a *app) declare(ctx context.Context, manifests []manifest) ([]outcome, error) {
	var outcomes []outcome
	err := a.on(ctx, func(ctx context.Context, n *node.Node) error {
		if err := checkNew(ctx, n, manifests); err != nil {
			return err
		}
		limit, err := n.MTU(ctx)
		if err != nil {
			return err
		}
		return n.Store.Update(ctx, func(tx store.Tx) error {
			outcomes = outcomes[:0]
			for _, m := range manifests {
				created, err := m.declare(tx, limit)
				if err != nil {
					return m.explain(err)
				}
				o := outcome{m.kind, m.name(), "unchanged"}
				if created {
					o.Outcome = "created"
				}
				outcomes = append(outcomes, o)
			}
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return outcomes, nil
}

// checkNew asks the node whether the networks that are not there yet can be.
func checkNew(ctx context.Context, n *node.Node, manifests []manifest) error {
	for _, m := range manifests {
		if m.kind != kindNetwork {
			continue
		}
		net, err := m.network.Normal()
		if err != nil {
			return m.explain(err)
		}
		_, err = n.Network(ctx, net.Ref())
		if errors.Is(err, vnet.ErrNotFound) {
			err = n.CheckNetwork(ctx, net)
		}
		if err != nil {
			return m.explain(err)
		}
	}
	return nil
}

func (a *app) printOutcomes(outcomes []outcome) error {
	return a.print(outcomes, func(w io.Writer) {
		for _, o := range outcomes {
			fmt.Fprintf(w, "%s %s %s\n", strings.ToLower(o.Kind), o.Name, o.Outcome)
		}
	})
}

// explain says of an error what it is about, if it does not itself.
func (m manifest) explain(err error) error {
	if strings.Contains(err.Error(), m.name()) {
		return err
	}
	return fmt.Errorf("%s: %w", m, err)
}

// declare makes one object, if it is not there; limit is what a network's MTU may be.
func (m manifest) declare(tx store.Tx, limit int) (created bool, err error) { //nolint:nonamedreturns // says what the bool is
	if m.kind == kindTenant {
		_, err := store.Tenant(tx, m.tenant)
		if !errors.Is(err, vnet.ErrNotFound) {
			return false, err
		}
		_, err = store.DeclareTenant(tx, m.tenant)
		return true, err
	}
	if err := m.network.CheckMTU(limit); err != nil {
		return false, err
	}
	_, missing := store.Network(tx, m.network.Ref())
	_, err = store.DeclareNetwork(tx, m.network)
	return errors.Is(missing, vnet.ErrNotFound), err
}
