package openflow_test

import (
	"net"
	"net/netip"

	"github.com/tenet-cni/tenet/pkg/openflow"
)

// everyMatch has each field, exact and with the masks that OVS takes for it, and the cases in which it writes a value
// in a way of its own.
func everyMatch() []openflow.Match {
	type m = openflow.Match
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	hw, hwMask := hardware("0a:58:0a:00:00:02"), hardware("ff:ff:ff:00:00:00")
	all := []m{
		nil,
		{openflow.InPort.Is(1)},
		{openflow.InPort.Is(openflow.PortLocal)},
		{openflow.Metadata.Is(0x0a000003e9)},
		{openflow.Metadata.Is(0)},
		{openflow.Metadata.Masked(0x3e9, 0xffffff)},
		{openflow.Metadata.Masked(0, 0xff)},
		{openflow.TunID.Is(1001)},
		{openflow.TunID.Masked(0xf00000, 0xf00000)},
		{openflow.TunSrc.Addr(addr("192.0.2.2"))},
		{openflow.TunSrc.Prefix(prefix("192.0.2.2/24"))},
		{openflow.TunDst.Addr(addr("192.0.2.2"))},
		{openflow.TunIPv6Dst.Addr(addr("2001:db8::2"))},
		{openflow.TunIPv6Src.Addr(addr("2001:db8::1"))},
		{openflow.TunDst.Masked(0x00020004, 0x00ff00ff)},
		{openflow.EthSrc.MAC(hw)},
		{openflow.EthSrc.MACMasked(hw, hwMask)},
		{openflow.EthSrc.Is(0)},
		{openflow.EthDst.MAC(hw)},
		{openflow.EthDst.MACMasked(hardware("01:80:c2:00:00:00"), hardware("ff:ff:ff:ff:ff:f0"))},
		{openflow.EthDst.MACMasked(hardware("01:00:00:00:00:00"), hardware("01:00:00:00:00:00"))},
		{openflow.EthType.Is(0x88cc)},
		{openflow.EthType.Is(0x88cc), openflow.EthDst.MAC(hw), openflow.EthSrc.MAC(hw), openflow.InPort.Is(2)},
		{openflow.EthType.Is(0x8035)},
		{openflow.EthType.Is(0x8847)},
		{openflow.EthType.Is(0x8848)},
		{openflow.VLANTCI.Is(0)},
		{openflow.VLANTCI.Is(0x1000)},
		{openflow.VLANTCI.Is(0x1064)},
		{openflow.VLANTCI.Masked(0x1000, 0x1000)},
		{openflow.VLANTCI.Masked(0x0004, 0x0007)},
		{openflow.VLANTCI.Masked(0x1004, 0x1007)},
		{openflow.IP},
		{openflow.IPv6},
		{openflow.ARP},
		{openflow.ICMP},
		{openflow.ICMPv6},
		{openflow.TCP},
		{openflow.TCP6},
		{openflow.UDP},
		{openflow.UDP6},
		{openflow.IP, openflow.IPProto.Is(50)},
		{openflow.IP, openflow.IPProto.Is(2)},
		{openflow.IP, openflow.IPProto.Is(132)},
		{openflow.IPv6, openflow.IPProto.Is(132)},
		{openflow.IPv6, openflow.IPProto.Is(0)},
		{openflow.IP, openflow.IPProto.Is(50), openflow.IPTTL.Is(1), openflow.IPv4Dst.Addr(addr("10.0.0.1")), openflow.Reg7.Is(1)},
		{openflow.IP, openflow.IPTTL.Is(1)},
		{openflow.IPv6, openflow.IPTTL.Is(0)},
		{openflow.IP, openflow.IPv4Src.Addr(addr("10.0.0.2"))},
		{openflow.IP, openflow.IPv4Src.Addr(addr("0.0.0.0"))},
		{openflow.IP, openflow.IPv4Src.Prefix(prefix("10.0.0.0/24"))},
		{openflow.IP, openflow.IPv4Dst.Addr(addr("10.0.0.2"))},
		{openflow.IP, openflow.IPv4Dst.Prefix(prefix("128.0.0.0/1"))},
		{openflow.IP, openflow.IPv4Dst.Masked(0x01000300, 0xff00ff00)},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("fd00:1::2"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("::"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("::1"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("::1.2.3.4"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("::ffff:1.2.3.4"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("1:0:0:2::1"))},
		{openflow.IPv6, openflow.IPv6Src.Addr(addr("1:0:2:3:4:5:6:7"))},
		{openflow.IPv6, openflow.IPv6Src.Prefix(prefix("fd00:1::/64"))},
		{openflow.IPv6, openflow.IPv6Dst.Addr(addr("fe80::858:aff:fe00:2"))},
		{openflow.IPv6, openflow.IPv6Dst.Prefix(prefix("ff00::/9"))},
		{openflow.IPv6, openflow.Term{
			Field: openflow.IPv6Dst, Value: addr("fe80::1").AsSlice(), Mask: addr("ffff::ff").AsSlice(),
		}},
		{openflow.ARP, openflow.ARPOp.Is(1)},
		{openflow.ARP, openflow.ARPOp.Is(0)},
		{openflow.ARP, openflow.ARPSpa.Addr(addr("10.0.0.2"))},
		{openflow.ARP, openflow.ARPSpa.Prefix(prefix("10.0.0.0/8"))},
		{openflow.ARP, openflow.ARPTpa.Addr(addr("10.0.0.2"))},
		{openflow.ARP, openflow.ARPTpa.Prefix(prefix("10.0.0.0/30"))},
		{openflow.ARP, openflow.ARPSha.MAC(hw)},
		{openflow.ARP, openflow.ARPSha.MACMasked(hw, hwMask)},
		{openflow.ARP, openflow.ARPTha.MAC(hw)},
		{openflow.ARP, openflow.ARPTha.MACMasked(hw, hwMask)},
		{
			openflow.ARP, openflow.ARPTha.MAC(hw), openflow.ARPSha.MAC(hw), openflow.ARPOp.Is(2),
			openflow.ARPTpa.Addr(addr("10.0.0.2")), openflow.ARPSpa.Addr(addr("10.0.0.1")), openflow.EthDst.MAC(hw),
		},
		{openflow.CTStateIs(openflow.CTEstablished|openflow.CTTracked, 0)},
		{openflow.CTStateIs(openflow.CTNew|openflow.CTTracked, openflow.CTReply)},
		{openflow.CTStateIs(0, openflow.CTTracked)},
		{openflow.CTStateIs(openflow.CTRelated|openflow.CTInvalid|openflow.CTSNAT, openflow.CTDNAT)},
		{openflow.CTStateIs(openflow.CTNew|openflow.CTTracked, 0xff)},
		{openflow.CTState.Is(openflow.CTDNAT)},
		{openflow.CTState.Is(0)},
		{
			openflow.InPort.Is(3), openflow.Reg0.Is(1), openflow.TCP, openflow.CTMark.Masked(3, 3),
			openflow.CTStateIs(openflow.CTTracked, openflow.CTNew),
		},
		{openflow.EthType.Is(0x88cc), openflow.Reg0.Is(1), openflow.CTMark.Is(2)},
		{openflow.IP, openflow.CTStateIs(openflow.CTTracked, openflow.CTInvalid), openflow.CTNwProto.Is(17)},
		{openflow.UDP6, openflow.CTStateIs(openflow.CTNew|openflow.CTTracked, 0), openflow.CTNwProto.Is(6)},
		{openflow.CTLabel.Is(0)},
		{openflow.CTLabel.Is(0x3e9)},
		{openflow.CTLabel.Masked(0, 0xff)},
		{openflow.CTLabel.Bits(1, 64, 24)},
		{openflow.CTLabel.Bits(0, 127, 1)},
		{openflow.CTLabel.Bits(0xfedcba9876543210, 60, 64)},
		{openflow.Term{Field: openflow.CTLabel, Value: addr("ffff::1").AsSlice()}},
		{openflow.Reg7.Bits(0xabcdef, 8, 24)},
		{openflow.Reg7.Bits(1, 31, 1), openflow.CTLabel.Bits(0, 3, 5)},
		{openflow.Reg7.Bits(0xffffffff, 0, 32)},
		{openflow.IP, openflow.IPFrag.Is(0)},
		{openflow.IP, openflow.IPFrag.Is(openflow.IPFragAny)},
		{openflow.IPv6, openflow.IPFrag.Is(openflow.IPFragAny | openflow.IPFragLater)},
		{openflow.IPv6, openflow.IPFrag.Masked(openflow.IPFragAny, openflow.IPFragAny)},
		{openflow.IP, openflow.IPFrag.Masked(0, openflow.IPFragLater)},
		{openflow.TCP, openflow.TCPFlagsAre(openflow.TCPSyn, openflow.TCPAck)},
		{openflow.TCP6, openflow.TCPFlagsAre(openflow.TCPFin|openflow.TCPRst|openflow.TCPPsh|openflow.TCPUrg, openflow.TCPEce|openflow.TCPCwr)},
		{openflow.TCP, openflow.TCPFlagsAre(0, 0xffe)},
		{openflow.TCP, openflow.TCPFlagsAre(0x7ff, 0)},
		{openflow.TCP, openflow.TCPFlags.Is(0)},
		{openflow.TCP, openflow.TCPFlags.Is(openflow.TCPSyn)},
		{openflow.TCP, openflow.TCPFlags.Is(0xfff)},
		{
			openflow.TCPFlagsAre(openflow.TCPSyn, 0), openflow.TCPDst.Is(80), openflow.TCPSrc.Is(1), openflow.IPTTL.Is(3),
			openflow.IPFrag.Is(0), openflow.CTLabel.Bits(3, 64, 24), openflow.TCP, openflow.CTMark.Is(1), openflow.Reg1.Is(1),
			openflow.CTStateIs(openflow.CTTracked, 0),
		},
		{openflow.IP, openflow.IPProto.Is(50), openflow.IPFrag.Is(0), openflow.IPTTL.Is(3), openflow.CTLabel.Is(1)},
		{openflow.TCP, openflow.TCPSrc.Is(80)},
		{openflow.TCP6, openflow.TCPSrc.Masked(0x1f00, 0xff00)},
		{openflow.TCP, openflow.TCPDst.Is(0)},
		{openflow.TCP6, openflow.TCPDst.Masked(0, 0x8000)},
		{openflow.UDP, openflow.UDPSrc.Is(4789)},
		{openflow.UDP6, openflow.UDPSrc.Masked(0x1f00, 0xff00)},
		{openflow.UDP, openflow.UDPDst.Is(53)},
		{openflow.UDP6, openflow.UDPDst.Masked(0x1f00, 0xff00)},
		{openflow.ICMP, openflow.ICMPType.Is(8), openflow.ICMPCode.Is(0)},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(135), openflow.ICMPv6Code.Is(0)},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(135), openflow.NDTarget.Addr(addr("fd00:1::2"))},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(135), openflow.NDTarget.Prefix(prefix("fd00:1::/64"))},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(135), openflow.NDSLL.MAC(hw)},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(135), openflow.NDSLL.MACMasked(hw, hwMask)},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(136), openflow.NDTLL.MAC(hw)},
		{openflow.ICMPv6, openflow.ICMPv6Type.Is(136), openflow.NDTLL.MACMasked(hw, hwMask)},
		// Written back to front: the switch asks for prerequisites first.
		{
			openflow.NDTLL.MAC(hw), openflow.NDTarget.Addr(addr("fd00:1::2")), openflow.ICMPv6Code.Is(0),
			openflow.ICMPv6Type.Is(136), openflow.IPv6Src.Addr(addr("fd00:1::2")), openflow.EthSrc.MAC(hw),
			openflow.InPort.Is(101), openflow.Metadata.Masked(0x3e9, 0xffffff), openflow.Reg0.Masked(1, 0xf), openflow.ICMPv6,
		},
	}
	for _, reg := range append(registers(), openflow.CTMark) {
		all = append(all, m{reg.Is(0x3e9)}, m{reg.Is(0)}, m{reg.Masked(0x3, 0xf)}, m{reg.Masked(0, 0xf)})
	}
	return all
}

// everyAction has each action, and set_field and move of each field that can be set, with a match that allows it.
func everyAction() []openflow.Flow {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	hw, hwMask := hardware("0a:58:0a:00:00:02"), hardware("ff:ff:ff:00:00:00")
	ns := openflow.Match{openflow.ICMPv6, openflow.ICMPv6Type.Is(135)}
	na := openflow.Match{openflow.ICMPv6, openflow.ICMPv6Type.Is(136)}
	tagged := openflow.Match{openflow.VLANTCI.Masked(0x1000, 0x1000)}
	var all []openflow.Flow
	add := func(m openflow.Match, actions ...openflow.Action) {
		all = append(all, openflow.Flow{Table: 8, Priority: uint16(len(all)), Match: m, Actions: actions})
	}
	set := func(m openflow.Match, terms ...openflow.Term) {
		for _, t := range terms {
			add(m, openflow.SetField(t))
		}
	}
	move := func(m openflow.Match, fields ...*openflow.Field) {
		for i := 0; i < len(fields); i += 2 {
			add(m, openflow.Move(fields[i], fields[i+1]))
		}
	}
	add(nil)
	add(nil, openflow.Output(1), openflow.Output(65279), openflow.Output(openflow.PortLocal))
	add(nil, openflow.Output(openflow.PortNormal), openflow.Output(openflow.PortFlood), openflow.Output(openflow.PortAll))
	add(nil, openflow.Output(openflow.PortTable), openflow.InPortAction())
	add(nil, openflow.Meter(1), openflow.Output(1))
	add(nil, openflow.Meter(0xffff0000))
	add(nil, openflow.Group(1), openflow.Group(0xffffff00), openflow.Output(1))
	add(nil, openflow.OutputReg(openflow.Reg1), openflow.OutputReg(openflow.Reg9))
	add(nil, openflow.Resubmit(7), openflow.Resubmit(80))
	add(nil, openflow.GotoTable(10))
	add(nil, openflow.Note(nil), openflow.Note("\x01\x00"), openflow.Note("123456"), openflow.Note("1234567"))
	add(openflow.Match{openflow.IP}, openflow.DecTTL(), openflow.GotoTable(50))
	add(openflow.Match{openflow.IPv6}, openflow.DecTTL(), openflow.Resubmit(1), openflow.GotoTable(50))
	add(nil, openflow.PushVLAN(), openflow.SetField(openflow.VLANTCI.Is(0x1064)), openflow.Output(3))
	add(tagged, openflow.PopVLAN(), openflow.GotoTable(50))
	v4, v6 := openflow.Match{openflow.IP}, openflow.Match{openflow.IPv6}
	add(v4, openflow.CT{}, openflow.CT{Zone: 65535}, openflow.CT{Table: 254, NAT: openflow.NAT()}, openflow.CT{Commit: true})
	add(v4, openflow.CT{Commit: true, Zone: 1210, Table: 72, NAT: openflow.SNAT(addr("169.254.64.10"))})
	add(v4, openflow.CT{Commit: true, Zone: 1, NAT: openflow.DNAT(addr("10.0.0.2"))}, openflow.Output(1))
	add(v6, openflow.CT{Commit: true, Table: 1, NAT: openflow.SNAT(addr("fd00::10"))}, openflow.CT{NAT: openflow.NAT()})
	add(v6, openflow.CT{Commit: true, NAT: openflow.DNAT(addr("::1.2.3.4"))}, openflow.GotoTable(50))
	add(v4, openflow.CT{ZoneFrom: openflow.Reg5, Table: 21}, openflow.CT{ZoneFrom: openflow.Metadata})
	add(v6, openflow.CT{Commit: true, ZoneFrom: openflow.Reg6, NAT: openflow.NAT(), Exec: []openflow.Action{
		openflow.SetField(openflow.CTMark.Is(1)), openflow.SetField(openflow.CTMark.Masked(2, 2)),
		openflow.Move(openflow.Reg7, openflow.CTMark),
	}})
	add(v4, openflow.CT{Commit: true, Exec: []openflow.Action{
		openflow.SetField(openflow.CTLabel.Is(0)), openflow.SetField(openflow.CTLabel.Is(0x3e9)),
		openflow.SetField(openflow.CTLabel.Bits(0x10, 60, 8)), openflow.SetField(openflow.CTLabel.Bits(0, 0, 64)),
		openflow.SetField(openflow.CTMark.Bits(3, 30, 2)),
		openflow.MoveBits(openflow.Reg7, 8, openflow.CTLabel, 64, 24), openflow.MoveBits(openflow.Reg7, 3, openflow.CTLabel, 127, 1),
	}})
	add(nil, openflow.Move(openflow.CTMark, openflow.Reg1), openflow.MoveBits(openflow.CTLabel, 64, openflow.Reg7, 8, 24),
		openflow.MoveBits(openflow.Reg0, 0, openflow.Reg1, 0, 32), openflow.MoveBits(openflow.Reg0, 0, openflow.Reg1, 0, 1),
		openflow.MoveBits(openflow.Metadata, 40, openflow.Reg1, 0, 24), openflow.MoveBits(openflow.Reg0, 0, openflow.Reg0, 16, 16))
	move(openflow.Match{openflow.TCP}, openflow.TCPFlags, openflow.Reg1)

	set(nil, openflow.Metadata.Is(0x0a000003e9), openflow.Metadata.Is(0), openflow.Metadata.Masked(0x3e9, 0xffffff),
		openflow.TunID.Is(1001), openflow.TunID.Is(0), openflow.TunID.Masked(5, 0xf),
		openflow.TunSrc.Addr(addr("192.0.2.1")), openflow.TunDst.Addr(addr("192.0.2.2")),
		openflow.TunDst.Prefix(prefix("192.0.0.0/16")),
		openflow.EthSrc.MAC(hw), openflow.EthDst.MAC(hw), openflow.EthSrc.MACMasked(hw, hwMask),
		openflow.EthDst.MACMasked(hw, hwMask), openflow.EthDst.Is(0))
	set(tagged, openflow.VLANTCI.Is(0x1064))
	set(openflow.Match{openflow.ARP}, openflow.ARPOp.Is(2), openflow.ARPSpa.Addr(addr("10.0.0.1")),
		openflow.ARPTpa.Addr(addr("10.0.0.1")), openflow.ARPTpa.Prefix(prefix("10.0.0.0/8")),
		openflow.ARPSha.MAC(hw), openflow.ARPTha.MAC(hw), openflow.ARPTha.MACMasked(hw, hwMask))
	set(openflow.Match{openflow.IP}, openflow.IPv4Src.Addr(addr("10.0.0.1")), openflow.IPv4Dst.Addr(addr("10.0.0.1")),
		openflow.IPv4Dst.Prefix(prefix("10.0.0.0/8")), openflow.IPv4Src.Masked(0x00020004, 0x00ff00ff), openflow.IPTTL.Is(64))
	set(openflow.Match{openflow.IPv6}, openflow.IPv6Src.Addr(addr("fd00:1::1")), openflow.IPv6Dst.Addr(addr("::")),
		openflow.IPv6Dst.Prefix(prefix("fe80::/16")), openflow.IPTTL.Is(255))
	set(openflow.Match{openflow.TCP}, openflow.TCPSrc.Is(80), openflow.TCPDst.Is(80), openflow.TCPDst.Masked(5, 0xff))
	set(openflow.Match{openflow.UDP6}, openflow.UDPSrc.Is(53), openflow.UDPDst.Is(53), openflow.UDPDst.Masked(5, 0xff))
	set(openflow.Match{openflow.ICMP}, openflow.ICMPType.Is(0), openflow.ICMPCode.Is(1))
	set(openflow.Match{openflow.ICMPv6}, openflow.ICMPv6Type.Is(129), openflow.ICMPv6Code.Is(0))
	set(ns, openflow.NDTarget.Addr(addr("fd00:1::1")), openflow.NDTarget.Prefix(prefix("fe80::/16")), openflow.NDSLL.MAC(hw),
		openflow.NDSLL.MACMasked(hw, hwMask))
	set(na, openflow.NDTLL.MAC(hw), openflow.NDTLL.MACMasked(hw, hwMask))

	move(nil, openflow.EthSrc, openflow.EthDst, openflow.EthDst, openflow.EthSrc, openflow.Metadata, openflow.Reg1,
		openflow.Reg1, openflow.Metadata, openflow.TunID, openflow.Reg1, openflow.Reg1, openflow.TunID, openflow.InPort,
		openflow.Reg1, openflow.TunSrc, openflow.TunDst, openflow.TunDst, openflow.TunSrc, openflow.EthType, openflow.Reg1)
	move(openflow.Match{openflow.ARP}, openflow.ARPSha, openflow.ARPTha, openflow.ARPTha, openflow.ARPSha,
		openflow.ARPSpa, openflow.ARPTpa, openflow.ARPTpa, openflow.ARPSpa, openflow.ARPOp, openflow.Reg1)
	move(openflow.Match{openflow.IP}, openflow.IPv4Src, openflow.IPv4Dst, openflow.IPv4Dst, openflow.IPv4Src,
		openflow.IPTTL, openflow.Reg1, openflow.IPProto, openflow.Reg1)
	move(openflow.Match{openflow.IPv6}, openflow.IPv6Src, openflow.IPv6Dst, openflow.IPv6Dst, openflow.IPv6Src)
	move(openflow.Match{openflow.TCP}, openflow.TCPSrc, openflow.TCPDst, openflow.TCPDst, openflow.TCPSrc)
	move(openflow.Match{openflow.UDP}, openflow.UDPSrc, openflow.UDPDst, openflow.UDPDst, openflow.UDPSrc)
	move(openflow.Match{openflow.ICMP}, openflow.ICMPType, openflow.ICMPCode, openflow.ICMPCode, openflow.ICMPType)
	move(openflow.Match{openflow.ICMPv6}, openflow.ICMPv6Type, openflow.ICMPv6Code, openflow.ICMPv6Code, openflow.ICMPv6Type)
	move(ns, openflow.IPv6Src, openflow.NDTarget, openflow.NDTarget, openflow.IPv6Src, openflow.EthSrc, openflow.NDSLL,
		openflow.NDSLL, openflow.EthDst)
	move(na, openflow.EthSrc, openflow.NDTLL, openflow.NDTLL, openflow.EthDst)
	for _, reg := range registers() {
		set(nil, reg.Is(0x3e9), reg.Is(0), reg.Masked(0x3, 0xf), reg.Masked(0, 0xf))
		move(nil, reg, openflow.Reg0)
	}
	return all
}

func registers() []*openflow.Field {
	return []*openflow.Field{
		openflow.Reg0, openflow.Reg1, openflow.Reg2, openflow.Reg3, openflow.Reg4, openflow.Reg5, openflow.Reg6,
		openflow.Reg7, openflow.Reg9,
	}
}

func hardware(s string) net.HardwareAddr {
	a, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return a
}

// everyFlow is everything that this package can express.
func everyFlow() []openflow.Flow {
	flows := everyAction()
	for i, m := range everyMatch() {
		flows = append(flows, openflow.Flow{Table: 3, Priority: uint16(i), Cookie: uint64(i), Match: m})
	}
	return append(flows,
		openflow.Flow{},
		openflow.Flow{Priority: 32768},
		openflow.Flow{Table: 253, Priority: 65535, Cookie: 0xfedcba9876543210, Actions: []openflow.Action{openflow.Note("\x01")}},
		openflow.Flow{Table: 9, Priority: 32768, Match: openflow.Match{openflow.InPort.Is(1)}},
	)
}
