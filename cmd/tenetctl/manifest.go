package main

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"sigs.k8s.io/yaml"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Kinds of manifests.
const (
	kindTenant  = "Tenant"
	kindNetwork = "Network"
	kindUplink  = "Uplink"
	kindGroup   = "Group"
	kindChain   = "Chain"
)

// kinds are all of them, in the order in which they are made: each may be named by those that follow.
var kinds = []string{kindUplink, kindTenant, kindNetwork, kindGroup, kindChain}

// manifest is one document: what it declares.
type manifest struct {
	kind    string
	tenant  vnet.TenantName // of kind Tenant
	network vnet.Network    // of kind Network
	uplink  vnet.Uplink     // of kind Uplink
	group   vnet.Group      // of kind Group
	chain   vnet.Chain      // of kind Chain
}

func (m manifest) String() string { return strings.ToLower(m.kind) + " " + m.name() }

func (m manifest) name() string {
	switch m.kind {
	case kindTenant:
		return string(m.tenant)
	case kindUplink:
		return string(m.uplink.Name)
	case kindGroup:
		return m.group.Ref().String()
	case kindChain:
		return m.chain.Ref().String()
	}
	return m.network.Ref().String()
}

// What ends in Document is how manifests are written. Zero, empty and absent mean the default.
type tenantDocument struct {
	Kind string          `json:"kind"`
	Name vnet.TenantName `json:"name"`
}

type networkDocument struct {
	Kind string `json:"kind"`
	vnet.Network
}

type uplinkDocument struct {
	Kind  string          `json:"kind"`
	Name  vnet.UplinkName `json:"name"`
	NIC   string          `json:"nic"`
	VLANs vnet.VLANs      `json:"vlans,omitempty"`
}

type groupDocument struct {
	Kind string `json:"kind"`
	vnet.Group
}

type chainDocument struct {
	Kind string `json:"kind"`
	vnet.Chain
}

// keys of each kind of document. encoding/json would take them in any case of letters.
func keys(kind string) []string {
	switch kind {
	case kindTenant:
		return []string{"kind", "name"}
	case kindUplink:
		return []string{"kind", "name", "nic", "vlans"}
	case kindGroup:
		return []string{"kind", "tenant", "name", "mode", "onFailure", "probe"}
	case kindChain:
		return []string{"kind", "tenant", "name", "priority", "symmetric", "preferLocal", "groups", "classifiers"}
	}
	return []string{"kind", "tenant", "name", "vni", "subnets", "gateway", "mtu", "provider", "egressAddress", "multicast", "dns"}
}

// innerKeys are those of the mappings in a document.
var innerKeys = map[string][]string{
	"provider": {"uplink", "vlan"},
	"dns":      {"nameservers", "domain", "search", "options"},
	"probe":    {"interval", "threshold"},
}

// classifierKeys are those of each of a chain's classifiers, selectorKeys those of its two sides.
var (
	classifierKeys = []string{"from", "to", "protocol", "sourcePorts", "destinationPorts"}
	selectorKeys   = []string{"network", "endpoint", "prefix", "labels", "any"}
)

// knownClassifierKeys is knownKeys for what is in a chain's classifiers.
func knownClassifierKeys(raw json.RawMessage) error {
	var list []map[string]json.RawMessage
	_ = json.Unmarshal(raw, &list) // of one of the wrong type strictly says so
	for i, classifier := range list {
		what := fmt.Sprintf("classifier %d", i+1)
		if err := knownKeys(what, classifier, classifierKeys); err != nil {
			return err
		}
		for _, side := range []string{"from", "to"} {
			var selector map[string]json.RawMessage
			if json.Unmarshal(classifier[side], &selector) != nil {
				continue
			}
			if err := knownKeys(what+": "+side, selector, selectorKeys); err != nil {
				return err
			}
		}
	}
	return nil
}

// parseManifests reads the documents of one file, YAML or JSON. vnet.ErrInvalid says which one
// is wrong, and in what.
func parseManifests(text []byte) ([]manifest, error) {
	docs, err := documents(text)
	if err != nil {
		return nil, err
	}
	var all []manifest
	for i, doc := range docs {
		m, err := parseManifest(doc)
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i+1, err)
		}
		all = append(all, m)
	}
	if len(all) == 0 {
		return nil, vnet.Invalidf("there is no document in it")
	}
	return all, nil
}

// documents cuts a file into its documents, as JSON: a stream of JSON values, or YAML. Empty
// ones are left out.
func documents(text []byte) ([][]byte, error) {
	if docs, err := jsonDocuments(text); err == nil {
		return docs, nil
	}
	var docs [][]byte
	for _, part := range cutYAML(string(text)) {
		doc, err := yaml.YAMLToJSONStrict([]byte(part))
		if err != nil {
			return nil, vnet.Invalidf("document %d: %s", len(docs)+1, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if string(doc) != "null" {
			docs = append(docs, doc)
		}
	}
	return docs, nil
}

func jsonDocuments(text []byte) ([][]byte, error) {
	var docs [][]byte
	d := json.NewDecoder(bytes.NewReader(text))
	for {
		var doc json.RawMessage
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
}

// cutYAML cuts at the lines that start with "---", which nothing inside of a document may (YAML
// 1.2.2, 9.1.2). What follows the mark on its line belongs to the document.
func cutYAML(text string) []string {
	parts := []string{""}
	for line := range strings.Lines(text) {
		rest, found := strings.CutPrefix(line, "---")
		if !found || rest != "" && !strings.ContainsAny(rest[:1], " \t\r\n") {
			parts[len(parts)-1] += line
			continue
		}
		parts = append(parts, rest)
	}
	return parts
}

func parseManifest(doc []byte) (manifest, error) {
	var m manifest
	var have map[string]json.RawMessage
	if err := json.Unmarshal(doc, &have); err != nil || have == nil {
		return m, vnet.Invalidf("it is no mapping of keys to values, which a manifest is")
	}
	if err := json.Unmarshal(have["kind"], &m.kind); err != nil || m.kind == "" {
		return m, vnet.WithHint(vnet.Invalidf("it has no kind"), "say which, such as kind: %s; the kinds are %s", kindNetwork, strings.Join(kinds, ", "))
	}
	if !slices.Contains(kinds, m.kind) {
		return m, vnet.Invalidf("kind %q: must be one of %s", m.kind, strings.Join(kinds, ", "))
	}
	if err := knownKeys("kind "+m.kind, have, keys(m.kind)); err != nil {
		return m, err
	}
	for key, known := range innerKeys {
		var inner map[string]json.RawMessage
		if json.Unmarshal(have[key], &inner) != nil {
			continue // none, or one of the wrong type, which strictly names
		}
		if err := knownKeys(key, inner, known); err != nil {
			return m, err
		}
	}
	if err := knownClassifierKeys(have["classifiers"]); err != nil {
		return m, err
	}
	switch m.kind {
	case kindGroup:
		var g groupDocument
		err := strictly(doc, &g)
		m.group = g.Group
		if err == nil {
			_, err = m.group.Normal()
		}
		return m, err
	case kindChain:
		var c chainDocument
		err := strictly(doc, &c)
		m.chain = c.Chain
		if err == nil {
			_, err = m.chain.Normal()
		}
		return m, err
	case kindTenant:
		var t tenantDocument
		err := strictly(doc, &t)
		m.tenant = t.Name
		if err == nil {
			err = m.tenant.Validate()
		}
		return m, err
	case kindUplink:
		var u uplinkDocument
		err := strictly(doc, &u)
		m.uplink = vnet.Uplink{Name: u.Name, NIC: u.NIC, VLANs: u.VLANs}
		if err == nil {
			_, err = m.uplink.Normal()
		}
		return m, err
	}
	var d networkDocument
	if err := strictly(doc, &d); err != nil {
		return m, err
	}
	m.network = d.Network
	_, err := m.network.Normal()
	return m, err
}

// knownKeys returns an error that names the first key that is none of known.
func knownKeys(what string, have map[string]json.RawMessage, known []string) error {
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if !slices.Contains(known, key) {
			return vnet.WithHint(vnet.Invalidf("%s has no key %q", what, key), "its keys are %s", strings.Join(known, ", "))
		}
	}
	return nil
}

// strictly decodes a document; keys that nobody knows are errors.
func strictly(doc []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil || errors.Is(err, vnet.ErrInvalid) {
		return err
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return vnet.Invalidf("%s: it is %s; %s is wanted", keyOf(wrong.Field), wrong.Value, nameOf(wrong.Type))
	}
	if prefix, ok := strings.CutPrefix(err.Error(), "netip.ParsePrefix("); ok {
		text, _, _ := strings.Cut(prefix, "):")
		return vnet.Invalidf("%s is no prefix, such as 10.0.0.0/24 or, of one address, 10.0.0.2/32", text)
	}
	return vnet.Invalidf("%s", strings.TrimPrefix(err.Error(), "json: "))
}

// keyOf is a field as it is written: without the types that it is embedded in.
func keyOf(field string) string {
	parts := strings.Split(field, ".")
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" || unicode.IsUpper(rune(p[0])) }), ".")
}

// nameOf says how a value of the type is written.
func nameOf(t reflect.Type) string {
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		return "text"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "a list"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a number"
	case reflect.Struct, reflect.Map:
		return "a mapping of keys to values"
	}
	return "text"
}

// writeManifests writes documents so that parseManifests takes them back.
func writeManifests(w io.Writer, docs []any) error {
	for i, doc := range docs {
		text, err := yaml.Marshal(doc)
		if err != nil {
			return err
		}
		if i > 0 {
			text = append([]byte("---\n"), text...)
		}
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) printManifests(docs []any) error { return writeManifests(a.out, docs) }
