package etcd_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/etcd/etcdtest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/store/storetest"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// configOf is how to reach all members of a cluster.
func configOf(c *etcdtest.Cluster) etcd.Config {
	return etcd.Config{
		Endpoints: c.Endpoints(), CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		Username: c.Username, PasswordFile: c.PasswordFile,
	}
}

func open(t *testing.T, c etcd.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// put and del are an Update of another's that comes between.
func put(t *testing.T, s *etcd.Store, key, value string) {
	t.Helper()
	storetest.Update(t, s, storetest.Put(key, value))
}

func del(t *testing.T, s *etcd.Store, key string) {
	t.Helper()
	storetest.Update(t, s, func(tx store.Tx) error { return tx.Delete(key) })
}

func TestEtcdIsAStore(t *testing.T) {
	c := etcdtest.Start(t)
	cases := 0
	storetest.Conforms(t, func(t *testing.T) func() store.Store {
		cases++
		config := configOf(c)
		config.Prefix = fmt.Sprintf("/test/%d/", cases)
		return func() store.Store { return open(t, config) }
	})
}

func TestStoresFightForACounterAndNothingIsLost(t *testing.T) {
	c := etcdtest.Start(t)
	const stores, writers, rounds = 2, 6, 8
	var all sync.WaitGroup
	for range stores {
		s := open(t, configOf(c))
		for range writers {
			all.Go(func() {
				for range rounds {
					if err := s.Update(t.Context(), func(tx store.Tx) error { return storetest.Increment(tx, "counter") }); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	storetest.WantAll(t, open(t, configOf(c)), map[string]string{"counter": strconv.Itoa(stores * writers * rounds)})
}

// What A has read must still be so when A commits: else A runs again.
func TestTransactionRunsAgainIfWhatItReadHasChanged(t *testing.T) {
	c := etcdtest.Start(t)
	a, b := open(t, configOf(c)), open(t, configOf(c))
	get := func(key string) func(store.Tx) error {
		return func(tx store.Tx) error { tx.Get(key); return nil }
	}
	ranges := func(prefix string) func(store.Tx) error {
		return func(tx store.Tx) error { return tx.Range(prefix, func(string, []byte) error { return nil }) }
	}
	many := func(tx store.Tx) error { // more than can be compared one by one
		for i := range 300 {
			tx.Get(fmt.Sprintf("dir/many/%d", i))
		}
		return nil
	}
	manyRanges := func(tx store.Tx) error {
		for i := range 150 {
			if err := ranges(fmt.Sprintf("dir/many/%d/", i))(tx); err != nil {
				return err
			}
		}
		return nil
	}
	for what, test := range map[string]struct {
		reads func(store.Tx) error
		other func()
		runs  int
	}{
		"a record changed":                      {get("dir/1"), func() { put(t, b, "dir/1", "y") }, 2},
		"a record deleted":                      {get("dir/1"), func() { del(t, b, "dir/1") }, 2},
		"a record made":                         {get("dir/3"), func() { put(t, b, "dir/3", "y") }, 2},
		"another record":                        {get("dir/1"), func() { put(t, b, "dir/2", "y"); del(t, b, "dir/2") }, 1},
		"in a range, changed":                   {ranges("dir/"), func() { put(t, b, "dir/1", "y") }, 2},
		"in a range, made":                      {ranges("dir/"), func() { put(t, b, "dir/3", "y") }, 2},
		"in a range, deleted":                   {ranges("dir/"), func() { del(t, b, "dir/1") }, 2},
		"beside a range, made":                  {ranges("dir/"), func() { put(t, b, "other/1", "y") }, 1},
		"a record in a range, deleted":          {storetest.InTurn(get("dir/1"), ranges("dir/")), func() { del(t, b, "dir/1") }, 2},
		"in the whole, made":                    {ranges(""), func() { put(t, b, "other/2", "y") }, 2},
		"a packed record changed":               {get("path-ids/1"), func() { put(t, b, "path-ids/1", "y") }, 2},
		"a packed record deleted":               {get("path-ids/1"), func() { del(t, b, "path-ids/1") }, 2},
		"a packed record made":                  {get("path-ids/1000"), func() { put(t, b, "path-ids/1000", "y") }, 2},
		"a packed record in a range, made":      {ranges("path-ids/"), func() { put(t, b, "path-ids/2000", "y") }, 2},
		"a packed record in a range, deleted":   {ranges("path-ids/"), func() { del(t, b, "path-ids/1") }, 2},
		"one of too many to compare":            {many, func() { put(t, b, "dir/many/299", "y") }, 2},
		"one of too many to compare, deleted":   {storetest.InTurn(get("dir/1"), many), func() { del(t, b, "dir/1") }, 2},
		"none of too many to compare":           {many, func() { put(t, b, "other/3", "y") }, 1},
		"in one of too many ranges to compare":  {manyRanges, func() { put(t, b, "dir/many/149/1", "y") }, 2},
		"nothing changes, though it is written": {get("dir/1"), func() { storetest.Update(t, b, storetest.Wants("dir/1", "x"), storetest.Put("dir/1", "x")) }, 1},
	} {
		t.Run(what, func(t *testing.T) {
			storetest.Update(t, b, storetest.Put("dir/1", "x"), storetest.Put("dir/2", "x"), storetest.Put("path-ids/1", "x"), func(tx store.Tx) error {
				return errors.Join(tx.Delete("dir/3"), tx.Delete("path-ids/1000"), tx.Delete("path-ids/2000"))
			})
			runs := 0
			storetest.Update(t, a, test.reads, func(tx store.Tx) error {
				if runs++; runs == 1 {
					test.other()
				}
				return tx.Put("mine", fmt.Append(nil, what, runs))
			})
			if runs != test.runs {
				t.Errorf("%d runs, want %d", runs, test.runs)
			}
			storetest.View(t, b, storetest.Wants("mine", fmt.Sprint(what, runs)))
		})
	}
}

func TestHundredsOfNumbersAreTakenInOneUpdate(t *testing.T) {
	c := etcdtest.Start(t)
	s := open(t, configOf(c))
	storetest.Update(t, s, storetest.Put("path-ids/7", "theirs"), storetest.Put("path-ids/700", "theirs"))
	storetest.Update(t, s, storetest.Put("legs/blue/web", "[]"), func(tx store.Tx) error {
		for i := range 256 {
			if err := tx.Put(fmt.Sprintf("path-ids/%d", 100+i), []byte("blue/web")); err != nil {
				return err
			}
		}
		return nil
	}, storetest.Wants("path-ids/355", "blue/web"), func(tx store.Tx) error { return tx.Delete("path-ids/100") })
	storetest.View(t, s,
		storetest.Wants("path-ids/7", "theirs"), storetest.Wants("path-ids/355", "blue/web"),
		storetest.Wants("path-ids/100", ""), storetest.Wants("path-ids/8", ""), storetest.Wants("path-ids/9999", ""),
		func(tx store.Tx) error {
			if n := len(storetest.Keys(t, tx, "path-ids/", 1000)); n != 257 {
				t.Errorf("%d records", n)
			}
			for prefix, want := range map[string][]string{
				"path-ids/7":   {"path-ids/7", "path-ids/700"},
				"path-ids/10":  {"path-ids/101", "path-ids/102", "path-ids/103", "path-ids/104", "path-ids/105", "path-ids/106", "path-ids/107", "path-ids/108", "path-ids/109"},
				"legs/":        {"legs/blue/web"},
				"path-ids/800": nil,
			} {
				if diff := cmp.Diff(want, storetest.Keys(t, tx, prefix, 1000)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", prefix, diff)
				}
			}
			if all := storetest.Keys(t, tx, "", 1000); len(all) != 258 || all[0] != "legs/blue/web" || all[257] != "path-ids/700" {
				t.Errorf("all: %d, %v", len(all), all)
			}
			return nil
		})
	r, err := c.Client().Get(t.Context(), s.Prefix()+"packed/path-ids/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Kvs) != 7 { // 0, 1 to 5, 10
		t.Errorf("%d keys in etcd", len(r.Kvs))
	}
	storetest.Update(t, s, func(tx store.Tx) error { // as path-ids/7 alone is in its key, that goes too
		return errors.Join(tx.Delete("path-ids/7"), tx.Delete("path-ids/8"))
	})
	if r, err = c.Client().Get(t.Context(), s.Prefix()+"packed/path-ids/0"); err != nil || len(r.Kvs) != 0 {
		t.Errorf("%v, %v", r, err)
	}
}

// The directories that are packed are those that package store fills with numbers.
func TestNumbersOfTheStoreArePacked(t *testing.T) {
	c := etcdtest.Start(t)
	s := open(t, configOf(c))
	storetest.Update(t, s, func(tx store.Tx) error {
		n := vnet.Network{Tenant: "blue", Name: "web", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}}
		if _, err := store.DeclareNetwork(tx, n); err != nil {
			return err
		}
		return store.PutLegs(tx, vnet.ChainRef{Tenant: "blue", Chain: "in"}, []vnet.Leg{{Paths: []vnet.Path{{}}}}, time.Now())
	})
	r, err := c.Client().Get(t.Context(), s.Prefix(), clientv3.WithPrefix(), clientv3.WithKeysOnly())
	if err != nil {
		t.Fatal(err)
	}
	dirs := map[string]bool{}
	for _, kv := range r.Kvs {
		key := strings.TrimPrefix(string(kv.Key), s.Prefix())
		dirs[key[:strings.LastIndex(key, "/")+1]] = true
	}
	for _, dir := range []string{"vnis/", "tenant-numbers/", "path-ids/", "leg-numbers/"} {
		if dirs[dir] || !dirs["packed/"+dir] {
			t.Errorf("%s is not packed: %v", dir, dirs)
		}
	}
}

func TestChangeThatEtcdDoesNotTakeIsTold(t *testing.T) {
	s := open(t, configOf(etcdtest.Start(t)))
	mega := strings.Repeat("x", 1<<20)
	for what, test := range map[string]struct {
		fn   func(store.Tx) error
		kind error
		want string
	}{
		"too many records": {func(tx store.Tx) error {
			for i := range 200 {
				if err := tx.Put(fmt.Sprintf("a/%d", i), nil); err != nil {
					return err
				}
			}
			return nil
		}, vnet.ErrExhausted, "a change of 201 records is more than etcd takes at once make the change in smaller parts, or start etcd with a larger --max-txn-ops"},
		"too much":                  {storetest.InTurn(storetest.Put("a", mega), storetest.Put("b", mega)), vnet.ErrExhausted, "smaller parts"},
		"far too much":              {storetest.InTurn(storetest.Put("a", mega), storetest.Put("b", mega), storetest.Put("c", mega)), vnet.ErrExhausted, "smaller parts"},
		"a record too large":        {storetest.Put("a", mega+"x"), vnet.ErrInvalid, "no more than 1048576"},
		"packed records too large":  {storetest.InTurn(storetest.Put("vnis/1", mega), storetest.Put("vnis/2", "x")), vnet.ErrInvalid, "packed/vnis/0"},
		"a packed key of no number": {storetest.Put("vnis/01", "x"), vnet.ErrInvalid, "vnis/01"},
		"packed, and no text":       {storetest.Put("vnis/1", "\xff"), vnet.ErrInvalid, "no text"},
		"no key":                    {storetest.Put("", "x"), vnet.ErrInvalid, "not for records"},
		"a key of etcd's records":   {storetest.Put("packed/vnis/1", "x"), vnet.ErrInvalid, "not for records"},
	} {
		err := s.Update(t.Context(), test.fn)
		if !errors.Is(err, test.kind) || !strings.Contains(fmt.Sprint(err, " ", vnet.Hint(err)), test.want) {
			t.Errorf("%s: got %v (hint %q), want %v with %q", what, err, vnet.Hint(err), test.kind, test.want)
		}
	}
	storetest.WantAll(t, s, map[string]string{})
}

func TestPackThatCannotBeReadIsCorrupt(t *testing.T) {
	c := etcdtest.Start(t)
	s := open(t, configOf(c))
	for _, value := range []string{"", "null", "[]", `{"1":2}`} {
		if _, err := c.Client().Put(t.Context(), s.Prefix()+"packed/vnis/0", value); err != nil {
			t.Fatal(err)
		}
		for what, fn := range map[string]func(store.Tx) error{
			"Get":   func(tx store.Tx) error { tx.Get("vnis/1"); return nil },
			"Range": func(tx store.Tx) error { return tx.Range("vnis/", func(string, []byte) error { return nil }) },
			"Put":   storetest.Put("vnis/1", "x"),
		} {
			if err := s.Update(t.Context(), fn); !errors.Is(err, vnet.ErrCorrupt) || !strings.Contains(err.Error(), "packed/vnis/0") {
				t.Errorf("%s of %q: %v", what, value, err)
			}
		}
	}
}

func TestCommitTellsTheRevision(t *testing.T) {
	c := etcdtest.Start(t)
	s := open(t, configOf(c))
	at := func(rev int64) string {
		t.Helper()
		r, err := s.Client().Get(t.Context(), s.Prefix()+"a", clientv3.WithRev(rev))
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Kvs) == 0 {
			return ""
		}
		return string(r.Kvs[0].Value)
	}
	commit := func(steps ...func(store.Tx) error) int64 {
		t.Helper()
		rev, err := s.Commit(t.Context(), storetest.InTurn(steps...))
		if err != nil {
			t.Fatal(err)
		}
		return rev
	}
	if rev := commit(); rev != 0 {
		t.Errorf("nothing was done at revision %d", rev)
	}
	x := commit(storetest.Put("a", "x"))
	if at(x-1) != "" || at(x) != "x" {
		t.Errorf("at %d: %q, %q", x, at(x-1), at(x))
	}
	if rev := commit(storetest.Wants("a", "x")); rev != x {
		t.Errorf("read at %d, want %d", rev, x)
	}
	if rev := commit(storetest.Wants("a", "x"), storetest.Put("a", "x"), storetest.Wants("b", ""), func(tx store.Tx) error { return tx.Delete("b") }); rev != x {
		t.Errorf("a change of nothing is at %d, want %d", rev, x)
	}
	if y := commit(storetest.Put("a", "y")); y <= x || at(y) != "y" || at(y-1) != "x" {
		t.Errorf("at %d: %q, %q", y, at(y-1), at(y))
	}
}

// Etcd may forget a revision while a transaction reads at it.
func TestSnapshotThatIsCompactedIsTakenAgain(t *testing.T) {
	c := etcdtest.Start(t)
	s, other := open(t, configOf(c)), open(t, configOf(c))
	for what, run := range map[string]func(func(store.Tx) error) error{
		"Update": func(fn func(store.Tx) error) error { return s.Update(t.Context(), fn) },
		"View":   func(fn func(store.Tx) error) error { return s.View(t.Context(), fn) },
	} {
		storetest.Update(t, other, storetest.Put("a", "old"), storetest.Put("b", "old"))
		runs := 0
		err := run(func(tx store.Tx) error {
			a := string(tx.Get("a"))
			if runs++; runs == 1 {
				storetest.Update(t, other, storetest.Put("a", "new"), storetest.Put("b", "new"))
				c.Compact()
			}
			if b := string(tx.Get("b")); runs == 2 && (a != "new" || b != "new") {
				return fmt.Errorf("a is %q and b %q", a, b)
			}
			return nil
		})
		if err != nil || runs != 2 {
			t.Errorf("%s: %v after %d runs", what, err, runs)
		}
	}
}
