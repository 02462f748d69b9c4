package lab

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Clock is the machine's own, of the time of day.
type Clock struct {
	tb    testing.TB
	ahead time.Duration // of that which only goes on
}

// NewClock takes the machine's clock until the test ends. It is of no other's business only on a machine that is the tests'
// own: where TENET_REQUIRE does not name "clock", the test is skipped.
func NewClock(tb testing.TB) Clock {
	tb.Helper()
	if !slices.Contains(strings.Split(os.Getenv("TENET_REQUIRE"), ","), "clock") {
		tb.Skip("this machine's clock is not the test's to set")
	}
	c := Clock{tb, 0}
	c.ahead = c.now(unix.CLOCK_REALTIME) - c.now(unix.CLOCK_MONOTONIC)
	tb.Cleanup(func() { c.set(c.ahead) })
	return c
}

// Jumps sets it so much ahead of what it was at first, or behind.
func (c Clock) Jumps(by time.Duration) {
	c.tb.Helper()
	c.set(c.ahead + by)
}

func (c Clock) set(ahead time.Duration) {
	c.tb.Helper()
	at := unix.NsecToTimespec((c.now(unix.CLOCK_MONOTONIC) + ahead).Nanoseconds())
	Must(c.tb, unix.ClockSettime(unix.CLOCK_REALTIME, &at))
}

func (c Clock) now(clock int32) time.Duration {
	c.tb.Helper()
	var at unix.Timespec
	Must(c.tb, unix.ClockGettime(clock, &at))
	return time.Duration(at.Nano())
}
