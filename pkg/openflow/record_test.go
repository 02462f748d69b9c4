package openflow_test

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/pkg/openflow"
)

var update = flag.Bool("update", false, "record testdata from the real switch")

// TestRecord writes what a real switch answers to testdata, where tests and fuzzers find it on machines without one.
func TestRecord(t *testing.T) {
	if !*update {
		t.Skip("only with -update")
	}
	record := func(name string, fill func(bridge), read func(*openflow.Conn) ([]string, error)) {
		b := newBridge(t)
		fill(b)
		var said strings.Builder
		c := connect(t, peer(t, func(c net.Conn) {
			s, err := net.Dial("unix", b.Mgmt("br0"))
			if err != nil {
				t.Error(err)
				return
			}
			go func() {
				_, _ = io.Copy(s, c)
				s.Close()
			}()
			_, _ = io.Copy(io.MultiWriter(c, &said), s)
		}))
		lines, err := read(c)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Join(lines, "\n") + "\n"
		// The answer has the header of a message (8 bytes) and that of a multipart (8), after the hello (16).
		reply := said.String()[16+8+8:]
		for path, content := range map[string]string{name + ".bin": reply, name + ".txt": text} {
			if err := os.WriteFile("testdata/"+path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	flows := func(c *openflow.Conn) ([]string, error) {
		stats, err := c.Flows(t.Context(), openflow.FlowFilter{})
		var lines []string
		for _, f := range stats {
			lines = append(lines, f.String())
		}
		return lines, err
	}
	groups := func(c *openflow.Conn) ([]string, error) {
		groups, err := c.Groups(t.Context())
		var lines []string
		for _, g := range groups {
			lines = append(lines, g.String())
		}
		return lines, err
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	record("ours", func(b bridge) {
		b.prepare(t)
		b.commit(t, addAll(everyFlow())...)
	}, flows)
	record("foreign", func(b bridge) { b.addForeign(t) }, flows)
	record("groups", func(b bridge) { b.commit(t, putAll(everyGroup())...) }, groups)
	record("foreigngroups", func(b bridge) {
		for i, g := range foreignGroups {
			b.ofctl(t, "add-group", "br0", fmt.Sprintf("group_id=%d,%s", i, g))
		}
	}, groups)
}
