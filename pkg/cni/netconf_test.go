package cni_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/node"
)

// look does with a configuration what the plugins do before they act, and returns the error
// that a runtime would get.
func look(conf *cni.NetConf, err error) error {
	for _, step := range []func() error{
		func() error { return err },
		func() error {
			config, err := node.LoadConfig(conf.Config)
			if err == nil {
				_, err = config.Override(node.Config{Bridge: conf.Bridge, OVSRunDir: conf.OVSRunDir, DataDir: conf.DataDir, Datapath: conf.Datapath})
			}
			return err
		},
		func() error { _, _, err := conf.Declaration(); return err },
		func() error { _, err := conf.Addresses(); return err },
		func() error { _, err := conf.MAC(); return err },
		func() error { _, err := conf.PortMappings(); return err },
		func() error { _, err := conf.Bandwidth(); return err },
		func() error { _, err := conf.FunctionPort(); return err },
		func() error { _, err := conf.EndpointLabels(); return err },
	} {
		if err := step(); err != nil {
			return cni.Error(err)
		}
	}
	return nil
}

// conf is a sound configuration of type tenet with more keys, which may be none.
func conf(more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"cniVersion":"1.1.0","name":"net","type":"tenet","network":"web"` + more + `}`
}

const (
	tenant = `"tenant":"blue"`
	four   = tenant + `,"subnets":[{"prefix":"10.0.0.0/24"}]`
	six    = tenant + `,"subnets":[{"prefix":"10.0.0.0/24"},{"prefix":"fd00::/64"}]`
)

type badInput struct {
	what, conf, args string
	code             uint
	text             string
}

var badInputs = []badInput{
	{"unknown key", conf(tenant + `,"networks":"web"`), "", 7, `unknown key "networks"`},
	{"key in another case", conf(`"Tenant":"blue"`), "", 7, `unknown key "Tenant"`},
	{"key beside itself in another case", conf(tenant + `,"TENANT":"red"`), "", 7, `unknown key "TENANT"`},
	{"key that folds to ours", conf(tenant + `,"\u017fubnets":[]`), "", 7, `unknown key "ſubnets"`},
	{"key given twice", conf(tenant + `,"tenant":"red"`), "", 7, `key "tenant" is given twice`},
	{"unknown key of a subnet", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","gatewy":"10.0.0.9"}]`), "", 7, `subnets[0]: unknown key "gatewy"`},
	{"key of a subnet twice", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","prefix":"10.1.0.0/24"}]`), "", 7, `subnets[0]: key "prefix" is given twice`},
	{"key of a subnet in another case", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","Prefix":"10.1.0.0/24"}]`), "", 7, `unknown key "Prefix"`},
	{"tenant that is a number", conf(`"tenant":7`), "", 7, `key "tenant" is a number`},
	{"subnets that are text", conf(tenant + `,"subnets":"10.0.0.0/24"`), "", 7, `key "subnets" is a string`},
	{"subnet that is text", conf(tenant + `,"subnets":["10.0.0.0/24"]`), "", 7, `"subnets" is a string`},
	{"vni that is text", conf(four + `,"vni":"7"`), "", 7, `key "vni" is a string`},
	{"negative vni", conf(four + `,"vni":-1`), "", 7, `key "vni" is a number -1`},
	{"mtu with a fraction", conf(four + `,"mtu":1400.5`), "", 7, `key "mtu" is a number 1400.5`},
	{"name that is a number", `{"cniVersion":"1.1.0","name":7,"type":"tenet","network":"web","tenant":"blue"}`, "", 7, `key "name" is a number`},
	{"dns that is text", conf(tenant + `,"dns":"10.0.0.1"`), "", 7, `key "dns" is a string`},

	{"bad prefix", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/33"}]`), "", 7, `10.0.0.0/33`},
	{"no prefix", conf(tenant + `,"subnets":[{"gateway":"10.0.0.1"}]`), "", 7, `subnet without a prefix`},
	{"host bits", conf(tenant + `,"subnets":[{"prefix":"10.0.0.7/24"}]`), "", 7, `did you mean 10.0.0.0/24`},
	{"bad gateway", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.0"}]`), "", 7, `10.0.0`},
	{"gateway outside", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","gateway":"10.0.1.1"}]`), "", 7, `gateway 10.0.1.1 is outside its subnet 10.0.0.0/24`},
	{"bad range", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24","reserved":["10.0.0.9-10.0.0.2"]}]`), "", 7, `range "10.0.0.9-10.0.0.2"`},
	{"overlap", conf(tenant + `,"subnets":[{"prefix":"10.0.0.0/24"},{"prefix":"10.0.0.0/25"}]`), "", 7, `subnets 10.0.0.0/24 and 10.0.0.0/25 overlap`},
	{"vni 0", conf(four + `,"vni":0`), "", 7, `vni 0: must be 1 to`},
	{"vni of a hop", conf(four + `,"vni":15728640`), "", 7, `vni 15728640`},
	{"vni beyond 32 bits", conf(four + `,"vni":4294967297`), "", 7, `vni`},
	{"mtu 0", conf(four + `,"mtu":0`), "", 7, `mtu 0`},
	{"negative mtu", conf(four + `,"mtu":-1`), "", 7, `mtu -1`},
	{"mtu below IPv6's least", conf(six + `,"mtu":1279`), "", 7, `mtu 1279: below 1280`},
	{"vni without subnets", conf(tenant + `,"vni":7`), "", 7, `need subnets`},
	{"gateway rubbish", conf(four + `,"gateway":"x"`), "", 7, `gateway "x": must be none, nat or routed`},
	{"egressAddress rubbish", conf(four + `,"gateway":"nat","egressAddress":"10.0.0"`), "", 7, `egressAddress "10.0.0": not an address`},
	{"egressAddress that is a number", conf(four + `,"gateway":"nat","egressAddress":7`), "", 7, `key "egressAddress" is a number`},
	{"egressAddress nobody has", conf(four + `,"gateway":"nat","egressAddress":"0.0.0.0"`), "", 7, `egressAddress 0.0.0.0: nobody outside could answer it`},
	{"egressAddress of a closed network", conf(four + `,"egressAddress":"192.0.2.1"`), "", 7, `egressAddress 192.0.2.1: only a network with gateway nat`},
	{"egressAddress of a routed network", conf(four + `,"gateway":"routed","egressAddress":"192.0.2.1"`), "", 7, `only a network with gateway nat`},
	{"egressAddress without subnets", conf(tenant + `,"egressAddress":"192.0.2.1"`), "", 7, `need subnets`},
	{"provider without subnets", conf(tenant + `,"provider":{"uplink":"lan","vlan":100}`), "", 7, `need subnets`},
	{"provider without an uplink", conf(four + `,"provider":{"vlan":100}`), "", 7, `provider: uplink is missing`},
	{"provider that is empty", conf(four + `,"provider":{}`), "", 7, `provider: uplink is missing`},
	{"provider that is text", conf(four + `,"provider":"lan"`), "", 7, `key "provider" is a string`},
	{"unknown key of a provider", conf(four + `,"provider":{"uplink":"lan","tag":100}`), "", 7, `provider: unknown key "tag"`},
	{"key of a provider in another case", conf(four + `,"provider":{"uplink":"lan","VLAN":100}`), "", 7, `provider: unknown key "VLAN"`},
	{"key of a provider twice", conf(four + `,"provider":{"uplink":"lan","uplink":"wan"}`), "", 7, `provider: key "uplink" is given twice`},
	{"vlan that is text", conf(four + `,"provider":{"uplink":"lan","vlan":"100"}`), "", 7, `key "provider.vlan" is a string`},
	{"vlan 4095", conf(four + `,"provider":{"uplink":"lan","vlan":4095}`), "", 7, `vlan 4095: must be 1 to 4094`},
	{"uplink with a slash", conf(four + `,"provider":{"uplink":"a/b"}`), "", 7, `uplink "a/b"`},
	{"provider with a way out besides", conf(four + `,"gateway":"nat","provider":{"uplink":"lan"}`), "", 7, `a provider network's way out is a router on the wire`},
	{"name server that is a name", conf(four + `,"dns":{"nameservers":["ns1"]}`), "", 7, `dns: nameserver "ns1": not an address`},

	{"no tenant", conf(""), "", 7, `tenant is missing`},
	{"no network", `{"cniVersion":"1.1.0","name":"net","type":"tenet","tenant":"blue"}`, "", 7, `network is missing`},
	{"tenant with a slash", conf(`"tenant":"a/b"`), "", 7, `tenant "a/b": character "/"`},
	{"tenant with a space", conf(`"tenant":"a b"`), "", 7, `tenant "a b": character " "`},
	{"long tenant", conf(`"tenant":"` + strings.Repeat("x", 64) + `"`), "", 7, `64 characters`},
	{"tenantFrom rubbish", conf(`"tenantFrom":"label"`), "", 7, `tenantFrom "label"`},
	{"tenant twice over", conf(tenant + `,"tenantFrom":"namespace"`), "", 7, `tenant and tenantFrom`},
	{"tenantFrom without namespace", conf(`"tenantFrom":"namespace"`), "", 7, `no K8S_POD_NAMESPACE`},
	{"tenantFrom with a bad namespace", conf(`"tenantFrom":"namespace"`), "K8S_POD_NAMESPACE=a/b", 7, `tenant "a/b"`},

	{"datapath", conf(tenant + `,"datapath":"dpdk"`), "", 7, `datapath "dpdk"`},
	{"long bridge", conf(tenant + `,"bridge":"br-0123456789abc"`), "", 7, `bridge "br-0123456789abc"`},
	{"bridge that is a path", conf(tenant + `,"bridge":"../x"`), "", 7, `bridge "../x"`},
	{"relative dataDir", conf(tenant + `,"dataDir":"data"`), "", 7, `dataDir "data"`},
	{"relative ovsRunDir", conf(tenant + `,"ovsRunDir":"ovs"`), "", 7, `ovsRunDir "ovs"`},
	{"config that is not there", conf(tenant + `,"config":"/nowhere/tenet.json"`), "", 7, `/nowhere/tenet.json`},

	{"ipam with our keys in it", conf(`"ipam":{"type":"tenet-ipam","tenant":"blue"}`), "", 7, `ipam: unknown key "tenant"`},
	{"ipam without type but keys", conf(tenant + `,"ipam":{"subnets":[]}`), "", 7, `ipam: unknown key "subnets"`},
	{"ipam whose type is in another case", conf(tenant + `,"ipam":{"Type":"host-local"}`), "", 7, `ipam: unknown key "Type"`},
	{"ipam with two types", conf(tenant + `,"ipam":{"type":"tenet-ipam","type":"host-local"}`), "", 7, `ipam: key "type" is given twice`},
	{"ipam that is text", conf(tenant + `,"ipam":"tenet-ipam"`), "", 7, `ipam: must be an object`},
	{"ipMasq", conf(tenant + `,"ipMasq":true`), "", 7, `ipMasq is not offered`},
	{"portMappings that are an object", conf(tenant + `,"runtimeConfig":{"portMappings":{"hostPort":80}}`), "", 7, `key "portMappings" is a object`},
	{"port mapping that is text", conf(tenant + `,"runtimeConfig":{"portMappings":["80:80"]}`), "", 7, `portMappings[0]: must be an object`},
	{"port mapping with nothing in it", conf(tenant + `,"runtimeConfig":{"portMappings":[{}]}`), "", 7, `hostPort 0: must be 1 to 65535`},
	{"hostPort 0", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":0,"containerPort":80,"protocol":"tcp"}]}`), "", 7, `portMappings: hostPort 0: must be 1 to 65535`},
	{"hostPort 65536", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":65536,"containerPort":80}]}`), "", 7, `hostPort 65536: must be 1 to 65535`},
	{"hostPort 65616, which is 80 in 16 bits", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":65616,"containerPort":80}]}`), "", 7, `hostPort 65616`},
	{"negative hostPort", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":-1,"containerPort":80}]}`), "", 7, `hostPort -1: must be 1 to 65535`},
	{"hostPort with a fraction", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80.5,"containerPort":80}]}`), "", 7, `portMappings[0]: key "hostPort" is a number 80.5`},
	{"hostPort beyond all numbers", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":1e30,"containerPort":80}]}`), "", 7, `key "hostPort" is a number 1e30`},
	{"hostPort that is text", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":"80","containerPort":80}]}`), "", 7, `key "hostPort" is a string`},
	{"second port mapping without a port", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80},{"hostPort":81}]}`), "", 7, `containerPort 0: must be 1 to 65535`},
	{"protocol icmp", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"protocol":"icmp"}]}`), "", 7, `protocol "icmp": must be tcp, udp or sctp`},
	{"hostIP rubbish", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIP":"eth0"}]}`), "", 7, `hostIP "eth0": not an address`},
	{"unknown key of a port mapping", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":80,"hostIp":"192.0.2.1"}]}`), "", 7, `portMappings[0]: unknown key "hostIp"`},
	{"key of a port mapping twice", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"hostPort":81,"containerPort":80}]}`), "", 7, `portMappings[0]: key "hostPort" is given twice`},
	{"key of a port mapping in two spellings", conf(tenant + `,"runtimeConfig":{"portMappings":[{"hostPort":80,"HostPort":81,"containerPort":80}]}`), "", 7, `portMappings[0]: keys "hostPort" and "HostPort" differ: 80 and 81`},
	{"bandwidth that is a number", conf(tenant + `,"runtimeConfig":{"bandwidth":1000000}`), "", 7, `bandwidth: must be an object`},
	{"bandwidth without a rate", conf(tenant + `,"runtimeConfig":{"bandwidth":{"ingressRate":0,"ingressBurst":0,"egressRate":0,"egressBurst":0}}`), "", 7, `ingressRate and egressRate are 0`},
	{"rate 0 with a burst", conf(tenant + `,"runtimeConfig":{"bandwidth":{"ingressRate":0,"ingressBurst":2147483647,"egressRate":1000000}}`), "", 7, `bandwidth: ingressRate is 0, with a burst of 2147483647`},
	{"rate of a bit a second", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":1}}`), "", 7, `bandwidth: egressRate 1: must be 8000 to`},
	{"negative rate", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":-1000000}}`), "", 7, `bandwidth: key "egressRate" is a number -1000000`},
	{"rate that is text", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":"1M"}}`), "", 7, `bandwidth: key "egressRate" is a string`},
	{"rate with a fraction", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":1000000.5}}`), "", 7, `bandwidth: key "egressRate" is a number`},
	{"unknown key of bandwidth", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":1000000,"rate":1}}`), "", 7, `bandwidth: unknown key "rate"`},
	{"key of bandwidth in two spellings", conf(tenant + `,"runtimeConfig":{"bandwidth":{"egressRate":1000000,"EgressRate":2000000}}`), "", 7, `keys "egressRate" and "EgressRate" differ`},
	{"function that is text", conf(tenant + `,"serviceFunction":"fw"`), "", 7, `serviceFunction: must be an object`},
	{"unknown key of a function", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","wieght":2}`), "", 7, `serviceFunction: unknown key "wieght"`},
	{"key of a function in another case", conf(tenant + `,"serviceFunction":{"Group":"fw","port":"both"}`), "", 7, `serviceFunction: unknown key "Group"`},
	{"key of a function twice", conf(tenant + `,"serviceFunction":{"group":"fw","group":"ids","port":"both"}`), "", 7, `serviceFunction: key "group" is given twice`},
	{"function without a group", conf(tenant + `,"serviceFunction":{"port":"both"}`), "", 7, `serviceFunction: group is missing`},
	{"function of another tenant's group", conf(tenant + `,"serviceFunction":{"group":"red/fw","port":"both"}`), "", 7, `serviceFunction: group "red/fw"`},
	{"function without a port", conf(tenant + `,"serviceFunction":{"group":"fw"}`), "", 7, `serviceFunction: port "": must be ingress, egress or both`},
	{"port of a function rubbish", conf(tenant + `,"serviceFunction":{"group":"fw","port":"in"}`), "", 7, `serviceFunction: port "in": must be`},
	{"weight 0", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","weight":0}`), "", 7, `serviceFunction: weight 0: must be 1 to 100`},
	{"negative weight", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","weight":-1}`), "", 7, `serviceFunction: weight -1: must be 1 to 100`},
	{"weight 101", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","weight":101}`), "", 7, `serviceFunction: weight 101: must be 1 to 100`},
	{"weight that is text", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","weight":"2"}`), "", 7, `serviceFunction: key "weight" is a string`},
	{"weight with a fraction", conf(tenant + `,"serviceFunction":{"group":"fw","port":"both","weight":1.5}`), "", 7, `serviceFunction: key "weight" is a number 1.5`},
	{"unknown key of a function in args", conf(tenant + `,"args":{"cni":{"serviceFunction":{"group":"fw","port":"both","side":1}}}`), "", 7, `serviceFunction: unknown key "side"`},
	{"labels that are text", conf(tenant + `,"labels":"app=web"`), "", 7, `labels: must be an object`},
	{"label that is a number", conf(tenant + `,"labels":{"app":1}`), "", 7, `labels: key "app" is no text`},
	{"label that is null", conf(tenant + `,"labels":{"app":null}`), "", 7, `labels: key "app" is no text`},
	{"label twice", conf(tenant + `,"labels":{"app":"web","app":"db"}`), "", 7, `labels: key "app" is given twice`},
	{"label with a comma", conf(tenant + `,"labels":{"app":"a,b"}`), "", 7, `labels: label "a,b"`},
	{"label without a key", conf(tenant + `,"labels":[{"value":"web"}]`), "", 7, `labels: a label has no key`},
	{"listed label twice", conf(tenant + `,"args":{"cni":{"labels":[{"key":"app","value":"web"},{"key":"app","value":"db"}]}}`), "", 7, `args.cni: labels[1]: label "app" is given twice`},
	{"unknown key of a listed label", conf(tenant + `,"args":{"cni":{"labels":[{"key":"app","val":"web"}]}}`), "", 7, `args.cni: labels[0]: unknown key "val"`},
	{"listed label that is text", conf(tenant + `,"args":{"cni":{"labels":["app=web"]}}`), "", 7, `labels[0]: must be an object`},
	{"label in args that is a list", conf(tenant + `,"args":{"cni":{"labels":{"app":[]}}}`), "", 7, `args.cni: labels: key "app" is no text`},
	{"args that are text", conf(tenant + `,"args":"cni"`), "", 7, `args: must be an object`},
	{"args.cni that is a list", conf(tenant + `,"args":{"cni":[]}`), "", 7, `args.cni: must be an object`},
	{"runtimeConfig that is a list", conf(tenant + `,"runtimeConfig":[]`), "", 7, `runtimeConfig: must be an object`},
	{"ips that is text", conf(tenant + `,"runtimeConfig":{"ips":"10.0.0.2"}`), "", 7, `runtimeConfig: key "ips" is a string`},
	{"ips rubbish", conf(tenant + `,"runtimeConfig":{"ips":["ten"]}`), "", 7, `address "ten"`},
	{"ips with a zone", conf(tenant + `,"runtimeConfig":{"ips":["fe80::1%eth0"]}`), "", 7, `a zone makes no sense`},
	{"multicast MAC", conf(tenant + `,"runtimeConfig":{"mac":"01:00:5e:00:00:01"}`), "", 7, `multicast`},
	{"malformed MAC", conf(tenant + `,"runtimeConfig":{"mac":"0a:58"}`), "", 7, `MAC "0a:58"`},
	{"two MACs", conf(tenant + `,"runtimeConfig":{"mac":"0a:58:0a:00:00:02"}`), "MAC=0a:58:0a:00:00:03", 7, `asked by capability`},
	{"prevResult text", conf(tenant + `,"prevResult":"x"`), "", 7, `"prevResult" is a string`},
	{"prevResult rubbish", conf(tenant + `,"prevResult":{"cniVersion":"1.1.0","ips":[{"address":"x"}]}`), "", 7, `prevResult`},

	{"empty", "", "", 7, `empty: it is read from standard input`},
	{"blank", " \n", "", 7, `empty: it is read from standard input`},
	{"truncated", `{"cniVersion":"1.1.0","name":"net"`, "", 6, `not JSON`},
	{"more after the end", conf(tenant) + `{}`, "", 6, `not JSON`},
	{"a list", `[]`, "", 7, `must be an object`},
	{"null", `null`, "", 7, `tenant is missing`},
	{"10 MB", conf(tenant + `,"args":"` + strings.Repeat("x", 10<<20) + `"`), "", 7, `more than 1048576`},
	{"nested deep", strings.Repeat("[", 100000), "", 6, `not JSON`},

	{"args without value", conf(tenant), "IP", 4, `CNI_ARGS: ARGS: invalid pair "IP"`},
	{"args unknown", conf(tenant), "FOO=1", 4, `unknown args ["FOO=1"]`},
	{"args that name a field", conf(tenant), "CommonArgs=1;IgnoreUnknown=1", 4, `CommonArgs`},
	{"args IgnoreUnknown rubbish", conf(tenant), "IgnoreUnknown=maybe", 4, `IgnoreUnknown`},
	{"args IP rubbish", conf(tenant), "IP=ten", 7, `address "ten"`},
	{"args MAC rubbish", conf(tenant), "MAC=xx", 7, `MAC "xx"`},
}

func TestEveryBadInputGetsACodeAndATextThatNamesIt(t *testing.T) {
	for _, test := range badInputs {
		err := look(cni.ParseTenet([]byte(test.conf), test.args))
		e, ok := errors.AsType[*types.Error](err)
		if !ok || e.Code != test.code || !strings.Contains(e.Msg, test.text) || strings.Contains(e.Msg, "\n") {
			t.Errorf("%s: got %s, want code %d with %s", test.what, clip(fmt.Sprintf("%#v", err)), test.code, test.text)
		}
	}
}

func clip(s string) string { return s[:min(len(s), 300)] }

func TestWhatCNIAndRuntimesAddIsAccepted(t *testing.T) {
	for what, test := range map[string]struct{ conf, args string }{
		"nothing more":      {conf(tenant), ""},
		"CNI's own keys":    {conf(four + `,"disableCheck":true,"dns":{"nameservers":["10.0.0.53"]},"capabilities":{"ips":true,"io.kubernetes.cri.x":true},"args":{"cni":{"labels":[]},"Cni":1}`), ""},
		"extensions":        {conf(tenant + `,"cni.dev/valid-attachments":[{"containerID":"c","ifname":"e"}],"cni.dev/attachments":[],"io.podman/x":1`), ""},
		"runtimeConfig":     {conf(tenant + `,"runtimeConfig":{"dns":{"servers":[]},"io.kubernetes.cri.pod-annotations":{"a":"b"},"portMappings":[ ],"bandwidth":null,"ips":["10.0.0.2/24","fd00::2"],"mac":"0a:58:0a:00:00:02"}`), ""},
		"gateway nat":       {conf(four + `,"gateway":"nat","egressAddress":"192.0.2.1"`), ""},
		"gateway routed":    {conf(six + `,"gateway":"routed"`), ""},
		"provider":          {conf(four + `,"provider":{"uplink":"lan","vlan":100}`), ""},
		"untagged provider": {conf(four + `,"provider":{"uplink":"lan"}`), ""},
		"capabilities":      {conf(four + `,"capabilities":{"portMappings":true,"bandwidth":true},"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}],"bandwidth":{"ingressRate":1000000}}`), ""},
		"what is off":       {conf(tenant + `,"ipMasq":false`), ""},
		"Kubernetes":        {conf(`"tenantFrom":"namespace"`), "IgnoreUnknown=1;K8S_POD_NAMESPACE=blue;K8S_POD_NAME=p;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=c;OTHER=x"},
		"Kubernetes, first": {conf(`"tenantFrom":"namespace"`), "K8S_POD_NAMESPACE=blue;OTHER=x;IgnoreUnknown=true"},
		"args":              {conf(tenant), "IP=10.0.0.2,fd00::2;MAC=0a:58:0a:00:00:02"},
		"prevResult":        {conf(tenant + `,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"lo"}]}`), ""},
		"function":          {conf(tenant + `,"serviceFunction":{"group":"fw","port":"ingress","weight":100},"labels":{"app":"web","empty":""}`), ""},
		"null function":     {conf(tenant + `,"serviceFunction":null,"labels":null,"args":null`), ""},
		"args of others":    {conf(tenant + `,"args":{"cni":{"ips":["10.0.0.2"],"x":{"serviceFunction":7}},"io.podman":{"labels":7}}`), ""},
		"CNI's labels":      {conf(tenant + `,"args":{"cni":{"labels":[{"key":"app","value":"web"},{"key":"env"}]}}`), ""},
		"empty ipam":        {conf(tenant + `,"ipam":{}`), ""},
		"our ipam":          {conf(tenant + `,"ipam":{"type":"tenet-ipam"}`), ""},
		"foreign ipam":      {conf(four + `,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24"}]]}`), ""},
	} {
		if err := look(cni.ParseTenet([]byte(test.conf), test.args)); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}
