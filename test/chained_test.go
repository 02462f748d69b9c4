package test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/test/lab"
)

// In a chain the plugin adds to what the plugins before it did, and changes none of it.
func TestTheResultOfAnEarlierPluginIsKept(t *testing.T) {
	h := lab.NewHost(t)
	earlier := `{"cniVersion":"1.1.0","interfaces":[{"name":"net0","mac":"0a:bb:00:00:00:01","sandbox":"/somewhere"}],
		"ips":[{"interface":0,"address":"192.168.7.2/24"}],"routes":[{"dst":"192.168.0.0/16"}],"dns":{"nameservers":["192.168.7.1"]}}`
	c := h.Attach("c", h.Conf("blue", "web", web4).With("prevResult", decoded(earlier)))
	r := c.Result
	if len(r.Interfaces) != 3 || r.Interfaces[0].Name != "net0" || r.Interfaces[2].Name != "eth0" {
		t.Fatalf("interfaces: %v", r.Interfaces)
	}
	if len(r.IPs) != 2 || *r.IPs[0].Interface != 0 || *r.IPs[1].Interface != 2 || r.IPs[0].Address.String() != "192.168.7.2/24" {
		t.Errorf("addresses: %v", r.IPs)
	}
	if r.Routes[0].Dst.String() != "192.168.0.0/16" || !cmp.Equal(r.DNS.Nameservers, []string{"192.168.7.1"}) {
		t.Errorf("routes %v, dns %v", r.Routes, r.DNS)
	}
	text, err := json.Marshal(r)
	lab.Must(t, err)
	c.Conf = c.Conf.With("prevResult", decoded(string(text)))
	lab.Must(t, c.Do("CHECK").Failed())
	c.Del()
}

// libcni is what container runtimes call plugins with.
func TestARuntimeCanUseItThroughLibcni(t *testing.T) {
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6).With("capabilities", map[string]bool{"ips": true, "mac": true})
	list, err := libcni.ConfListFromBytes(lab.Conf{
		"cniVersion": "1.1.0", "name": "blue-web", "plugins": []any{conf.Without("name", "cniVersion")},
	}.JSON())
	lab.Must(t, err)
	runtime := libcni.NewCNIConfigWithCacheDir([]string{h.Bin}, t.TempDir(), nil)
	do := func(what string, f func() error) {
		t.Helper()
		if err := lab.Inside(h.NetNS, f); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	attachment := func(c *lab.Container, ip string) *libcni.RuntimeConf {
		return &libcni.RuntimeConf{
			ContainerID: c.ID, NetNS: c.Path, IfName: "eth0",
			CapabilityArgs: map[string]any{"ips": []string{ip}, "mac": "0a:cc:00:00:00:" + ip[len(ip)-2:]},
		}
	}
	a, b := h.Container("a"), h.Container("b")
	toA, toB := attachment(a, "10.0.0.71"), attachment(b, "10.0.0.72")
	var result types.Result
	for _, to := range []*libcni.RuntimeConf{toA, toB} {
		do("ADD", func() error {
			var err error
			result, err = runtime.AddNetworkList(t.Context(), list, to)
			return err
		})
		do("CHECK", func() error { return runtime.CheckNetworkList(t.Context(), list, to) })
	}
	r, err := current.NewResultFromResult(result)
	lab.Must(t, err)
	if got := r.IPs[0].Address.String(); got != "10.0.0.72/24" {
		t.Errorf("the address is %s", got)
	}
	a.Reaches(netip.MustParseAddr("10.0.0.72"))
	do("STATUS", func() error { return runtime.GetStatusNetworkList(t.Context(), list) })
	do("GC", func() error {
		return runtime.GCNetworkList(t.Context(), list, &libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: "b", IfName: "eth0"}}})
	})
	do("CHECK of the one that GC kept", func() error { return runtime.CheckNetworkList(t.Context(), list, toB) })
	for range 2 {
		do("DEL", func() error { return runtime.DelNetworkList(t.Context(), list, toB) })
	}
	if left := h.Records().Lasting(); len(left) > 0 {
		t.Errorf("records are left: %q", left)
	}
}
