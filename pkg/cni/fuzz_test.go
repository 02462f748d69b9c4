package cni_test

import (
	"errors"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
)

// parsed checks what any input must come to: an error with one of the codes for bad input, or a
// configuration that can be used.
func parsed(t *testing.T, c *cni.NetConf, err error) {
	if err == nil {
		_ = c.Fingerprint()
		_ = c.Attachments()
		err = look(c, nil)
	}
	if e, ok := errors.AsType[*types.Error](cni.Error(err)); ok && e.Code != 4 && e.Code != 6 && e.Code != 7 {
		t.Errorf("code %d: %v", e.Code, err)
	}
}

func FuzzParseTenet(f *testing.F) {
	for _, test := range badInputs {
		if len(test.conf) < 4096 {
			f.Add([]byte(test.conf), test.args)
		}
	}
	f.Add([]byte(conf(four+`,"gateway":"nat","egressAddress":"192.0.2.1","dns":{"nameservers":["10.0.0.53"],"search":["blue"]}`)), "")
	f.Add([]byte(conf(four+`,"provider":{"uplink":"lan","vlan":100}`)), "")
	f.Add([]byte(conf(tenant+`,"runtimeConfig":{"portMappings":[{"HostPort":80,"ContainerPort":80,"Protocol":"TCP","HostIP":"::"}],"bandwidth":{"IngressRate":8000,"egressRate":1e6}}`)), "")
	f.Add([]byte(conf(tenant+`,"serviceFunction":{"group":"fw","port":"ingress"},"labels":{"a":"b"},"args":{"cni":{"serviceFunction":{"group":"ids","port":"both","weight":7},"labels":[{"key":"a","value":"c"}]}}`)), "")
	f.Add([]byte(conf(six)), "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		c, err := cni.ParseTenet(stdin, args)
		parsed(t, c, err)
	})
}

func FuzzParseIPAM(f *testing.F) {
	f.Add([]byte(bridged(`{"type":"tenet-ipam","tenant":"blue","network":"web","subnets":[{"prefix":"10.0.0.0/24","reserved":["10.0.0.2-10.0.0.9"]}]}`)), "IP=10.0.0.5")
	f.Add([]byte(bridged(`{}`)), "")
	f.Add([]byte(bridged(`null`)), "A=B")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		c, err := cni.ParseIPAM(stdin, args)
		parsed(t, c, err)
	})
}

func FuzzArgs(f *testing.F) {
	for _, args := range []string{"", "IP=10.0.0.5", "IgnoreUnknown=1;A=B", "CommonArgs=1", "=", ";", "K8S_POD_NAMESPACE=x;K8S_POD_NAMESPACE=y", "MAC=0a:58:0a:00:00:02"} {
		f.Add(args)
	}
	f.Fuzz(func(t *testing.T, args string) {
		c, err := cni.ParseTenet([]byte(conf(`"tenantFrom":"namespace"`)), args)
		parsed(t, c, err)
	})
}
