package pipeline

import (
	"encoding/binary"

	"github.com/tenet-cni/tenet/pkg/openflow"
	"github.com/tenet-cni/tenet/pkg/vnet"
)

// HopFlow says what a flow of a chain counts: packets that go into a function, or come out of it.
type HopFlow struct {
	Path   vnet.PathID
	Hop    int  // from 1
	Answer bool // packets that are answers
	Out    bool // out of the function
}

// HopOf reads which hop a flow of a chain is for; false if it is for none.
func HopOf(f openflow.Flow) (HopFlow, bool) {
	switch f.Table {
	case ChainHop:
		t, ok := term(f, where)
		if !ok || t.Mask != nil {
			return HopFlow{}, false
		}
		v := binary.BigEndian.Uint32(t.Value)
		h := HopFlow{Path: vnet.PathID(v >> pathAt), Hop: int(v & hopMask &^ answer), Answer: v&answer != 0}
		if v&hopMask == answerBegin {
			h.Hop = begins(f)
		}
		return h, h.Hop > 0 && enters(f)
	case FunctionReturn:
		t, ok := term(f, openflow.EthSrc)
		if !ok || t.Mask != nil || t.Value[0] != tagFirst {
			return HopFlow{}, false
		}
		id := binary.BigEndian.Uint32([]byte{0, t.Value[1], t.Value[2], t.Value[3]})
		return HopFlow{Path: vnet.PathID(id), Hop: int(t.Value[4]), Answer: t.Value[5] == 2, Out: true}, id != 0
	case FunctionFound:
		t, ok := term(f, openflow.CTLabel)
		state, has := term(f, openflow.CTState)
		if !ok || !has {
			return HopFlow{}, false
		}
		v := binary.BigEndian.Uint32(t.Value[len(t.Value)-labelAt/8-4:])
		answers := binary.BigEndian.Uint32(state.Value)&openflow.CTReply != 0
		return HopFlow{Path: vnet.PathID(v >> pathAt), Hop: int(v & hopMask), Answer: answers, Out: true}, true
	}
	return HopFlow{}, false
}

func term(f openflow.Flow, field *openflow.Field) (openflow.Term, bool) {
	for _, t := range f.Match {
		if t.Field == field {
			return t, true
		}
	}
	return openflow.Term{}, false
}

// enters reports whether the flow sends packets into a function.
func enters(f openflow.Flow) bool {
	if len(f.Actions) == 0 {
		return false
	}
	_, ok := f.Actions[len(f.Actions)-1].(openflow.Group)
	return ok
}

// begins is the hop at which an answer begins its way, 0 if it goes none.
func begins(f openflow.Flow) int {
	for _, a := range f.Actions {
		if s, ok := a.(openflow.SetField); ok && s.Field == where {
			return int(binary.BigEndian.Uint32(s.Value) & hopMask &^ answer)
		}
	}
	return 0
}
