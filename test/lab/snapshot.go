package lab

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/store"
)

// A Snapshot is all that a node has: records, rows, flows, meters, links, and what is ours of the host's rules and
// routes, one a line.
type Snapshot []string

// Snapshot looks at everything. Numbers that change with time, such as counters, are not in it.
func (h *Host) Snapshot() Snapshot {
	h.tb.Helper()
	s := append(h.Records(), h.rows()...)
	if h.HasBridge() {
		for _, f := range h.Flows() {
			s = append(s, "flow "+f.String())
		}
		s = append(s, lines("group", h.OFCtl("dump-groups"), "OFPST_GROUP")...)
		s = append(s, lines("meter", h.OFCtl("dump-meters"), "OFPST_METER")...)
	}
	return append(append(s, h.Links()...), h.Ways()...)
}

// Ways are our rules and routes on the host.
func (h *Host) Ways() Snapshot {
	h.tb.Helper()
	var s Snapshot
	if rules, err := h.Output("nft", "--stateless", "list", "table", "inet", "tenet"); err == nil {
		s = lines("rule", rules)
	}
	for _, family := range []string{"-4", "-6"} {
		s = append(s, lines("route", h.Sh("ip", family, "route", "show", "proto", "116"))...)
	}
	return s
}

// lines are a text's, but for those that begin with one of the words.
func lines(what, text string, but ...string) Snapshot {
	var s Snapshot
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && !slices.ContainsFunc(but, func(b string) bool { return strings.HasPrefix(line, b) }) {
			s = append(s, what+" "+line)
		}
	}
	return s
}

// HasBridge reports whether the bridge is there.
func (h *Host) HasBridge() bool {
	_, err := h.Output("ovs-vsctl", "br-exists", Bridge)
	return err == nil
}

// Records are the store's keys and values.
func (h *Host) Records() Snapshot {
	h.tb.Helper()
	var s Snapshot
	Must(h.tb, h.Store().View(h.tb.Context(), func(tx store.Tx) error {
		s = nil
		return tx.Range("", func(key string, value []byte) error {
			s = append(s, fmt.Sprintf("record %s %s", key, value))
			return nil
		})
	}))
	return s
}

// Links are the host's links; those of containers' cables with their index.
func (h *Host) Links() Snapshot {
	h.tb.Helper()
	var links []struct {
		IfName  string `json:"ifname"`
		IfIndex int    `json:"ifindex"`
		Alias   string `json:"ifalias"`
	}
	Must(h.tb, json.Unmarshal([]byte(h.Sh("ip", "-json", "link")), &links))
	var s Snapshot
	for _, l := range links {
		if l.Alias == "" {
			l.IfIndex = 0 // the switch's own are made anew with each start
		}
		s = append(s, fmt.Sprintf("link %d %s %q", l.IfIndex, l.IfName, l.Alias))
	}
	return s
}

// rows are the database's, without those columns that ovs-vswitchd writes as time goes by.
func (h *Host) rows() Snapshot {
	h.tb.Helper()
	args := []string{"ovs-vsctl", "--bare", "--format=csv", "--no-headings"}
	for _, table := range []struct{ name, columns string }{
		{"Open_vSwitch", "other_config,bridges"},
		{"Bridge", "name,external_ids,ports,fail_mode,datapath_type"},
		{"Port", "_uuid,name,external_ids"},
		{"Interface", "_uuid,name,type,external_ids,ofport,ofport_request,error"},
	} {
		args = append(args, "--", "--columns="+table.columns, "list", table.name)
	}
	var s Snapshot
	for line := range strings.Lines(h.Sh(args...)) {
		s = append(s, "row "+strings.TrimSpace(line))
	}
	return s
}

// Lasting is s without what a network keeps when its last endpoint has gone: its declaration, and how its addresses
// and numbers are to be reused.
func (s Snapshot) Lasting() Snapshot {
	return s.Without("record meta/", "record tenants/", "record networks/", "record vnis/", "record tenant-numbers/",
		"record pools/", "record addresses/", "record released/", "record gateways/", "record zones/").withoutTransits().withoutResting()
}

// withoutResting is s without the numbers of paths that rest.
func (s Snapshot) withoutResting() Snapshot {
	return slices.DeleteFunc(s, func(line string) bool {
		return strings.HasPrefix(line, "record path-ids/") && strings.Contains(line, " resting since ")
	})
}

// withoutTransits is s without the transit numbers of networks; those of endpoints go with them.
func (s Snapshot) withoutTransits() Snapshot {
	return slices.DeleteFunc(s, func(line string) bool {
		_, holder, is := strings.Cut(strings.TrimPrefix(line, "record transits/"), " ")
		return is && strings.HasPrefix(line, "record transits/") && strings.Contains(holder, "/")
	})
}

// Without is s without the lines that begin with one of the prefixes.
func (s Snapshot) Without(prefixes ...string) Snapshot {
	return slices.DeleteFunc(slices.Clone(s), func(line string) bool {
		return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
	})
}

// Same fails the test if something has changed since before.
func Same(tb testing.TB, before, now Snapshot) {
	tb.Helper()
	var diff []string
	for _, line := range before {
		if !slices.Contains(now, line) {
			diff = append(diff, "- "+line)
		}
	}
	for _, line := range now {
		if !slices.Contains(before, line) {
			diff = append(diff, "+ "+line)
		}
	}
	if len(diff) > 0 {
		tb.Errorf("it is not as it was (- before, + now):\n%s", strings.Join(diff, "\n"))
	}
}
