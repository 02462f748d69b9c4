package cni

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Keys of what runtimes send for capabilities (CNI's CONVENTIONS.md).
var (
	portMappingKeys = []string{"hostPort", "containerPort", "protocol", "hostIP"}
	bandwidthKeys   = []string{"ingressRate", "ingressBurst", "egressRate", "egressBurst"}
)

// PortMappings returns the ports to publish, sorted and each once, none if the runtime sent none.
// A hostPort of 0 is an error: runtimes leave out ports that are declared and not published.
func (c *NetConf) PortMappings() ([]vnet.PortMapping, error) {
	var ports []vnet.PortMapping
	for i, raw := range c.Runtime.PortMappings {
		var m struct {
			HostPort      int    `json:"hostPort"`
			ContainerPort int    `json:"containerPort"`
			Protocol      string `json:"protocol"`
			HostIP        string `json:"hostIP"`
		}
		if _, err := readCapability(fmt.Sprintf("portMappings[%d]", i), raw, portMappingKeys, &m); err != nil {
			return nil, err
		}
		port, err := vnet.ParsePortMapping(m.HostIP, m.HostPort, m.ContainerPort, strings.ToLower(m.Protocol))
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	slices.SortFunc(ports, func(a, b vnet.PortMapping) int {
		return cmp.Or(cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.Protocol, b.Protocol),
			a.HostIP.Compare(b.HostIP), cmp.Compare(a.ContainerPort, b.ContainerPort))
	})
	return slices.Compact(ports), nil
}

// Bandwidth returns the limits asked for, none if the runtime sent none. A direction without a
// rate and a burst is not limited, but one of the two must be.
func (c *NetConf) Bandwidth() (vnet.Bandwidth, error) {
	if len(c.Runtime.Bandwidth) == 0 {
		return vnet.Bandwidth{}, nil
	}
	var b struct {
		IngressRate  uint64 `json:"ingressRate"`
		IngressBurst uint64 `json:"ingressBurst"`
		EgressRate   uint64 `json:"egressRate"`
		EgressBurst  uint64 `json:"egressBurst"`
	}
	asked, err := readCapability("bandwidth", c.Runtime.Bandwidth, bandwidthKeys, &b)
	if err != nil || !asked {
		return vnet.Bandwidth{}, err
	}
	limits, err := vnet.Bandwidth{
		Ingress: vnet.Limit{Rate: b.IngressRate, Burst: b.IngressBurst},
		Egress:  vnet.Limit{Rate: b.EgressRate, Burst: b.EgressBurst},
	}.Normal()
	if err == nil && limits == (vnet.Bandwidth{}) {
		err = vnet.WithHint(vnet.Invalidf("bandwidth: ingressRate and egressRate are 0: nothing would pass"),
			"give a rate in bits per second, or leave bandwidth out")
	}
	return limits, err
}

// readCapability decodes an object and reports whether there is anything in it. Its keys may be
// capitalised, as libraries without JSON tags write them; one that is given in both ways must
// say the same.
func readCapability(what string, raw []byte, names []string, into any) (bool, error) {
	given, err := keysOf(what, raw)
	if err != nil {
		return false, err
	}
	keys := map[string]json.RawMessage{}
	for _, key := range slices.Sorted(maps.Keys(given)) {
		name := key
		if i := slices.IndexFunc(names, func(n string) bool { return capitalised(n) == key }); i >= 0 {
			name = names[i]
		}
		if other, twice := keys[name]; twice && !bytes.Equal(other, given[key]) {
			return false, vnet.Invalidf("%s: keys %q and %q differ: %s and %s", what, key, capitalised(key), given[key], other)
		}
		keys[name] = given[key]
	}
	if err := knownKeys(keys, names, nil); err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	return len(keys) > 0, decode(what, pick(keys, names), into)
}

func capitalised(key string) string { return strings.ToUpper(key[:1]) + key[1:] }
