//go:build tenetcut

package node

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// TestUplinkWork is no test: it is the process that TestAnUplinkCutAnywhere… kills at a step.
func TestUplinkWork(t *testing.T) {
	var c Config
	if err := json.Unmarshal([]byte(os.Getenv("TENET_UPLINK_CONFIG")), &c); err != nil {
		t.Fatal(err)
	}
	c.Datapath = os.Getenv("TENET_UPLINK_DATAPATH")
	n := Open(c, nil)
	defer n.Close()
	var err error
	switch os.Getenv("TENET_UPLINK_WORK") {
	case "add":
		_, _, err = n.AddUplink(t.Context(), vnet.Uplink{Name: "lan", NIC: "eth1", VLANs: vnet.VLANs{{First: 100, Last: 101}}}, true)
	case "del":
		err = n.DelUplink(t.Context(), "lan")
	}
	if err != nil {
		t.Fatal(err)
	}
}
