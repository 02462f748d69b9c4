package cni_test

import (
	"slices"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"

	"github.com/tenet-cni/tenet/pkg/cni"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestNameServersAreTheNetworksThenTheConfigurationsThenThoseBefore(t *testing.T) {
	const (
		dns    = `,"dns":{"nameservers":["10.0.0.2"]}`
		before = `,"prevResult":{"cniVersion":"1.1.0","dns":{"nameservers":["10.0.0.3"]}}`
	)
	of := vnet.Network{DNS: vnet.DNS{Nameservers: []string{"10.0.0.1"}}}
	for _, test := range []struct {
		network vnet.Network
		keys    string
		want    []string
	}{
		{of, dns + before, []string{"10.0.0.1"}},
		{vnet.Network{}, dns + before, []string{"10.0.0.2"}},
		{vnet.Network{}, before, []string{"10.0.0.3"}},
		{of, "", []string{"10.0.0.1"}},
		{vnet.Network{}, "", nil},
	} {
		c, err := cni.ParseTenet([]byte(conf(tenant+test.keys)), "")
		if err != nil {
			t.Fatal(err)
		}
		r, err := (&cni.Request{NetConf: c}).Result(test.network, vnet.Endpoint{ID: "0123456789abcd"})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.(*current.Result).DNS.Nameservers; !slices.Equal(got, test.want) { //nolint:forcetypeassert // our own
			t.Errorf("with %q: name servers %q, want %q", test.keys, got, test.want)
		}
	}
}
