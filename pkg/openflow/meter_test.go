package openflow_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

// everyMeter are the meters that everyFlow names.
var everyMeter = []openflow.MeterConfig{
	{ID: 1, RateKbps: 1000, BurstKbits: 100},
	{ID: 0xffff0000, RateKbps: 0xffffffff, BurstKbits: 0xffffffff},
}

func (b bridge) putMeters(t testing.TB, meters ...openflow.MeterConfig) {
	t.Helper()
	if err := b.PutMeters(within(t, time.Minute), meters...); err != nil {
		t.Fatal(err)
	}
}

func (b bridge) meters(t testing.TB) []openflow.MeterConfig {
	t.Helper()
	meters, err := b.Meters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(meters, func(a, b openflow.MeterConfig) int { return int(a.ID) - int(b.ID) })
	return meters
}

func TestMetersArriveAndAreReadBack(t *testing.T) {
	b := newBridge(t)
	b.putMeters(t, everyMeter...)
	if diff := cmp.Diff(everyMeter, b.meters(t)); diff != "" {
		t.Errorf("put (-) and read back (+):\n%s", diff)
	}
	dump := b.ofctl(t, "dump-meters", "br0") + "\n"
	for _, want := range []string{
		"meter=1 kbps burst bands=\ntype=drop rate=1000 burst_size=100\n",
		"meter=4294901760 kbps burst bands=\ntype=drop rate=4294967295 burst_size=4294967295\n",
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("ovs-ofctl says %s, without %s", dump, want)
		}
	}
	changed := []openflow.MeterConfig{{ID: 1, RateKbps: 5, BurstKbits: 12}, {ID: 2, RateKbps: 1, BurstKbits: 1}}
	b.putMeters(t, changed...)
	if diff := cmp.Diff(append(changed, everyMeter[1]), b.meters(t)); diff != "" {
		t.Errorf("put again (-) and read back (+):\n%s", diff)
	}
	if err := b.DeleteMeters(t.Context(), 1, 77, 0xffff0000); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(changed[1:], b.meters(t)); diff != "" {
		t.Errorf("not deleted (-) and read back (+):\n%s", diff)
	}
}

func TestForeignMetersAreSeenAndCanBeChanged(t *testing.T) {
	b := newBridge(t)
	for _, meter := range []string{
		"meter=1,pktps,burst,band=type=drop,rate=1000,burst_size=100",
		"meter=2,kbps,burst,stats,band=type=drop,rate=1000,burst_size=100",
		"meter=3,kbps,burst,band=type=drop,rate=1000,burst_size=100,type=drop,rate=2000,burst_size=100",
		"meter=4,kbps,band=type=drop,rate=1000",
		"meter=controller,kbps,burst,band=type=drop,rate=1000,burst_size=100",
	} {
		b.ofctl(t, "add-meter", "br0", meter)
	}
	if diff := cmp.Diff([]openflow.MeterConfig{{ID: 1}, {ID: 2}, {ID: 3}, {ID: 4}}, b.meters(t)); diff != "" {
		t.Errorf("foreign (-) and read (+):\n%s", diff)
	}
	ours := []openflow.MeterConfig{
		{ID: 1, RateKbps: 1, BurstKbits: 1},
		{ID: 2, RateKbps: 2, BurstKbits: 2},
		{ID: 3, RateKbps: 3, BurstKbits: 3},
		{ID: 4, RateKbps: 4, BurstKbits: 4},
	}
	b.putMeters(t, ours...)
	if diff := cmp.Diff(ours, b.meters(t)); diff != "" {
		t.Errorf("put (-) and read (+):\n%s", diff)
	}
}

func TestAFlowNeedsItsMeterAndGoesWithIt(t *testing.T) {
	b := newBridge(t)
	limited := openflow.Flow{Table: 1, Actions: []openflow.Action{openflow.Meter(7), openflow.Output(1)}}
	free := openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.Output(1)}}
	err := b.Commit(t.Context(), addAll([]openflow.Flow{free, limited}))
	want := "add flow table=1, priority=0 actions=meter:7,output:1: openflow error OFPMMFC_INVALID_METER (type 12, code 2)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	meter := openflow.MeterConfig{ID: 7, RateKbps: 1000, BurstKbits: 100}
	b.putMeters(t, meter)
	b.commit(t, addAll([]openflow.Flow{free, limited})...)
	b.putMeters(t, meter)
	if diff := cmp.Diff(texts([]openflow.Flow{free, limited}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("before (-) and after the meter was put again (+):\n%s", diff)
	}
	if err := b.DeleteMeters(t.Context(), 7); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff(texts([]openflow.Flow{free}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("wanted (-) and left without the meter (+):\n%s", diff)
	}
}

// TestABurstPassesAndNoMore sends packets of 8 kbit to a meter whose rate lets the next one pass in 8 seconds.
func TestABurstPassesAndNoMore(t *testing.T) {
	b := newBridge(t)
	limited := openflow.Flow{Actions: []openflow.Action{openflow.Meter(7), openflow.Output(1)}}
	send := append([]string{"packet-out", "br0", "none", "table"}, slices.Repeat([]string{strings.Repeat("00", 1000)}, 20)...)
	for _, test := range []struct {
		name  string
		meter openflow.MeterConfig
		drops string
	}{
		{"the burst", openflow.MeterConfig{ID: 7, RateKbps: 1, BurstKbits: 80}, "0: packet_count:10 byte_count:10000"},
		{"put again, it is full again", openflow.MeterConfig{ID: 7, RateKbps: 1, BurstKbits: 80}, "0: packet_count:10 byte_count:10000"},
		{"less than a packet", openflow.MeterConfig{ID: 7, RateKbps: 0xffffffff, BurstKbits: 7}, "0: packet_count:20 byte_count:20000"},
	} {
		b.putMeters(t, test.meter)
		b.commit(t, openflow.AddFlow(limited))
		b.ofctl(t, send...)
		var stats string
		ovstest.Wait(t, "the packets to be counted", func() bool {
			stats = b.ofctl(t, "meter-stats", "br0", "meter=7")
			return strings.Contains(stats, "packet_in_count:20 ")
		})
		if !strings.Contains(stats, test.drops) {
			t.Errorf("%s: want %s dropped: %s", test.name, test.drops, stats)
		}
	}
}

func TestARefusedMeterIsNamedAndTheOthersArePut(t *testing.T) {
	b := newBridge(t)
	good := []openflow.MeterConfig{{ID: 1, RateKbps: 1, BurstKbits: 1}, {ID: 3, RateKbps: 3, BurstKbits: 3}}
	b.putMeters(t, good[0]) // so that the switch refuses to add it, before it refuses the other
	err := b.PutMeters(t.Context(), good[0], openflow.MeterConfig{ID: 2, BurstKbits: 10}, good[1])
	want := "put meter 2 of 0 kbit/s with a burst of 10 kbit: openflow error OFPMMFC_BAD_RATE (type 12, code 6)"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, ok := errors.AsType[*openflow.Error](err); !ok {
		t.Errorf("%T is no *openflow.Error", err)
	}
	if diff := cmp.Diff(good, b.meters(t)); diff != "" {
		t.Errorf("good (-) and there (+):\n%s", diff)
	}
}

func TestWhatIsNoMeterIsRefusedBeforeItIsSent(t *testing.T) {
	b := newBridge(t)
	b.putMeters(t, everyMeter...)
	b.ofctl(t, "add-meter", "br0", "meter=controller,kbps,band=type=drop,rate=1000")
	before := b.ofctl(t, "dump-meters", "br0")
	for _, id := range []uint32{0, 0xffff0001, 0xfffffffe, 0xffffffff} {
		if err := b.DeleteMeters(t.Context(), 1, id); err == nil || !strings.Contains(err.Error(), "a meter has a number from 1 to 0xffff0000") {
			t.Errorf("delete %d: %v", id, err)
		}
		if err := b.PutMeters(t.Context(), openflow.MeterConfig{ID: id, RateKbps: 5, BurstKbits: 5}); err == nil {
			t.Errorf("put %d", id)
		}
	}
	if err := b.PutMeters(t.Context(), openflow.MeterConfig{ID: 1, RateKbps: 5}); err == nil || !strings.Contains(err.Error(), "a burst of 0") {
		t.Errorf("no burst: %v", err)
	}
	if diff := cmp.Diff(before, b.ofctl(t, "dump-meters", "br0")); diff != "" {
		t.Errorf("before (-) and after (+):\n%s", diff)
	}
}

// TestManyMetersCostOneRoundTrip talks to a switch that answers nothing before it is asked for a barrier.
func TestManyMetersCostOneRoundTrip(t *testing.T) {
	c := connect(t, peer(t, func(c net.Conn) {
		send(c, hello)
		for h := make([]byte, 8); ; {
			if _, err := io.ReadFull(c, h); err != nil {
				return
			}
			if _, err := io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint16(h[2:])-8)); err != nil {
				return
			}
			if h[1] == 20 {
				_, _ = c.Write(append([]byte{6, 21, 0, 8}, h[4:]...))
			}
		}
	}))
	meters, ids := manyMeters(1000)
	if err := c.PutMeters(within(t, time.Minute), meters...); err != nil {
		t.Error(err)
	}
	if err := c.DeleteMeters(within(t, time.Minute), ids...); err != nil {
		t.Error(err)
	}
}

func TestTenThousandMeters(t *testing.T) {
	b := newBridge(t)
	meters, ids := manyMeters(10_000)
	for range 2 {
		b.putMeters(t, meters...)
		if diff := cmp.Diff(meters, b.meters(t)); diff != "" {
			t.Error(diff)
		}
	}
	if err := b.DeleteMeters(within(t, time.Minute), ids...); err != nil {
		t.Error(err)
	}
	if got := b.meters(t); len(got) != 0 {
		t.Errorf("%d meters left", len(got))
	}
}

func manyMeters(n int) ([]openflow.MeterConfig, []uint32) {
	var meters []openflow.MeterConfig
	var ids []uint32
	for i := range uint32(n) {
		meters = append(meters, openflow.MeterConfig{ID: i + 1, RateKbps: 1000 + i, BurstKbits: 100})
		ids = append(ids, i+1)
	}
	return meters, ids
}

func BenchmarkPutThousandMeters(b *testing.B) {
	br := newBridge(b)
	meters, _ := manyMeters(1000)
	for b.Loop() {
		br.putMeters(b, meters...)
	}
}

func BenchmarkPutAMeter(b *testing.B) {
	br := newBridge(b)
	for b.Loop() {
		br.putMeters(b, everyMeter[0])
	}
}
