package cni_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// sound parses a configuration that must be one.
func sound(t *testing.T, text string) *cni.NetConf {
	t.Helper()
	c, err := cni.ParseTenet([]byte(text), "")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a runtime's user says of one container counts before what the configuration says of all.
func TestArgsCountBeforeTheConfiguration(t *testing.T) {
	const own, theirs = `"serviceFunction":{"group":"fw","port":"ingress","weight":7}`, `"serviceFunction":{"group":"ids","port":"egress"}`
	for _, tc := range []struct {
		what, more string
		function   *vnet.FunctionPort
		labels     vnet.Labels
	}{
		{"neither", ``, nil, nil},
		{"the configuration alone", own + `,"labels":{"app":"web"}`, &vnet.FunctionPort{Group: "fw", Port: vnet.Ingress, Weight: 7}, vnet.Labels{"app": "web"}},
		{"args alone", `"args":{"cni":{` + theirs + `,"labels":{"app":"db"}}}`, &vnet.FunctionPort{Group: "ids", Port: vnet.Egress, Weight: 1}, vnet.Labels{"app": "db"}},
		{"the whole of args' function", own + `,"args":{"cni":{` + theirs + `}}`, &vnet.FunctionPort{Group: "ids", Port: vnet.Egress, Weight: 1}, nil},
		{"no function in args", own + `,"args":{"cni":{"serviceFunction":null}}`, nil, nil},
		{"labels of both", `"labels":{"app":"web","tier":"1"},"args":{"cni":{"labels":{"app":"db","env":"prod"}}}`, nil, vnet.Labels{"app": "db", "tier": "1", "env": "prod"}},
		{"labels as CNI has them", `"labels":{"app":"web"},"args":{"cni":{"labels":[{"key":"app","value":"db"},{"key":"env"}]}}`, nil, vnet.Labels{"app": "db", "env": ""}},
		{"null labels in args", `"labels":{"app":"web"},"args":{"cni":{"labels":null}}`, nil, vnet.Labels{"app": "web"}},
		{"args of others", own + `,"args":{"cni":{"ips":["10.0.0.2"]},"other":{` + theirs + `}}`, &vnet.FunctionPort{Group: "fw", Port: vnet.Ingress, Weight: 7}, nil},
	} {
		more := tenant
		if tc.more != "" {
			more += "," + tc.more
		}
		c := sound(t, conf(more))
		for range 2 { // asking changes nothing
			function, err := c.FunctionPort()
			if diff := cmp.Diff(tc.function, function); err != nil || diff != "" {
				t.Errorf("%s: function (-want +got): %v\n%s", tc.what, err, diff)
			}
			labels, err := c.EndpointLabels()
			if diff := cmp.Diff(tc.labels, labels); err != nil || diff != "" {
				t.Errorf("%s: labels (-want +got): %v\n%s", tc.what, err, diff)
			}
		}
	}
}

// DEL is told the configuration of an ADD that was refused, and must not be refused for the same.
func TestADelDoesNotStumbleOverAFunctionThatMakesNoSense(t *testing.T) {
	for _, more := range []string{
		`"serviceFunction":"fw"`, `"labels":7`, `"args":{"cni":{"labels":{"a":[]}}}`, `"args":{"cni":{"serviceFunction":7}}`, `"args":"x"`,
	} {
		sound(t, conf(tenant+","+more))
	}
}

// A second ADD for the same thing asks for the same function and labels.
func TestFingerprintsDifferByFunctionAndLabels(t *testing.T) {
	const function = `"serviceFunction":{"group":"fw","port":"ingress"}`
	seen := map[string]string{}
	for _, more := range []string{
		``, `,` + function, `,"serviceFunction":{"group":"fw","port":"egress"}`, `,"serviceFunction":{"group":"ids","port":"ingress"}`,
		`,"serviceFunction":{"group":"fw","port":"ingress","weight":2}`, `,"labels":{"app":"web"}`, `,"labels":{"app":"db"}`, `,"labels":{"app":"web","a":"b"}`,
	} {
		fingerprint := sound(t, conf(tenant+more)).Fingerprint()
		if other, same := seen[fingerprint]; same {
			t.Errorf("%q and %q have the same fingerprint", more, other)
		}
		seen[fingerprint] = more
	}
	for _, same := range []struct{ a, b string }{
		{``, `,"serviceFunction":null,"labels":{},"args":{"cni":{"labels":[]}}`},
		{`,` + function, `,"serviceFunction":{"weight":1,"port":"ingress","group":"fw"}`},
		{`,` + function, `,"args":{"cni":{` + function + `}}`},
		{`,"labels":{"a":"1","b":"2"}`, `,"labels":{"b":"2"},"args":{"cni":{"labels":[{"key":"a","value":"1"}]}}`},
	} {
		if sound(t, conf(tenant+same.a)).Fingerprint() != sound(t, conf(tenant+same.b)).Fingerprint() {
			t.Errorf("%q and %q have different fingerprints", same.a, same.b)
		}
	}
	// Endpoints that were made before there were functions keep theirs.
	if got := sound(t, conf(four)).Fingerprint(); got != "4b61b6149b2dd685" {
		t.Errorf("without function and labels it is %s", got)
	}
}
