package openflow_test

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

// bridge is a bridge of a real switch, and a connection to it.
type bridge struct {
	*ovstest.Switch
	*openflow.Conn
}

func newBridge(t testing.TB) bridge {
	t.Helper()
	s := ovstest.Start(t)
	s.Run(t, "ovs-vsctl", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
		"protocols=OpenFlow10,OpenFlow15", "--", "add-port", "br0", "p1", "--", "set", "interface", "p1", "ofport_request=1")
	return bridge{s, dial(t, s)}
}

func dial(t testing.TB, s *ovstest.Switch) *openflow.Conn {
	t.Helper()
	c, err := openflow.Dial(t.Context(), s.Mgmt("br0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b bridge) commit(t testing.TB, changes ...openflow.Change) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := b.Commit(ctx, changes); err != nil {
		t.Fatal(err)
	}
}

// ofctl runs ovs-ofctl, the other side of every comparison.
func (b bridge) ofctl(t testing.TB, args ...string) string {
	t.Helper()
	return b.Run(t, append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
}

// dump is what ovs-ofctl says of the flows, sorted.
func (b bridge) dump(t testing.TB) []string {
	t.Helper()
	var lines []string
	for line := range strings.Lines(b.ofctl(t, "--no-stats", "--no-names", "dump-flows", "br0")) {
		lines = append(lines, strings.TrimSpace(line))
	}
	slices.Sort(lines)
	return lines
}

// flows is what we say of the flows, sorted.
func (b bridge) flows(t testing.TB, filter openflow.FlowFilter) []string {
	t.Helper()
	stats, err := b.Flows(t.Context(), filter)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range stats {
		lines = append(lines, f.String())
	}
	slices.Sort(lines)
	return lines
}

// prepare puts the meters and groups that everyFlow names.
func (b bridge) prepare(t testing.TB) {
	t.Helper()
	b.putMeters(t, everyMeter...)
	b.commit(t, putAll(everyGroup())...)
}

func addAll(flows []openflow.Flow) []openflow.Change {
	var changes []openflow.Change
	for _, f := range flows {
		changes = append(changes, openflow.AddFlow(f))
	}
	return changes
}

func texts(flows []openflow.Flow) []string {
	var lines []string
	for _, f := range flows {
		lines = append(lines, f.String())
	}
	slices.Sort(lines)
	return lines
}

func TestEveryFieldAndActionArrivesAsOfctlPrintsIt(t *testing.T) {
	b := newBridge(t)
	b.prepare(t)
	flows := everyFlow()
	b.commit(t, addAll(flows)...)
	if diff := cmp.Diff(texts(flows), b.dump(t)); diff != "" {
		t.Errorf("sent (-) and what ovs-ofctl dumps (+):\n%s", diff)
	}
	if diff := cmp.Diff(texts(flows), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("sent (-) and read back (+):\n%s", diff)
	}
}

func TestOfctlTakesEveryStringAndItArrives(t *testing.T) {
	b := newBridge(t)
	b.prepare(t)
	flows := everyFlow()
	b.ofctlFlows(t, texts(flows))
	if diff := cmp.Diff(texts(flows), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Errorf("given to ovs-ofctl (-) and read back (+):\n%s", diff)
	}
}

// ofctlFlows adds flows with ovs-ofctl.
func (b bridge) ofctlFlows(t testing.TB, flows []string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "flows")
	if err := os.WriteFile(file, []byte(strings.Join(flows, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	b.ofctl(t, "--bundle", "add-flows", "br0", file)
}

func TestEveryFlowCanBeDeletedStrictly(t *testing.T) {
	b := newBridge(t)
	b.prepare(t)
	flows := everyFlow()
	b.commit(t, addAll(flows)...)
	for _, f := range flows {
		before := b.flows(t, openflow.FlowFilter{})
		b.commit(t, openflow.DeleteFlow(f))
		if got, want := len(b.flows(t, openflow.FlowFilter{})), len(before)-1; got != want {
			t.Errorf("%d flows instead of %d after the deletion of %s", got, want, f)
		}
	}
}

func TestARefusedFlowUndoesTheBundleAndIsNamed(t *testing.T) {
	hw := hardware("0a:58:0a:00:00:02")
	good := openflow.Flow{Table: 1, Priority: 1, Actions: []openflow.Action{openflow.Output(1)}}
	for name, test := range map[string]struct {
		bad  openflow.Flow
		want string
	}{
		"prerequisite of an action": {
			openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.SetField(openflow.NDTLL.MAC(hw))}},
			"add flow table=2, priority=0 actions=set_field:0a:58:0a:00:00:02->nd_tll: openflow error OFPBAC_MATCH_INCONSISTENT (type 2, code 10)",
		},
		"prerequisite of a field": {
			openflow.Flow{Table: 2, Match: openflow.Match{openflow.TCPDst.Is(80)}},
			"add flow table=2, priority=0,tp_dst=80 actions=drop: openflow error OFPBMC_BAD_PREREQ (type 4, code 9)",
		},
		"table backwards": {
			openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.GotoTable(1)}},
			"add flow table=2, priority=0 actions=goto_table:1: openflow error OFPBIC_BAD_TABLE_ID (type 3, code 2)",
		},
		"field that cannot be set": {
			openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.SetField(openflow.EthType.Is(0x800))}},
			"add flow table=2, priority=0 actions=set_field:2048->eth_type: openflow error OFPBAC_BAD_SET_ARGUMENT (type 2, code 15)",
		},
		"connection tracking of no protocol": {
			openflow.Flow{Table: 2, Actions: []openflow.Action{openflow.CT{Commit: true}}},
			"add flow table=2, priority=0 actions=ct(commit): openflow error OFPBAC_MATCH_INCONSISTENT (type 2, code 10)",
		},
		"twice the same field": {
			openflow.Flow{Table: 2, Match: openflow.Match{openflow.Reg0.Is(1), openflow.Reg0.Is(2)}},
			"add flow table=2, priority=0,reg0=0x1,reg0=0x2 actions=drop: openflow error OFPBMC_DUP_FIELD (type 4, code 10)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBridge(t)
			old := openflow.Flow{Table: 5, Priority: 5, Cookie: 1}
			b.commit(t, openflow.AddFlow(old))
			changes := []openflow.Change{
				openflow.AddFlow(good), openflow.DeleteCookie(1, 1), openflow.AddFlow(test.bad), openflow.AddFlow(good),
			}
			err := b.Commit(t.Context(), changes)
			if err == nil || err.Error() != test.want {
				t.Errorf("got  %v\nwant %s", err, test.want)
			}
			if _, ok := errors.AsType[*openflow.Error](err); !ok {
				t.Errorf("%T is no *openflow.Error", err)
			}
			if diff := cmp.Diff(texts([]openflow.Flow{old}), b.flows(t, openflow.FlowFilter{})); diff != "" {
				t.Errorf("before (-) and after (+):\n%s", diff)
			}
			b.commit(t, openflow.AddFlow(good)) // the connection is as good as before
		})
	}
}

func TestWhatCannotBeWrittenIsRefusedBeforeItIsSent(t *testing.T) {
	b := newBridge(t)
	long := make([]openflow.Action, 5000)
	for i := range long {
		long[i] = openflow.Output(1)
	}
	for want, f := range map[string]openflow.Flow{
		"reg0: 0x0000000100000000 does not fit": {Match: openflow.Match{openflow.Reg0.Is(1 << 32)}},
		"ip_src: 0xfd000000000000000000000000000001 does not fit": {
			Match: openflow.Match{openflow.IP, openflow.IPv4Src.Addr(netip.MustParseAddr("fd00::1"))},
		},
		"vlan_vid: 0x3064 does not fit": {Match: openflow.Match{openflow.VLANTCI.Is(0x3064)}},
		"no field: no value":            {Match: openflow.Match{{}}},
		"eth_src: 0x does not fit":      {Match: openflow.Match{openflow.EthSrc.MAC(nil)}},
		"ipv6_src: no value":            {Match: openflow.Match{openflow.IPv6Src.Addr(netip.Addr{})}},
		"set_field: reg1: 0x00":         {Actions: []openflow.Action{openflow.SetField(openflow.Reg1.Is(1 << 33))}},
		"set_field: a protocol":         {Actions: []openflow.Action{openflow.SetField(openflow.TCP)}},
		"goto_table comes last":         {Actions: []openflow.Action{openflow.GotoTable(3), openflow.Output(1)}},
		"cannot be sent":                {Actions: []openflow.Action{openflow.Unknown{}}},
		"ct: there is no table 255":     {Actions: []openflow.Action{openflow.CT{Table: 255}}},
		"ct: nat: no address":           {Actions: []openflow.Action{openflow.CT{NAT: openflow.SNAT(netip.Addr{})}}},
		"ct: zone 1 of reg5":            {Actions: []openflow.Action{openflow.CT{Zone: 1, ZoneFrom: openflow.Reg5}}},
		"ct: zone 0 of nw_ttl":          {Actions: []openflow.Action{openflow.CT{ZoneFrom: openflow.IPTTL}}},
		"ct: exec(output:1)":            {Actions: []openflow.Action{openflow.CT{Exec: []openflow.Action{openflow.Output(1)}}}},
		"ct_state: 0x00000100":          {Match: openflow.Match{openflow.CTStateIs(0x100, 0)}},
		"move: vlan_vid":                {Actions: []openflow.Action{openflow.Move(openflow.VLANTCI, openflow.Reg1)}},
		"move: reg7 has no 25 bits":     {Actions: []openflow.Action{openflow.MoveBits(openflow.Reg7, 8, openflow.CTLabel, 0, 25)}},
		"move: ct_label has no 8 bits":  {Actions: []openflow.Action{openflow.MoveBits(openflow.Reg7, 8, openflow.CTLabel, 121, 8)}},
		"move: reg7 has no 0 bits":      {Actions: []openflow.Action{openflow.MoveBits(openflow.Reg7, 8, openflow.CTLabel, 0, 0)}},
		"move: reg7 has no 1 bits from": {Actions: []openflow.Action{openflow.MoveBits(openflow.Reg7, -1, openflow.CTLabel, 0, 1)}},
		"ct_label: 0x00":                {Match: openflow.Match{openflow.CTLabel.Bits(0x100, 64, 8)}},
		"reg6: 0x000000000000000000":    {Match: openflow.Match{openflow.Reg6.Bits(1, 25, 8)}},
		"set_field: reg5: 0x00":         {Actions: []openflow.Action{openflow.SetField(openflow.Reg5.Bits(1, -1, 8))}},
		"tcp_flags: 0x1000":             {Match: openflow.Match{openflow.TCP, openflow.TCPFlagsAre(0x1000, 0)}},
		"nw_frag: 0x04":                 {Match: openflow.Match{openflow.IP, openflow.IPFrag.Is(4)}},
		"longer than OpenFlow allows":   {Actions: long},
		"than OpenFlow allows":          {Actions: []openflow.Action{openflow.Note(make([]byte, 70000))}},
	} {
		err := b.Commit(t.Context(), []openflow.Change{openflow.AddFlow(openflow.Flow{Table: 1}), openflow.AddFlow(f)})
		if err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "add flow ") {
			t.Errorf("got %v, want …%s…", err, want)
		}
	}
	if got := b.dump(t); got != nil {
		t.Errorf("on the switch: %q", got)
	}
}

func TestTenThousandFlowsInOneBundle(t *testing.T) {
	b := newBridge(t)
	flows := manyFlows(10_000)
	b.commit(t, addAll(flows)...)
	got := b.flows(t, openflow.FlowFilter{})
	if diff := cmp.Diff(texts(flows), got); diff != "" {
		t.Error(diff)
	}
	b.commit(t, openflow.DeleteCookie(0, 0))
	if got := b.flows(t, openflow.FlowFilter{}); len(got) != 0 {
		t.Errorf("%d flows left", len(got))
	}
}

// TestTenThousandRefusals has the switch answer to every message while it is being written to.
func TestTenThousandRefusals(t *testing.T) {
	b := newBridge(t)
	flows := manyFlows(10_000)
	for i := range flows {
		flows[i].Actions = []openflow.Action{openflow.GotoTable(1)}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := b.Commit(ctx, addAll(flows))
	if err == nil || !strings.Contains(err.Error(), "(and 9999 more refused)") {
		t.Errorf("got %v", err)
	}
	if got := b.dump(t); got != nil {
		t.Errorf("%d flows on the switch", len(got))
	}
}

// manyFlows are flows as table 41 has them: one address, one MAC.
func manyFlows(n int) []openflow.Flow {
	flows := make([]openflow.Flow, n)
	for i := range flows {
		flows[i] = openflow.Flow{
			Table: 41, Priority: 100, Cookie: uint64(i + 1),
			Match: openflow.Match{
				openflow.Metadata.Masked(0x3e9, 0xffffff), openflow.IP,
				openflow.IPv4Dst.Addr(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})),
			},
			Actions: []openflow.Action{
				openflow.SetField(openflow.EthDst.Is(0x0a580a000000 + uint64(i))), openflow.GotoTable(42),
			},
		}
	}
	return flows
}

func TestAnIdenticalFlowKeepsItsCounters(t *testing.T) {
	b := newBridge(t)
	f := openflow.Flow{Priority: 7, Match: openflow.Match{openflow.InPort.Is(1)}}
	b.commit(t, openflow.AddFlow(f))
	b.ofctl(t, "packet-out", "br0", "in_port=1 packet="+strings.Repeat("00", 60)+" actions=table")
	ovstest.Wait(t, "the packet to be counted", func() bool {
		stats, err := b.Flows(t.Context(), openflow.FlowFilter{})
		return err == nil && len(stats) == 1 && stats[0].Packets == 1
	})
	b.commit(t, openflow.AddFlow(f))
	ovstest.Wait(t, "the flow to grow older", func() bool {
		stats, err := b.Flows(t.Context(), openflow.FlowFilter{})
		if err != nil || len(stats) != 1 || stats[0].Packets != 1 || stats[0].Bytes != 60 {
			t.Fatal(stats, err)
		}
		return stats[0].Duration > 0 && stats[0].Duration < time.Minute
	})
}

func TestFlowsAreChosenByTableAndCookie(t *testing.T) {
	b := newBridge(t)
	var flows []openflow.Flow
	for table := range uint8(4) {
		for cookie := range uint64(4) {
			flows = append(flows, openflow.Flow{Table: table, Priority: uint16(cookie), Cookie: 0x0100 | cookie})
		}
	}
	b.commit(t, addAll(flows)...)
	for _, table := range []uint8{0, 3} {
		if got := b.flows(t, openflow.FlowFilter{Table: &table}); len(got) != 4 {
			t.Errorf("table %d: %q", table, got)
		}
	}
	if got := b.flows(t, openflow.FlowFilter{Cookie: 2, CookieMask: 0xff}); len(got) != 4 {
		t.Errorf("cookie: %q", got)
	}
	if got := b.flows(t, openflow.FlowFilter{Cookie: 0x0200, CookieMask: 0xff00}); got != nil {
		t.Errorf("no cookie: %q", got)
	}
	b.commit(t, openflow.DeleteCookie(0x0102, 0xff02))
	if got := b.flows(t, openflow.FlowFilter{}); len(got) != 8 {
		t.Errorf("after the deletion of cookies 2 and 3: %q", got)
	}
}

func TestChangesOfABundleHappenInTheirOrder(t *testing.T) {
	b := newBridge(t)
	f := openflow.Flow{Table: 1, Cookie: 0xa}
	g := openflow.Flow{Table: 1, Cookie: 0xa, Actions: []openflow.Action{openflow.Output(1)}}
	b.commit(t, openflow.AddFlow(f), openflow.DeleteCookie(0xa, 0xff), openflow.AddFlow(g))
	if diff := cmp.Diff(texts([]openflow.Flow{g}), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Error(diff)
	}
	b.commit(t, openflow.AddFlow(f), openflow.DeleteCookie(0xa, 0xff))
	if got := b.flows(t, openflow.FlowFilter{}); got != nil {
		t.Errorf("left: %q", got)
	}
}

func TestStrictDeletionTakesNoOtherFlow(t *testing.T) {
	b := newBridge(t)
	f := openflow.Flow{Table: 1, Priority: 1, Match: openflow.Match{openflow.IP}}
	others := []openflow.Flow{
		{Table: 2, Priority: 1, Match: openflow.Match{openflow.IP}},
		{Table: 1, Priority: 2, Match: openflow.Match{openflow.IP}},
		{Table: 1, Priority: 1, Match: openflow.Match{openflow.TCP}},
		{Table: 1, Priority: 1},
	}
	b.commit(t, append(addAll(others), openflow.AddFlow(f), openflow.DeleteFlow(f))...)
	if diff := cmp.Diff(texts(others), b.flows(t, openflow.FlowFilter{})); diff != "" {
		t.Error(diff)
	}
}

func TestForeignFlowsAreSeenAndCanBeDeleted(t *testing.T) {
	b := newBridge(t)
	foreign := b.addForeign(t)
	stats, err := b.Flows(t.Context(), openflow.FlowFilter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(stats) != len(foreign) {
		t.Errorf("%d flows of %d", len(stats), len(foreign))
	}
	for _, f := range stats {
		if !strings.Contains(f.String(), "unknown(") {
			t.Errorf("looks like ours: %s", f)
		}
		before := b.dump(t)
		b.commit(t, openflow.DeleteFlow(f.Flow))
		if got, want := len(b.dump(t)), len(before)-1; got != want {
			t.Errorf("%d flows instead of %d after the deletion of %s", got, want, f)
		}
	}
}

// addForeign adds flows with fields and actions that this package does not know.
func (b bridge) addForeign(t testing.TB) []string {
	t.Helper()
	b.ofctl(t, "add-group", "br0", "group_id=1,type=all,bucket=output:1")
	b.ofctl(t, "add-tlv-map", "br0", "{class=0xffff,type=0,len=4}->tun_metadata0")
	foreign := []string{
		"table=1,ip,ct_state=+trk+est,ct_zone=1,actions=drop",
		"table=1,tun_metadata0=4,actions=drop",
		"table=1,tcp,tcp_flags=+syn,ct_zone=3,actions=drop",
		"table=1,dl_vlan=3,dl_vlan_pcp=3,actions=drop",
		"table=1,mpls,mpls_label=3,actions=drop",
		"table=1,ipv6,ipv6_label=3,nw_tos=4,nw_frag=no,actions=drop",
		"table=1,sctp,tp_src=3,actions=drop",
		"table=1,ip,reg8=3,reg10=0x3/0xf,pkt_mark=3,xreg7=3,actions=drop",
		"table=1,conj_id=3,ip,ct_label=3/0xf,actions=drop",
		"table=2,ip,actions=learn(table=3,NXM_OF_ETH_DST[])",
		"table=2,priority=1,ip,actions=ct(commit,table=0)",
		"table=2,priority=13,tcp,actions=ct(commit,force)",
		"table=2,priority=14,tcp,actions=ct(commit,alg=ftp)",
		"table=2,priority=15,tcp,actions=ct(commit,exec(move:NXM_NX_REG8[]->NXM_NX_CT_MARK[]))",
		"table=2,priority=16,tcp,actions=ct(zone=NXM_NX_REG5[16..31])",
		"table=2,priority=17,tcp,actions=ct(zone=NXM_NX_REG8[0..15])",
		"table=2,priority=18,tcp,actions=ct(commit,nat(src))",
		"table=2,priority=19,tcp,actions=ct(commit,nat(src=10.0.0.1-10.0.0.9))",
		"table=2,priority=20,tcp,actions=ct(commit,nat(dst=10.0.0.1:80))",
		"table=2,priority=21,tcp6,actions=ct(commit,nat(src=fd00::1-fd00::9))",
		"table=2,priority=22,tcp6,actions=ct(commit,nat(dst=[fd00::1]:80))",
		"table=2,priority=2,ip,actions=clone(group:1)",
		"table=2,priority=3,ip,actions=write_actions(output:1),goto_table:9",
		"table=2,priority=4,ip,actions=clear_actions,write_metadata:3,goto_table:9",
		"table=2,priority=5,ip,actions=resubmit(1,3),resubmit(,3),resubmit:3",
		"table=2,priority=6,ip,actions=move:NXM_NX_REG0[0..7]->NXM_NX_REG1[8..15],output:NXM_NX_REG1[0..15]",
		"table=2,priority=7,ip,actions=controller,controller(max_len=3),set_queue:1,load:1->NXM_NX_REG8[3..4]",
		"table=2,priority=8,tcp,actions=dec_ttl(1,2),push_vlan:0x88a8,set_field:3->reg8,output:1,bundle(eth_src,0,hrw,ofport,members:1)",
		"table=2,priority=9,idle_timeout=300,actions=drop",
		"table=2,priority=10,hard_timeout=300,actions=output:1",
		"table=2,priority=11,send_flow_rem,actions=output:1",
		"table=2,priority=12,importance=3,actions=output:1",
	}
	b.ofctlFlows(t, foreign)
	return foreign
}

func BenchmarkBundleOfTenThousandFlows(b *testing.B) {
	br := newBridge(b)
	changes := append([]openflow.Change{openflow.DeleteCookie(0, 0)}, addAll(manyFlows(10_000))...)
	for b.Loop() {
		br.commit(b, changes...)
	}
}

func BenchmarkReadTenThousandFlows(b *testing.B) {
	br := newBridge(b)
	br.commit(b, addAll(manyFlows(10_000))...)
	for b.Loop() {
		if got, err := br.Flows(b.Context(), openflow.FlowFilter{}); err != nil || len(got) != 10_000 {
			b.Fatal(len(got), err)
		}
	}
}

func BenchmarkBundleOfTenFlows(b *testing.B) {
	br := newBridge(b)
	changes := addAll(manyFlows(10))
	for b.Loop() {
		br.commit(b, changes...)
	}
}

func BenchmarkDial(b *testing.B) {
	s := newBridge(b)
	for b.Loop() {
		c, err := openflow.Dial(b.Context(), s.Mgmt("br0"))
		if err != nil {
			b.Fatal(err)
		}
		c.Close()
	}
}
