package store_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

var fw = vnet.GroupRef{Tenant: "blue", Group: "fw"}

func TestAGroupIsChangedButForItsMode(t *testing.T) {
	s := chained(t)
	put := func(g vnet.Group) error {
		return s.Update(t.Context(), func(tx store.Tx) error { return store.PutGroup(tx, g) })
	}
	if err := put(vnet.Group{Tenant: "blue", Name: "fw", OnFailure: vnet.Open}); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx store.Tx) error {
		g, err := store.Group(tx, fw)
		if g.OnFailure != vnet.Open || g.Mode != vnet.Transparent {
			t.Errorf("it is %+v", g)
		}
		return err
	})
	before := everything(t, s)
	err := put(vnet.Group{Tenant: "blue", Name: "fw", Mode: vnet.Routed})
	wantRefused(t, s, before, err, vnet.ErrExists, `group blue/fw stands and is declared differently: mode: "routed" is asked, "transparent" stands`)
	if hint := vnet.Hint(err); hint != "delete it first: tenetctl group del blue/fw" {
		t.Errorf("hint %q", hint)
	}
	wantRefused(t, s, before, put(vnet.Group{Tenant: "blue", Name: "a/b"}), vnet.ErrInvalid, `group "a/b"`)

	if err := put(vnet.Group{Tenant: "new", Name: "fw"}); err != nil {
		t.Fatal(err)
	}
	view(t, s, func(tx store.Tx) error { _, err := store.Tenant(tx, "new"); return err }) // it makes its tenant
}

func TestAGroupStaysWhileAFunctionServesInIt(t *testing.T) {
	s := chained(t)
	in := member("f1", "eth0", "fw", vnet.Ingress)
	update(t, s, attached(&in))
	deleteGroup := func(tx store.Tx) error { return store.DeleteGroup(tx, fw) }
	wantRefused(t, s, everything(t, s), s.Update(t.Context(), deleteGroup), vnet.ErrExists, "group blue/fw still has 1 instances")
	update(t, s, func(tx store.Tx) error { _, err := store.LeaveGroup(tx, in); return err }, deleteGroup)
	err := s.Update(t.Context(), deleteGroup)
	if !errors.Is(err, vnet.ErrNotFound) || !strings.Contains(vnet.Hint(err), "tenetctl group list") {
		t.Errorf("deleted twice: %v, hint %q", err, vnet.Hint(err))
	}
}

func TestAnInstanceComesWithItsFirstPortAndGoesWithItsLast(t *testing.T) {
	s := chained(t)
	find := func(r vnet.GroupRef, container string) vnet.Instance {
		t.Helper()
		var i vnet.Instance
		view(t, s, func(tx store.Tx) error {
			var err error
			i, err = store.FindInstance(tx, r, container)
			return err
		})
		return i
	}
	leave := func(e vnet.Endpoint) {
		t.Helper()
		update(t, s, func(tx store.Tx) error { _, err := store.LeaveGroup(tx, e); return err })
	}
	in, out := member("f1", "eth0", "fw", vnet.Ingress), member("f1", "eth1", "fw", vnet.Egress)
	both := member("r1", "eth0", "ids", vnet.Both)
	update(t, s, attached(&in))
	half := find(fw, "f1")
	if half.Whole() || half.Number != 1 || half.Zone != 0 || half.Weight != 1 {
		t.Errorf("with one port it is %+v", half)
	}
	update(t, s, attached(&in, &out, &both)) // its first once more
	whole, routed := find(fw, "f1"), find(vnet.GroupRef{Tenant: "blue", Group: "ids"}, "r1")
	if !whole.Whole() || whole.Number != half.Number {
		t.Errorf("with both ports it is %+v", whole)
	}
	if !routed.Whole() || routed.Number == whole.Number || routed.Zone == 0 {
		t.Errorf("a function with addresses is %+v, want a number and a zone", routed)
	}

	leave(in)
	if left := find(fw, "f1"); left.Whole() || left.Number != whole.Number {
		t.Errorf("without a port it is %+v", left)
	}
	for range 2 { // a DEL may come twice
		leave(out)
		leave(both)
	}
	leave(endpoint("c1")) // who is no function leaves nothing
	view(t, s, func(tx store.Tx) error {
		if i, err := store.Instances(tx, ""); err != nil || len(i) > 0 {
			t.Errorf("instances %v, %v", i, err)
		}
		if _, err := store.FindInstance(tx, fw, "f1"); !errors.Is(err, vnet.ErrNotFound) {
			t.Error(err)
		}
		for _, prefix := range []string{"instance-numbers/", "zones/"} {
			if left := keys(t, tx, prefix, 10); len(left) > 0 {
				t.Errorf("left: %v", left)
			}
		}
		return nil
	})
	// Its number rests: flows of the one before may still be there.
	update(t, s, attached(&in))
	if again := find(fw, "f1"); again.Number != 3 {
		t.Errorf("it came back as number %d", again.Number)
	}
}

func TestAContainerHasEachPortOfAFunctionOnce(t *testing.T) {
	s := chained(t)
	in := member("f1", "eth0", "fw", vnet.Ingress)
	update(t, s, attached(&in))
	for _, tc := range []struct {
		second vnet.Endpoint
		want   string // empty: it may be
	}{
		{member("f1", "eth1", "fw", vnet.Ingress), "container f1 has its ingress port in group fw already"},
		{member("f1", "eth1", "fw", vnet.Both), "container f1 has its ingress port in group fw already"},
		{member("f1", "eth1", "fw", vnet.Egress), ""},
		{member("f1", "eth1", "ids", vnet.Ingress), ""}, // of another function in the same container
		{member("f2", "eth0", "fw", vnet.Ingress), ""},
	} {
		may := s.View(t.Context(), func(tx store.Tx) error {
			_, err := store.MayJoin(tx, "blue", tc.second.Attachment, *tc.second.Function)
			return err
		})
		tried := errors.New("tried")
		join := s.Update(t.Context(), func(tx store.Tx) error { return errors.Join(store.JoinGroup(tx, tc.second), tried) })
		for what, err := range map[string]error{"MayJoin": may, "JoinGroup": join} {
			refused := errors.Is(err, vnet.ErrExists)
			if refused != (tc.want != "") || refused && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%s as %s of %s: %s: got %v, want %q", tc.second.Attachment, tc.second.Function.Port, tc.second.Function.Group, what, err, tc.want)
			}
		}
	}
}

func TestWhoAChainNamesCannotServeInIt(t *testing.T) {
	s := chained(t)
	client := endpoint("c1")
	update(t, s, attached(&client))
	if err := putChain(t, s, "out", `{"groups":["fw"],"classifiers":[{"from":{"any":true},"to":{"endpoint":"c1/eth0"}}]}`); err != nil {
		t.Fatal(err)
	}
	join := func(container, group string) (vnet.Group, error) {
		var g vnet.Group
		err := s.View(t.Context(), func(tx store.Tx) error {
			var err error
			g, err = store.MayJoin(tx, "blue", vnet.Attachment{Container: container, IfName: "eth0"}, vnet.FunctionPort{Group: vnet.GroupName(group), Port: vnet.Both})
			return err
		})
		return g, err
	}
	if _, err := join("c1", "fw"); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), "chain blue/out leads through group fw, so c1/eth0 cannot be its function and its client or server, too") {
		t.Errorf("got %v", err)
	}
	for _, may := range [][2]string{{"c1", "ids"}, {"c2", "fw"}} {
		if g, err := join(may[0], may[1]); err != nil || string(g.Name) != may[1] {
			t.Errorf("%v: got %+v, %v", may, g, err)
		}
	}
	if _, err := join("c2", "nat"); !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), "rewrites packets") || vnet.Hint(err) == "" {
		t.Errorf("both ports of a function that rewrites: %v", err)
	}
	if _, err := join("c2", "own"); !errors.Is(err, vnet.ErrNotFound) || !strings.Contains(err.Error(), "serviceFunction: group blue/own does not exist") || vnet.Hint(err) == "" {
		t.Errorf("a group of another tenant: %v", err)
	}
}

// The switch shares new connections among so many ways and no more: neither a function nor a chain makes them more.
func TestAChainHasSoManyInstances(t *testing.T) {
	s := chained(t)
	if err := putChain(t, s, "out", `{"groups":["fw"],`+toWeb+`}`); err != nil {
		t.Fatal(err)
	}
	for i := range vnet.MaxInstances {
		m := member(fmt.Sprintf("f%d", i), "eth0", "fw", vnet.Both)
		if i == 0 {
			m.Function.Group = "ids"
		}
		update(t, s, attached(&m))
	}
	join := func(container string, role vnet.PortRole) error {
		return s.View(t.Context(), func(tx store.Tx) error {
			_, err := store.MayJoin(tx, "blue", vnet.Attachment{Container: container, IfName: "eth1"}, vnet.FunctionPort{Group: "fw", Port: role})
			return err
		})
	}
	if err := join("one-more", vnet.Both); err != nil {
		t.Errorf("the last: %v", err)
	}
	m := member("one-more", "eth0", "fw", vnet.Ingress)
	update(t, s, attached(&m))
	before := everything(t, s)
	wantRefused(t, s, before, putChain(t, s, "long", `{"groups":["fw","ids"],`+toWeb+`,"priority":5}`), vnet.ErrExhausted, "257 instances, 256 at most")
	wantRefused(t, s, before, join("two-more", vnet.Ingress), vnet.ErrExhausted, "257 instances, 256 at most")
	if err := join("one-more", vnet.Egress); err != nil {
		t.Errorf("the other port of one that is in: %v", err)
	}
}
