package node

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// tableVisit is one table in the output of ofproto/trace.
type tableVisit struct {
	table   uint8
	matched bool // by a flow; else none wanted the packet
	flow    string
	cookie  uint64
	actions []string // in ovs-ofctl's words
	notes   []string // what ovs-vswitchd adds to an action, behind "->" or ">>"
	outputs []output
}

// output is a port that a packet was sent to.
type output struct {
	port   uint32
	inPort bool // back where it came from, which takes an action of its own
}

// Lines of ofproto/trace, as ofproto-dpif-xlate.c writes them: "10. MATCH, priority 5, cookie
// 0x1", where MATCH and the cookie may be absent, or "10. No match."; actions are indented below
// it, and below an action what came of it.
// They are compiled when they are needed: most processes of this package are an ADD or a DEL.
var (
	tableLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^ *(\d{1,3})\. +(.*)$`) })
	flowText  = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^(?:(.*), )?priority \d+(?:, cookie 0x([0-9a-f]{1,16}))?$`)
	})
	outputText = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^-> output port is (\d{1,10})$`) })
)

// parseTrace reads the output of ofproto/trace: the tables in the order of the packet's visits.
// vnet.ErrInvalid if there is none in it.
func parseTrace(text string) ([]tableVisit, error) {
	var visits []tableVisit
	var first, bridge string // a patch port leads into an uplink's bridge, which is none of ours to explain
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if name := strings.TrimSpace(line); strings.HasPrefix(name, "bridge(") {
			if bridge = name; first == "" {
				first = name
			}
		}
		if bridge != first {
			continue
		}
		if strings.HasPrefix(line, "Final flow:") || strings.HasPrefix(line, "Megaflow:") || strings.HasPrefix(line, "Datapath actions:") {
			continue
		}
		if m := tableLine().FindStringSubmatch(line); m != nil {
			table, err := strconv.ParseUint(m[1], 10, 8)
			if err != nil {
				return nil, vnet.Invalidf("trace: line %q: no table has that number", line)
			}
			visits = append(visits, visit(uint8(table), m[2]))
			continue
		}
		if len(visits) == 0 || !strings.HasPrefix(line, " ") {
			continue
		}
		visits[len(visits)-1].take(strings.TrimSpace(line))
	}
	if len(visits) == 0 {
		return nil, vnet.Invalidf("trace: no table in ovs-vswitchd's answer %.200q", text)
	}
	return visits, nil
}

func visit(table uint8, text string) tableVisit {
	m := flowText().FindStringSubmatch(text)
	if m == nil {
		return tableVisit{table: table, notes: []string{text}}
	}
	v := tableVisit{table: table, matched: true, flow: m[1]}
	if m[2] != "" {
		v.cookie, _ = strconv.ParseUint(m[2], 16, 64) // the expression admits nothing else
	}
	return v
}

// take reads one line below a table's.
func (v *tableVisit) take(line string) {
	note := strings.HasPrefix(line, "->") || strings.HasPrefix(line, ">>")
	switch {
	case line == "":
		return
	case note:
		v.notes = append(v.notes, line)
	default:
		v.actions = append(v.actions, line)
	}
	port, literal := strings.CutPrefix(line, "output:")
	if m := outputText().FindStringSubmatch(line); m != nil {
		port, literal = m[1], true
	}
	switch {
	case line == "IN_PORT":
		v.outputs = append(v.outputs, output{inPort: true})
	case literal:
		if n, err := strconv.ParseUint(port, 10, 32); err == nil { // else it names a register: the note below says which port
			v.outputs = append(v.outputs, output{port: uint32(n)})
		}
	case strings.HasPrefix(line, ">>") && len(v.outputs) > 0:
		// ">> skipping output to input port", ">> Nonexistent output port" and others: it was not sent.
		v.outputs = v.outputs[:len(v.outputs)-1]
	}
}

func (v tableVisit) String() string { return fmt.Sprintf("%d %s", v.table, v.flow) }
