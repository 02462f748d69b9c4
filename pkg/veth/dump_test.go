package veth

import (
	"context"
	"errors"
	"testing"

	"github.com/vishvananda/netlink"
)

func TestInterruptedDumpsAreRetried(t *testing.T) {
	tries := 0
	got, err := dump(ctx(t), "things", func() (int, error) {
		if tries++; tries < 5 {
			return 1, netlink.ErrDumpInterrupted
		}
		return 2, nil
	})
	if got != 2 || err != nil || tries != 5 {
		t.Errorf("got %d, %v after %d tries", got, err, tries)
	}
}

func TestEndlessInterruptionIsAnError(t *testing.T) {
	_, err := dump(ctx(t), "things", func() (int, error) { return 1, netlink.ErrDumpInterrupted })
	wantError(t, err, netlink.ErrDumpInterrupted, "list things")

	stopped, cancel := context.WithCancel(ctx(t))
	_, err = dump(stopped, "things", func() (int, error) { cancel(); return 1, netlink.ErrDumpInterrupted })
	wantError(t, err, context.Canceled, "list things")
}

func TestOtherErrorsOfADumpAreNotRetried(t *testing.T) {
	tries, broken := 0, errors.New("broken")
	_, err := dump(ctx(t), "things", func() (int, error) { tries++; return 1, broken })
	wantError(t, err, broken, "list things")
	if tries != 1 {
		t.Errorf("%d tries", tries)
	}
}
