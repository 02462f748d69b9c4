package ovs_test

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/tenet-cni/tenet/pkg/ovs"
	"github.com/tenet-cni/tenet/pkg/ovs/ovstest"
)

// The size of a node, in ports that are there already.
var sizes = []int{0, 100}

// populated is a real switch with n plugged veths and one link more, "spare".
func populated(b *testing.B, n int) (*ovstest.Switch, *ovs.Switch) {
	b.Helper()
	sw, s := bridged(b, ovstest.Real())
	link := func(name string) {
		sw.Run(b, "ip", "link", "add", "name", name, "type", "veth", "peer", "name", "c"+name)
		sw.Run(b, "ip", "link", "set", name, "up")
	}
	for i := range n {
		name := fmt.Sprintf("p%d", i)
		link(name)
		plug(b, s, ovs.Port{Name: name, Owner: "me"})
	}
	link("spare")
	return sw, s
}

func BenchmarkDial(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			sw, _ := populated(b, n)
			for b.Loop() {
				s, err := ovs.Dial(b.Context(), sw.RunDir)
				if err != nil {
					b.Fatal(err)
				}
				s.Close()
			}
		})
	}
}

func BenchmarkEnsureBridge(b *testing.B) {
	sw, s := populated(b, 0)
	for b.Loop() {
		ensure(b, s, sw)
	}
}

func BenchmarkPlug(b *testing.B) {
	for _, n := range sizes {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			_, s := populated(b, n)
			for b.Loop() {
				plug(b, s, ovs.Port{Name: "spare", Owner: "me"})
				b.StopTimer()
				if err := s.UnplugEach(b.Context(), "br0", []string{"spare"}); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func BenchmarkUnplug(b *testing.B) {
	_, s := populated(b, 0)
	for b.Loop() {
		b.StopTimer()
		plug(b, s, ovs.Port{Name: "spare", Owner: "me"})
		b.StartTimer()
		if err := s.Unplug(b.Context(), "br0", "spare"); err != nil {
			b.Fatal(err)
		}
	}
}

// On the dummy: rows alone count here.
func BenchmarkPorts(b *testing.B) {
	for _, n := range []int{0, 100, 1000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			sw, s := bridged(b)
			args := []string{"ovs-vsctl", "--no-wait"}
			for i := range n {
				p := fmt.Sprintf("p%d", i)
				args = append(args, "--", "add-port", "br0", p, "--", "set", "port", p, "external_ids:tenet=me",
					"--", "set", "interface", p, "external_ids:tenet=me")
			}
			if n > 0 {
				sw.Run(b, args...)
			}
			for b.Loop() {
				if ports, err := s.Ports(b.Context(), "br0"); err != nil || len(ports) != n {
					b.Fatal(len(ports), err)
				}
			}
		})
	}
}
