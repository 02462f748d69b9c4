package test

import (
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// chained is a host with a client and a server in a tenant's network.
func chained(t *testing.T) (*lab.Host, lab.Conf, *lab.Container, *lab.Container) {
	t.Helper()
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	return h, conf, h.Attach("client", conf), h.Attach("server", conf)
}

func tenetctl(t *testing.T, h *lab.Host, args ...string) string {
	t.Helper()
	out, err := h.Tenetctl(args...)
	lab.Must(t, err)
	return out
}

func TestChainFirst(t *testing.T) {
	h, conf, client, server := chained(t)
	tenetctl(t, h, "group", "add", "blue/fw")
	fw := h.Function("fw1", conf, "fw", 0).Bridges()
	tenetctl(t, h, "chain", "add", "blue/c", "--group", "fw", "--from", server.IP4.String(), "--to", "any")
	_ = fw
	client.Reaches(server.IP4)
	tenetctl(t, h, "chain", "add", "blue/c", "--group", "fw", "--from", "any", "--to", server.IP4.String())
	client.Reaches(server.IP4)
	t.Log("\n" + tenetctl(t, h, "chain", "show", "blue/c"))
	server.Tell(80)
	t.Log(h.OFCtl("dump-groups"))
	client.Reaches(server.IP4, "-i0.2", "-c3")
	h.Sh("ovs-appctl", "revalidator/purge")
	t.Log("\n" + tenetctl(t, h, "chain", "show", "blue/c"))
}
