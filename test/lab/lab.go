// Package lab builds a node for a test, of the real things: a private Open vSwitch, a network namespace that plays
// the host's, more of them that play containers, and the built plugins, executed as a container runtime does.
//
// A test begins with NewHost, or, for several nodes, with NewFleet. Everything ends with the test. Each host has a
// namespace, a switch and a data directory of its own, and meets others in a fleet alone.
//
// The environment:
//
//	TENET_BIN          directory with the built programs (see Programs); without it "go build" makes them
//	TENET_TIME_FACTOR  stretches every deadline, for machines that are slow
//	TENET_DATAPATH     "system": the kernel's datapath instead of the userspace one (package ovstest)
//	TENET_REQUIRE      "ovs,netns,etcd": a machine that lacks one fails the test instead of skipping it; "clock": the
//	                   machine is the tests' own, and its clock theirs to set
package lab

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// patience bounds every wait, before the time factor.
const patience = 30 * time.Second

// Patience is how long a test waits for what must come. Nothing waits it out unless it is broken.
func Patience() time.Duration { return Stretch(patience) }

// Stretch multiplies d by TENET_TIME_FACTOR.
func Stretch(d time.Duration) time.Duration {
	f, err := strconv.ParseFloat(os.Getenv("TENET_TIME_FACTOR"), 64)
	if err != nil || f < 1 {
		f = 1
	}
	return time.Duration(float64(d) * f)
}

// Eventually calls cond every few milliseconds until it is true, and fails the test, saying what was waited for, if
// that does not happen in time.
func Eventually(tb testing.TB, what string, cond func() bool) {
	tb.Helper()
	if !Within(Patience(), cond) {
		tb.Fatalf("waited for %s in vain", what)
	}
}

// Within reports whether cond becomes true before d is over.
func Within(d time.Duration, cond func() bool) bool {
	for end := time.Now().Add(d); ; time.Sleep(3 * time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// Holds reports whether what is tried holds, in three tries at most. A busy machine spoils one by itself, but seldom: a try that does
// not hold has to be made up for by two that do.
func Holds(try func() bool) bool {
	want := 1
	for spoilt := 0; want > 0 && spoilt < 2; {
		if try() {
			want--
		} else {
			spoilt++
			want = 2
		}
	}
	return want == 0
}

// Must ends the test if there is an error.
func Must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
