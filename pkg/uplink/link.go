package uplink

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/vishvananda/netlink"
)

// A Link is what a link is, whoever uses it.
type Link struct {
	Index    int
	MTU      int
	MAC      string
	Up       bool // set up
	Carrier  bool // and there is somebody at the other end
	Loopback bool
	Master   string // the bond, bridge or VRF that has it, empty: none
}

// Look looks at a link. ErrNotFound if there is none.
func Look(ctx context.Context, name string) (Link, error) {
	l, err := find(ctx, name)
	if err != nil {
		return Link{}, err
	}
	a := l.Attrs()
	link := Link{
		Index: a.Index, MTU: a.MTU, MAC: a.HardwareAddr.String(), Up: a.Flags&net.FlagUp != 0,
		Carrier: a.Flags&net.FlagRunning != 0, Loopback: a.Flags&net.FlagLoopback != 0,
	}
	if a.MasterIndex != 0 {
		link.Master = "a link that is not there any more"
		if m, err := netlink.LinkByIndex(a.MasterIndex); err == nil {
			link.Master = m.Attrs().Name
		}
	}
	return link, nil
}

// Here names where links are: the boot, and the calling thread's network namespace, which is the
// one that this package works in. /proc/self would be the main thread's.
func Here() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("this boot's id: %w", err)
	}
	ns, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		return "", fmt.Errorf("this thread's network namespace: %w", err)
	}
	return strings.TrimSpace(string(boot)) + " " + ns, nil
}
