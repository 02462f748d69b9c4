package node

import (
	"math"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

func TestABurstIsHalfASecondsToASecondsWorth(t *testing.T) {
	for _, c := range []struct {
		what        string
		rate, burst uint64
		kbps, kbits uint32
	}{
		{"none given", 20e6, 0, 20_000, 10_000},
		{"a tiny one", 20e6, 1000, 20_000, 10_000},
		{"one between", 20e6, 15e6, 20_000, 15_000},
		{"a large one", 20e6, 200e6, 20_000, 20_000},
		{"what runtimes say that know none", 500e6, math.MaxInt32, 500_000, 500_000},
		{"the largest", 1e12, math.MaxUint64, 1e9, 1e9},
		{"four frames of a slow limit", 8_999, 0, 9, 47},
	} {
		got := meterOf(vnet.Limit{Rate: c.rate, Burst: c.burst, Meter: 7}, 1450)
		if want := (openflow.MeterConfig{ID: 7, RateKbps: c.kbps, BurstKbits: c.kbits}); got != want {
			t.Errorf("%s: got %v, want %v", c.what, got, want)
		}
	}
}
