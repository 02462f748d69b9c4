package main

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// FuzzManifest: whatever a file holds, it is refused with ErrInvalid, or what it declares is
// valid and can be written and read again.
func FuzzManifest(f *testing.F) {
	for _, script := range []string{"apply.txt", "uplink.txt", "chain.txt"} {
		archive, err := txtar.ParseFile(filepath.Join("testdata", "script", script))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		manifests, err := parseManifests(text)
		if err != nil {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		var docs []any
		for i, m := range manifests {
			switch m.kind {
			case kindTenant:
				docs = append(docs, tenantDocument{kindTenant, m.tenant})
			case kindNetwork:
				normal, err := m.network.Normal()
				if err != nil {
					t.Fatalf("document %d was accepted, and is invalid: %v", i+1, err)
				}
				manifests[i].network = normal
				docs = append(docs, networkDocument{Kind: kindNetwork, Network: normal})
			case kindUplink:
				normal, err := m.uplink.Normal()
				if err != nil {
					t.Fatalf("document %d was accepted, and is invalid: %v", i+1, err)
				}
				manifests[i].uplink = normal
				docs = append(docs, uplinkManifests([]uplinkView{{Name: normal.Name, NIC: normal.NIC, VLANs: normal.VLANs}})...)
			case kindGroup:
				normal, err := m.group.Normal()
				if err != nil {
					t.Fatalf("document %d was accepted, and is invalid: %v", i+1, err)
				}
				manifests[i].group = normal
				docs = append(docs, groupManifests([]groupView{{Group: normal}})...)
			case kindChain:
				normal, err := m.chain.Normal()
				if err != nil {
					t.Fatalf("document %d was accepted, and is invalid: %v", i+1, err)
				}
				manifests[i].chain = normal
				docs = append(docs, chainManifests(normal)...)
			default:
				t.Fatalf("kind %q was accepted", m.kind)
			}
		}
		var b bytes.Buffer
		if err := writeManifests(&b, docs); err != nil {
			t.Fatal(err)
		}
		again, err := parseManifests(b.Bytes())
		if err != nil {
			t.Fatalf("what was written is refused: %v\n%s", err, b.Bytes())
		}
		if diff := cmp.Diff(manifests, again, cmp.AllowUnexported(manifest{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b vnet.Subnet) bool {
			return a.Prefix == b.Prefix && a.Gateway == b.Gateway && cmp.Equal(a.Reserved, b.Reserved, cmp.Comparer(func(a, b vnet.Range) bool { return a == b }))
		})); diff != "" {
			t.Errorf("%s\n%s", diff, b.Bytes())
		}
	})
}

// The keys that a manifest is checked against are those that its Go type has.
func TestEveryKeyOfAManifestIsKnown(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("testdata", "all-keys.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parseManifests(text); err != nil {
		t.Error(err)
	}
	docs, err := documents(text)
	if err != nil {
		t.Fatal(err)
	}
	selectors := map[string]bool{}
	for _, doc := range docs {
		var m map[string]any
		if err := strictly(doc, &m); err != nil {
			t.Fatal(err)
		}
		for _, key := range keys(m["kind"].(string)) {
			if _, ok := m[key]; !ok {
				t.Errorf("no example of key %s of kind %s", key, m["kind"])
			}
		}
		classifiers, _ := m["classifiers"].([]any)
		for _, c := range classifiers {
			for _, key := range classifierKeys {
				if _, ok := c.(map[string]any)[key]; !ok {
					t.Errorf("no example of key %s of a classifier", key)
				}
			}
			for _, side := range []string{"from", "to"} {
				for key := range c.(map[string]any)[side].(map[string]any) {
					selectors[key] = true
				}
			}
		}
		for key, inner := range innerKeys {
			have, ok := m[key].(map[string]any)
			for _, key := range inner {
				if _, has := have[key]; ok && !has {
					t.Errorf("no example of key %s", key)
				}
			}
		}
	}
	for _, key := range selectorKeys {
		if !selectors[key] {
			t.Errorf("no example of a classifier's side with key %s", key)
		}
	}
}
