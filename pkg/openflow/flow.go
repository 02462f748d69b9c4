package openflow

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Flow is one entry of a flow table. It stays until it is deleted: no timeouts, no flags.
type Flow struct {
	Table    uint8
	Priority uint16
	Cookie   uint64
	Match    Match
	Actions  []Action // none: drop
}

// FlowStats is a flow as it stands on the switch.
type FlowStats struct {
	Flow

	Packets, Bytes uint64
	Duration       time.Duration // since it was added or last replaced
}

// defaultPriority is the one that ovs-ofctl does not write (OFP_DEFAULT_PRIORITY).
const defaultPriority = 32768

// String is the flow as "ovs-ofctl -O OpenFlow15 --no-stats --no-names dump-flows" prints it, without the leading
// space: a zero cookie, table 0 and priority 32768 are left out. ovs-ofctl add-flow takes it back.
func (f Flow) String() string {
	var s strings.Builder
	if f.Cookie != 0 {
		fmt.Fprintf(&s, "cookie=0x%x, ", f.Cookie)
	}
	if f.Table != 0 {
		fmt.Fprintf(&s, "table=%d, ", f.Table)
	}
	words := f.Match.words()
	if f.Priority != defaultPriority {
		words = append([]string{"priority=" + strconv.Itoa(int(f.Priority))}, words...)
	}
	if len(words) > 0 {
		s.WriteString(strings.Join(words, ",") + " ")
	}
	s.WriteString("actions=" + actionsWord(f.Actions))
	return s.String()
}

// actionsWord are the actions as ovs-ofctl writes them.
func actionsWord(actions []Action) string {
	if len(actions) == 0 {
		return "drop"
	}
	words := make([]string, len(actions))
	for i, a := range actions {
		words[i] = a.String()
	}
	return strings.Join(words, ",")
}

// Key identifies the flow on a switch by its table, priority and match: adding a flow replaces the one with its key. It is
// for comparing, not for reading.
func (f Flow) Key() string {
	b, err := f.Match.append(binary.BigEndian.AppendUint16([]byte{f.Table}, f.Priority))
	if err != nil { // a match that no switch has
		return fmt.Sprintf("%d/%d/%s", f.Table, f.Priority, f.Match)
	}
	return string(b)
}

// Body is what a flow is beside its key: cookie and actions. It is for comparing, not for reading.
func (f Flow) Body() string {
	b, err := f.appendInstructions(binary.BigEndian.AppendUint64(nil, f.Cookie))
	if err != nil { // it does something that we cannot write
		return f.String()
	}
	return string(b)
}

// Instruction types: OpenFlow 1.5.1, 7.2.4.
const (
	instructionGoto  = 1
	instructionApply = 4
)

// appendInstructions writes what the flow does.
func (f Flow) appendInstructions(b []byte) ([]byte, error) {
	actions := f.Actions
	var next []byte
	if n := len(actions); n > 0 {
		if table, ok := actions[n-1].(GotoTable); ok {
			next = append(header(nil, instructionGoto, 8), uint8(table), 0, 0, 0)
			actions = actions[:n-1]
		}
	}
	if len(actions) > 0 {
		start := len(b)
		b = append(header(b, instructionApply, 0), 0, 0, 0, 0)
		for _, a := range actions {
			var err error
			if b, err = a.append(b); err != nil {
				return nil, err
			}
		}
		// A length that is cut short here makes the message too long, which message.append refuses.
		binary.BigEndian.PutUint16(b[start+2:], uint16(min(len(b)-start, maxMessage)))
	}
	return append(b, next...), nil
}
