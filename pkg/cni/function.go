package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

var (
	functionKeys = []string{"group", "port", "weight"}
	labelKeys    = []string{"key", "value"}
)

// said returns what args.cni has under a key, nil if nothing. Runtimes put there what their user says of one container
// (CNI's CONVENTIONS.md).
func (c *NetConf) said(key string) (json.RawMessage, error) {
	if len(c.args) == 0 {
		return nil, nil
	}
	args, err := keysOf("args", c.args)
	if err != nil || len(args["cni"]) == 0 {
		return nil, err
	}
	ours, err := keysOf("args.cni", args["cni"])
	return ours[key], err
}

// FunctionPort returns which port of a service function the endpoint shall be, nil if none. What args.cni says counts
// before the configuration's own, all of it: null there means none.
func (c *NetConf) FunctionPort() (*vnet.FunctionPort, error) {
	raw, err := c.said("serviceFunction")
	if err != nil {
		return nil, err
	}
	if raw == nil {
		raw = c.ServiceFunction
	}
	if isNull(raw) {
		return nil, nil //nolint:nilnil // none is none
	}
	keys, err := keysOf("serviceFunction", raw)
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

// EndpointLabels returns the endpoint's labels, nil if it has none: the configuration's and those of args.cni, which
// count where both have the same key.
func (c *NetConf) EndpointLabels() (vnet.Labels, error) {
	labels, err := labelsOf(c.Labels)
	if err != nil {
		return nil, err
	}
	raw, err := c.said("labels")
	if err != nil {
		return nil, err
	}
	more, err := labelsOf(raw)
	if err != nil {
		return nil, fmt.Errorf("args.cni: %w", err)
	}
	if len(labels) == 0 {
		return more, nil
	}
	maps.Copy(labels, more)
	return labels, labels.Validate()
}

// labelsOf reads labels: a mapping, or as CNI's CONVENTIONS.md has them, [{"key": "app", "value": "web"}].
func labelsOf(raw json.RawMessage) (vnet.Labels, error) {
	if isNull(raw) {
		return nil, nil
	}
	l, err := listedLabels(raw)
	if l == nil && err == nil {
		l, err = mappedLabels(raw)
	}
	if err != nil {
		return nil, err
	}
	if len(l) == 0 {
		return nil, nil
	}
	if err := l.Validate(); err != nil {
		return nil, fmt.Errorf("labels: %w", err)
	}
	return l, nil
}

func mappedLabels(raw json.RawMessage) (vnet.Labels, error) {
	keys, err := keysOf("labels", raw)
	if err != nil {
		return nil, err
	}
	l := vnet.Labels{}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		var value *string
		if json.Unmarshal(keys[key], &value) != nil || value == nil {
			return nil, vnet.Invalidf("labels: key %.40q is no text", key)
		}
		l[key] = *value
	}
	return l, nil
}

// listedLabels reads the list form, nil if it is no list.
func listedLabels(raw json.RawMessage) (vnet.Labels, error) {
	var list []json.RawMessage
	if !bytes.HasPrefix(bytes.TrimSpace(raw), []byte("[")) {
		return nil, nil //nolint:nilnil // it is no list
	}
	if err := decode("labels", raw, &list); err != nil {
		return nil, err
	}
	l := vnet.Labels{}
	for i, item := range list {
		what := fmt.Sprintf("labels[%d]", i)
		keys, err := keysOf(what, item)
		if err == nil {
			err = knownKeys(keys, labelKeys, nil)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		var label struct{ Key, Value string }
		if err := decode(what, pick(keys, labelKeys), &label); err != nil {
			return nil, err
		}
		if _, twice := l[label.Key]; twice {
			return nil, vnet.Invalidf("%s: label %.40q is given twice", what, label.Key)
		}
		l[label.Key] = label.Value
	}
	return l, nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }
