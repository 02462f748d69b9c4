package vnet_test

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// Golden: the id is in OVSDB rows, flow cookies and link names of containers that run. A tenet
// that derives another one after an upgrade could not remove them.
func TestEndpointIDNeverChanges(t *testing.T) {
	id := vnet.Attachment{Container: "c1", IfName: "eth0"}.ID()
	if id != "ec43057c07aaa5" {
		t.Errorf("id of c1/eth0 is %s", id)
	}
	if got := id.Port(); got != "tec43057c07aaa5" || len(got) != 15 {
		t.Errorf("port of c1/eth0 is %s", got)
	}
}

func TestEndpointIDTellsAttachmentsApart(t *testing.T) {
	seen := map[vnet.EndpointID]vnet.Attachment{}
	for _, a := range []vnet.Attachment{{"c1", "eth0"}, {"c1", "eth1"}, {"c1e", "th0"}, {"c", "1eth0"}, {"c2", "eth0"}, {"", "c1eth0"}} {
		if other, taken := seen[a.ID()]; taken {
			t.Errorf("%s and %s have the same id", a, other)
		}
		seen[a.ID()] = a
	}
}

func TestEndpointRecordReadsBackAsItWas(t *testing.T) {
	for _, e := range []vnet.Endpoint{
		{},
		{
			Attachment: vnet.Attachment{Container: "c1", IfName: "eth0"}, ID: "0123", Tenant: "blue", Network: "web", State: vnet.Ready,
			CNINetwork: "net", Conf: "ff", NetNS: "/run/netns/x", Bridge: "br-tenet", MAC: vnet.MAC{0x0a, 0x58, 10, 0, 0, 2}, MTU: 1450, OFPort: 1024, Boot: "b",
			Delegate: &vnet.Delegate{Type: "host-local", Conf: json.RawMessage(`{"a":1}`), Path: "/opt/cni/bin", Args: "A=1"},
		},
	} {
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var got vnet.Endpoint
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(e, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}
