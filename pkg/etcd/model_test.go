package etcd_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
)

// Whatever is done within transactions and by one after another, a store is a map.
func TestStoreIsAMap(t *testing.T) {
	s := open(t, configOf(etcdtest.Start(t)))
	want := map[string]string{}
	keys := rapid.SampledFrom([]string{
		"a", "a/1", "a/2", "ab/1", "path-ids/1", "path-ids/12", "path-ids/63", "path-ids/64", "path-ids/128", "pathological/1", "vnis/1", "w", "meta/next-path",
	})
	prefixes := rapid.SampledFrom([]string{"", "a", "a/", "p", "path", "path-ids/", "path-ids/1", "path-ids/6", "pathological/", "v", "vnis/", "vnis/2", "m", "meta/", "x"})
	values := rapid.SampledFrom([]string{"", "x", "\"y\"", "<&\u2028>"})
	rapid.Check(t, func(rt *rapid.T) {
		steps := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 12).Draw(rt, "steps")
		after := maps.Clone(want)
		err := s.Update(t.Context(), func(tx store.Tx) error {
			for _, step := range steps {
				switch {
				case step < 4:
					key, value := keys.Draw(rt, "put"), values.Draw(rt, "value")
					if err := tx.Put(key, []byte(value)); err != nil {
						return err
					}
					after[key] = value
				case step < 6:
					key := keys.Draw(rt, "delete")
					if err := tx.Delete(key); err != nil {
						return err
					}
					delete(after, key)
				case step < 8:
					key := keys.Draw(rt, "get")
					value, ok := after[key]
					if got := tx.Get(key); string(got) != value || ok != (got != nil) {
						rt.Errorf("%s is %q, want %q, %t", key, got, value, ok)
					}
				default:
					wantRange(rt, tx, after, prefixes.Draw(rt, "range"))
				}
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		want = after
		if err := s.View(t.Context(), func(tx store.Tx) error { wantRange(rt, tx, want, ""); return nil }); err != nil {
			rt.Fatal(err)
		}
	})
}

func wantRange(t *rapid.T, tx store.Tx, all map[string]string, prefix string) {
	t.Helper()
	var want, got []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(key, prefix) {
			want = append(want, key+"="+all[key])
		}
	}
	err := tx.Range(prefix, func(key string, value []byte) error { got = append(got, key+"="+string(value)); return nil })
	if err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("range of %q (-want +got):\n%s", prefix, diff)
	}
}
