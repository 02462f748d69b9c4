package test

import (
	"strings"
	"testing"

	"github.com/tenet-cni/tenet/test/lab"
)

// CHECK says in words what is not as ADD left it, whatever it is, and DEL removes what is left.
func TestCHECKNamesEachDifference(t *testing.T) {
	t.Parallel()
	h := lab.NewHost(t)
	conf := h.Conf("blue", "web", web4, web6)
	stays := h.Attach("stays", conf)
	before := h.Snapshot().Lasting()
	for _, d := range []struct {
		what  string
		spoil func(c *lab.Container)
		words []string
	}{
		{"a flow", func(c *lab.Container) { c.OFCtl("del-flows", "table=50,dl_dst="+c.MAC.String()) }, []string{"flow of the endpoint is missing in table Destination"}},
		{"a flow that is not ours", func(c *lab.Container) {
			c.OFCtl("add-flow", "table=10,priority=300,in_port="+c.OFPort()+",cookie="+cookieOf(c)+",actions=drop")
		}, []string{"flows too many"}},
		{"an address", func(c *lab.Container) { c.Sh("ip", "addr", "del", c.IP4.String()+"/24", "dev", "eth0") }, []string{"does not have the address", c4}},
		{"an IPv6 address", func(c *lab.Container) { c.Sh("ip", "addr", "del", c.IP6.String()+"/64", "dev", "eth0") }, []string{"does not have the address", c6}},
		{"a route", func(c *lab.Container) { c.Sh("ip", "route", "del", "default") }, []string{"does not have the route default via 10.0.0.1"}},
		{"link down", func(c *lab.Container) { c.Sh("ip", "link", "set", "eth0", "down") }, []string{"eth0 is down"}},
		{"host link down", func(c *lab.Container) { c.Host.Sh("ip", "link", "set", c.Port(), "down") }, []string{"is down"}},
		{"the MAC", func(c *lab.Container) { c.Sh("ip", "link", "set", "eth0", "address", someMAC.String()) }, []string{"hardware address", someMAC.String()}},
		{"the MTU", func(c *lab.Container) { c.Sh("ip", "link", "set", "eth0", "mtu", "1300") }, []string{"MTU of 1300"}},
		{"the interface", func(c *lab.Container) { c.Sh("ip", "link", "del", "eth0") }, []string{"no link eth0 in the container"}},
		{"the interface's name", func(c *lab.Container) {
			c.Sh("ip", "link", "set", "eth0", "down")
			c.Sh("ip", "link", "set", "eth0", "name", "eth7")
		}, []string{"no link eth0 in the container"}},
		{"the port", func(c *lab.Container) { c.Host.Sh("ovs-vsctl", "del-port", c.Port()) }, []string{"is not on bridge br-tenet"}},
		{"what the runtime remembers", func(c *lab.Container) {
			told := strings.ReplaceAll(string(c.Do("ADD").Stdout), c4, "10.0.0.99")
			c.Conf = c.Conf.With("prevResult", decoded(told))
		}, []string{"prevResult has address 10.0.0.99/24"}},
		{"the interface that the runtime remembers", func(c *lab.Container) {
			told := strings.ReplaceAll(string(c.Do("ADD").Stdout), `"eth0"`, `"net1"`)
			c.Conf = c.Conf.With("prevResult", decoded(told))
		}, []string{"prevResult has no interface eth0"}},
	} {
		t.Run(d.what, func(t *testing.T) {
			h := h.For(t)
			c := h.Attach("c", conf.With("runtimeConfig", map[string]any{"ips": []string{c4, c6}}))
			a := c.Do("CHECK")
			lab.Must(t, a.Failed())
			d.spoil(c)
			lab.Fails(t, c.Do("CHECK"), lab.CodeConflict, d.words...)
			c.Conf = conf
			c.Del()
			lab.Same(t, before, h.Snapshot().Lasting())
		})
	}
	lab.Must(t, stays.Do("CHECK").Failed())
	never := h.Container("never")
	never.Conf = conf
	lab.Fails(t, never.Do("CHECK"), lab.CodeConflict, "never/eth0 is not attached")
}

// The addresses of the container that is spoiled: each case needs to know them.
const c4, c6 = "10.0.0.77", "fd00:1::77"
