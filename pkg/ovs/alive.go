package ovs

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"time"
)

// pollEvery is how often AwaitBridge knocks: there is nothing to wait on while nobody listens.
const pollEvery = 5 * time.Millisecond

// Alive returns nil if ovs-vswitchd answers on a bridge's management socket now: it is running and will take OpenFlow.
// Anything else is ErrUnavailable. The database is not asked: it does not notice ovs-vswitchd's death.
func (s *Switch) Alive(ctx context.Context, bridge string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	path := filepath.Join(s.runDir, bridge+".mgmt")
	fail := func(err error) error {
		return fmt.Errorf("ovs-vswitchd does not answer at %s: %w: %w", path, ErrUnavailable, cause(err))
	}
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fail(err)
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	// Whoever accepts an OpenFlow connection says OFPT_HELLO first (OpenFlow 1.5.1 section 6.3.1): type 0 in an
	// 8-byte header of version, type, length, xid. The connect alone says nothing: the kernel does that.
	var hello [8]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fail(err)
	}
	if hello[1] != 0 || binary.BigEndian.Uint16(hello[2:]) < 8 {
		return fail(fmt.Errorf("%x is no OpenFlow HELLO", hello))
	}
	// Of one that closes ungreeted ovs-vswitchd warns in its log, each time. A HELLO without elements is 8 bytes long.
	binary.BigEndian.PutUint16(hello[2:], uint16(len(hello)))
	_, _ = c.Write(hello[:])
	return nil
}

// AwaitBridge waits until Alive. When the context ends first it returns Alive's last error.
func (s *Switch) AwaitBridge(ctx context.Context, bridge string) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := s.Alive(ctx, bridge)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
