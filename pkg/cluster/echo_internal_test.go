package cluster

import (
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/etcd"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Of what is in this node's name and is not what it told, etcd is asked, if that is so at two looks in a row: one that it did not
// tell of, one that is otherwise, one that is missing. Without a lease it is asked of nothing.
func TestWhatIsOddInThisNodesName(t *testing.T) {
	s := newEtcdSays(t)
	own, missing, other, stranger := s.endpoint("n1", "own", 5), s.endpoint("n1", "missing", 7), s.endpoint("n1", "other", 8), s.endpoint("n1", "stranger", 6)
	s.tells(own, s.endpoint("n1", "other", 9), stranger)
	for id, e := range map[vnet.EndpointID]etcd.Event{"own": own, "missing": missing, "other": other} {
		r, _ := parseEndpoint(e.Key)
		s.published[id] = published{remote: r, text: string(e.Value)}
	}
	s.tenants["blue"].known()
	wants := func(what string, want ...etcd.Event) {
		t.Helper()
		var keys []string
		for _, e := range want {
			keys = append(keys, e.Key)
		}
		odd, _ := s.oddEchoes()
		got := odd[s.tenants["blue"]]
		slices.Sort(got)
		if slices.Sort(keys); !slices.Equal(got, keys) {
			t.Errorf("%s: etcd is asked of %v, not %v", what, got, keys)
		}
	}
	wants("without a lease")
	wants("without a lease still")
	s.lease = 1
	wants("under a lease under which it is not known yet what was told")
	s.toldUnder = 1
	wants("at first sight")
	wants("at the second", missing, other, stranger)
	s.tells(missing, other)
	wants("when it is told again", stranger)
	p := s.published["own"]
	p.again = true
	s.published["own"] = p
	s.tells(s.gone("n1", "own"))
	wants("what is told again anyhow", stranger)
	s.wants("in this node's name")
}
