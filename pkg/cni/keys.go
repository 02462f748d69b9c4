package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// keysOf returns what stands under each key of a JSON object; nil for null. A key that is given
// twice is an error, since programs differ in which of the two they take.
func keysOf(what string, raw []byte) (map[string]json.RawMessage, error) {
	var whole json.RawMessage
	if err := decode(what, raw, &whole); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	start, err := d.Token()
	switch {
	case err == nil && start == nil:
		return nil, nil
	case err == nil && start != json.Delim('{'):
		return nil, vnet.Invalidf("%s: must be an object, with keys and values in braces", what)
	}
	keys := map[string]json.RawMessage{}
	for err == nil && d.More() {
		var token json.Token
		if token, err = d.Token(); err != nil {
			break
		}
		key, _ := token.(string)
		if _, twice := keys[key]; twice {
			return nil, vnet.Invalidf("%s: key %q is given twice", what, key)
		}
		var value json.RawMessage
		err = d.Decode(&value)
		keys[key] = value
	}
	return keys, asInvalid(err)
}

// pick returns the object with only those keys, spelled just so: encoding/json alone would take
// "Tenant" for "tenant".
func pick(keys map[string]json.RawMessage, names []string) []byte {
	picked := map[string]json.RawMessage{}
	for _, name := range names {
		if raw, ok := keys[name]; ok {
			picked[name] = raw
		}
	}
	text, _ := json.Marshal(picked) // the values have been parsed
	return text
}

// knownKeys returns an error that names the first key that is neither in ours nor in foreign.
// Where foreign keys may stand, those with a dot or slash are somebody's extension.
func knownKeys(keys map[string]json.RawMessage, ours, foreign []string) error {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if slices.Contains(ours, key) || slices.Contains(foreign, key) || foreign != nil && strings.ContainsAny(key, "./") {
			continue
		}
		return vnet.WithHint(vnet.Invalidf("unknown key %q", key), "the keys are %s", strings.Join(ours, ", "))
	}
	return nil
}

// errUndecodable marks input that is not even JSON.
var errUndecodable = errors.New("not JSON")

func decode(what string, raw []byte, into any) error {
	err := json.Unmarshal(raw, into)
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return vnet.Invalidf("%s: key %q is a %s, want %s", what, t.Field, t.Value, t.Type)
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%s: %w: %s at byte %d: %w", what, errUndecodable, s.Error(), s.Offset, vnet.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, asInvalid(err))
	}
	return nil
}

// asInvalid gives an error without a kind the kind ErrInvalid.
func asInvalid(err error) error {
	if err == nil || errors.Is(err, vnet.ErrInvalid) {
		return err
	}
	return vnet.Invalidf("%v", err)
}
