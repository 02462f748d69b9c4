package node

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/pipeline"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// thousand are the flows of 1,000 endpoints with both families.
func thousand() []openflow.Flow {
	n := pipeline.Network{TenantNumber: 1, Network: vnet.Network{
		Tenant: "blue", Name: "web", VNI: 1,
		Subnets: []vnet.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/16")}, {Prefix: netip.MustParsePrefix("fd00::/64")}},
	}}
	flows := pipeline.BaseFlows()
	a4, a6 := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("fd00::2")
	for i := range 1000 {
		at := vnet.Attachment{Container: strconv.Itoa(i), IfName: "eth0"}
		flows = append(flows, pipeline.EndpointFlows(n, pipeline.Endpoint{Port: uint32(1024 + i), Endpoint: vnet.Endpoint{
			ID: at.ID(), MAC: vnet.MACFor([]netip.Addr{a4}), Addrs: []netip.Prefix{netip.PrefixFrom(a4, 16), netip.PrefixFrom(a6, 64)},
		}})...)
		a4, a6 = a4.Next(), a6.Next()
	}
	return flows
}

func BenchmarkRenderAThousandEndpoints(b *testing.B) {
	for b.Loop() {
		thousand()
	}
}

func BenchmarkCompareAThousandEndpoints(b *testing.B) {
	want := thousand()
	have := make([]openflow.FlowStats, len(want))
	for i, f := range want {
		have[i].Flow = f
	}
	for b.Loop() {
		if ch, _ := difference(rendered{flows: want}, have, nil); len(ch.adds)+len(ch.strays) > 0 {
			b.Fatal("there is no difference")
		}
	}
	b.ReportMetric(float64(len(want)), "flows")
}
