package veth

import (
	"context"
	"runtime"
	"strconv"
	"testing"
	"time"
)

// Whoever watches is told what stands, and of each change: a container that sets its end down, and the end of the cable.
func TestWatchTellsOfEachChange(t *testing.T) {
	w := newWorld(t)
	c := w.cable()
	w.lay(c)
	stop, end := context.WithCancel(ctx(t))
	defer end()
	changes, err := Watch(stop, "tenet:")
	must(t, err)
	awaits := func(works bool) {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			select {
			case got, ok := <-changes:
				if !ok || got.Name != c.Host || got.Alias != c.Alias {
					t.Fatalf("told of %+v, %v", got, ok)
				}
				if got.Works == works {
					return
				}
			case <-late:
				t.Fatalf("not told that it works: %v", works)
			}
		}
	}
	awaits(true)
	w.runIn("ip", "link", "set", c.Container, "down")
	awaits(false)
	if got, err := List(ctx(t), "tenet:"); err != nil || len(got) != 1 || !got[0].Up || got[0].Works {
		t.Errorf("List says %+v, %v of a link whose other end is down", got, err)
	}
	w.runIn("ip", "link", "set", c.Container, "up")
	awaits(true)
	must(t, Remove(ctx(t), c.Host))
	awaits(false)
	end()
	for range changes { // until it is closed
	}
}

// A watch that ends leaves nothing behind, even while the kernel tells more than anybody reads.
func TestWatchLeavesNothingBehind(t *testing.T) {
	w := newWorld(t)
	for i := range 40 { // more than the watch holds
		w.run("ip", "link", "add", "more"+strconv.Itoa(i), "type", "veth", "peer", "name", "peer"+strconv.Itoa(i))
	}
	before := runtime.NumGoroutine()
	for range 10 {
		stop, end := context.WithCancel(ctx(t))
		_, err := Watch(stop, "")
		must(t, err)
		time.Sleep(20 * time.Millisecond) // until it is full
		end()
	}
	for late := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}
