package node_test

import (
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/tenet-cni/tenet/pkg/node"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
	"github.com/tenet-cni/tenet/pkg/store"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A report says what a node has and, when something does not answer, that; the rest it tells all the same.
func TestReportTellsWhatAnswers(t *testing.T) {
	sw := ovstest.Start(t)
	config := node.Config{Bridge: "br-tenet", OVSRunDir: sw.RunDir, DataDir: t.TempDir(), Datapath: sw.Datapath}
	tally := node.NewTally()
	report := func() node.Report {
		n := node.Open(config, nil)
		n.Tally = tally
		defer n.Close()
		return n.Report(t.Context())
	}
	if r := report(); len(r.Problems)+len(r.Endpoints)+len(r.Drops) > 0 {
		t.Errorf("a node that has nothing yet: %+v", r)
	}

	n := node.Open(config, nil)
	defer n.Close()
	n.Tally = tally
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(n.EnsureBridge(t.Context()))
	added, err := n.Record(t.Context(), node.Want{
		Attachment: vnet.Attachment{Container: "c", IfName: "eth0"}, Declare: true,
		Network: vnet.Network{Tenant: "blue", Name: "web", Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}}},
	})
	must(err)
	must(n.Connect(t.Context(), added.Endpoint, 1))
	must(n.Store.Update(t.Context(), func(tx store.Tx) error {
		return store.PutBlock(tx, vnet.Ref{Tenant: "blue", Network: "web"}, store.Block{Prefix: netip.MustParsePrefix("10.0.0.0/29"), State: store.Held})
	}))
	must(n.SyncChains(t.Context(), "br-tenet"))

	r := report()
	if len(r.Problems) > 0 {
		t.Errorf("problems: %+v", r.Problems)
	}
	endpoints := []node.EndpointCount{{Tenant: "blue", Network: "web", Endpoints: 1}}
	if !slices.Equal(r.Endpoints, endpoints) {
		t.Errorf("endpoints: %+v", r.Endpoints)
	}
	if !slices.Equal(r.Blocks, []node.BlockCount{{Tenant: "blue", Network: "web", State: "held", Blocks: 1}}) {
		t.Errorf("blocks: %+v", r.Blocks)
	}
	if !slices.ContainsFunc(r.Drops, func(d node.Dropped) bool { return d.Reason == "spoofed-ipv4" && d.Text != "" }) {
		t.Errorf("there is no counter for what an endpoint forges: %+v", r.Drops)
	}
	if r.Work.Syncs.Count != 1 {
		t.Errorf("work: %+v", r.Work)
	}

	sw.KillVswitchd()
	away := report()
	if !named(away.Problems, "management socket of br-tenet") || !slices.Equal(away.Endpoints, endpoints) || len(away.Drops) != len(r.Drops) {
		t.Errorf("without ovs-vswitchd: %+v", away)
	}
	sw.StartVswitchd()
	must(os.WriteFile(n.Store.Path(), []byte("this was a database once\n"), 0o600))
	if r := report(); !named(r.Problems, "store") || len(r.Problems) != 1 {
		t.Errorf("with a store that cannot be read: %+v", r)
	}
}

func named(problems []node.Problem, what string) bool {
	return slices.ContainsFunc(problems, func(p node.Problem) bool { return p.What == what && p.Error != "" })
}
