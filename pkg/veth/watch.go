package veth

import (
	"context"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Change is what became of the host's end of a cable.
type Change struct {
	Name, Alias string
	Works       bool // it stands, and both ends are up
}

// Watch tells of every change of the veth links in the caller's namespace whose alias begins with aliasPrefix, and of
// those that stand to begin with, until ctx ends or the kernel dropped an event for want of room: then the channel is
// closed, and whoever wants to know more asks List and watches again.
func Watch(ctx context.Context, aliasPrefix string) (<-chan Change, error) {
	updates, stop := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	lost := make(chan struct{}, 1)
	err := netlink.LinkSubscribeWithOptions(updates, stop, netlink.LinkSubscribeOptions{
		ListExisting: true,
		ErrorCallback: func(error) {
			select {
			case lost <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	changes := make(chan Change)
	go func() {
		defer func() {
			close(stop)
			close(changes)
			for range updates { // whoever reads from the kernel may wait to be rid of one, and then ends
			}
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case <-lost:
				return
			case u, ok := <-updates:
				if !ok {
					return
				}
				a := u.Attrs()
				if u.Type() != "veth" || !strings.HasPrefix(a.Alias, aliasPrefix) {
					continue
				}
				select {
				case changes <- Change{Name: a.Name, Alias: a.Alias, Works: u.Header.Type != unix.RTM_DELLINK && works(u.Link)}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return changes, nil
}
