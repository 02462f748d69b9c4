package test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/tenet-cni/tenet/test/lab"
)

// Containers are told their network's name servers, whatever another tenant has.
func TestTheResultHasTheNetworksNameServers(t *testing.T) {
	h := lab.NewHost(t)
	_, err := h.Tenetctl("network", "add", "blue/web", "--subnet="+web4, "--dns-server=10.0.0.53", "--dns-server=fd00::53", "--dns-domain=blue.example", "--dns-search=blue.example", "--dns-option=ndots:2")
	lab.Must(t, err)
	declared := map[string]any{"nameservers": []string{"10.0.0.54"}, "search": []string{"red.example"}}
	for i, tc := range []struct {
		what string
		conf lab.Conf
		want types.DNS
	}{
		{"declared by the operator", h.Conf("blue", "web"), types.DNS{
			Nameservers: []string{"10.0.0.53", "fd00::53"}, Domain: "blue.example", Search: []string{"blue.example"}, Options: []string{"ndots:2"},
		}},
		{"declared by the configuration", h.Conf("red", "web", web4).With("dns", declared), types.DNS{Nameservers: []string{"10.0.0.54"}, Search: []string{"red.example"}}},
		{"the network's, when another configuration only names it", h.Conf("red", "web"), types.DNS{Nameservers: []string{"10.0.0.54"}, Search: []string{"red.example"}}},
		{"none, when nobody says any", h.Conf("green", "web", web4), types.DNS{}},
	} {
		c := h.Attach(fmt.Sprint("c", i), tc.conf)
		got := c.Result.DNS
		if !slices.Equal(got.Nameservers, tc.want.Nameservers) || got.Domain != tc.want.Domain || !slices.Equal(got.Search, tc.want.Search) || !slices.Equal(got.Options, tc.want.Options) {
			t.Errorf("%s: got %+v, want %+v", tc.what, got, tc.want)
		}
	}
}
