package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/tenet-cni/tenet/pkg/vnet"
)

// A Container is a network namespace with at most one interface of ours, eth0.
type Container struct {
	*Host

	tb     testing.TB
	ID     string
	Path   string // of its network namespace
	IfName string
	Args   string // CNI_ARGS
	Conf   Conf

	// What the last ADD said.

	MAC    vnet.MAC
	IP4    netip.Addr
	IP6    netip.Addr
	Result *current.Result
}

// Container makes a container without any network.
func (h *Host) Container(id string) *Container {
	h.tb.Helper()
	c := &Container{Host: h, tb: h.tb, ID: id, IfName: "eth0", Path: newNetNS(h.tb, id)}
	// A discard service (RFC 863), which never reads: without it each datagram comes back in an ICMP error.
	c.In(func() error {
		s, err := (&net.ListenConfig{}).ListenPacket(context.Background(), "udp", ":9")
		if err == nil {
			h.tb.Cleanup(func() { _ = s.Close() })
		}
		return err
	})
	return c
}

// Patient has the container's kernel, if it can, wait for a second before it sends a segment again. On a busy machine an answer may
// take longer than the fifth of a second that it else waits, and a function be given twice what was said once. It is for sockets that
// are made later.
func (c *Container) Patient() {
	c.tb.Helper()
	const least = "/proc/sys/net/ipv4/tcp_rto_min_us" // since Linux 6.11
	c.In(func() error {
		if _, err := os.Stat(least); err != nil {
			return nil //nolint:nilerr // then it does not
		}
		return os.WriteFile(least, []byte("1000000"), 0o600)
	})
}

// Attach makes a container and attaches it.
func (h *Host) Attach(id string, conf Conf, args ...string) *Container {
	h.tb.Helper()
	c := h.Container(id)
	c.Conf, c.Args = conf, strings.Join(args, ";")
	c.Add()
	return c
}

// Call is the execution of a verb for the container with its configuration.
func (c *Container) Call(verb string) Call {
	return Call{Verb: verb, ID: c.ID, NetNS: c.Path, IfName: c.IfName, Args: c.Args, Stdin: c.Conf.JSON()}
}

// Do executes a verb and returns what the plugin said.
func (c *Container) Do(verb string) Answer {
	c.tb.Helper()
	a, err := c.Exec(c.Call(verb))
	Must(c.tb, err)
	return a
}

// Add attaches the container; a failure fails the test.
func (c *Container) Add() {
	c.tb.Helper()
	a := c.Do("ADD")
	Must(c.tb, a.Failed())
	c.Learn(a.Stdout)
}

// Learn takes MAC and addresses from a result.
func (c *Container) Learn(result []byte) {
	c.tb.Helper()
	r, err := ResultOf(result)
	Must(c.tb, err)
	c.Result = r
	for _, i := range r.Interfaces {
		if i.Sandbox == c.Path && i.Name == c.IfName {
			m, err := vnet.ParseMAC(i.Mac)
			Must(c.tb, err)
			c.MAC = m
		}
	}
	for _, ip := range r.IPs {
		if a, _ := netip.AddrFromSlice(ip.Address.IP); a.Unmap().Is4() {
			c.IP4 = a.Unmap()
		} else {
			c.IP6 = a
		}
	}
}

// ResultOf reads a result of whatever version.
func ResultOf(text []byte) (*current.Result, error) {
	var v struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return nil, fmt.Errorf("result %s: %w", text, err)
	}
	r, err := create.Create(v.CNIVersion, text)
	if err != nil {
		return nil, fmt.Errorf("result %s: %w", text, err)
	}
	return current.NewResultFromResult(r)
}

// Del detaches the container; a failure fails the test.
func (c *Container) Del() {
	c.tb.Helper()
	Must(c.tb, c.Do("DEL").Failed())
}

// Port is the name of its port and host-side link.
func (c *Container) Port() string {
	return vnet.Attachment{Container: c.ID, IfName: c.IfName}.ID().Port()
}

// OFPort is its OpenFlow port number.
func (c *Container) OFPort() string {
	c.tb.Helper()
	return c.Host.Sh("ovs-vsctl", "get", "Interface", c.Port(), "ofport")
}

// Sh runs a program in the container and returns what it prints; any failure fails the test.
func (c *Container) Sh(args ...string) string {
	c.tb.Helper()
	out, err := RunIn(c.tb, c.Path, args...)
	Must(c.tb, err)
	return out
}

// In runs f in the container's namespace; its error fails the test.
func (c *Container) In(f func() error) {
	c.tb.Helper()
	Must(c.tb, Inside(c.Path, f))
}

// Pings sends one echo request, with more options of ping(8), and reports whether it was answered.
func (c *Container) Pings(to netip.Addr, options ...string) bool {
	c.tb.Helper()
	wait := strconv.Itoa(int(Stretch(5e9).Seconds()))
	args := append([]string{"ping", "-n", "-c1", "-W" + wait}, options...)
	_, err := RunIn(c.tb, c.Path, append(args, to.String())...)
	return err == nil
}

// Reaches fails the test unless a ping is answered.
func (c *Container) Reaches(to netip.Addr, options ...string) {
	c.tb.Helper()
	if !c.Pings(to, options...) {
		c.tb.Errorf("%s does not reach %s %v", c.ID, to, options)
	}
}
