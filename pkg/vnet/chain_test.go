package vnet_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

var everybody = vnet.Selector{Any: true}

// chain reads a declaration.
func chain(t *testing.T, text string) vnet.Chain {
	t.Helper()
	var c vnet.Chain
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

const webIn = `{"tenant":"blue","name":"web-in","groups":["fw","ids"],"classifiers":[{"from":{"any":true},"to":{"network":"web"},"protocol":"tcp","destinationPorts":[80]}]}`

func TestAChainIsSymmetricUnlessItSaysOtherwise(t *testing.T) {
	declared := chain(t, webIn)
	c, err := declared.Normal()
	if err != nil {
		t.Fatal(err)
	}
	if !c.IsSymmetric() || c.Symmetric == nil || !declared.IsSymmetric() || declared.Symmetric != nil {
		t.Errorf("symmetric %v, declared %v", c.Symmetric, declared.Symmetric)
	}
	no := false
	declared.Symmetric = &no
	if c, err = declared.Normal(); err != nil || c.IsSymmetric() {
		t.Errorf("symmetric %v, %v", c.Symmetric, err)
	}
}

func TestChainsThatMakeNoSenseAreRefused(t *testing.T) {
	named := func(n int) []vnet.GroupName {
		var groups []vnet.GroupName
		for i := range n {
			groups = append(groups, vnet.GroupName(fmt.Sprint("g", i)))
		}
		return groups
	}
	port := func(n int) vnet.Classifier {
		return vnet.Classifier{From: everybody, To: everybody, Protocol: vnet.UDP, DestinationPorts: vnet.PortRanges{{First: uint16(n), Last: uint16(n)}}}
	}
	for _, tc := range []struct {
		change     func(*vnet.Chain)
		want, hint string // want empty: it makes sense
	}{
		{func(*vnet.Chain) {}, "", ""},
		{func(c *vnet.Chain) { c.Tenant = "" }, "tenant is missing", ""},
		{func(c *vnet.Chain) { c.Name = "a/b" }, `chain "a/b"`, ""},
		{func(c *vnet.Chain) { c.Name = "" }, "chain is missing", ""},
		{func(c *vnet.Chain) { c.Priority = -1 }, "priority -1: must be 0 to 10000", ""},
		{func(c *vnet.Chain) { c.Priority = vnet.MaxPriority + 1 }, "priority 10001", ""},
		{func(c *vnet.Chain) { c.Priority = vnet.MaxPriority }, "", ""},
		{func(c *vnet.Chain) { c.Groups = nil }, "chain blue/web-in has no groups", ""},
		{func(c *vnet.Chain) { c.Groups = named(9) }, "chain blue/web-in has 9 hops: at most 8", ""},
		{func(c *vnet.Chain) { c.Groups = named(8) }, "", ""},
		{func(c *vnet.Chain) { c.Groups = []vnet.GroupName{"fw", "ids", "fw"} }, "chain blue/web-in visits group fw twice", ""},
		{func(c *vnet.Chain) { c.Groups = []vnet.GroupName{"red/fw"} }, `group "red/fw": a chain is led through groups of its own tenant`, ""},
		{func(c *vnet.Chain) { c.Groups = []vnet.GroupName{""} }, "group is missing", ""},
		{func(c *vnet.Chain) { c.Classifiers = nil }, "chain blue/web-in has no classifiers", "{any: true}"},
		{func(c *vnet.Chain) {
			for i := range 65 {
				c.Classifiers = append(c.Classifiers, port(i+1))
			}
		}, "has 66 classifiers: at most 64", ""},
		{func(c *vnet.Chain) {
			for i := range 63 {
				c.Classifiers = append(c.Classifiers, port(i+1))
			}
		}, "", ""},
		{func(c *vnet.Chain) { c.Classifiers = append(c.Classifiers, c.Classifiers[0]) }, "classifier 2: the chain has it twice", ""},
		{func(c *vnet.Chain) { c.Classifiers = append(c.Classifiers, vnet.Classifier{From: everybody}) }, "classifier 2: to: it says nothing", "any: true"},
	} {
		c := chain(t, webIn)
		tc.change(&c)
		_, err := c.Normal()
		if tc.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(vnet.Hint(err), tc.hint) {
			t.Errorf("got %v (hint %q), want an ErrInvalid with %q and the hint %q", err, vnet.Hint(err), tc.want, tc.hint)
		}
	}
}

func TestClassifiersThatMakeNoSenseAreRefused(t *testing.T) {
	for _, tc := range []struct{ text, want, hint string }{ // want empty: it makes sense
		{`{"from":{"any":true},"to":{"any":true}}`, "", ""},
		{`{"from":{"network":"web"},"to":{"endpoint":"c1/eth0"},"protocol":"icmp"}`, "", ""},
		{`{"from":{"labels":{"app":"x"}},"to":{"prefix":"fd00::/64"},"protocol":"any"}`, "", ""},
		{`{"from":{"prefix":"10.0.0.1/32"},"to":{"any":true},"protocol":"udp","sourcePorts":["53"],"destinationPorts":[53]}`, "", ""},

		{`{"to":{"any":true}}`, "from: it says nothing, which would match everything", "any: true"},
		{`{"from":{"any":true},"to":{"labels":{}}}`, "to: it says nothing", "any: true"},
		{`{"from":{"any":false},"to":{"any":true}}`, "from: it says nothing", "any: true"},
		{`{"from":{"any":true,"network":"web"},"to":{"any":true}}`, "from: any and network cannot both be given", ""},
		{`{"from":{"endpoint":"c1/eth0","labels":{"a":"b"}},"to":{"any":true}}`, "from: endpoint and labels cannot both be given", ""},
		{`{"from":{"network":"red/web"},"to":{"any":true}}`, `from: network "red/web"`, ""},
		{`{"from":{"endpoint":"c1"},"to":{"any":true}}`, `from: endpoint "c1": name it as CONTAINER/IFNAME`, ""},
		{`{"from":{"any":true},"to":{"prefix":"0.0.0.0/0"}}`, "to: prefix 0.0.0.0/0 matches everything of its family", "any: true"},
		{`{"from":{"any":true},"to":{"prefix":"::/0"}}`, "to: prefix ::/0 matches everything of its family", "any: true"},
		{`{"from":{"any":true},"to":{"prefix":"::ffff:10.0.0.0/120"}}`, "neither an IPv4 nor an IPv6 prefix", ""},
		{`{"from":{"prefix":"10.0.0.0/24"},"to":{"prefix":"fd00::/64"}}`, "it matches nothing: 10.0.0.0/24 and fd00::/64 are of different families", ""},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"sctp"}`, `protocol "sctp": must be tcp, udp, icmp or any`, ""},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"TCP"}`, `protocol "TCP"`, ""},
		{`{"from":{"any":true},"to":{"any":true},"destinationPorts":[80]}`, "ports are those of tcp or udp", ""},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"any","sourcePorts":[80]}`, "ports are those of tcp or udp", ""},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"icmp","sourcePorts":[80]}`, "ports are those of tcp or udp", ""},
		{`{"from":{"labels":{"":"x"}},"to":{"any":true}}`, "from: a label has no key", ""},
	} {
		var k vnet.Classifier
		if err := json.Unmarshal([]byte(tc.text), &k); err != nil {
			t.Fatal(err)
		}
		_, err := k.Normal()
		if tc.want == "" {
			if err != nil {
				t.Errorf("%s: %v", tc.text, err)
			}
			continue
		}
		if !errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), tc.want) || !strings.Contains(vnet.Hint(err), tc.hint) {
			t.Errorf("%s: got %v (hint %q), want an ErrInvalid with %q and the hint %q", tc.text, err, vnet.Hint(err), tc.want, tc.hint)
		}
	}
}

// Chains of one priority may not have the same classifier, so what is the same must be seen as such.
func TestClassifiersThatMatchTheSameAreEqual(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{`{"from":{"any":true},"to":{"prefix":"10.0.0.0/24"}}`, `{"from":{"any":true},"to":{"prefix":"10.0.0.7/24"},"protocol":"any"}`, true},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"tcp","destinationPorts":[80,81]}`, `{"from":{"any":true},"to":{"any":true},"protocol":"tcp","destinationPorts":["80-81"],"sourcePorts":[]}`, true},
		{`{"from":{"labels":{"a":"1","b":"2"}},"to":{"any":true}}`, `{"from":{"labels":{"b":"2","a":"1"}},"to":{"any":true}}`, true},
		{`{"from":{"labels":{"a":"1"}},"to":{"any":true}}`, `{"from":{"labels":{"a":"2"}},"to":{"any":true}}`, false},
		{`{"from":{"any":true},"to":{"network":"web"}}`, `{"from":{"network":"web"},"to":{"any":true}}`, false},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"tcp","destinationPorts":[80]}`, `{"from":{"any":true},"to":{"any":true},"protocol":"tcp","sourcePorts":[80]}`, false},
		{`{"from":{"any":true},"to":{"any":true},"protocol":"tcp"}`, `{"from":{"any":true},"to":{"any":true}}`, false},
	} {
		var ks [2]vnet.Classifier
		for i, text := range []string{tc.a, tc.b} {
			err := json.Unmarshal([]byte(text), &ks[i])
			if err == nil {
				ks[i], err = ks[i].Normal()
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if ks[0].Equal(ks[1]) != tc.want {
			t.Errorf("%s and %s are equal: %v", tc.a, tc.b, !tc.want)
		}
	}
}

func TestAClassifierReadsAsASentence(t *testing.T) {
	for text, want := range map[string]string{
		`{"from":{"any":true},"to":{"any":true}}`: "from any to any",
		`{"from":{"network":"front"},"to":{"endpoint":"c1/eth0"},"protocol":"tcp","sourcePorts":["1024-65535"],"destinationPorts":[80,443]}`: "from network front to endpoint c1/eth0 tcp source ports 1024-65535 ports 80,443",
		`{"from":{"labels":{"b":"2","a":"1"}},"to":{"prefix":"10.0.0.0/24"},"protocol":"icmp"}`:                                              "from labels a=1,b=2 to 10.0.0.0/24 icmp",
	} {
		var k vnet.Classifier
		if err := json.Unmarshal([]byte(text), &k); err != nil || k.String() != want {
			t.Errorf("got %q, %v, want %q", k, err, want)
		}
	}
}

func TestLabels(t *testing.T) {
	many := vnet.Labels{}
	for i := range 65 {
		many[strconv.Itoa(i)] = ""
	}
	for _, tc := range []struct {
		labels vnet.Labels
		want   string // empty: they are valid
	}{
		{nil, ""},
		{vnet.Labels{"app.kubernetes.io/name": "web", "empty": ""}, ""},
		{vnet.Labels{strings.Repeat("k", 253): strings.Repeat("v", 253)}, ""},
		{many, "there are 65 labels: at most 64"},
		{vnet.Labels{"": "x"}, "a label has no key"},
		{vnet.Labels{strings.Repeat("k", 254): ""}, "up to 253 printable characters"},
		{vnet.Labels{"k": strings.Repeat("v", 254)}, "up to 253 printable characters"},
		{vnet.Labels{"a=b": ""}, `label "a=b"`},
		{vnet.Labels{"a": "b,c"}, `label "b,c"`},
		{vnet.Labels{"a": "b c"}, `label "b c"`},
		{vnet.Labels{"a": "b\n"}, `label "b\n"`},
		{vnet.Labels{"ä": ""}, `label "ä"`},
	} {
		err := tc.labels.Validate()
		if tc.want == "" && err != nil || tc.want != "" && (!errors.Is(err, vnet.ErrInvalid) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%.80v: got %v, want %q", tc.labels, err, tc.want)
		}
	}
	have := vnet.Labels{"app": "web", "tier": ""}
	for _, tc := range []struct {
		wanted vnet.Labels
		want   bool
	}{
		{vnet.Labels{"app": "web"}, true},
		{vnet.Labels{"app": "web", "tier": ""}, true},
		{vnet.Labels{"app": "db"}, false},
		{vnet.Labels{"app": "web", "zone": ""}, false}, // a label without a value is not a label that is missing
		{vnet.Labels{"App": "web"}, false},
	} {
		if have.Has(tc.wanted) != tc.want {
			t.Errorf("%s has %s: %v", have, tc.wanted, !tc.want)
		}
	}
}

// Whatever is declared, it is refused with ErrInvalid, or what Normal made of it stays as it is, and can be stored.
func FuzzChain(f *testing.F) {
	f.Add([]byte(webIn))
	f.Add([]byte(`{"tenant":"blue","name":"c","priority":10000,"symmetric":false,"groups":["a"],"classifiers":[{"from":{"labels":{"a":"b"}},"to":{"prefix":"10.0.0.7/24"},"protocol":"any"},{"from":{"endpoint":"c/e"},"to":{"network":"w"},"protocol":"udp","sourcePorts":["1-2",3]}]}`))
	f.Add([]byte(`{"tenant":"b","name":"c","groups":["a","a"],"classifiers":[{}]}`))
	f.Add([]byte(`{"classifiers":null}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var declared vnet.Chain
		if json.Unmarshal(text, &declared) != nil {
			return
		}
		c, err := declared.Normal()
		if err != nil {
			if !errors.Is(err, vnet.ErrInvalid) {
				t.Fatalf("%q: %v is of no kind", text, err)
			}
			return
		}
		again, err := c.Normal()
		if err != nil {
			t.Fatalf("%q: what Normal made of it is refused: %v", text, err)
		}
		same := []cmp.Option{cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })}
		if diff := cmp.Diff(c, again, same...); diff != "" {
			t.Fatalf("%q: Normal changes what it has made (-once +twice):\n%s", text, diff)
		}
		stored, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		var read vnet.Chain
		if err := json.Unmarshal(stored, &read); err != nil {
			t.Fatalf("%s cannot be read back: %v", stored, err)
		}
		if diff := cmp.Diff(c, read, append(same, cmpopts.EquateEmpty())...); diff != "" {
			t.Fatalf("%q: stored and read it is another (-made +read):\n%s", text, diff)
		}
		for i, k := range c.Classifiers {
			_ = k.String()
			if !k.Equal(read.Classifiers[i]) {
				t.Fatalf("%q: stored and read, classifier %d is another", text, i+1)
			}
		}
	})
}
