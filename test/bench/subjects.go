package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/vishvananda/netlink"
)

// An attachment is one container to attach and detach.
type attachment struct {
	id     string
	ifName string // empty: ifName
	number int    // makes an address for who has no IPAM
	ns     namespace
	result json.RawMessage // of ADD, for DEL: a runtime hands it over as prevResult
}

// A subject is one way to attach a container.
type subject struct {
	name     string
	parallel bool                                                   // whether many at once are measured
	add, del func(context.Context, []*attachment) ([]sample, error) // no del: nothing to detach
}

// The subjects' names.
const (
	floorName  = "floor"
	tenetName  = "tenet"
	bridgeName = "bridge+host-local"
	scriptName = "ovs-vsctl"
	stepsName  = "tenet, step by step"
	startName  = "tenet, started only"
)

// subjects are what is measured.
func (w *world) subjects() []subject {
	tenet, start := w.tenet(nil)
	bridge, _ := w.plugin(bridgeName, w.linuxNode, "bridge", map[string]any{
		"bridge": linuxBridge, "mtu": mtu,
		"ipam": map[string]any{
			"type": "host-local", "dataDir": w.path("host-local"), "ranges": []any{[]any{map[string]any{"subnet": subnet}}},
		},
	})
	script := subject{name: scriptName, parallel: true}
	script.add, script.del = w.script("add"), w.script("del")
	steps := subject{name: stepsName, add: w.steps, del: tenet.del}
	floor := subject{name: floorName, add: one(w.floorAdd), del: one(w.floorDel)}
	return []subject{floor, tenet, bridge, script, steps, start}
}

// tenet is tenet's plugin for the network of declaration, with more fields of its configuration if there are any.
func (w *world) tenet(more map[string]any) (subject, subject) {
	conf := map[string]any{
		"tenant": "bench", "network": "net", "subnets": []any{map[string]any{"prefix": subnet}},
		"ovsRunDir": w.sw.RunDir, "dataDir": w.path("data"), "bridge": ovsBridge, "datapath": w.sw.Datapath,
	}
	maps.Copy(conf, more)
	return w.plugin(tenetName, w.ovsNode, "tenet", conf)
}

// plugin is a CNI plugin, executed on a node as a runtime does. The networks of both plugins have one IPv4 subnet, and
// neither container gets a way out of it. The second subject is the program asked for its VERSION: what it costs to
// start it, on this machine with this load.
func (w *world) plugin(name string, node namespace, program string, conf map[string]any) (subject, subject) {
	base := map[string]any{"cniVersion": "1.0.0", "name": "bench", "type": program}
	maps.Copy(base, conf)
	verb := func(verb string, a *attachment) (command, error) {
		conf := base
		if verb == "DEL" && a.result != nil {
			conf = maps.Clone(base)
			conf["prevResult"] = a.result
		}
		stdin, err := json.Marshal(conf)
		return command{
			Args: []string{w.bin() + "/" + program}, Stdin: stdin,
			Env: []string{
				"CNI_COMMAND=" + verb, "CNI_CONTAINERID=" + a.id, "CNI_NETNS=" + a.ns.path, "CNI_IFNAME=" + cmp.Or(a.ifName, ifName),
				"CNI_PATH=" + w.bin(), "PATH=" + os.Getenv("PATH"),
			},
		}, err
	}
	execute := func(name string) func(context.Context, []*attachment) ([]sample, error) {
		return func(ctx context.Context, list []*attachment) ([]sample, error) {
			commands := make([]command, len(list))
			for i, a := range list {
				var err error
				if commands[i], err = verb(name, a); err != nil {
					return nil, err
				}
			}
			outcomes, err := w.measure(ctx, node, commands)
			if err != nil {
				return nil, err
			}
			samples := make([]sample, len(list))
			for i, o := range outcomes {
				samples[i], list[i].result = o.sample(), o.Stdout
			}
			return samples, nil
		}
	}
	return subject{name: name, parallel: true, add: execute("ADD"), del: execute("DEL")},
		subject{name: startName, add: execute("VERSION")}
}

// addPort attaches a container as a careful administrator does: ovs-vsctl waits for ovs-vswitchd. As everything else it
// makes the peer in its place and brings the link up before the port is added.
const addPort = `set -e
verb=$1 port=$2 netns=$3 address=$4
case $verb in
add)
  ip link add "$port" mtu 1450 type veth peer name eth0 mtu 1450 netns "$netns"
  printf 'addr add %s dev eth0\nlink set eth0 up\n' "$address" | nsenter --net="$netns" ip -batch -
  ip link set "$port" up
  ovs-vsctl add-port br-tenet "$port" -- set interface "$port" "external_ids:container=$port"
  ;;
del)
  ovs-vsctl --if-exists del-port br-tenet "$port"
  ip link del "$port"
  ;;
esac
`

func (w *world) script(verb string) func(context.Context, []*attachment) ([]sample, error) {
	return func(ctx context.Context, list []*attachment) ([]sample, error) {
		commands := make([]command, len(list))
		for i, a := range list {
			address := fmt.Sprintf("10.65.%d.%d/16", a.number>>8&0xff, a.number&0xff)
			commands[i] = command{Args: []string{"/bin/sh", w.path("add-port"), verb, "v" + a.id, a.ns.path, address}, Env: w.sw.Env()}
		}
		outcomes, err := w.measure(ctx, w.ovsNode, commands)
		samples := make([]sample, len(outcomes))
		for i, o := range outcomes {
			samples[i] = o.sample()
		}
		return samples, err
	}
}

func one(f func(*attachment) (sample, error)) func(context.Context, []*attachment) ([]sample, error) {
	return func(_ context.Context, list []*attachment) ([]sample, error) {
		s, err := f(list[0])
		return []sample{s}, err
	}
}

// floorAdd is the least that attaches a container, in this process, on open sockets: a veth pair with its peer in the
// container, which has an address and is up; then one transaction, until ovs-vswitchd has given the port its number
// and seen its link up.
func (w *world) floorAdd(a *attachment) (sample, error) {
	here, err := w.ovsNode.netlink()
	if err != nil {
		return sample{}, err
	}
	defer here.Close()
	there, err := a.ns.netlink()
	if err != nil {
		return sample{}, err
	}
	defer there.Close()
	ip, err := netlink.ParseAddr(fmt.Sprintf("10.65.%d.%d/16", a.number>>8&0xff, a.number&0xff))
	if err != nil {
		return sample{}, err
	}
	name := "f" + a.id
	start := time.Now()
	if err := layFloor(here, there, name, a.ns, ip); err != nil {
		return sample{}, err
	}
	laid := time.Now()
	if err := w.db.insert(port{Name: name}); err != nil {
		return sample{}, err
	}
	committed := time.Now()
	if err := w.db.awaitUp(name); err != nil {
		return sample{}, err
	}
	end := time.Now()
	return sample{Wall: ms(end.Sub(start)), Parts: map[string]float64{
		"veth": ms(laid.Sub(start)), "commit": ms(committed.Sub(laid)), "wait": ms(end.Sub(committed)),
	}}, nil
}

func layFloor(here, there *netlink.Handle, name string, container namespace, ip *netlink.Addr) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	pair := netlink.NewVeth(attrs)
	pair.PeerName, pair.PeerMTU, pair.PeerNamespace = ifName, mtu, netlink.NsFd(int(container.file.Fd()))
	if err := here.LinkAdd(pair); err != nil {
		return err
	}
	peer, err := there.LinkByName(ifName)
	if err != nil {
		return err
	}
	if err := there.AddrAdd(peer, ip); err != nil {
		return err
	}
	if err := there.LinkSetUp(peer); err != nil {
		return err
	}
	return here.LinkSetUp(pair)
}

// floorDel is the least that detaches it: one transaction, and the link.
func (w *world) floorDel(a *attachment) (sample, error) {
	here, err := w.ovsNode.netlink()
	if err != nil {
		return sample{}, err
	}
	defer here.Close()
	name := "f" + a.id
	start := time.Now()
	if err := w.db.remove(name); err != nil {
		return sample{}, err
	}
	link, err := here.LinkByName(name)
	if err == nil {
		err = here.LinkDel(link)
	}
	return sample{Wall: ms(time.Since(start))}, err
}
