package cni

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

var functionKeys = []string{"group", "port", "weight"}

// readArgs takes serviceFunction and labels from args.cni, where runtimes put what their user says of one container
// (CNI's CONVENTIONS.md). What stands there counts before the configuration's own.
func (c *NetConf) readArgs(raw json.RawMessage) error {
	if len(raw) == 0 {
		return nil
	}
	args, err := keysOf("args", raw)
	if err != nil || len(args["cni"]) == 0 {
		return err
	}
	ours, err := keysOf("args.cni", args["cni"])
	if err != nil {
		return err
	}
	if f, ok := ours["serviceFunction"]; ok {
		c.ServiceFunction = f
	}
	if l, ok := ours["labels"]; ok {
		own, err := labelsOf(c.Labels)
		if err != nil {
			return err
		}
		more, err := labelsOf(l)
		if err != nil {
			return fmt.Errorf("args.cni: %w", err)
		}
		if own == nil {
			own = vnet.Labels{}
		}
		maps.Copy(own, more)
		if c.Labels, err = json.Marshal(own); err != nil {
			return err
		}
	}
	return nil
}

// FunctionPort returns which port of a service function the endpoint shall be, nil if none.
func (c *NetConf) FunctionPort() (*vnet.FunctionPort, error) {
	if isNull(c.ServiceFunction) {
		return nil, nil //nolint:nilnil // none is none
	}
	keys, err := keysOf("serviceFunction", c.ServiceFunction)
	if err != nil {
		return nil, err
	}
	if err := knownKeys(keys, functionKeys, nil); err != nil {
		return nil, fmt.Errorf("serviceFunction: %w", err)
	}
	var f struct {
		Group  vnet.GroupName `json:"group"`
		Port   vnet.PortRole  `json:"port"`
		Weight *int           `json:"weight"`
	}
	if err := decode("serviceFunction", pick(keys, functionKeys), &f); err != nil {
		return nil, err
	}
	if f.Weight != nil && *f.Weight < 1 {
		return nil, vnet.Invalidf("serviceFunction: weight %d: must be 1 to %d", *f.Weight, vnet.MaxWeight)
	}
	port := vnet.FunctionPort{Group: f.Group, Port: f.Port}
	if f.Weight != nil {
		port.Weight = *f.Weight
	}
	port, err = port.Normal()
	if err != nil {
		return nil, fmt.Errorf("serviceFunction: %w", err)
	}
	return &port, nil
}

// EndpointLabels returns the endpoint's labels, nil if it has none.
func (c *NetConf) EndpointLabels() (vnet.Labels, error) { return labelsOf(c.Labels) }

func labelsOf(raw json.RawMessage) (vnet.Labels, error) {
	if isNull(raw) {
		return nil, nil
	}
	var l vnet.Labels
	var pairs []struct{ Key, Value string }
	if json.Unmarshal(raw, &pairs) == nil { // as CONVENTIONS.md has them
		l = vnet.Labels{}
		for _, p := range pairs {
			l[p.Key] = p.Value
		}
	} else if err := decode("labels", raw, &l); err != nil {
		return nil, err
	}
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	return l, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
