package veth

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// End is the host's end of a cable that stands.
type End struct {
	Name, Alias string
	Index       int
	MAC         net.HardwareAddr
	Up          bool
	Works       bool // both ends are up
}

// Remove takes the cable away whose host's end is called host; the other end
// goes with it. That the link is gone already, or goes meanwhile because its
// container's namespace does, is no error. A link of that name that is not a
// veth is left alone: ErrExists.
func Remove(ctx context.Context, host string) error {
	h, err := openHere()
	if err != nil {
		return fmt.Errorf("remove %s: %w", host, err)
	}
	defer h.Close()
	l, err := link(ctx, h, host)
	if err != nil {
		return fmt.Errorf("remove %s: %w", host, err)
	}
	if l == nil {
		return nil
	}
	if l.Type() != "veth" {
		return fmt.Errorf("remove %s: it is a link of kind %s, which %w and is not ours", host, l.Type(), ErrExists)
	}
	// By index: if the link goes now and another takes its name, that one stays.
	err = h.LinkDel(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Index: l.Attrs().Index}})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove %s: %w", host, err)
	}
	return nil
}

// Exists tells whether a veth called host stands in the caller's namespace.
func Exists(ctx context.Context, host string) (bool, error) {
	h, err := openHere()
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", host, err)
	}
	defer h.Close()
	l, err := link(ctx, h, host)
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", host, err)
	}
	return l != nil && l.Type() == "veth", nil
}

// List lists the veth links in the caller's namespace whose alias begins with
// aliasPrefix, in no order; nil if there are none.
func List(ctx context.Context, aliasPrefix string) ([]End, error) {
	h, err := openHere()
	if err != nil {
		return nil, fmt.Errorf("list cables: %w", err)
	}
	defer h.Close()
	all, err := links(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("list cables: %w", err)
	}
	var ends []End
	for _, l := range all {
		a := l.Attrs()
		if l.Type() == "veth" && strings.HasPrefix(a.Alias, aliasPrefix) {
			ends = append(ends, End{Name: a.Name, Alias: a.Alias, Index: a.Index, MAC: a.HardwareAddr, Up: up(l), Works: works(l)})
		}
	}
	return ends, nil
}
