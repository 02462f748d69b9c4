package openflow_test

import (
	"flag"
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
	record := func(name string, fill func(bridge)) {
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
		flows, err := c.Flows(t.Context(), openflow.FlowFilter{})
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, f := range flows {
			text.WriteString(f.String() + "\n")
		}
		// The answer has the header of a message (8 bytes) and that of a multipart (8), after the hello (16).
		reply := said.String()[16+8+8:]
		for path, content := range map[string]string{name + ".bin": reply, name + ".txt": text.String()} {
			if err := os.WriteFile("testdata/"+path, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.MkdirAll("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	record("ours", func(b bridge) {
		b.putMeters(t, everyMeter...)
		b.commit(t, addAll(everyFlow())...)
	})
	record("foreign", func(b bridge) { b.addForeign(t) })
}
