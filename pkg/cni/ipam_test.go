package cni_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
)

// bridged is a configuration of another main plugin with that ipam section.
func bridged(ipam string) string {
	return `{"cniVersion":"1.1.0","name":"net","type":"bridge","bridge":"cni0","isGateway":true,"ipam":` + ipam + `}`
}

func TestIPAMSectionIsReadStrictlyAndTheRestIsNotOurs(t *testing.T) {
	for _, test := range []badInput{
		{"no section", `{"cniVersion":"1.1.0","name":"net","type":"bridge"}`, "", 7, "no ipam section"},
		{"text", bridged(`"tenet-ipam"`), "", 7, "ipam: must be an object"},
		{"unknown key", bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web","subnet":"10.0.0.0/24"}`), "", 7, `ipam: unknown key "subnet"`},
		{"switch key", bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web","bridge":"br"}`), "", 7, `ipam: unknown key "bridge"`},
		{"key with a dot", bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web","x.y":1}`), "", 7, `ipam: unknown key "x.y"`},
		{"case", bridged(`{"type":"tenet-ipam","Tenant":"blue","network":"web"}`), "", 7, `ipam: unknown key "Tenant"`},
		{"wrong type", bridged(`{"type":"tenet-ipam","tenant":["blue"],"network":"web"}`), "", 7, `key "tenant" is a array`},
		{"tenant beside the section", bridged(`{"type":"tenet-ipam","network":"web"},"tenant":"blue"`), "", 7, "tenant is missing"},
		{"subnet key", bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web","subnets":[{"prefix":"10.0.0.0/24","range":"x"}]}`), "", 7, `subnets[0]: unknown key "range"`},
		{"args", bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web"}`), "IP=1.2.3.4;X=1", 4, `unknown args`},
	} {
		err := look(cni.ParseIPAM([]byte(test.conf), test.args))
		e, ok := errors.AsType[*types.Error](err)
		if !ok || e.Code != test.code || !strings.Contains(e.Msg, test.text) {
			t.Errorf("%s: got %s, want code %d with %s", test.what, clip(fmt.Sprintf("%#v", err)), test.code, test.text)
		}
	}
	const sound = `{"type":"tenet-ipam","tenant":"blue","network":"web","subnets":[{"prefix":"10.0.0.0/24"}],"dataDir":"/tmp/x"}`
	for what, text := range map[string]string{
		"plain":                        bridged(sound),
		"the main plugin masquerades":  bridged(sound + `,"ipMasq":true`),
		"the main plugin's own things": bridged(sound + `,"runtimeConfig":{"portMappings":[{"hostPort":80}],"bandwidth":{"ingressRate":1}},"vlan":7,"Tenant":"x"`),
	} {
		if err := look(cni.ParseIPAM([]byte(text), "IgnoreUnknown=1;FOO=1")); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestAddressesAskedForInAnyWayAreTakenOnce(t *testing.T) {
	c, err := cni.ParseTenet([]byte(conf(tenant+`,"runtimeConfig":{"ips":["10.0.0.5/24","fd00::5","::ffff:10.0.0.6"]}`)), "IP=10.0.0.5,10.0.0.7")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := c.Addresses()
	if got := fmt.Sprint(addrs); err != nil || got != "[10.0.0.5 fd00::5 10.0.0.6 10.0.0.7]" {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestAnotherConfigurationHasAnotherFingerprint(t *testing.T) {
	seen := map[string]string{}
	for _, text := range []string{
		conf(tenant), conf(`"tenant":"red"`), conf(four), conf(six), conf(four + `,"vni":7`), conf(four + `,"mtu":1400`),
		conf(four + `,"gateway":"nat"`), conf(four + `,"gateway":"nat","egressAddress":"192.0.2.1"`), conf(four + `,"provider":{"uplink":"lan"}`),
		conf(four + `,"provider":{"uplink":"lan","vlan":7}`), conf(four + `,"dns":{"search":["blue"]}`),
		conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80}]}`), conf(tenant + `,"runtimeConfig":{"bandwidth":{"ingressRate":8000}}`),
		conf(tenant + `,"runtimeConfig":{"ips":["10.0.0.5"]}`), conf(tenant + `,"runtimeConfig":{"mac":"0a:58:0a:00:00:02"}`), conf(tenant + `,"ipam":{"type":"host-local"}`),
	} {
		c, err := cni.ParseTenet([]byte(text), "")
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := seen[c.Fingerprint()]; taken {
			t.Errorf("the same for\n%s\n%s", other, text)
		}
		seen[c.Fingerprint()] = text
	}
	one, err1 := cni.ParseTenet([]byte(conf(four)), "")
	two, err2 := cni.ParseTenet([]byte(conf(`"cni.dev/x":1,`+four+`,"args":{}`)), "IgnoreUnknown=1;K8S_POD_NAME=p")
	if err1 != nil || err2 != nil || one.Fingerprint() != two.Fingerprint() {
		t.Errorf("what does not shape the endpoint changed the fingerprint: %v, %v", err1, err2)
	}
}
