package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func newApply(a *app) *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "apply -f FILE", Short: "Make what manifests declare", Args: exactly(),
		Long: `apply makes what a file declares: tenants, networks, uplinks, groups of service
functions and chains, in YAML or JSON, one or more documents. All of a file is
made, or nothing. What is there already stays as it is; what is there and
differs is an error that names the field, but for groups and chains, which are
changed: new connections take a chain's new way, those that stand keep theirs.

An uplink whose NIC carries the host's default route is refused here: make that
with tenetctl uplink add --force.

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

a tenant's:

  kind: Tenant
  name: blue

an uplink's, which the networks of the same file may be on:

  kind: Uplink
  name: lan
  nic: eth1
  vlans: [100-199, 7]         # those that networks may have; none: all

a group's, in which containers serve by their configuration's serviceFunction:

  kind: Group
  tenant: blue
  name: fw
  mode: transparent           # or routed, or rewriting: see tenetctl group --help
  onFailure: closed           # traffic to a dead function is dropped; open: it goes on
  probe: {interval: 1s, threshold: 3}   # default: none

and a chain's, through groups of the same tenant, in the order of visits:

  kind: Chain
  tenant: blue
  name: web-in
  priority: 10                # of two chains that want a packet the higher has it; default 0
  symmetric: true             # replies visit the same functions backwards; this is the default
  preferLocal: false          # true: functions on the client's node, where a group has any there
  groups: [fw, ids]
  classifiers:                # which connections: any of them is enough
  - from: {network: front}    # or endpoint, prefix, labels, or any: true
    to: {network: web}
    protocol: tcp             # or udp, icmp; default: any
    sourcePorts: []           # default: any
    destinationPorts: ["80", "8000-8099"]`,
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
